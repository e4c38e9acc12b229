"""`pilot demo` from a checkpoint to a report, and again: the second time everything is only read."""

from dataclasses import replace

from pilot import configs
from pilot.eval import demo, demo_stages
from pilot.sims.collect import collect
from pilot.sims.homes import SUITES, HomesEnv, env
from pilot.train.config import Source
from pilot.train.loop import train
from train.toy import changed


class ShortEnv(HomesEnv):
    """A policy that has learned nothing would only wander on until the end; whoever demonstrates has all the time."""

    max_steps = 24


def tiny_checkpoint(folder):
    """The debug model after a few steps on a handful of demonstrations, and a config to go on with."""
    data = collect(folder / "data", SUITES[0], scenes=2, episodes_per_scene=2, workers=1, progress=False)
    config = changed(
        configs.get("debug"), steps=4, data={"sources": (Source(path=str(data)),)}, checkpoints={"save_every": 4}
    )
    policy = train(config, out=folder / "run", progress=False)
    sources = (Source(path="new", weight=0.5), Source(path="web", kind="web", weight=0.5))
    return policy, changed(config, name="finetune", data={"sources": sources}, checkpoints={"save_every": 4})


def test_demo_from_checkpoint_to_report(tmp_path, monkeypatch, capsys, no_shape_checks):
    checkpoint, config = tiny_checkpoint(tmp_path)
    monkeypatch.setattr(env, "HomesEnv", ShortEnv)
    tiny = replace(demo_stages.QUICK, films=1, episodes=2, new_episodes=2, workers=1)
    monkeypatch.setattr(demo, "FULL", tiny)
    path = demo.demo(tmp_path / "demo", config=config, checkpoint=checkpoint)
    page = path.read_text()
    assert path == tmp_path / "demo" / "report.html" and len(page) > 50_000
    assert f"{tiny.steps} training steps" in page and "of 2 homes" in page
    said = capsys.readouterr().out
    assert "[7/7]" in said and "done before" not in said and str(path) in said
    assert "step 8/8  " in said and "samples/s" in said, "training says how it goes where there is no terminal"
    assert not list((tmp_path / "demo").rglob("tensorboard")), "a demo needs no package for that"

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("ran again")

    for name in ("train", "collect", "evaluate_table", "attention_picture", "film"):
        monkeypatch.setattr(demo_stages, name, forbidden)
    demo.demo(tmp_path / "demo", config=config, checkpoint=checkpoint)
    assert capsys.readouterr().out.count("done before") == 7


def test_quick_demo_films_the_expert_and_measures_no_learning(tmp_path, monkeypatch, capsys, no_shape_checks):
    checkpoint, config = tiny_checkpoint(tmp_path)
    monkeypatch.setattr(env, "HomesEnv", ShortEnv)
    monkeypatch.setattr(demo, "QUICK", replace(demo_stages.QUICK, films=1, episodes=2, steps=2, workers=1))
    page = demo.demo(tmp_path / "demo", config=config, quick=True, checkpoint=checkpoint).read_text()
    said = capsys.readouterr().out
    assert "[6/6]" in said and "95 % interval" in said
    assert "(the expert)" in page and "The whole lesson is 4 steps" in page and "→" not in page
