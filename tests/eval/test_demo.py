"""The demo's own work: parts that run once, the checkpoint it finds, and a report that says what the results say."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pilot import configs
from pilot.eval import demo
from pilot.eval.demo_report import describe_change, loss_curves, make_report
from pilot.eval.demo_stages import FULL, DemoRun, Stages, save_arrays
from pilot.eval.records import EpisodeRecord
from pilot.sims.homes import LESSON, SUITES


def test_a_stage_runs_once_per_set_of_inputs(tmp_path, capsys):
    runs = []

    def work(folder):
        runs.append(folder)
        return {"n": len(runs)}

    for inputs, expected in (("a", 1), ("a", 1), ("b", 2), ("a", 1)):
        stages = Stages(tmp_path, count=1)
        assert stages.run("films", work, says="Filming.", inputs=inputs) == {"n": expected}
        assert stages.seconds["films"] >= 0
    assert len(runs) == len(set(runs)) == 2
    said = capsys.readouterr().out
    assert said.count("[1/1] Filming.") == 4 and said.count("done before") == 2


def test_an_interrupted_stage_keeps_its_files_and_its_seconds(tmp_path):
    def interrupted(folder):
        (folder / "half").write_text("done")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Stages(tmp_path, count=1).run("training", interrupted, says="", inputs=1)
    (seconds,) = tmp_path.glob("parts/*/seconds.json")
    seconds.write_text("100.0")
    stages = Stages(tmp_path, count=1)
    assert stages.run("training", lambda folder: (folder / "half").read_text(), says="", inputs=1) == "done"
    assert stages.seconds["training"] > 100


def test_the_checkpoint_is_found_or_its_absence_explained(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo.pilot, "__path__", [str(tmp_path / "src" / "pilot")])
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*nano.*runs/nano.sh"):
        demo.find_checkpoint(None)
    (tmp_path / "checkpoints" / "nano").mkdir(parents=True)
    assert demo.find_checkpoint(None) == tmp_path / "checkpoints" / "nano"
    with pytest.raises(FileNotFoundError, match="elsewhere"):
        demo.find_checkpoint(tmp_path / "elsewhere")


def row(successes: int, *, control: str = "none", outcomes=(False, True), suite: str = "homes-l1") -> dict:
    return {
        "suite": suite, "title": f"title of {suite}", "control": control,
        "episodes": 20, "successes": successes, "success": successes / 20,
        "interval95": [0.1, 0.9], "wrong_object": 0.05, "mean_steps": 33.0, "outcomes": list(outcomes),
    }  # fmt: skip


def shot(folder, name: str, *, success: bool) -> dict:
    frames = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), np.uint8)
    save_arrays(folder / f"{name}.npz", {"frames": frames})
    record = EpisodeRecord(
        suite="homes-l1", control="none", scene=0, episode=0, seed=0, prompt=f"prompt of {name}", asked="", steps=5,
        success=success, first_grasped=None, wrong_object=False, right_object_first=False, placed=0, targets=1,
        subtasks=((0, "pick up the red cup"),), infer_ms=1.0,
    )  # fmt: skip
    captions = ["pick up the red cup"] * 6
    return {"record": record.to_json(), "frames": str(folder / f"{name}.npz"), "captions": captions, "fps": 10.0}


@pytest.fixture
def finished(tmp_path):
    """A finished demo with made-up results."""
    checkpoint = tmp_path / "nano"
    checkpoint.mkdir()
    (checkpoint / "weights").write_text("weights")
    config = replace(configs.get("nano_finetune"), steps=77)
    finished = DemoRun(
        tmp_path, checkpoint=checkpoint, config=config, amounts=FULL, seed=3, suites=SUITES, lesson=LESSON
    )
    run = tmp_path / "run"
    run.mkdir()
    steps = [{"step": s, "loss/flow": 1 / s, "loss/text": 2 / s, "samples_per_s": 1.0} for s in (10, 20, 30)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(m) + "\n" for m in steps))
    arrays = {
        "picture": np.zeros((64, 64, 3), np.uint8),
        "weights": np.random.default_rng(0).uniform(size=(8, 8)),
        "flow": np.random.default_rng(0).normal(size=(11, 10, 4)),
    }
    save_arrays(tmp_path / "inside.npz", arrays)
    finished.results = {
        "films": [shot(tmp_path, "one", success=True), shot(tmp_path, "several", success=False)],
        "controls": [row(17), row(1, control="blank_images"), row(2, control="shuffled_prompts")],
        "inside": {"path": str(tmp_path / "inside.npz"), "prompt": "put it away", "subtask": "up", "heads": "a head"},
        "before": [row(4, suite=LESSON.new.name, outcomes=[False, False, True])],
        "training": {"run": str(run), "policy": "policy"},
        "after": {
            "new": [row(15, suite=LESSON.new.name, outcomes=[False, True, True])],
            "known": [row(16)],
            "films": [shot(tmp_path, "before", success=False), shot(tmp_path, "after", success=True)],
        },
    }
    finished.stages.seconds = {"films": 12.0, "controls": 60.0}
    return finished


def test_the_page_says_what_the_results_say(finished):
    page = make_report(finished).render()
    for words in (
        "85%", "20% → 75%", "pictures blanked", "prompts shuffled", "prompt of one", "prompt of several", "(before)",
        "17 of 20 homes", "16 of 20 homes", "240 demonstrations", "77 training steps", "put it away", "1.2 min",
        "1 learned, 0 lost", "title of homes-l1",
    ):  # fmt: skip
        assert words in page, words
    assert "http" not in page.replace("http://www.w3.org", "")


def test_the_film_of_learning_is_the_first_home_that_was_learned(finished):
    assert finished.learned_scene([False, True, True]) == 1
    assert finished.learned_scene([False, False, False]) == 0


def test_two_homes_without_a_change_are_no_proof_of_anything():
    words = describe_change([True, False], [True, False], scene="home", seed=0)
    assert words.startswith("Home by home: none learned, none lost. That is no proof")
    assert "in 2 homes, a change of up to 66% can go unseen" in words
    changed = describe_change([False] * 9 + [True], [True] * 9 + [False], scene="home", seed=0)
    assert changed.startswith("Home by home: 9 learned, 1 lost, a change of +80% (95 % interval +")


def test_losses_are_read_from_the_run(finished):
    curves = loss_curves(Path(finished.results["training"]["run"]))
    assert curves == {"flow": ([10, 20, 30], [1 / 10, 1 / 20, 1 / 30]), "text": ([10, 20, 30], [0.2, 0.1, 2 / 30])}
