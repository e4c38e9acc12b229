"""Training end to end on a small recording: it learns, resumes to the bit, and refuses what cannot work."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from pilot.infer.policy import load_policy
from pilot.models.pi import pi0, pi0_fast, pi0_small, pi05
from pilot.train import checkpoint
from pilot.train.config import InitFrom, OptimConfig, Source
from pilot.train.loop import train
from pilot.train.metrics import read_metrics
from pilot.train.setup import prepare
from train.toy import changed, config, record, same, weights

pytestmark = [
    pytest.mark.usefixtures("no_shape_checks"),
    pytest.mark.filterwarnings("ignore:torch.distributed is disabled", "ignore:constant dims"),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return record(tmp_path_factory.mktemp("data") / "toy")


def test_every_loss_falls(data, tmp_path):
    train(config(data, steps=80, checkpoints={"save_every": 80}), out=tmp_path, progress=False)
    records = read_metrics(tmp_path)
    assert [r["step"] for r in records] == list(range(1, 81))
    for name in ("text", "fast", "flow"):
        first, last = (np.mean([r[f"loss/{name}"] for r in part]) for part in (records[:5], records[-5:]))
        assert last < 0.9 * first, (name, first, last)


def test_a_resumed_run_is_the_same_run_to_the_bit(data, tmp_path):
    train(config(data), out=tmp_path / "straight", progress=False)
    train(config(data), out=tmp_path / "broken", until=5, progress=False)
    (tmp_path / "broken" / "checkpoints" / ".000007.1.tmp").mkdir()  # what a killed save leaves behind
    train(config(data), out=tmp_path / "broken", progress=False)
    assert same(weights(tmp_path / "straight"), weights(tmp_path / "broken"))
    losses = [[r["loss/flow"] for r in read_metrics(tmp_path / name)] for name in ("straight", "broken")]
    assert losses[0] == losses[1]


def test_a_run_that_is_made_longer_is_the_longer_run_to_the_bit(data, tmp_path):
    short, long = (config(data, steps=n, optim=OptimConfig(warmup_steps=2, decay_steps=6)) for n in (4, 7))
    train(long, out=tmp_path / "straight", progress=False)
    train(short, out=tmp_path / "longer", progress=False)
    train(long, out=tmp_path / "longer", progress=False)
    assert same(weights(tmp_path / "straight"), weights(tmp_path / "longer"))


def test_stage_one_has_no_flow_loss_and_stage_two_starts_from_it(data, tmp_path):
    one = train(config(data, objective={"alpha": 0.0}), out=tmp_path / "one", progress=False)
    assert "loss/flow" not in read_metrics(tmp_path / "one")[-1]
    two = config(data, init_from=InitFrom(str(one)), steps=1, objective={"alpha": 10.0}, ema={"decay": 0.0})
    setup = prepare(two, tmp_path / "two", resume=True, progress=False)
    first = load_policy(one).model.state_dict()
    assert same(dict(setup.bundle.model.state_dict()), dict(first))


def test_insulated_stage_two_leaves_words_to_the_words(data, tmp_path):
    quiet = config(
        data,
        steps=2,
        optim=OptimConfig(weight_decay=0.0, warmup_steps=0),
        objective={"text_weight": 0.0, "fast_weight": 0.0},
    )
    setup = prepare(quiet, tmp_path / "look", resume=True, progress=False)
    before = {n: p.clone() for n, p in setup.bundle.model.state_dict().items()}
    train(quiet, out=tmp_path / "run", progress=False)
    after = weights(tmp_path / "run")
    moved = {name.split(".")[0] for name in after if not torch.equal(after[name], before[name])}
    assert "action_expert" in moved and not moved & {"vision", "vlm", "embedding"}


def test_a_run_goes_on_in_another_precision_whatever_its_losses_reach(data, tmp_path):
    """The backbone that insulation keeps from the flow is frozen in either, so checkpoints hold the same."""
    quiet = config(data, objective={"text_weight": 0.0, "fast_weight": 0.0})
    for first, then in (("bf16", "fp32"), ("fp32", "bf16")):
        out = tmp_path / first
        train(changed(quiet, compute={"precision": first}), out=out, until=4, progress=False)
        train(changed(quiet, compute={"precision": then}), out=out, progress=False)
        assert not any(name.startswith("vlm") for name in weights(out, "ema"))


def test_frozen_parts_stay_and_the_expert_learns_alone(data, tmp_path):
    alone = config(
        data,
        freeze=("vision", "vlm", "embedding"),
        objective={"text_weight": 0.0, "fast_weight": 0.0, "flow_draws": 3},
        data={"box_jitter": 0.02},
    )
    setup = prepare(alone, tmp_path / "look", resume=True, progress=False)
    before = {n: p.clone() for n, p in setup.bundle.model.state_dict().items()}
    train(alone, out=tmp_path / "run", progress=False)
    after = weights(tmp_path / "run")
    moved = {name.split(".")[0] for name in after if not torch.equal(after[name], before[name])}
    assert {"action_expert", "action_in", "action_out"} <= moved
    assert not moved & {"vision", "vlm", "embedding"}
    assert set(read_metrics(tmp_path / "run")[-1]) & {"loss/text", "loss/fast"} == set()


def test_freezing_what_is_not_there_is_said(data, tmp_path):
    with pytest.raises(ValueError, match="it has vision, embedding, vlm"):
        train(config(data, freeze=("vlan",)), out=tmp_path, progress=False)


def test_the_policy_folder_is_the_moving_average(data, tmp_path):
    out = train(config(data), out=tmp_path, progress=False)
    average = weights(tmp_path, "ema")
    assert same(dict(load_policy(out, verify=True).model.state_dict()), average)
    assert not same(average, weights(tmp_path))


@pytest.mark.parametrize("family", [pi0, pi0_fast, pi0_small])
def test_the_rest_of_the_family_trains_and_acts(data, tmp_path, family):
    model = family("debug", max_tokens=80)
    alpha = 0.0 if family is pi0_fast else 10.0
    out = train(config(data, model=model, steps=4, objective={"alpha": alpha}), out=tmp_path, progress=False)
    assert load_policy(out, verify=True).model.config == model
    flow = [name for name in read_metrics(tmp_path)[-1] if name.startswith("loss/flow")]
    assert bool(flow) == (family is not pi0_fast)


def test_old_checkpoints_go_and_the_last_stay(data, tmp_path):
    train(config(data, checkpoints={"save_every": 2}), out=tmp_path, progress=False)
    assert [folder.name for folder in checkpoint.checkpoints(tmp_path)] == ["000006", "000008"]


def test_another_config_in_the_same_folder_is_refused(data, tmp_path):
    train(config(data, steps=4), out=tmp_path, progress=False)
    with pytest.raises(ValueError, match="batch_size"):
        train(config(data, steps=4, batch_size=2), out=tmp_path, progress=False)


def test_a_run_of_before_a_field_was_there_goes_on(data, tmp_path):
    train(config(data, steps=4), out=tmp_path, progress=False, until=2)
    file = tmp_path / "config.json"
    stored = json.loads(file.read_text())
    del stored["ema"]["warmup"], stored["lora"], stored["optim"]["decay_steps"], stored["compute"]
    del stored["data"]["sources"][0]["teaches"]
    file.write_text(json.dumps(stored))
    train(config(data, steps=4), out=tmp_path, progress=False)
    assert checkpoint.last_checkpoint(tmp_path).name == "000004"


def test_what_cannot_work_fails_before_the_first_step(data, tmp_path):
    (tmp_path / "twin").symlink_to(data)
    cases = {
        "nothing does not exist": config(tmp_path / "nothing"),
        "another shape": config(data, init_from=InitFrom(str(_other_policy(data, tmp_path)))),
        "to every source or to none": config(
            data, data={"sources": (Source(path=str(data), weight=1.0), Source(path=str(tmp_path / "twin")))}
        ),
        "two sources are called": config(data, data={"sources": (Source(path=str(data)), Source(path=str(data)))}),
        "no statistics of robot": config(
            data, robot="pusht", data={"sources": (Source(path=str(data), robot="homes"),)}
        ),
    }
    for message, wrong in cases.items():
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            train(wrong, out=tmp_path / "wrong", progress=False)


def _other_policy(data: Path, tmp_path: Path) -> Path:
    other = config(data, model=pi05("debug", max_tokens=80, action_horizon=4), steps=1)
    return train(other, out=tmp_path / "other", progress=False)


def test_a_damaged_checkpoint_is_named(data, tmp_path):
    train(config(data, checkpoints={"save_every": 2}), out=tmp_path, until=4, progress=False)
    last = checkpoint.last_checkpoint(tmp_path)
    file = next(last.glob("*.distcp"))
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"000004 is damaged .* remove .*000004 to go on from .*000002"):
        train(config(data, checkpoints={"save_every": 2}), out=tmp_path, progress=False)
    shutil.rmtree(last)
    train(config(data, checkpoints={"save_every": 2}), out=tmp_path, until=4, progress=False)
    assert checkpoint.last_checkpoint(tmp_path) == last


def test_half_a_line_of_metrics_is_dropped(data, tmp_path):
    train(config(data, steps=4), out=tmp_path, progress=False)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "loss')
    assert [json.loads(json.dumps(r))["step"] for r in read_metrics(tmp_path)] == [1, 2, 3, 4]


def test_a_run_shorter_than_its_log_says_how_it_ended(data, tmp_path):
    train(config(data, steps=3, logging={"log_every": 20}), out=tmp_path, progress=False)
    assert [r["step"] for r in read_metrics(tmp_path)] == [3]
