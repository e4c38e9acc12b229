"""A folder's run: which settings must be those it began with, and run folders from before settings had groups."""

import json
import shutil
from dataclasses import fields
from pathlib import Path

import pytest

from pilot.models.pi import pi05
from pilot.nn.configs import LoraConfig
from pilot.train import resume
from pilot.train.config import InitFrom, OptimConfig, Source, TrainConfig
from train.toy import changed, config

NANO = Path(__file__).parents[2] / "checkpoints/nano/training"
RUN = changed(config(Path("data/toy")), init_from=InitFrom("base", kind="weights", fresh=("expert",)))

OTHERS = {
    "steps": {"steps": 9},
    "seed": {"seed": 1},
    "model": {"model": pi05("nano")},
    "lora": {"lora": LoraConfig()},
    "init_from.fresh": {"init_from": InitFrom("base", kind="weights")},
    "data.sources": {"data": {"sources": (Source(path="data/toy", weight=0.5),)}},
    "data.held_out": {"data": {"held_out": 0.1}},
    "objective.alpha": {"objective": {"alpha": 1.0}},
    "optim.peak_lr": {"optim": OptimConfig(peak_lr=0.5, warmup_steps=2)},
    "ema.decay": {"ema": {"decay": 0.5}},
}
FREE = [
    {"data": {"skip_bad": True, "workers": 3, "cache_gb": 1.0}},
    {"parallel": {"strategy": "fsdp", "accumulate": 2}},
    {"compute": {"checkpointing": "blocks", "precision": "bf16"}},
    {"logging": {"log_every": 7, "loss_spike": 0.0}},
    {"evaluation": {"validate_every": 2}},
    {"checkpoints": {"keep": 9}},
]


@pytest.fixture(autouse=True)
def folder(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(resume.as_json(RUN)))


def differences(run: TrainConfig, out: Path) -> list[str]:
    return list(resume.differences(run, resume.read_config(out, like=run)))


@pytest.mark.parametrize("name", OTHERS)
def test_a_setting_that_decides_what_is_learned_must_stay(name, tmp_path):
    assert differences(changed(RUN, **OTHERS[name]), tmp_path) == [name]


@pytest.mark.parametrize("change", FREE, ids=str)
def test_how_steps_are_computed_and_watched_may_change(change, tmp_path):
    assert differences(changed(RUN, **change), tmp_path) == []


def test_run_folders_from_before_there_were_groups_are_read(tmp_path):
    values = resume.as_json(RUN)
    groups = {f.name for f in fields(TrainConfig)} & {path.split(".")[0] for path in TrainConfig.OLD_NAMES.values()}
    flat = {name: value for name, value in values.items() if name not in groups}
    for old, path in TrainConfig.OLD_NAMES.items():
        group, name = path.split(".")
        flat[old] = values[group][name]
    flat["init_from"] = "weights:base"
    (tmp_path / "config.json").write_text(json.dumps(flat))
    assert differences(RUN, tmp_path) == ["data.group_by"], "they weighed rows by the label of their episodes"
    by_label = changed(RUN, data={"group_by": "label"})
    assert differences(by_label, tmp_path) == []
    assert resume.read_config(tmp_path, like=RUN) == resume.as_json(by_label)


@pytest.mark.parametrize("stage", ["vision", "stage1", "stage2", "expert"])
def test_the_runs_of_the_shipped_checkpoint_are_read(stage, tmp_path):
    """They were written before many settings were there."""
    shutil.copy(NANO / stage / "config.json", tmp_path)
    stored = resume.read_config(tmp_path, like=RUN)
    old = json.loads((NANO / stage / "config.json").read_text())
    assert stored["objective"]["alpha"] == old["alpha"] and stored["data"]["loc_stride"] == old["loc_stride"]
    assert stored["ema"] == {"decay": old["ema_decay"], "warmup": True}
    assert (stored["init_from"] or {"path": None})["path"] == old["init_from"]


@pytest.mark.parametrize("optim", [{"decay_steps": 4}, {"final_lr": 0.5, "peak_lr": 0.5}], ids=str)
def test_a_run_whose_rate_does_not_depend_on_its_end_can_be_made_longer(optim, tmp_path, monkeypatch):
    run = changed(RUN, optim=OptimConfig(warmup_steps=2, **optim))
    (tmp_path / "config.json").write_text(json.dumps(resume.as_json(run)))
    monkeypatch.setattr(resume.checkpoint, "last_checkpoint", lambda out: out / "checkpoints" / "000004")
    longer = changed(run, steps=run.steps + 5)
    assert resume.claim(tmp_path, longer, resume=True, write=True).name == "000004"
    assert json.loads((tmp_path / "config.json").read_text())["steps"] == longer.steps
    with pytest.raises(ValueError, match="with other steps"):
        resume.claim(tmp_path, run, resume=True, write=True)
    with pytest.raises(ValueError, match="with other steps, seed"):
        resume.claim(tmp_path, changed(longer, steps=99, seed=7), resume=True, write=True)


def test_where_another_length_is_another_schedule_the_way_on_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(resume.checkpoint, "last_checkpoint", lambda out: out / "checkpoints" / "000004")
    with pytest.raises(ValueError, match=rf"of {RUN.steps} steps, .*--set init_from={tmp_path}\).*decay_steps"):
        resume.claim(tmp_path, changed(RUN, steps=RUN.steps + 5), resume=True, write=True)
