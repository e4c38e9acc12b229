"""A loss or gradient norm that is NaN, or leaps, stops the run, and the batch is saved to be looked at.

    OUT/bad_batch/step000123-rank0/
      batch.json            the reason, the running medians, and each row's source, words and range of actions
      batch.safetensors     the tensors of all parts, as `part0.actions`, `part0.images.<camera>`, …

`load_batch` reads the parts again, so that they can go through a model once more.
"""

import json
import math
import statistics
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pilot.data.layout import Batch, Kind, Observation
from pilot.data.storage.files import share_file, write_json
from pilot.tokenizers.text import TextTokenizer

FOLDER = "bad_batch"
REMEMBERED = 100  # steps that a median is of
AT_LEAST = 50  # steps before anything is called a leap


@dataclass(kw_only=True)
class SpikeDetector:
    """Check the loss and the gradient norm of every step. With a factor of 0, only NaN and infinity stop the run.

    On a GPU values are checked when they have arrived, a step or two late, so that nothing waits for them; `settle`
    waits, and must be called before anything is saved.
    """

    out: Path
    text: TextTokenizer
    loss_factor: float
    grad_factor: float
    rank: int = 0
    _seen: dict[str, deque[float]] = field(default_factory=dict)
    _coming: "deque[tuple[int, Tensor, Any, list[Batch]]]" = field(default_factory=deque)

    def watch(self, step: int, batch: list[Batch], *, loss: Tensor, grad_norm: Tensor) -> None:
        """Check a step, now or when its values have arrived.

        Raises:
            FloatingPointError: this step, or one shortly before, is NaN or leaps; the folder with its batch is named.
        """
        # One copy from the GPU for both.
        values = torch.stack([loss.detach().float(), grad_norm.detach().float()])
        arrived = None
        if values.is_cuda:
            values = values.to("cpu", non_blocking=True)
            # The event tells when the copy is done; asking it costs nothing, reading the value would wait.
            arrived = torch.cuda.Event()
            arrived.record()
        self._coming.append((step, values, arrived, batch))
        while self._coming and (self._coming[0][2] is None or self._coming[0][2].query()):
            self._look()

    def settle(self) -> None:
        """Wait for the values of all steps and check them. Raises as `watch` does."""
        while self._coming:
            if (arrived := self._coming[0][2]) is not None:
                arrived.synchronize()
            self._look()

    def state_dict(self) -> dict[str, list[float]]:
        """Return the values that the medians are of."""
        return {name: list(seen) for name, seen in self._seen.items()}

    def load_state_dict(self, state: Mapping[str, list[float]]) -> None:
        """Take up the medians of a run that goes on."""
        self._seen = {name: deque(values, maxlen=REMEMBERED) for name, values in state.items()}

    def _look(self) -> None:
        step, values, _, batch = self._coming.popleft()
        measured: dict[str, float] = dict(zip(("loss", "grad_norm"), values.tolist(), strict=True))
        factors = {"loss": self.loss_factor, "grad_norm": self.grad_factor}
        reasons = {name: self._wrong(name, value, factors[name]) for name, value in measured.items()}
        if wrong := [name for name, reason in reasons.items() if reason]:
            medians = {name: statistics.median(seen) for name, seen in self._seen.items() if seen}
            why = {"step": step, "reason": reasons[wrong[0]], "medians": medians}
            folder = save_batch(self.out / FOLDER / f"step{step:06d}-rank{self.rank}", batch, text=self.text, why=why)
            raise FloatingPointError(
                f"step {step}: {reasons[wrong[0]]}; its batch is in {folder}, where batch.json says what it holds. "
                + self._advice(wrong[0], measured[wrong[0]])
            )
        for name, value in measured.items():
            self._seen.setdefault(name, deque(maxlen=REMEMBERED)).append(value)

    def _advice(self, name: str, value: float) -> str:
        """Return what a resumed run takes (`train/resume.py`): no other learning rate, but other factors."""
        if math.isfinite(value):
            how = f"add --set logging.{name.removesuffix('_norm')}_spike=0 to the same command, which lets it pass"
        else:
            how = "mend the data, if that is at fault, and run the same command again"
        return (
            f"To go on from the last checkpoint, {how}. A lower learning rate takes a new run, from this one's policy: "
            f"--out elsewhere --set init_from={self.out} --set optim.peak_lr=RATE"
        )

    def _wrong(self, name: str, value: float, factor: float) -> str | None:
        words = {"loss": "loss", "grad_norm": "gradient norm"}[name]
        if not math.isfinite(value):
            return f"{words} {value}"
        seen = self._seen.get(name, ())
        # Early losses fall fast and jump about; a median of a few says nothing.
        if not factor or len(seen) < AT_LEAST:
            return None
        median = statistics.median(seen)
        return f"{words} {value:.4g} is over {factor:g} × its median {median:.4g}" if value > factor * median else None


