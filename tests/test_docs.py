"""What the pages say is true: commands parse, files exist, example code runs."""

import importlib
import re
import shlex
import shutil
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch

import world_things
from pilot import configs, robots
from pilot.cli import main
from pilot.cli.settings import override
from pilot.contracts import examples
from pilot.data.formats.lerobot import LeRobotDataset
from pilot.data.formats.open_dataset import open_episodes
from pilot.datasets import layouts_from
from pilot.models.bundle import Bundle, save_bundle
from pilot.models.pi import Pi, pi05
from pilot.models.trained_robots import one_robot
from pilot.serve.server import serve_in_background
from pilot.sims.homes import HomesEnv
from pilot.train import checks
from pilot.train import robots as run_robots

ROOT = Path(__file__).parents[1]
MADE_UP = {"NAME", "my/desk.py:pi05_desk", "my/desk.py:pi05_desk_lora"}  # runs that a page tells how to write
INVENTED_ROBOTS = {"desk_arm", "my/desk_arm.py", "my/tiny_arm.py"}  # pages show how to write them
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [text for name, text in found if name == language]


def commands() -> list[str]:
    lines = [line for page in PAGES for block in blocks(page, "") for line in block.splitlines()]
    scripts = [path.read_text().replace("\\\n", " ") for path in (ROOT / "runs").glob("*.sh")]
    scripts = [re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", script) for script in scripts]  # what is meant by default
    lines += [match for script in scripts for match in re.findall(r"\$(pilot (?!\$)[^;\n}]+)", script)]
    return sorted({line.partition("  #")[0].strip() for line in lines if line.startswith("pilot ")})


@pytest.mark.parametrize("command", [c for c in commands() if "--help" not in c])
def test_commands_parse(command):
    arguments = main.build_parser().parse_args(shlex.split(command)[1:])
    robot = getattr(arguments, "robot", None)
    assert robot in (None, *INVENTED_ROBOTS, *robots.robot_names())
    if arguments.verb == "train" and arguments.name not in MADE_UP:
        override(configs.get(arguments.name), arguments.set)


def test_commands_in_sentences_exist():
    """They may leave arguments out, as in `pilot serve --replan-steps 10`, but name nothing that there is not."""
    prose = "".join(re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S) for page in PAGES)
    named = sorted({" ".join(command.split()) for command in re.findall(r"`(pilot [a-z][^`]+)`", prose)})
    assert len(named) > 20
    for command in named:
        try:
            main.build_parser().parse_args(shlex.split(command)[1:])
        except SystemExit:
            assert "--help" in command
        except ValueError as error:
            left_out = ("the following arguments are required", "expected one argument", "expected at least one")
            assert any(words in str(error) for words in left_out), command


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_a_page_names_exist(page):
    folders = "src|docs|tests|runs|bench|examples|checkpoints"
    named = re.findall(rf"`((?:{folders})/[\w./-]+|[\w/]+\.py|\.ci/run)`", page.read_text())
    places = [ROOT, ROOT / "src" / "pilot", ROOT / "docs"]
    missing = [name for name in named if "NAME" not in name and not any((place / name).exists() for place in places)]
    invented = {"utils.py", "my/desk_arm.py", "my/desk.py", "my/tiny_arm.py"}
    of_openpi = {"config.py", "policies/libero_policy.py", "scripts/serve_policy.py"}
    assert not set(missing) - invented - of_openpi


