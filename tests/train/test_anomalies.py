"""A loss that is NaN or leaps stops the run, and its batch can be looked at and tried again."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pilot.models.pi import pi05
from pilot.tokenizers.text import TextTokenizer
from pilot.train import anomalies as module
from pilot.train import checkpoint
from pilot.train.anomalies import SpikeDetector, load_batch, tensors_of
from pilot.train.loop import train
from pilot.train.metrics import read_metrics
from train.counted_rows import rows_of
from train.toy import changed, config, record

BATCH = [rows_of(pi05("debug"), 2), rows_of(pi05("debug"), 3)]
NAN, LEAP = torch.tensor(float("nan")), torch.tensor(11.0)


def watched(out: Path, **factors: float) -> SpikeDetector:
    return SpikeDetector(out=out, text=TextTokenizer(), **({"loss_factor": 10.0, "grad_factor": 100.0} | factors))


def warmed(out: Path, steps: int = module.AT_LEAST, **factors: float) -> SpikeDetector:
    spikes = watched(out, **factors)
    for step in range(1, steps + 1):
        spikes.watch(step, BATCH, loss=torch.tensor(1.0), grad_norm=torch.tensor(1.0))
    return spikes


def test_nan_stops_at_once_and_the_batch_is_kept(tmp_path):
    with pytest.raises(FloatingPointError, match=r"step 1: gradient norm nan; its batch is in .*step000001-rank0"):
        watched(tmp_path, loss_factor=0.0).watch(1, BATCH, loss=torch.tensor(1.0), grad_norm=NAN)
    folder = tmp_path / "bad_batch" / "step000001-rank0"
    for saved, own in zip(load_batch(folder), BATCH, strict=True):
        assert saved.sources == own.sources
        mine, theirs = tensors_of(own), tensors_of(saved)
        assert mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_a_leap_over_the_running_median_stops(tmp_path):
    spikes = warmed(tmp_path)
    with pytest.raises(FloatingPointError, match="loss 11 is over 10 × its median 1"):
        spikes.watch(99, BATCH, loss=LEAP, grad_norm=torch.tensor(1.0))
    told = json.loads((tmp_path / "bad_batch" / "step000099-rank0" / "batch.json").read_text())
    assert told["medians"] == {"loss": 1.0, "grad_norm": 1.0} and told["step"] == 99


def test_the_advice_names_what_a_resumed_run_takes(tmp_path):
    for leaps, setting in (({"loss": LEAP}, "loss_spike"), ({"grad_norm": 100 * LEAP}, "grad_spike")):
        with pytest.raises(FloatingPointError, match=rf"add --set logging\.{setting}=0 to the same command") as error:
            warmed(tmp_path).watch(99, BATCH, **{"loss": torch.tensor(1.0), "grad_norm": torch.tensor(1.0)} | leaps)
        assert f"--out elsewhere --set init_from={tmp_path} --set optim.peak_lr=RATE" in str(error.value)
    with pytest.raises(FloatingPointError, match="mend the data, if that is at fault, and run the same command again"):
        warmed(tmp_path).watch(99, BATCH, loss=NAN, grad_norm=NAN)


def test_what_is_not_yet_known_or_not_asked_for_does_not_stop(tmp_path):
    early = warmed(tmp_path, steps=module.AT_LEAST - 1)
    early.watch(99, BATCH, loss=LEAP, grad_norm=LEAP)
    warmed(tmp_path, loss_factor=0.0).watch(99, BATCH, loss=LEAP, grad_norm=LEAP)
    assert not (tmp_path / "bad_batch").exists()


def test_rows_are_told_in_words(tmp_path):
    broken = rows_of(pi05("debug"), 2)
    broken.actions[0, 0, 0] = float("inf")
    with pytest.raises(FloatingPointError):
        watched(tmp_path).watch(5, [replace(broken, sources=("a", "b"))], loss=NAN, grad_norm=NAN)
    rows = json.loads((tmp_path / "bad_batch" / "step000005-rank0" / "batch.json").read_text())["rows"]
    assert [row["source"] for row in rows] == ["a", "b"]
    assert [row["actions"]["not_finite"] for row in rows] == [1, 0]
    assert rows[0]["reads"] and rows[0]["says"] and rows[0]["fast_tokens"] == 12


def test_values_that_are_on_their_way_are_looked_at_before_a_save(tmp_path):
    """On a GPU they arrive later; `settle` waits for them."""

    class Arriving:
        def query(self) -> bool:
            return False

        def synchronize(self) -> None: ...

    spikes = watched(tmp_path)
    spikes._coming.append((7, torch.tensor([float("nan"), 1.0]), Arriving(), BATCH))
    spikes.watch(8, BATCH, loss=torch.tensor(1.0), grad_norm=torch.tensor(1.0))
    with pytest.raises(FloatingPointError, match="step 7: loss nan"):
        spikes.settle()


def test_a_run_that_goes_on_knows_its_medians_and_may_be_told_to_let_a_leap_pass(tmp_path, no_shape_checks):
    run, out = config(record(tmp_path / "toy"), steps=3), tmp_path / "run"
    train(run, out=out, until=2, progress=False)
    watch = SpikeDetector.watch

    def leaping(self: SpikeDetector, step: int, batch, *, loss, grad_norm) -> None:
        watch(self, step, batch, loss=1000 * loss if step == 3 else loss, grad_norm=grad_norm)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SpikeDetector, "watch", leaping)
        patch.setattr(module, "AT_LEAST", 2)
        for _ in range(2):
            with pytest.raises(FloatingPointError, match=r"step 3: loss .* is over 10 × its median"):
                train(run, out=out, progress=False)
        train(changed(run, logging={"loss_spike": 0.0}), out=shutil.copytree(out, tmp_path / "over"), progress=False)
        state = checkpoint.checkpoints(out)[-1] / "state.json"
        state.write_text(json.dumps({k: v for k, v in json.loads(state.read_text()).items() if k != "spikes"}))
        train(run, out=out, progress=False)  # a checkpoint from before they were saved


def test_a_run_stops_and_its_checkpoint_is_whole(tmp_path, no_shape_checks):
    data = record(tmp_path / "toy")
    train(config(data, steps=4), out=tmp_path / "run", until=2, progress=False)
    wild = SpikeDetector.watch

    def bad(self: SpikeDetector, step: int, batch, *, loss, grad_norm) -> None:
        wild(self, step, batch, loss=loss, grad_norm=NAN if step == 3 else grad_norm)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(FloatingPointError, match="step 3: gradient norm nan"):
        patch.setattr(SpikeDetector, "watch", bad)
        train(config(data, steps=4), out=tmp_path / "run", progress=False)
    kept = load_batch(tmp_path / "run" / "bad_batch" / "step000003-rank0")
    assert sum(len(part.actions) for part in kept) == 4
    train(config(data, steps=4), out=tmp_path / "run", progress=False)
    assert [record["step"] for record in read_metrics(tmp_path / "run")] == [1, 2, 3, 4]