def save_batch(folder: Path, batch: list[Batch], *, text: TextTokenizer, why: dict[str, Any]) -> Path:
    """Write the parts of a batch, and a description of their rows, to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"part{i}.{name}": tensor for i, part in enumerate(batch) for name, tensor in tensors_of(part).items()}
    save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, folder / "batch.safetensors")
    share_file(folder / "batch.safetensors")
    rows = [description | {"part": i} for i, part in enumerate(batch) for description in describe_rows(part, text)]
    readable = {name: str(v) if isinstance(v, float) and not math.isfinite(v) else v for name, v in why.items()}
    write_json(folder / "batch.json", readable | {"rows": rows})
    return folder


def load_batch(folder: Path) -> list[Batch]:
    """Read the parts of a saved batch."""
    tensors = load_file(folder / "batch.safetensors")
    rows = json.loads((folder / "batch.json").read_text())["rows"]
    count = 1 + max(row["part"] for row in rows)
    return [_part(tensors, i, tuple(row["source"] for row in rows if row["part"] == i)) for i in range(count)]


def tensors_of(part: Batch) -> dict[str, Tensor]:
    """Return the tensors of a part by the names that they are saved under."""
    observation = part.observation
    cameras = {f"images.{name}": images for name, images in observation.images.items()}
    masks = {f"image_masks.{name}": mask for name, mask in observation.image_masks.items()}
    words = {name: getattr(observation, name) for name in ("state", "tokens", "token_kinds", "token_loss")}
    return cameras | masks | words | {"actions": part.actions, "action_mask": part.action_mask}


def _part(tensors: dict[str, Tensor], i: int, sources: tuple[str, ...]) -> Batch:
    own = {name.split(".", 1)[1]: tensor for name, tensor in tensors.items() if name.startswith(f"part{i}.")}

    def under(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): tensor for name, tensor in own.items() if name.startswith(prefix)}

    observation = Observation(
        images=under("images."), image_masks=under("image_masks."), state=own["state"], tokens=own["tokens"],
        token_kinds=own["token_kinds"], token_loss=own["token_loss"],
    )  # fmt: skip
    return Batch(observation=observation, actions=own["actions"], action_mask=own["action_mask"], sources=sources)


def describe_rows(part: Batch, text: TextTokenizer) -> list[dict[str, Any]]:
    """Describe each row: its source, its words, and the range of its state and actions."""
    observation = part.observation
    descriptions = []
    for i, source in enumerate(part.sources):
        tokens, kinds = observation.tokens[i].tolist(), observation.token_kinds[i].tolist()
        words = {
            name: text.decode([token for token, k in zip(tokens, kinds, strict=True) if k == kind])
            for name, kind in (("reads", Kind.PREFIX), ("says", Kind.TEXT))
        }
        actions = part.actions[i][part.action_mask[i]].float().cpu().numpy()
        numbers = {
            "state": describe_range(observation.state[i].float().cpu().numpy()),
            "actions": describe_range(actions),
        }
        descriptions.append({"source": source, **words, "fast_tokens": kinds.count(int(Kind.FAST)), **numbers})
    return descriptions


def describe_range(values: np.ndarray) -> dict[str, Any]:
    """Return the smallest and largest of the finite numbers, and how many are not finite."""
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (None, None)
    return {"min": low, "max": high, "not_finite": int(values.size - finite.size)}
