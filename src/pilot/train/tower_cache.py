"""What a frozen vision tower makes of each picture, kept in memory: demonstrations show the same pictures many times.

A robot's pictures are recorded a few times a second and each of its frames is a row, so that a long run sees each
picture dozens of times. The tower, its convolutions above all, is most of what a row costs a small model on a CPU.
"""

from collections import OrderedDict
from hashlib import blake2b
from threading import Lock

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pilot.nn.siglip import Siglip


def cache_towers(model: nn.Module, *, gigabytes: float) -> None:
    """Let the frozen vision towers of a model keep their tokens of pictures, up to `gigabytes` in all."""
    vision = model.get_submodule("vision")
    towers = [tower for tower in vision.modules() if isinstance(tower, Siglip)]
    for tower in towers:
        tower.forward = TowerCache(tower, most_bytes=int(gigabytes * 1e9) // len(towers))


class TowerCache:
    """Calls a tower for pictures that are new, or that came so long ago that their tokens had to make room."""

    def __init__(self, tower: Siglip, *, most_bytes: int) -> None:
        self.compute, self.most_bytes = tower.forward, most_bytes
        self.kept: OrderedDict[bytes, Tensor] = OrderedDict()  # the longest unused first
        self.bytes, self.computed = 0, 0
        self.lock = Lock()  # parts of a batch come in threads

    @torch.no_grad()
    def __call__(self, images: Float[Tensor, "b h w 3"]) -> Float[Tensor, "b p o"]:
        """Return the tokens of each picture's patches."""
        return torch.stack([self.tokens_of(image) for image in images])

    def tokens_of(self, image: Float[Tensor, "h w 3"]) -> Float[Tensor, "p o"]:
        """Return the tokens of one picture."""
        key = blake2b(image.contiguous().numpy().data, digest_size=16).digest()
        with self.lock:
            if key in self.kept:
                self.kept.move_to_end(key)
                return self.kept[key]
        # By itself, so that sums are rounded alike whenever it is computed: a run that goes on is the same to the bit.
        tokens = self.compute(image[None])[0]
        with self.lock:
            self.computed += 1
            self.bytes += 0 if key in self.kept else tokens.nbytes
            self.kept[key] = tokens
            while self.bytes > self.most_bytes:
                self.bytes -= self.kept.popitem(last=False)[1].nbytes
        return tokens
