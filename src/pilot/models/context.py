"""What one pass of a model hands to the next: the prefix that the backbone has read, and the block that is denoised.

Axes: `b` batch, `s` backbone tokens, `l` text tokens, `t` flow tokens, `d` backbone width, `e` expert width.
"""

from dataclasses import dataclass, field

from jaxtyping import Float, Int
from torch import Tensor

from pilot.nn.attention import KV
from pilot.nn.norms import Modulation


@dataclass(frozen=True, kw_only=True)
class Prefix:
    """The state after a prefill: the cache, the kind of every cached token, and the hidden states of the text.

    `block_inputs` are the tokens [b s d] that entered each block, where they were asked for.
    """

    cache: list[KV]
    kinds: Int[Tensor, "b s"]
    hidden: Float[Tensor, "b l d"]
    block_inputs: list[Tensor] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class FlowBlock:
    """The inputs that the denoising steps of one chunk share: the cache, the state token, and who sees whom."""

    cache: list[KV]
    state: Float[Tensor, "b 1 e"] | None
    attention: dict


@dataclass(frozen=True, kw_only=True)
class TimeCondition:
    """A flow time as the action expert takes it, one for all tokens or one for each; exactly one of the two is set."""

    features: Float[Tensor, "b #t e"] | None = None
    modulations: list[Modulation] | None = None

    def unbind(self) -> list["TimeCondition"]:
        """Return one condition per row, to be broadcast over a batch: the times of all steps are embedded at once."""
        if self.features is not None:
            return [TimeCondition(features=row[None]) for row in self.features]
        assert self.modulations is not None
        # Split into views: no step of the denoising loop has to index on the GPU.
        columns = [[part.split(1) for part in modulation] for modulation in self.modulations]
        steps = range(len(columns[0][0]))
        return [TimeCondition(modulations=[(f[i], s[i], g[i]) for f, s, g in columns]) for i in steps]
