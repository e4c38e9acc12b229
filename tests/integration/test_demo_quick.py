"""`pilot demo --quick` from a checkpoint to a report, and again: the second time everything is only read."""

from pilot import configs
from pilot.eval import demo_stages
from pilot.eval.demo import demo as run_demo
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


def test_quick_demo_from_checkpoint_to_report(tmp_path, monkeypatch, capsys, no_shape_checks):
    checkpoint, config = tiny_checkpoint(tmp_path)
    monkeypatch.setattr(env, "HomesEnv", ShortEnv)
    path = run_demo(tmp_path / "demo", config=config, quick=True, checkpoint=checkpoint)
    page = path.read_text()
    assert path == tmp_path / "demo" / "report.html" and len(page) > 50_000
    assert f"{demo_stages.QUICK.steps} training steps" in page and "of 2 homes" in page
    said = capsys.readouterr().out
    assert "[7/7]" in said and "done before" not in said and str(path) in said

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("ran again")

    for name in ("train", "collect", "evaluate_table", "attention_picture", "film"):
        monkeypatch.setattr(demo_stages, name, forbidden)
    run_demo(tmp_path / "demo", config=config, quick=True, checkpoint=checkpoint)
    assert capsys.readouterr().out.count("done before") == 7
