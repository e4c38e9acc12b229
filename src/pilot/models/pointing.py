"""Looking at a thing while saying where it is: supervision for one attention head, where a small model needs it.

A model trained from scratch must find out at once that words name things, where things are, and how a place is written;
none of the three helps before the others are there, and cross-entropy on `<loc>` tokens stays on a plateau for long. The
released weights come from a pre-trained VLM and need none of this. Here one head is told where to look: the tokens from
which a box is said (`y0 x0 y1 x1`) must attend, in the first head of `point_layer`, to the patches that the box covers.
Nothing is added to the model, and nothing changes when it acts. An addition of pilot's, after `docs/log.md`.

Axes: `b` batch, `n` boxes, `s` backbone tokens, `p` patches.
"""

from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pilot.data.layout import Observation, backbone_mask, token_positions
from pilot.nn.attention import additive_mask, rotary_angles

if TYPE_CHECKING:
    from pilot.models.pi import Context, Pi

LOC_BINS = 1024


def terms(model: "Pi", observation: Observation, context: "Context") -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
    """Sum and count per row of `−log` of the attention that falls inside the box, over the four tokens that say it.

    Boxes are those of the text to be said; they are meant in the picture of the first camera.
    """
    config, layer = model.config, model.config.point_layer
    zeros = context.hidden.new_zeros(observation.batch_size)
    row, first = spoken_boxes(observation, config.loc_start)
    if not len(row) or layer is None:
        return zeros, zeros
    corners = observation.tokens[row[:, None], first[:, None] + torch.arange(4, device=row.device)] - config.loc_start
    pictures = context.kinds.shape[1] - observation.tokens.shape[1]
    speaking = pictures + first[:, None] - 1 + torch.arange(4, device=row.device)  # [n 4]
    weights = attention(model, context, layer=layer, row=row, queries=speaking)  # [n 4 s], logarithms
    inside = covered(corners.float() / LOC_BINS, config.vision.grid)
    patches = weights[:, :, : inside.shape[1]].masked_fill(~inside[:, None], -torch.inf)
    loss = -patches.logsumexp(-1).mean(-1)  # [n]
    return zeros.index_add(0, row, loss), zeros.index_add(0, row, torch.ones_like(loss))


def spoken_boxes(observation: Observation, loc_start: int) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"]]:
    """Row and first token of every box that is to be said."""
    tokens = observation.tokens
    loc = (tokens >= loc_start) & (tokens < loc_start + LOC_BINS) & observation.token_loss
    starts = loc.clone()
    starts[:, 1:] &= ~loc[:, :-1]
    starts[:, -3:] = False  # cut off
    row, first = starts.nonzero(as_tuple=True)
    return row, first


def covered(boxes: Float[Tensor, "n 4"], grid: int) -> Bool[Tensor, "n p"]:
    """Which patches of a square grid a box touches; the one at its centre at least."""
    low = torch.arange(grid, device=boxes.device) / grid
    y0, x0, y1, x1 = (edge[:, None] for edge in boxes.unbind(1))
    rows = (low < torch.maximum(y1, y0 + 1e-3)) & (low + 1 / grid > y0)
    columns = (low < torch.maximum(x1, x0 + 1e-3)) & (low + 1 / grid > x0)
    return (rows[:, :, None] & columns[:, None, :]).flatten(1)


def attention(
    model: "Pi", context: "Context", *, layer: int, row: Int[Tensor, " n"], queries: Int[Tensor, "n q"]
) -> Float[Tensor, "n q s"]:
    """Logarithm of the attention that the first head of a layer pays from some tokens to all."""
    block = model.vlm.blocks[layer]
    x = context.inputs[layer][row[:, None], queries]  # [n q d]
    positions = token_positions(context.kinds)[row[:, None], queries]
    q, _, _ = block.project(block.attention_norm(x, None), rotary_angles(positions, model.config.vlm.head_dim))
    keys = context.cache[layer][0][row, 0]  # [n s h]
    bias = additive_mask(backbone_mask(context.kinds)[row[:, None], queries], x.dtype)[:, 0]
    return torch.log_softmax(q[:, 0] @ keys.mT * q.shape[-1] ** -0.5 + bias, dim=-1)
