"""RMS norms, plain and adaptive. Statistics and scales are computed in fp32, as in openpi.

Axes: `b` batch, `t` token, `d` width, `c` width of the condition.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

EPS = 1e-6


def rms_normalize(x: Float[Tensor, "b t d"], eps: float = EPS) -> Float[Tensor, "b t d"]:
    """Divide by the root mean square over the last axis, in fp32: `x / sqrt(mean(x²) + eps)`."""
    x = x.float()
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)


Modulation = tuple[Tensor, Tensor, Tensor]
"""Factor, shift and residual gate of one adaptive norm, each [b #t d]."""


class RMSNorm(nn.Module):
    """Gemma's RMS norm: it scales by `1 + weight`, and the weight starts at zero."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))

    def forward(self, x: Float[Tensor, "b t d"], modulation: None = None) -> Float[Tensor, "b t d"]:
        """Return the normalised input times 1 + weight, in the dtype of the input."""
        return (rms_normalize(x) * (1 + self.weight.float())).to(x.dtype)


class AdaRMSNorm(nn.Module):
    """RMS norm whose scale, shift and residual gate come from a condition (π0.5: the flow time).

    `norm(x) * (1 + scale) + shift`; the gate is for the residual branch that follows. Zero-initialised, so that at the
    start the norm is plain and the branch is closed. Source: π0.5 (arXiv 2504.16054), appendix E.
    """

    def __init__(self, width: int, cond_width: int) -> None:
        super().__init__()
        self.modulation = nn.Linear(cond_width, 3 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def modulate(self, cond: Float[Tensor, "b #t c"]) -> Modulation:
        """Return what a condition makes of this norm."""
        scale, shift, gate = self.modulation(cond).float().chunk(3, dim=-1)
        # The 1 is added once for all tokens, not at every use.
        return 1 + scale, shift, gate

    def forward(self, x: Float[Tensor, "b t d"], modulation: Modulation) -> Float[Tensor, "b t d"]:
        """Return the normalised input, scaled and shifted by the condition; the gate is for the caller."""
        factor, shift, _ = modulation
        return torch.addcmul(shift, rms_normalize(x), factor).to(x.dtype)
