"""One run on several processes is the run of one, whatever they share; it goes on on any number of them."""

import os
import shutil
import signal
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from pilot.data.layout import Batch
from pilot.data.loading.loader import Loader
from pilot.data.pipeline import Row
from pilot.infer.policy import load_policy
from pilot.train import checkpoint, distributed
from pilot.train.config import OptimConfig, Source, TrainConfig
from pilot.train.distributed import connect
from pilot.train.learner import Learner, StepResult
from pilot.train.loop import train
from pilot.train.metrics import read_metrics
from train import ranks
from train.toy import changed, config, read_all, same, weights

pytestmark = [
    pytest.mark.usefixtures("no_shape_checks"),
    pytest.mark.filterwarnings("ignore:torch.distributed is disabled", "ignore:constant dims"),
]
CLOSE = {"rtol": 2e-4, "atol": 2e-5}
STEPS = 4


def mixed(data: Path, **changes: object) -> TrainConfig:
    """Four rows of a robot and four of the web per step: ranks differ in cameras, lengths and who has actions."""
    sources = Source(path=str(data / "toy"), weight=0.5), Source(path=str(data / "web"), kind="web", weight=0.5)
    slow = OptimConfig(peak_lr=1e-3, warmup_steps=2, eps=1e-3)  # a large eps: no step hangs on the sign of a zero
    base = config(
        data,
        batch_size=8,
        optim=slow,
        steps=STEPS,
        data={"sources": sources, "frame_cache": False},
        checkpoints={"save_every": STEPS},
    )
    return changed(base, **changes)


MODES: dict[str, dict[str, Any]] = {
    "ddp": {"parallel": {"strategy": "ddp"}},
    "fsdp": {"parallel": {"strategy": "fsdp"}},
    "passes": {"parallel": {"strategy": "fsdp", "accumulate": 2}, "compute": {"checkpointing": "selective"}},
    "muon": {
        "parallel": {"strategy": "fsdp"},
        "optim": OptimConfig(name="muon", peak_lr=1e-3, warmup_steps=2, eps=1e-3),
    },
}


def train_all(data: Path, out: Path, modes: dict[str, dict[str, Any]]) -> None:
    for name, changes in modes.items():
        train(mixed(data, **changes), out=out / name, progress=False)


def two_ranks(data: Path, out: Path) -> dict[str, str]:
    """Every mode; a run that is stopped and goes on, one that goes on from one process, one that loses its data."""
    shared = mixed(data, parallel={"strategy": "fsdp"})
    train_all(data, out, MODES)
    found = {"stopped": stopped_at(2, shared, out / "stopped")}
    if dist.get_rank() == 0:
        shutil.copytree(out / "stopped", out / "onto_one")
        shutil.copytree(out.parent / "one" / "half", out / "onto_two")
    dist.barrier()
    train(shared, out=out / "stopped", progress=False)
    train(shared, out=out / "onto_two", progress=False)
    found["vanished"] = without_data(
        3, mixed(data, parallel={"strategy": "fsdp"}, checkpoints={"save_every": 2}), out / "vanished"
    )
    return found


def stopped_at(step: int, config: TrainConfig, out: Path) -> str:
    """The end of a run of which the last rank is told to stop during a step."""

    def advance(self: Learner, batch: list[Batch]) -> StepResult:
        if self.step + 1 == step and dist.get_rank() == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return own(self, batch)

    own, Learner.train_step = Learner.train_step, advance
    try:
        return error_of(config, out)
    finally:
        Learner.train_step = own


def without_data(step: int, config: TrainConfig, out: Path) -> str:
    """The end of a run of which the last rank cannot read a step's rows."""

    def rows(self: Loader, number: int) -> list[Row]:
        if number + 1 == step and self.rank == 1:
            raise FileNotFoundError("data/chunk-000/file-000.parquet is gone")
        return own(self, number)

    own, Loader.rows = Loader.rows, rows
    try:
        return error_of(config, out)
    finally:
        Loader.rows = own


def error_of(config: TrainConfig, out: Path) -> str:
    try:
        train(config, out=out, progress=False)
    except BaseException as error:
        return "\n".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", [])])
    raise AssertionError("the run has gone through")


def killed(data: Path, out: Path, step: int) -> str:
    """The end of a run of which the last rank dies during a step, as the others see it."""

    def advance(self: Learner, batch: list[Batch]) -> StepResult:
        if self.step + 1 == step and dist.get_rank() == 1:
            os._exit(9)
        return own(self, batch)

    own, Learner.train_step = Learner.train_step, advance
    return error_of(mixed(data, steps=6, parallel={"strategy": "fsdp"}, checkpoints={"save_every": 2}), out)


