"""Where metrics go besides `metrics.jsonl`: TensorBoard event files, Weights & Biases, trackio.

Each is a library of its own, imported here and nowhere else, when a run names it (`TrainConfig.log_to`). A run that
goes on continues its own curves.
"""

import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm

from pilot.names import suggest_names

Values = Mapping[str, float]


class Tracker(Protocol):
    """Keeps named numbers by step."""

    def log(self, step: int, values: Values) -> None:
        """Record the values of a step by name."""
        ...

    def close(self) -> None:
        """Write what is left and end the tracker's run."""
        ...


def open_trackers(
    names: Sequence[str], out: Path, *, title: str, start: int, settings: Mapping[str, Any]
) -> list[Tracker]:
    """Open the trackers of a run in folder `out`, which goes on after step `start`.

    Raises:
        ValueError: an unknown tracker; the nearest is suggested.
        ImportError: its library is not installed; the message names the extra.
    """
    trackers: list[Tracker] = []
    for name in names:
        if name not in TRACKERS:
            raise ValueError(f"log_to names '{name}', which is no tracker; {suggest_names(name, TRACKERS)}")
        tracker = TRACKERS[name](out, title, start, settings)
        if tracker is not None:
            trackers.append(tracker)
    return trackers


class TensorBoard:
    """Event files in `OUT/tensorboard`. Steps after `start` that an earlier attempt wrote are purged."""

    def __init__(self, out: Path, title: str, start: int, settings: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(out / "tensorboard"), purge_step=start + 1)

    def log(self, step: int, values: Values) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class WandB:
    """A run of Weights & Biases, one per folder: its id is kept in `OUT/wandb_id`. `WANDB_MODE=offline` needs no net.

    Weights & Biases ignores a step that it has seen, so repeated steps keep their first values there.
    """

    def __init__(self, out: Path, title: str, start: int, settings: Mapping[str, Any]) -> None:
        try:
            import wandb
        except ImportError as error:
            raise ImportError("log_to=wandb needs Weights & Biases: pip install 'pilot[wandb]'") from error
        name = keep_name(out / "wandb_id", title, start=start)
        self._run = wandb.init(
            project="pilot", name=title, id=name, resume="allow", dir=str(out), config=dict(settings)
        )

    def log(self, step: int, values: Values) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


class Trackio:
    """A run of trackio, a local tracker with the face of Weights & Biases, one per folder: `OUT/trackio_name`.

    It keeps both values of a repeated step.
    """

    def __init__(self, out: Path, title: str, start: int, settings: Mapping[str, Any]) -> None:
        try:
            import trackio
        except ImportError as error:
            raise ImportError("log_to=trackio needs trackio: pip install 'pilot[trackio]'") from error
        name = keep_name(out / "trackio_name", title, start=start)
        self._run = trackio.init(project="pilot", name=name, resume="allow", config=dict(settings))

    def log(self, step: int, values: Values) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


def keep_name(file: Path, title: str, *, start: int) -> str:
    """Return the name of a run to its tracker, which `file` in the run's folder keeps for when it goes on.

    It ends at random: the tracker may know another run of this config, whose folder was of the same name.
    """
    if start == 0 or not file.exists():
        file.write_text(f"{title}-{file.resolve().parent.name}"[:50] + f"-{secrets.token_hex(4)}")
    return file.read_text()


def _tensorboard(out: Path, title: str, start: int, settings: Mapping[str, Any]) -> Tracker | None:
    """Open TensorBoard if it is installed; it is the default, so a run without it goes on with a warning."""
    try:
        return TensorBoard(out, title, start, settings)
    except ImportError:
        tqdm.write(
            "TensorBoard is not installed, metrics go to metrics.jsonl only; "
            "for event files: pip install 'pilot[train]'"
        )
        return None


TRACKERS: dict[str, Callable[[Path, str, int, Mapping[str, Any]], Tracker | None]] = {
    "tensorboard": _tensorboard,
    "wandb": WandB,
    "trackio": Trackio,
}
