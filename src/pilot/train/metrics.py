"""What a person sees of a run: one live line, `metrics.jsonl`, and TensorBoard event files."""

import json
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm


class Metrics:
    """Logs to `OUT/metrics.jsonl` (one object per logged step), TensorBoard if installed, and a progress bar with ETA.

    On resume, records of steps that will be repeated are dropped, so that a step is never there twice.
    """

    def __init__(self, out: Path, *, steps: int, start: int, title: str, progress: bool = True) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self.path = out / "metrics.jsonl"
        kept = [line for line in _lines(self.path) if json.loads(line)["step"] <= start]
        self.path.write_text("".join(line + "\n" for line in kept))
        self._bar = tqdm(total=steps, initial=start, desc=title, unit="step", disable=not progress, dynamic_ncols=True)
        self._writer = _tensorboard(out)
        self._since, self._last = time.perf_counter(), start

    def log(self, step: int, values: dict[str, float], *, samples_per_step: int) -> None:
        now = time.perf_counter()
        rate = (step - self._last) * samples_per_step / max(now - self._since, 1e-9)
        self._since, self._last = now, step
        values = values | {"samples_per_s": rate}
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step} | {name: round(value, 6) for name, value in values.items()}) + "\n")
        for name, value in values.items():
            if self._writer is not None:
                self._writer.add_scalar(name, value, step)
        shown = ("loss/text", "loss/fast", "loss/point", "loss/flow", "lr", "samples_per_s")
        self._bar.set_postfix({name.split("/")[-1]: f"{values[name]:.3g}" for name in shown if name in values})

    def advance(self) -> None:
        self._bar.update()

    def close(self) -> None:
        self._bar.close()
        if self._writer is not None:
            self._writer.close()


def read_metrics(out: Path) -> list[dict[str, Any]]:
    """All logged records of a run, in order."""
    return [json.loads(line) for line in _lines(out / "metrics.jsonl")]


def _lines(path: Path) -> list[str]:
    """Whole lines only: a killed run may have left half of one."""
    text = path.read_text() if path.exists() else ""
    return text.split("\n")[:-1]


def _tensorboard(out: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        tqdm.write(
            "TensorBoard is not installed, metrics go to metrics.jsonl only; "
            "for event files: pip install 'pilot[train]'"
        )
        return None
    return SummaryWriter(str(out / "tensorboard"))
