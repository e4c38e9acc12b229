"""What the fast engine carries from one call to the next: what is prefilled, and what changes with each new token.

Axes: `b` batch, `s` cache slots, `d` backbone width, `e` expert width, `ad` action dims, `r` rows of actions.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from pilot.data.layout import Kind
from pilot.infer.engine.stack import Cache, NormScale
from pilot.nn.attention import KV

DecodeStep = Callable[[Tensor, int], None]
"""Takes in a token [b] of each row at a slot."""


@dataclass(frozen=True, kw_only=True)
class PrefillState:
    """The cache of pictures and text, and of what has been generated behind them.

    `kinds` are those of all slots, PAD where nothing is. `hidden` is that of each row's last token, if there is room to
    generate. `ragged` says that rows differ in length, `fast` that FAST tokens are among them: the flow block must be
    kept from some slots. The state after `FastEngine.generate` shares its cache with the one before and writes behind
    it: go on from one state once.
    """

    cache: Cache
    kinds: Int[Tensor, "b s"]
    length: int
    hidden: Float[Tensor, "b d"] | None
    ragged: bool
    fast: bool

    @property
    def batch_size(self) -> int:
        """The number of rows."""
        return self.kinds.shape[0]

    @property
    def cache_and_kinds(self) -> tuple[list[KV], Int[Tensor, "b s"]]:
        """Keys and values of each layer, as the plain model would have them, and the kinds of their slots."""
        keys, values = (part[:, :, :, : self.length] for part in (self.cache.keys, self.cache.values))
        return list(zip(keys.unbind(0), values.unbind(0), strict=True)), self.filled

    @property
    def filled(self) -> Int[Tensor, "b s"]:
        """The kinds of the slots that are in use."""
        return self.kinds[:, : self.length]


@dataclass(frozen=True, kw_only=True)
class PrefillPlan:
    """The pictures of each vision tower, and the order of all tokens in the cache; known before anything is computed.

    `calls` are the towers, with the pictures that each takes in one go: cameras, and the rows that have them. `rows`
    are the indices of each row's tokens, moved together, among all patches and then all text tokens; `kinds` are
    theirs.
    """

    calls: list[tuple[nn.Module, dict[str, list[int]]]]
    rows: list[list[int]]
    kinds: list[list[int]]

    @property
    def length(self) -> int:
        """The number of slots that the longest row takes."""
        return max(map(len, self.rows))

    @property
    def ragged(self) -> bool:
        """Whether rows differ in length."""
        return len(set(map(len, self.rows))) > 1

    @property
    def causal(self) -> bool:
        """Whether some tokens see only what comes before them."""
        return any(kind != Kind.PREFIX for row in self.kinds for kind in row)

    @property
    def fast(self) -> bool:
        """Whether FAST tokens are among them."""
        return any(Kind.FAST in row for row in self.kinds)

    def tensors(self, length: int, device: torch.device) -> tuple[Int[Tensor, "b s"], Int[Tensor, "b s"]]:
        """Return `rows` and `kinds` with padding up to `length`, which no mask lets anybody see."""
        assert int(Kind.PAD) == 0

        def pad_rows(rows: list[list[int]]) -> Tensor:
            return torch.tensor([row + [0] * (length - len(row)) for row in rows], device=device)

        return pad_rows(self.rows), pad_rows(self.kinds)


@dataclass(frozen=True, kw_only=True)
class DecodeState:
    """The tensors that change in place with every new token."""

    hidden: Float[Tensor, "b d"]
    kinds: Int[Tensor, "b s"]
    bias: Float[Tensor, "b 1 1 s"] | None
    finished: Bool[Tensor, " b"]
    positions: Int[Tensor, "b 1"]


@dataclass(frozen=True, kw_only=True)
class DenoisePlan:
    """Constants of a chunk's denoising: they follow from the weights, the number of steps and the solver alone.

    `norms` of each evaluation. For π0, noisy actions and time go into an MLP side by side: its first layer is taken
    apart into `mixing`, which takes the actions, and the `time_bias` of each evaluation. Where some actions are given
    (`FastEngine.with_given_actions`), every row of actions has norms and bias of its own.
    """

    norms: list[list[NormScale]]
    mixing: Float[Tensor, "e ad"] | None = None
    time_bias: tuple[Float[Tensor, "*r e"], ...] = ()