@pytest.fixture(scope="module")
def out(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of one process and, in `two` and `four`, of as many; in `meet2`, how some of them ended on each rank."""
    path = tmp_path_factory.mktemp("runs")
    train_all(data, path / "one", {"plain": {}, "muon": {"optim": MODES["muon"]["optim"]}})
    train(mixed(data), out=path / "one" / "half", until=2, progress=False)
    ranks.run(two_ranks, ranks=2, folder=path / "meet2", options={"data": data, "out": path / "two"})
    four = {"data": data, "out": path / "four", "modes": {"hsdp": {"parallel": {"strategy": "hsdp", "shards": 2}}}}
    ranks.run(train_all, ranks=4, folder=path / "meet4", options=four)
    return path


def assert_close(mine: Path, theirs: Path) -> None:
    """The last checkpoints of two runs are of the same step and hold the same, up to rounding."""
    folders = [checkpoint.last_checkpoint(path) for path in (mine, theirs)]
    a, b = (read_all(folder) for folder in folders)
    assert folders[0].name == folders[1].name and a.keys() == b.keys()
    for name, tensor in a.items():
        torch.testing.assert_close(tensor, b[name], **CLOSE, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("mode", ["two/ddp", "two/fsdp", "two/passes", "two/muon", "four/hsdp"])
def test_ranks_train_what_one_process_trains(out, mode):
    alone = out / "one" / ("muon" if mode.endswith("muon") else "plain")
    for a, b in zip(read_metrics(out / mode), read_metrics(alone), strict=True):
        names = {name for name in a if name.startswith(("loss/", "grad_norm", "share/", "lr"))}
        assert names == {name for name in b if name.startswith(("loss/", "grad_norm", "share/", "lr"))}
        assert {"loss/flow/toy", "loss/text/web"} <= names
        for name in names:
            assert a[name] == pytest.approx(b[name], rel=1e-4), (name, a["step"])
    assert_close(out / mode, alone)


def test_the_policy_is_gathered_from_all_ranks(out):
    policy = load_policy(out / "two" / "fsdp" / "policy", verify=True)
    assert same(dict(policy.model.state_dict()), weights(out / "two" / "fsdp", "ema"))


def test_a_signal_to_one_rank_stops_all_and_the_next_start_is_the_same_run_to_the_bit(out):
    for rank in range(2):
        assert torch.load(out / "meet2" / f"{rank}.pt")["stopped"].startswith("KeyboardInterrupt: stopped at step 2")
    straight, broken = (read_all(out / "two" / name / "checkpoints" / "000004") for name in ("fsdp", "stopped"))
    assert same(straight, broken)
    drawn = [
        checkpoint.read_values(checkpoint.last_checkpoint(out / name))["drawn"] for name in ("two/stopped", "one/plain")
    ]
    assert drawn[0] == drawn[1] and sum(drawn[0].values()) == 8 * STEPS


def test_a_run_goes_on_with_another_number_of_ranks(data, out):
    """The rows and the noise of every step are the same on any number of them."""
    train(mixed(data), out=out / "two" / "onto_one", progress=False)
    for moved in ("onto_one", "onto_two"):
        steps = [record["step"] for record in read_metrics(out / "two" / moved)]
        assert steps == list(range(1, STEPS + 1))
        assert_close(out / "two" / moved, out / "one" / "plain")


def test_what_fails_on_one_rank_ends_all_and_the_last_checkpoint_is_named(out):
    there, here = (torch.load(out / "meet2" / f"{rank}.pt")["vanished"].splitlines() for rank in range(2))
    assert here[0].startswith("FileNotFoundError: data/chunk-000")
    assert there[0].startswith("RuntimeError: rank 1 has failed: FileNotFoundError: data/chunk-000")
    assert there[1] == f"the last good checkpoint is {out / 'two' / 'vanished' / 'checkpoints' / '000002'}"


def slow_at_first(data: Path) -> int:
    """The main rank works for longer than ranks wait for each other in a step."""
    distributed.TIMEOUT = timedelta(seconds=4)
    with connect(mixed(data, parallel={"strategy": "ddp"})) as own:

        def work() -> int:
            time.sleep(6 * own.is_main)
            return own.rank

        return own.main_first(work)


def test_ranks_wait_for_the_main_one_as_long_as_it_takes(data, tmp_path):
    assert ranks.run(slow_at_first, ranks=2, folder=tmp_path / "meet", options={"data": data}) == [0, 1]


def test_a_dead_rank_is_noticed_and_the_last_checkpoint_is_whole(data, tmp_path):
    options = {"data": data, "out": tmp_path / "run", "step": 5}
    end, nothing = ranks.run(killed, ranks=2, folder=tmp_path / "meet", options=options)
    last = checkpoint.last_checkpoint(tmp_path / "run")
    assert nothing is None and last.name in ("000002", "000004")  # that of step 4 may have been under way
    assert "RuntimeError" in end and end.endswith(f"the last good checkpoint is {last}")
    assert read_all(last)


@pytest.mark.parametrize(("name", "index"), [("auto", 1), ("cuda", 1), ("cuda:0", 0)])
def test_a_gpu_goes_by_any_of_its_names(data, monkeypatch, name, index):
    """The process takes the GPU of its own number among those of the machine, unless it is told which."""
    taken: list[torch.device] = []
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    with connect(mixed(data, compute={"device": name})) as alone:
        assert alone.device == torch.device("cuda", index) and taken == [alone.device]
        assert alone.mesh is None and not dist.is_initialized(), "one process needs no group"


def test_a_gpu_that_cannot_be_taken_is_refused_by_name(data, monkeypatch):
    cases = {"cuda": "sees 0 GPUs here, not 'cuda'", "gpu": "no device 'gpu'; choose auto, cpu or cuda"}
    for name, message in cases.items():
        with pytest.raises(ValueError, match=message), connect(mixed(data, compute={"device": name})):
            pass
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("WORLD_SIZE", "2")
    refused = "'cuda:1' is one GPU, and there are 2 processes; set device=cuda"
    with (
        pytest.raises(ValueError, match=refused),
        connect(mixed(data, compute={"device": "cuda:1"}, parallel={"strategy": "fsdp"})),
    ):
        pass


def test_settings_that_do_not_fit_the_processes_are_refused(data, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    cases = {
        "parallel is 'none'": mixed(data),
        "groups of 2": mixed(data, parallel={"strategy": "hsdp", "shards": 2}),
        "noise_per='step'": mixed(data, parallel={"strategy": "ddp"}, objective={"noise_per": "step"}),
    }
    for message, wrong in cases.items():
        with pytest.raises(ValueError, match=message), connect(wrong):
            pass
