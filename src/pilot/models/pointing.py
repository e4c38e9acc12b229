"""Looking at a thing while saying where it is, and naming what is there: supervision that a small model needs.

A model trained from scratch must find out at once that words name things, where things are, and how a place is
written; none of the three helps before the others are there, and cross-entropy on `<loc>` tokens stays on a plateau for
long. The released weights come from a pre-trained VLM and need none of this. Here one head is told where to look: the
tokens from which a box is said (`y0 x0 y1 x1`) must attend, in the first head of `point_layer`, to the patches that the
box covers. Nothing is added to the model, and nothing changes when it acts. An addition of pilot's, after
`docs/log.md`.

Axes: `b` batch, `n` boxes, `w` words, `s` backbone tokens, `p` patches.
"""

from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pilot.data.layout import Kind, Observation, backbone_mask, token_positions
from pilot.nn.attention import additive_mask, rotary_angles
from pilot.tokenizers.text import LOC_BINS

if TYPE_CHECKING:
    from pilot.models.pi import Pi, Prefix

SPEAKING = 6  # the tokens from which y0, x0, y1, x1 and the two words after them are said
WORDS = 6  # of a phrase, such as "pick up the red cup"


def terms(model: "Pi", observation: Observation, context: "Prefix") -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
    """Sum and count per row of `−log` of the attention inside the box, over the tokens that say it and its first words.

    Boxes are those of the text to be said; they are meant in the picture of the first camera.
    """
    config, layer = model.config, model.config.point_layer
    zeros = context.hidden.new_zeros(observation.batch_size)
    row, first = spoken_boxes(observation, config.loc_start)
    if not len(row) or layer is None:
        return zeros, zeros
    inside = covered(corners(observation, row, first, config.loc_start), config.vision.grid)
    pictures = context.kinds.shape[1] - observation.tokens.shape[1]
    speaking = pictures + first[:, None] - 1 + torch.arange(SPEAKING, device=row.device)  # [n q]
    speaking = speaking.clamp(max=context.kinds.shape[1] - 1)
    weights = attention(model, context, layer=layer, row=row, queries=speaking)  # [n q s], logarithms
    patches = weights[:, :, : inside.shape[1]].masked_fill(~inside[:, None], -torch.inf)
    loss = -patches.logsumexp(-1).mean(-1)  # [n]
    return zeros.index_add(0, row, loss), zeros.index_add(0, row, torch.ones_like(loss))


def counts(loc_start: int, observation: Observation) -> Float[Tensor, " b"]:
    """How many boxes a row is to say."""
    row, _ = spoken_boxes(observation, loc_start)
    return torch.bincount(row, minlength=observation.batch_size).float()


def naming_counts(loc_start: int, observation: Observation) -> Float[Tensor, " b"]:
    """How many boxes with words behind them a row is to say."""
    row, first = spoken_boxes(observation, loc_start)
    _, said = following_words(observation, row, first, loc_start)
    return torch.bincount(row[said.any(1)], minlength=observation.batch_size).float()


def naming_terms(
    model: "Pi", observation: Observation, pictures: Float[Tensor, "b p d"]
) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
    """Sum and count per row of the cross-entropy of the words said of a box, from its patches alone.

    The mean of the vision tower's tokens in a box, each by how much of it the box covers, is scored against the
    embedding table and must predict the bag of words that follows the box: what the vision tower of a pre-trained VLM
    has learned from captions.
    """
    config = model.config
    zeros = pictures.new_zeros(observation.batch_size)
    row, first = spoken_boxes(observation, config.loc_start)
    words, said = following_words(observation, row, first, config.loc_start)
    keep = said.any(1)
    row, first, words, said = row[keep], first[keep], words[keep], said[keep].float()
    if not len(row):
        return zeros, zeros
    weight = overlap(corners(observation, row, first, config.loc_start), config.vision.grid)
    patches = pictures[row, : weight.shape[1]]  # [n p d]
    region = (weight[:, None] @ patches)[:, 0]  # [n d]
    likely = torch.log_softmax(model.logits(region), dim=-1).gather(1, words)  # [n w]
    loss = -(likely * said).sum(1) / said.sum(1)
    return zeros.index_add(0, row, loss), zeros.index_add(0, row, torch.ones_like(loss))


def corners(observation: Observation, row: Tensor, first: Tensor, loc_start: int) -> Float[Tensor, "n 4"]:
    """Boxes `y0 x0 y1 x1` in [0, 1] from their tokens."""
    tokens = observation.tokens[row[:, None], first[:, None] + torch.arange(4, device=row.device)]
    return (tokens - loc_start).float() / LOC_BINS


def following_words(
    observation: Observation, row: Tensor, first: Tensor, loc_start: int
) -> tuple[Int[Tensor, "n w"], Bool[Tensor, "n w"]]:
    """The tokens after each box and which of them are its words.

    Words go up to the next box, the end of the text, or `WORDS`.
    """
    places = first[:, None] + 4 + torch.arange(WORDS, device=row.device)
    inside = places < observation.tokens.shape[1]
    places = places.clamp(max=observation.tokens.shape[1] - 1)
    words = observation.tokens[row[:, None], places]
    loc = (words >= loc_start) & (words < loc_start + LOC_BINS)
    text = observation.token_kinds[row[:, None], places] == Kind.TEXT
    return words, (inside & text & ~loc).cumprod(1).bool()


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
    return overlap(boxes, grid) > 0


def overlap(boxes: Float[Tensor, "n 4"], grid: int) -> Float[Tensor, "n p"]:
    """How much of a box lies in each patch of a square grid, in shares that sum to 1."""
    low = torch.arange(grid, device=boxes.device) / grid
    y0, x0, y1, x1 = (edge[:, None] for edge in boxes.unbind(1))
    rows = (torch.minimum(low + 1 / grid, torch.maximum(y1, y0 + 1e-3)) - torch.maximum(low, y0)).clamp(min=0)
    columns = (torch.minimum(low + 1 / grid, torch.maximum(x1, x0 + 1e-3)) - torch.maximum(low, x0)).clamp(min=0)
    shares = (rows[:, :, None] * columns[:, None, :]).flatten(1)
    return shares / shares.sum(1, keepdim=True).clamp(min=1e-12)


def attention(
    model: "Pi", context: "Prefix", *, layer: int, row: Int[Tensor, " n"], queries: Int[Tensor, "n q"]
) -> Float[Tensor, "n q s"]:
    """Logarithm of the attention that the first head of a layer pays from some tokens to all."""
    block = model.vlm.blocks[layer]
    x = context.inputs[layer][row[:, None], queries]  # [n q d]
    positions = token_positions(context.kinds)[row[:, None], queries]
    q, _, _ = block.project(block.attention_norm(x, None), rotary_angles(positions, model.config.vlm.head_dim))
    keys = context.cache[layer][0][row, 0]  # [n s h]
    bias = additive_mask(backbone_mask(context.kinds)[row[:, None], queries], x.dtype)[:, 0]
    return torch.log_softmax(q[:, 0] @ keys.mT * q.shape[-1] ** -0.5 + bias, dim=-1)
