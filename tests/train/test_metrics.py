"""What a person sees of a run: records once per step, a line for people, and the trackers that a run names."""

import io
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from pilot.train import metrics as module
from pilot.train.metrics import Metrics, cut_metrics, duration, format_metrics, read_metrics, read_notes
from pilot.train.plan.gpus import GPUS


def opened(out: Path, *, start: int = 0, log_to: tuple[str, ...] = (), **options) -> Metrics:
    return Metrics(out, steps=100, start=start, title="toy", log_to=log_to, **options)


def logged(out: Path, steps: list[int], *, start: int = 0, **options) -> None:
    metrics = opened(out, start=start, **options)
    for step in steps:
        metrics.log(step, {"loss/flow": 1 / step, "lr": 1e-3}, samples_per_step=8)
    metrics.log_evaluation(steps[-1], {"val/flow/toy": 0.5})
    metrics.close()


def event_steps(out: Path) -> list[int]:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(out / "tensorboard"))
    events.Reload()
    return [event.step for event in events.Scalars("loss/flow")]


def test_a_step_is_never_there_twice(tmp_path):
    logged(tmp_path, [10, 20, 30], log_to=("tensorboard",))
    logged(tmp_path, [30, 40], start=20, log_to=("tensorboard",))  # a checkpoint at 20, killed after 30
    assert [record["step"] for record in read_metrics(tmp_path)] == [10, 20, 30, 40]
    lines = (tmp_path / "train.log").read_text().splitlines()
    assert [line.split("/")[0] for line in lines] == [f"step {n}" for n in (10, 20, 30, 40, 40)]
    assert event_steps(tmp_path) == [10, 20, 30, 40]


def test_notes_are_apart_from_the_curve(tmp_path):
    logged(tmp_path, [10])
    assert read_notes(tmp_path) == [{"step": 10, "val/flow/toy": 0.5}]
    assert "val/flow/toy" not in read_metrics(tmp_path)[0]


def test_half_a_line_is_dropped(tmp_path):
    logged(tmp_path, [10])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 20, "lo')
    logged(tmp_path, [20], start=10)
    assert [record["step"] for record in read_metrics(tmp_path)] == [10, 20]


def test_without_a_terminal_there_is_a_line_per_logged_step(tmp_path, capfd):
    logged(tmp_path / "quiet", [10, 20], progress=False)
    assert capfd.readouterr() == ("", "")
    logged(tmp_path, [10, 20])
    shown, errors = capfd.readouterr()
    assert shown == (tmp_path / "train.log").read_text() and not errors
    first = shown.splitlines()[0]
    assert first.startswith("step 10/100  flow 0.1  lr 0.001  ") and " samples/s" in first and first.endswith(" left")


def test_only_the_main_rank_writes(tmp_path):
    logged(tmp_path / "other", [10], main=False)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(("system", "unit"), [("linux", 1024), ("darwin", 1)])
def test_memory_is_in_gigabytes_on_every_system(tmp_path, monkeypatch, system, unit):
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(module.resource, "getrusage", lambda _: SimpleNamespace(ru_maxrss=3e9 / unit))
    logged(tmp_path, [10])
    assert read_metrics(tmp_path)[0]["memory_gb"] == pytest.approx(3)


