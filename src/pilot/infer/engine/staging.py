"""Inputs on their way from the host to fixed places on a GPU, through pinned memory: the host waits for nothing."""

from collections.abc import Sequence

import torch
from torch import Tensor


class Staging:
    """Pinned copies, one for each place. `wait` before the first `upload` of a round and `mark` after the last."""

    def __init__(self) -> None:
        self.pinned: dict[int, Tensor] = {}
        self.copied: torch.cuda.Event | None = None

    def wait(self) -> None:
        """Wait until the device has taken what was uploaded last."""
        if self.copied is not None:
            self.copied.synchronize()

    def upload(self, place: Tensor, parts: Sequence[Tensor]) -> None:
        """Write `parts` to `place`, one behind the other along the first axis."""
        pins = place.is_cuda and all(part.device.type == "cpu" for part in parts)
        target = self.pinned_copy(place) if pins else place
        for part, own in zip(parts, target.split([len(part) for part in parts]), strict=True):
            own.copy_(part)
        if pins:
            place.copy_(target, non_blocking=True)

    def mark(self) -> None:
        """Record when the copies launched so far are done, so that pinned memory may be written again."""
        if self.pinned:
            self.copied = self.copied or torch.cuda.Event()
            self.copied.record()

    def pinned_copy(self, place: Tensor) -> Tensor:
        """Return the pinned memory that belongs to a place on the GPU, made at its first use."""
        if place.data_ptr() not in self.pinned:
            self.pinned[place.data_ptr()] = torch.empty_like(place, device="cpu", pin_memory=True)
        return self.pinned[place.data_ptr()]
