"""The robots of `examples/` run as they are, short enough to be read at a glance."""

import itertools
import runpy
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pilot.infer.executor import Pace
from pilot.serve.server import serve_in_background
from pilot.sims.homes import HomesEnv

EXAMPLES = Path(__file__).parents[2] / "examples"


class Still:
    """A policy of a robot so fast that a test need not wait for it, in chunks of a minute: none comes too late."""

    def __init__(self):
        self.metadata = {"robot": "homes", "cameras": ["room", "wrist"], "control_hz": 1000.0, "replan_steps": 2}
        self.heard, self.asked = [], threading.Event()

    def infer(self, observation):
        self.heard.append((observation["prompt"], observation["images"]["room"].shape, observation["state"].shape))
        self.asked.set()
        return {"actions": np.tile(np.float32([0, 0, 0.2, 0]), (60_000, 1)), "subtask": "wait and see"}


@pytest.mark.parametrize("name", ["homes_robot", "my_robot"])
def test_they_are_short(name):
    assert len((EXAMPLES / f"{name}.py").read_text().splitlines()) < 60


@pytest.mark.parametrize("executor", ["rtc", "open-loop", "ensemble"])
def test_a_robot_in_homes(executor, monkeypatch, capsys):
    monkeypatch.setattr(HomesEnv, "max_steps", 5)
    policy = Still()
    with serve_in_background(policy) as port:
        arguments = ["--port", str(port), "--homes", "2", "--executor", executor, "--prompt", "tidy up"]
        monkeypatch.setattr("sys.argv", ["homes_robot", *arguments])
        runpy.run_path(str(EXAMPLES / "homes_robot.py"), run_name="__main__")
    said = capsys.readouterr().out
    assert "home 0: " in said and "0 of 2 done" in said
    assert policy.heard[0] == ("tidy up", (64, 64, 3), (5,))


def test_the_template(monkeypatch, capsys):
    policy, ticks = Still(), itertools.count()

    def wait(pace):
        """The first tick comes at once, the others when the policy has been asked."""
        assert next(ticks) == 0 or policy.asked.wait(60)
        return 0

    monkeypatch.setattr(Pace, "wait", wait)
    with serve_in_background(policy) as port:
        monkeypatch.setattr("sys.argv", ["my_robot", "--port", str(port), "--prompt", "tidy up", "--seconds", "0.01"])
        runpy.run_path(str(EXAMPLES / "my_robot.py"), run_name="__main__")
    assert "missed=0" in capsys.readouterr().out and next(ticks) == 10
    assert policy.heard[0] == ("tidy up", (480, 640, 3), (5,))


def test_a_film(monkeypatch, tmp_path, capsys, no_shape_checks):
    monkeypatch.setattr(HomesEnv, "max_steps", 6)
    film = runpy.run_path(str(EXAMPLES / "film.py"))
    out = tmp_path / "film.webp"
    film["main"](
        [str(EXAMPLES.parent / "checkpoints" / "nano"), "--scenes", "0", "1", "--size", "64", "--out", str(out)]
    )
    said = capsys.readouterr().out
    assert said.count("no success, 0.7 s") == 2
    with Image.open(out) as picture:
        assert picture.n_frames == 4  # steps 0, 2, 4 and 6
        assert picture.size == (2 * (64 + 12) + 12, 64 + 92 + 24)
    with pytest.raises(SystemExit, match=r"\.webp or a \.gif"):
        film["main"](["nano", "--out", "film.mp4"])
