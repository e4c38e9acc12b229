"""The demo's own work: parts that run once, the checkpoint it finds, and a report that says what the results say."""

import json
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np
import pytest

from pilot import configs
from pilot.eval import demo
from pilot.eval.demo_report import describe_change, loss_curves, make_report, to_text
from pilot.eval.demo_stages import FULL, QUICK, DemoRun, Finale, Stages, save_arrays, scenes_to_film
from pilot.eval.records import EpisodeRecord
from pilot.eval.suites import load_suite
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
    monkeypatch.setattr(demo.importlib.metadata, "files", lambda name: [])
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*nano.*runs/nano.sh"):
        demo.find_checkpoint(None)
    (tmp_path / "checkpoints" / "nano").mkdir(parents=True)
    assert demo.find_checkpoint(None) == tmp_path / "checkpoints" / "nano"
    with pytest.raises(FileNotFoundError, match="elsewhere"):
        demo.find_checkpoint(tmp_path / "elsewhere")


def test_an_installed_package_brings_its_checkpoint(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo.pilot, "__path__", [str(tmp_path / "site-packages" / "pilot")])
    folder = tmp_path / "share" / "pilot" / "checkpoints" / "nano"
    folder.mkdir(parents=True)

    class Installed(PurePosixPath):
        def locate(self):
            return tmp_path / "share" / "pilot" / Path(*self.parts[-3:])

    files = [Installed("pilot/types.py"), Installed("../../share/pilot/checkpoints/nano/config.json")]
    monkeypatch.setattr(demo.importlib.metadata, "files", lambda name: files)
    assert demo.find_checkpoint(None) == folder


def test_the_end_says_how_to_open_the_page_over_ssh(monkeypatch):
    monkeypatch.delenv("SSH_CONNECTION", raising=False)
    assert demo.how_to_open(Path("/out/report.html")) == "Done. Open /out/report.html"
    monkeypatch.setenv("SSH_CONNECTION", "10.0.0.1 50000 10.0.0.2 22")
    monkeypatch.setattr(demo.getpass, "getuser", lambda: "ann")
    assert "scp ann@10.0.0.2:'/my out/report.html' ." in demo.how_to_open(Path("/my out/report.html"))


@pytest.mark.parametrize(
    ("outcomes", "scenes"),
    [([True, True, False, True], [0, 2]), ([False, True], [0, 1]), ([True] * 4, [0, 1]), ([False] * 3, [0, 1])],
)
def test_films_show_a_success_and_a_failure_where_there_are_both(outcomes, scenes):
    assert scenes_to_film(outcomes, 2) == scenes


def row(successes: int, *, control: str = "none", outcomes=(False, True), suite: str = "homes-l1") -> dict:
    return {
        "suite": suite, "title": f"title of {suite}", "control": control,
        "episodes": 20, "successes": successes, "success": successes / 20,
        "interval95": [0.1, 0.9], "num_steps": 10, "replan_steps": 4, "wrong_object": 0.05,
        "mean_steps": 33.0, "outcomes": list(outcomes),
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
    (checkpoint / "model.safetensors").write_text("weights")
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


def test_the_page_speaks_plainly(finished):
    page = make_report(finished).render()
    for words in (
        "actions: error of the flow&#39;s direction", "words: subtasks and answers", "denoising steps",
        "steps per look",
        "demonstrations of the new task in each", "filming <b>12 s</b>", "What next", "pilot data inspect data/mine",
    ):  # fmt: skip
        assert words in page, words
    assert "num_steps" not in page and "episodes_per_scene" not in page


def test_the_terminal_shows_the_numbers_of_the_page(finished):
    lines = to_text(finished).splitlines()
    assert lines[0].split() == ["task", "who", "success", "95", "%", "interval"] and len(lines) == 7
    assert lines[1].startswith("title of homes-l1") and "the policy" in lines[1] and "17 of 20  10% – 90%" in lines[1]
    assert "before learning it" in lines[4] and "4 of 20" in lines[4]
    assert "after" in lines[5] and "15 of 20" in lines[5]


def test_two_minutes_claim_nothing_about_learning(finished, tmp_path):
    quick = DemoRun(
        tmp_path, checkpoint=finished.checkpoint, config=finished.config, amounts=QUICK, seed=3, suites=SUITES,
        lesson=LESSON,
    )  # fmt: skip
    quick.results = {name: finished.results[name] for name in ("films", "controls", "inside", "training")}
    quick.results["expert"] = shot(tmp_path, "the crate", success=True)
    quick.stages.seconds = {"films": 12.0}
    page = make_report(quick).render()
    assert "→" not in page and "before and after" not in page.replace("success before and after in 30", "")
    assert "1 ms" in page and "prompt of the crate (the expert)" in page and "The whole lesson is 77 steps" in page
    assert len(to_text(quick).splitlines()) == 4


def test_the_end_is_a_room_where_its_policy_is_shipped(finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo.pilot, "__path__", [str(tmp_path / "src" / "pilot")])
    monkeypatch.setattr(demo.importlib.metadata, "files", lambda name: [])
    assert demo.find_finale() is None
    (tmp_path / "checkpoints" / "homes").mkdir(parents=True)
    finale = demo.find_finale()
    assert finale == Finale(checkpoint=tmp_path / "checkpoints" / "homes", suite=load_suite("rooms-move-l1@mobile_ee"))
    finished.finale = finale
    room = {"rows": [row(9, suite=finale.suite.name)], "films": [shot(tmp_path, "the sink", success=True)]}
    finished.results["room"] = room
    page = make_report(finished).render()
    for words in ("The same recipe in a room", "robot &#39;mobile_ee&#39;", "prompt of the sink", "45%"):
        assert words in page, words
    assert to_text(finished).splitlines()[-1].split()[-6:] == ["9", "of", "20", "10%", "–", "90%"]


def test_a_room_comes_last_and_once(finished, tmp_path, monkeypatch):
    finale = Finale(checkpoint=finished.checkpoint, suite=load_suite("rooms-move-l1@mobile"))
    run = DemoRun(
        tmp_path, checkpoint=finished.checkpoint, config=finished.config, amounts=QUICK, seed=3, suites=SUITES,
        lesson=LESSON, finale=finale,
    )  # fmt: skip
    asked = []
    monkeypatch.setattr(run, "stage", lambda name, work, *, says, inputs: asked.append(name) or {"policy": "policy"})
    run.run()
    assert asked[-1] == "room" and asked.count("room") == 1 and run.stages.count == len(asked) == 7


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