def anchors(page: Path) -> set[str]:
    """The places in a page that a link may name: its headings, as GitHub and the site spell them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S), re.MULTILINE)
    plain = (re.sub(r"[`*]|\]\(.*?\)|\[", "", heading).lower() for heading in headings)
    return {re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", heading)) for heading in plain}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    links = re.findall(r"\]\(([^)\s]+)\)|(?:src|href|srcset)=\"([^\"]+)\"", text)
    for target, place in ((one or other).partition("#")[::2] for one, other in links):
        if target.startswith(("http://", "https://")):
            continue
        file = (page.parent / target).with_suffix(".md") if target.endswith(".html") else page.parent / target
        assert file.exists(), target
        assert not place or place in anchors(file if target else page), (target, place)


def test_the_site_has_every_page_once():
    navigation = (ROOT / "mkdocs.yml").read_text().partition("\nnav:")[2]
    named = re.findall(r": (\w+\.md)$", navigation, re.MULTILINE)
    assert len(named) == len(set(named))
    assert set(named) - {"cli.md"} <= {page.name for page in PAGES}


def test_make_targets_that_pages_name_exist():
    makefile = (ROOT / "Makefile").read_text()
    named = {target for page in PAGES for target in re.findall(r"(?:^|`)make (\w+)", page.read_text(), re.MULTILINE)}
    assert named <= set(re.findall(r"^(\w+):", makefile, re.MULTILINE))


@pytest.mark.parametrize("script", ["figures", "drawings"])
def test_the_drawings_are_those_that_their_script_draws(script, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs" / "site")
    drawn = importlib.import_module(script).draw_all()
    assert drawn
    for name, picture in drawn.items():
        assert (ROOT / "docs" / "images" / name).read_text() == picture, f"run: python docs/site/{script}.py"


def test_each_count_in_a_figure_is_a_measurement(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs" / "site")
    measured = (ROOT / "docs" / "measurements.md").read_text()
    groups = [group for figure in importlib.import_module("figures").RATES.values() for group in figure]
    for rate in (rate for _, rates in groups for rate in rates):
        count = rate.successes
        assert re.search(rf"\({count}\)|\b{count} of (the same )?{rate.of}\b", measured), rate


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 200


def test_the_robot_and_the_recording_of_the_page_on_adding(tmp_path, monkeypatch):
    robot_code, record_code, _ = blocks(ROOT / "docs" / "adding.md", "python")
    scope: dict = {}
    exec(robot_code, scope)
    monkeypatch.setattr(robots, "load_robot", lambda name: scope["ROBOT"])
    rng = np.random.default_rng(0)
    made = {
        "states": rng.normal(size=(60, 5)).astype(np.float32),
        "actions": rng.normal(size=(60, 5)).astype(np.float32),
        "room": rng.integers(0, 256, (60, 8, 8, 3), dtype=np.uint8),
        "wrist": rng.integers(0, 256, (60, 8, 8, 3), dtype=np.uint8),
    }
    exec(record_code.replace("data/desk", str(tmp_path / "desk")), made)
    dataset = LeRobotDataset(tmp_path / "desk", 4)
    assert np.array_equal(dataset.actions, made["actions"])
    assert dataset.row(50)["subtask"] == "put it in the cup"


def test_the_thing_of_the_page_on_adding_can_be_grasped():
    scope: dict = {}
    exec(blocks(ROOT / "docs" / "adding.md", "python")[2], scope)
    trials = [world_things.try_thing(scope["PUCK"], np.random.default_rng(seed)) for seed in range(3)]
    assert [trial.outcome for trial in trials] == ["held"] * 3


def test_the_runs_of_the_page_on_fine_tuning_can_work(monkeypatch):
    robot_code, run_code = (blocks(ROOT / "docs" / page, "python")[0] for page in ("adding.md", "finetuning.md"))
    scope: dict = {}
    exec(robot_code, scope)
    exec(run_code, scope)
    monkeypatch.setattr(run_robots, "load_robot", {"my/desk_arm.py": scope["ROBOT"]}.__getitem__)
    for name in (reference.removeprefix("my/desk.py:") for reference in MADE_UP - {"NAME"}):
        run = scope[name]()
        checks.check_config(run)
        assert run.name == name


def test_the_data_set_of_the_page_on_rlds(tmp_path, monkeypatch, capsys):
    file = tmp_path / "tiny_arm.py"
    file.write_text(blocks(ROOT / "docs" / "rlds.md", "python")[0])
    main.run(["check", str(file)])
    assert "checks passed" in capsys.readouterr().out
    recorded = shutil.copytree(ROOT / "tests" / "data" / "tiny_arm", tmp_path / "tiny_arm")
    dataset = open_episodes(recorded, 3, layouts=layouts_from(str(file)))
    assert dataset.actions.shape == (9, 4)  # three episodes of 5, 1 and 4 steps; the second is a failure
    assert dataset.frame(0)["task"] == "pick up thing 0 é"
    main.run(["data", "import", str(recorded), str(tmp_path / "v3"), "--robot", str(file), "--layouts", str(file)])
    assert np.array_equal(LeRobotDataset(tmp_path / "v3", 3).actions, dataset.actions)


def test_the_sources_of_the_page_on_web_data():
    scope: dict = {}
    exec(blocks(ROOT / "docs" / "cotraining.md", "python")[0], scope)
    assert [source.kind for source in scope["data"].sources] == ["robot", "web"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    robot, config = robots.load_robot("homes"), pi05("debug", max_tokens=80)
    pipeline = examples.make_pipeline(robot, config, with_fast=True)
    bundle = Bundle(
        model=Pi(config).initialize(torch.Generator().manual_seed(0)),
        robots=one_robot(robot, pipeline.norm_stats),
        text=pipeline.text,
        action_tokenizer=pipeline.action_tokenizer,
    )
    return save_bundle(bundle, tmp_path_factory.mktemp("checkpoints") / "nano")


def test_the_readme_uses_a_checkpoint(checkpoint, capsys, monkeypatch, no_shape_checks):
    monkeypatch.setattr(HomesEnv, "max_steps", 4)
    use, _ = blocks(ROOT / "README.md", "python")
    scope: dict = {}
    exec(use.replace("checkpoints/nano", str(checkpoint)), scope)
    assert scope["truncated"] or scope["info"]["success"]
    assert capsys.readouterr().out


def test_the_first_steps_use_a_checkpoint(checkpoint, capsys, no_shape_checks):
    scope: dict = {}
    exec(blocks(ROOT / "docs" / "quickstart.md", "python")[0].replace("checkpoints/nano", str(checkpoint)), scope)
    assert scope["out"]["actions"].shape[1] == 4
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_the_readme_asks_a_server():
    _, ask = blocks(ROOT / "README.md", "python")

    class Still:
        metadata: ClassVar = {}

        def infer(self, observation: dict) -> dict:
            return {"actions": np.tile(observation["state"][:4], (3, 1))}

    scope = {"room": np.zeros((64, 64, 3), np.uint8), "wrist": np.zeros((64, 64, 3), np.uint8), "state": np.arange(5.0)}
    with serve_in_background(Still()) as port:
        exec(ask.replace("8000", str(port)), scope)
    assert scope["actions"].tolist() == [[0, 1, 2, 3]] * 3


def test_the_code_of_the_page_on_the_high_level():
    scope: dict = {}
    choices, affordance = blocks(ROOT / "docs" / "high_level.md", "python")
    choices = choices.replace("checkpoints/nano", str(ROOT / "checkpoints" / "nano"))
    exec(choices, scope)
    exec(affordance, scope)
    env = HomesEnv()
    shown, _ = env.reset(seed=0, options={"home": 0, "episode": 0})
    env.close()
    answer = scope["session"].infer(shown)
    nothing_is_held = [label.startswith("pick up") or label == "done" for label in scope["labels"]]
    assert [answer["scores"][label] > 0 for label in scope["labels"]] == nothing_is_held


@pytest.mark.parametrize("page", ["robot.md", "rtc.md"])
def test_pages_ask_and_keep_moving(page, capsys):
    code = blocks(ROOT / "docs" / page, "python")
    ask, move = code[:2] if page == "robot.md" else ("", code[0])
    moved: list[np.ndarray] = []
    picture, state = np.zeros((64, 64, 3), np.uint8), np.arange(5.0)

    class Still:
        metadata: ClassVar = {"control_hz": 500.0}

        def infer(self, observation: dict) -> dict:
            return {"actions": np.tile(observation["state"][:4], (60_000, 1)), "subtask": "wash up"}

    def look() -> dict:
        return {"images": {"room": picture}, "state": state, "prompt": "wash up"}

    scope = {"room": picture, "wrist": picture, "state": state, "look": look}
    scope |= {"move": moved.append, "running": lambda: len(moved) < 3}
    with serve_in_background(Still()) as port:
        exec(ask.replace("8000", str(port)), scope)
        exec(move.replace("8000", str(port)), scope)
    assert not ask or "wash up (60000, 4)" in capsys.readouterr().out
    assert [action.tolist() for action in moved] == [[0, 1, 2, 3]] * 3
