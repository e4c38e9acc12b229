"""One run on several processes is the run of one, whatever they share; it goes on on any number of them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pilot.infer.policy import load_policy
from pilot.train.config import OptimConfig, Source, TrainConfig
from pilot.train.loop import train
from pilot.train.metrics import read_metrics
from train import ranks
from train.toy import config, record, record_web, same, weights

pytestmark = pytest.mark.usefixtures("no_shape_checks")
CLOSE = {"rtol": 2e-4, "atol": 2e-5}
STEPS = 4


def mixed(data: Path, **changes: object) -> TrainConfig:
    """Four rows of a robot and four of the web per step: ranks differ in cameras, lengths and who has actions."""
    sources = Source(path=str(data / "toy"), weight=0.5), Source(path=str(data / "web"), kind="web", weight=0.5)
    slow = OptimConfig(peak_lr=1e-3, warmup_steps=2, eps=1e-3)  # a large eps: no step hangs on the sign of a zero
    base = config(data, sources=sources, batch_size=8, optim=slow, steps=STEPS, save_every=2, frame_cache=False)
    return replace(base, **changes)


MODES: dict[str, dict[str, Any]] = {
    "ddp": {"parallel": "ddp"},
    "fsdp": {"parallel": "fsdp"},
    "passes": {"parallel": "fsdp", "accumulate": 2, "checkpointing": "selective"},
    "muon": {"parallel": "fsdp", "optim": OptimConfig(name="muon", peak_lr=1e-3, warmup_steps=2, eps=1e-3)},
}


def train_all(data: Path, out: Path, modes: dict[str, dict[str, Any]], until: int | None = None) -> None:
    for name, changes in modes.items():
        train(mixed(data, **changes), out=out / name, progress=False, until=until)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data")
    record(path / "toy")
    record_web(path / "web")
    return path


@pytest.fixture(scope="module")
def out(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of every mode, on as many processes as it has, and of one process with the same settings."""
    path = tmp_path_factory.mktemp("runs")
    two = {"data": data, "out": path / "two", "modes": MODES}
    ranks.run(train_all, ranks=2, folder=path / "meet2", options=two)
    four = {"data": data, "out": path / "four", "modes": {"hsdp": {"parallel": "hsdp", "shards": 2}}}
    ranks.run(train_all, ranks=4, folder=path / "meet4", options=four)
    train_all(data, path / "one", {"plain": {}, "muon": {"optim": MODES["muon"]["optim"]}})
    return path


@pytest.mark.parametrize("mode", ["two/ddp", "two/fsdp", "two/passes", "two/muon", "four/hsdp"])
def test_ranks_train_what_one_process_trains(out, mode):
    alone = out / "one" / ("muon" if mode.endswith("muon") else "plain")
    for a, b in zip(read_metrics(out / mode), read_metrics(alone), strict=True):
        names = {name for name in a if name.startswith(("loss/", "grad_norm", "share/", "lr"))}
        assert names == {name for name in b if name.startswith(("loss/", "grad_norm", "share/", "lr"))}
        assert {"loss/flow/toy", "loss/text/web"} <= names
        for name in names:
            assert a[name] == pytest.approx(b[name], rel=1e-4), (name, a["step"])
    for of in ("model", "ema", "optimizer"):
        mine, theirs = weights(out / mode, of), weights(alone, of)
        assert mine.keys() == theirs.keys()
        for name, tensor in mine.items():
            torch.testing.assert_close(tensor, theirs[name], **CLOSE, msg=lambda m, name=name: f"{name}: {m}")


def test_the_policy_is_gathered_from_all_ranks(out):
    policy = load_policy(out / "two" / "fsdp" / "policy", verify=True)
    assert same(dict(policy.model.state_dict()), weights(out / "two" / "fsdp", "ema"))