def test_speed_waiting_and_mfu(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr(module, "peak_flops", lambda device: 1e12)
    metrics = opened(tmp_path, ranks=2)

    def batches():
        for _ in range(4):
            now[0] += 0.5
            yield None

    for _ in metrics.timed(batches()):
        now[0] += 1.5
    with metrics.pause():
        now[0] += 100.0
    metrics.log(4, {}, samples_per_step=10, flops_per_sample=1e11)
    metrics.close()
    record = read_metrics(tmp_path)[0]
    assert record["samples_per_s"] == 5.0
    assert record["data_wait"] == 0.25
    assert record["mfu"] == 0.25 and record["tflops"] == 0.5
    assert record["memory_gb"] > 0
    assert (tmp_path / "train.log").read_text().rstrip().endswith("3 min left")  # 96 steps of 2 s


def test_losses_of_sources_stay_out_of_the_line():
    line = format_metrics({"loss/flow": 0.3, "loss/flow/kitchen": 0.2, "share/kitchen": 1.0, "mfu": 0.414}, left=None)
    assert line == "flow 0.3  41.4% MFU"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("columns", [80, 200])
def test_a_live_line_shows_the_metrics_that_fit_beside_a_bar_of_one_length(tmp_path, monkeypatch, capfd, columns):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", str(columns))
    metrics = opened(tmp_path)
    values = {f"loss/{name}": 1.25 for name in ("flow", "text", "fast", "point")} | {"grad_norm": 3.0}
    metrics.log(50, values, samples_per_step=8)
    metrics._bar.update(50)
    metrics._bar.refresh()
    metrics.close()
    last = terminal.getvalue().split("\r")[-1].rstrip()
    assert last.startswith("toy:  50%|######      | 50/100 [") and "flow 1.25" in last
    assert ("samples/s" in last) == (columns == 200) and capfd.readouterr().out == ""


def test_metrics_are_cut_between_two_of_them():
    line = "flow 0.31  text 0.82  212 samples/s"
    assert [cut_metrics(line, n) for n in (3, 20, 34, 35)] == [
        "flow 0.31",
        "flow 0.31  text 0.82",
        "flow 0.31  text 0.82",
        line,
    ]


@pytest.mark.parametrize(
    ("seconds", "words"), [(48, "48 s"), (725, "12 min"), (11_100, "3 h 05 min"), (187_200, "2 d 04 h")]
)
def test_durations(seconds, words):
    assert duration(seconds) == words


def test_peak_is_that_of_the_table(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100 80GB HBM3")
    assert module.peak_flops(torch.device("cuda")) == GPUS["H100"].peak_flops
    assert module.peak_flops(torch.device("cpu")) == 0


class Recorder:
    """A tracking library with the face that wandb and trackio share, for a run in this process."""

    def __init__(self) -> None:
        self.opened: list[dict] = []
        self.steps: list[int] = []
        self.finished = 0

    def init(self, **options):
        self.opened.append(options)
        return self

    def log(self, values, *, step):
        assert values
        self.steps.append(step)

    def finish(self):
        self.finished += 1


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_other_trackers_continue_the_same_run(tmp_path, monkeypatch, name):
    recorder = Recorder()
    monkeypatch.setitem(sys.modules, name, recorder)
    logged(tmp_path, [10, 20], log_to=(name,), settings={"steps": 100})
    logged(tmp_path, [30], start=20, log_to=(name,), settings={"steps": 100})
    assert recorder.steps == [10, 20, 20, 30, 30] and recorder.finished == 2
    keys = [opening.get("id") or opening["name"] for opening in recorder.opened]
    assert len(set(keys)) == 1 and all(opening["resume"] == "allow" for opening in recorder.opened)
    assert recorder.opened[0]["config"] == {"steps": 100}


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_run_that_begins_anew_is_another_one_to_its_tracker(tmp_path, monkeypatch, name):
    recorder = Recorder()
    monkeypatch.setitem(sys.modules, name, recorder)
    for folder in ("mine/run", "colleague/run", "mine/run"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        logged(tmp_path / folder, [10], log_to=(name,))
    keys = [opening.get("id") or opening["name"] for opening in recorder.opened]
    assert len(set(keys)) == 3 and all(len(key) <= 60 for key in keys)


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_missing_tracker_names_its_extra(tmp_path, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=rf"pip install 'pilot\[{name}\]'"):
        opened(tmp_path, log_to=(name,))


def test_an_unknown_tracker_suggests_the_nearest(tmp_path):
    with pytest.raises(ValueError, match="did you mean 'tensorboard'"):
        opened(tmp_path, log_to=("tensorbord",))
