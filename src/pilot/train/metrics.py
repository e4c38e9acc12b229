"""What a person sees of a run: one live line (where there is no terminal, a line per logged step), `metrics.jsonl`,
`train.log`, and what `log_to` names.

    metrics.jsonl   one object per logged step: what programs read
    train.log       one line per logged step: what people read, also of a run without a terminal

On resume, records of steps that will be repeated are dropped, so that a step is never there twice.
"""

import json
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from tqdm import tqdm

from pilot.data.storage.files import atomic_write
from pilot.train.plan.gpus import GPUS, find_gpu
from pilot.train.trackers import open_trackers

Item = TypeVar("Item")
LOSSES = "loss/"
VALIDATION = "val/"
BAR = "{desc}: {percentage:3.0f}%|{bar:12}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}]{postfix}"
BAR_COLUMNS = 52
"""About the columns of a progress bar without its title and its metrics."""


class Metrics:
    """Logs a run of `steps` steps that goes on after step `start`.

    Of many `ranks` only the `main` one writes anything, and with `progress` shows it: a live line in a terminal, and a
    line per logged step where the output goes to a file or another program.
    """

    def __init__(
        self,
        out: Path,
        *,
        steps: int,
        start: int,
        title: str,
        progress: bool = True,
        log_to: Sequence[str] = ("tensorboard",),
        settings: Mapping[str, Any] | None = None,
        device: str | torch.device = "cpu",
        ranks: int = 1,
        main: bool = True,
    ) -> None:
        self.out, self.steps, self.main = out, steps, main
        self.path, self.lines = out / "metrics.jsonl", out / "train.log"
        self.device = torch.device(device)
        self._peak = ranks * peak_flops(self.device)
        self._bar = tqdm(
            total=steps, initial=start, desc=title, unit="step", dynamic_ncols=True, bar_format=BAR,
            disable=not (main and progress and sys.stderr.isatty()),
        )  # fmt: skip
        self._prints = main and progress and self._bar.disable
        self._since, self._last, self._waited = time.perf_counter(), start, 0.0
        self._trackers = []
        if main:
            out.mkdir(parents=True, exist_ok=True)
            # Steps behind the checkpoint will be taken again, and are not to stand there twice.
            _filter_lines(self.path, lambda line: json.loads(line)["step"] <= start)
            _filter_lines(self.lines, lambda line: int(line.removeprefix("step ").split("/")[0]) <= start)
            self._trackers = open_trackers(log_to, out, title=title, start=start, settings=settings or {})

    def timed(self, batches: Iterable[Item]) -> Iterator[Item]:
        """Yield the same batches; the time spent waiting for each counts as `data_wait`."""
        batches = iter(batches)
        while True:
            waited_from = time.perf_counter()
            try:
                batch = next(batches)
            except StopIteration:
                return
            self._waited += time.perf_counter() - waited_from
            yield batch

    def advance(self) -> None:
        """Move the progress bar by one step."""
        self._bar.update()

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Leave the time inside (validation, an evaluation) out of samples/s and the time left."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            # As if the clock had stood still meanwhile.
            self._since += time.perf_counter() - begun

    def log(
        self, step: int, values: Mapping[str, float], *, samples_per_step: int, flops_per_sample: float = 0.0
    ) -> None:
        """Record the losses of `step`, and how fast the steps since the last record were.

        `flops_per_sample` (forward and backward; `train/plan/flops.py`) makes TFLOP/s of samples/s, and on a GPU that
        `train/plan/gpus.py` knows their share of its peak, the MFU.
        """
        now = time.perf_counter()
        seconds = max(now - self._since, 1e-9)
        rate = (step - self._last) * samples_per_step / seconds
        speed = {"samples_per_s": rate, "data_wait": min(1.0, self._waited / seconds), "memory_gb": self._memory()}
        if flops_per_sample:
            speed["tflops"] = rate * flops_per_sample / 1e12
            if self._peak:
                speed["mfu"] = rate * flops_per_sample / self._peak
        left = (self.steps - step) * seconds / max(1, step - self._last)
        self._since, self._last, self._waited = now, step, 0.0
        self._write(step, {**values, **speed}, left=left)

    def log_evaluation(self, step: int, values: Mapping[str, float]) -> None:
        """Record values of `step` that are not of training: validation, an evaluation."""
        self._write(step, values, left=None)

    def close(self) -> None:
        self._bar.close()
        for tracker in self._trackers:
            tracker.close()

    def _write(self, step: int, values: Mapping[str, float], *, left: float | None) -> None:
        if not self.main:
            return
        # Six digits are more than a loss means, and keep lines short.
        rounded = {name: float(f"{value:.6g}") for name, value in values.items()}
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step} | rounded) + "\n")
        line = format_metrics(values, left=left)
        with self.lines.open("a") as file:
            file.write(f"step {step}/{self.steps}  {line}\n")
        for tracker in self._trackers:
            tracker.log(step, values)
        if self._prints:
            print(f"step {step}/{self.steps}  {line}", flush=True)
        elif not self._bar.disable and left is None:
            tqdm.write(f"step {step}  {line}")
        elif not self._bar.disable:  # the bar has the time left itself
            columns = shutil.get_terminal_size().columns - BAR_COLUMNS - len(self._bar.desc)
            self._bar.set_postfix_str(cut_metrics(format_metrics(values, left=None), columns), refresh=False)

    def _memory(self) -> float:
        """Return the peak memory in GB so far: of the GPU, or on a CPU of the process."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 1e9
        unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux kilobytes
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def format_metrics(values: Mapping[str, float], *, left: float | None) -> str:
    """Format metrics as one line for people: `flow 0.31  text 0.82  212 samples/s  41 % MFU  61.2 GB  …`."""
    totals = {name: value for name, value in values.items() if name.startswith(LOSSES) and name.count("/") == 1}
    others = {name: value for name, value in values.items() if name.startswith((VALIDATION, "eval/"))}
    parts = [f"{name.removeprefix(LOSSES)} {value:.3g}" for name, value in (totals | others).items()]
    forms = {
        "lr": "lr {:.3g}", "grad_norm": "grad {:.3g}", "samples_per_s": "{:.3g} samples/s", "mfu": "{:.1%} MFU",
        "memory_gb": "{:.1f} GB", "data_wait": "data wait {:.1%}",
    }  # fmt: skip
    parts += [form.format(values[name]) for name, form in forms.items() if name in values]
    return "  ".join(parts if left is None else [*parts, f"{duration(left)} left"])


def cut_metrics(line: str, columns: int) -> str:
    """Return as many whole metrics of a line as fit into so many columns; the first always does."""
    first, *parts = line.split("  ")
    for part in parts:
        if len(first) + len(part) + 2 > columns:
            break
        first = f"{first}  {part}"
    return first


def duration(seconds: float) -> str:
    """Format seconds as a duration: `48 s`, `12 min`, `3 h 05 min`, `2 d 04 h`."""
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    if seconds < 60:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02d} min" if hours < 48 else f"{hours // 24} d {hours % 24:02d} h"


def peak_flops(device: torch.device) -> float:
    """Return the peak dense bf16 FLOP/s of the GPU, 0 where it is not in the table."""
    if device.type != "cuda":
        return 0.0
    name = find_gpu(torch.cuda.get_device_name(device))
    return GPUS[name].peak_flops if name else 0.0


def read_metrics(out: Path) -> list[dict[str, Any]]:
    """Read the records of all logged training steps of a run, in order; `read_notes` reads those of validation."""
    return [record for record in _records(out) if "samples_per_s" in record]


def read_notes(out: Path) -> list[dict[str, Any]]:
    """Read the records of validation and evaluation of a run, in order."""
    return [record for record in _records(out) if "samples_per_s" not in record]


def _filter_lines(path: Path, wanted: Callable[[str], bool]) -> None:
    """Rewrite a file, if there is one, with only the wanted lines."""
    if path.exists():
        earlier_lines = [line for line in _lines(path) if wanted(line)]
        with atomic_write(path) as temporary:
            temporary.write_text("".join(line + "\n" for line in earlier_lines))


def _records(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in _lines(out / "metrics.jsonl")]


def _lines(path: Path) -> list[str]:
    """Read the whole lines of a file: a killed run may have left half of one."""
    text = path.read_text() if path.exists() else ""
    return text.split("\n")[:-1]
