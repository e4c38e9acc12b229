"""Looking at a thing while writing where it is, and naming what is there: supervision that a small model needs.

A model trained from scratch must find out at once that words name things, where things are, and how a position is
written; none of the three helps before the others are there, and cross-entropy on `<loc>` tokens stays on a plateau for
long. The released weights come from a pre-trained VLM and need none of this. Here one head is told where to look: the
tokens from which a box is predicted (`y0 x0 y1 x1`) must attend, in the first head of `point_layer`, to the patches
that the box covers. Nothing is added to the model, and nothing changes when it acts. An addition of pilot's, after
`docs/log.md`.

Boxes are those of the target text; they are positions in the picture of the first camera.

Axes: `b` batch, `n` boxes, `w` words, `q` queries, `s` backbone tokens, `p` patches, `d` width, `v` vocabulary.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pilot.data.layout import Kind, Observation, backbone_mask, token_positions
from pilot.models.context import Prefix
from pilot.models.losses import Term
from pilot.nn.attention import additive_mask, rotary_angles
from pilot.nn.gemma import GemmaBlock
from pilot.tokenizers.text import LOC_BINS

NUM_QUERIES = 6  # the tokens from which y0, x0, y1, x1 and the two words after them are predicted
MAX_WORDS = 6  # of a phrase, such as "pick up the red cup"


def count_boxes(observation: Observation, loc_start: int) -> Float[Tensor, " b"]:
    """Count the boxes in the target text of each row."""
    row, _ = find_boxes(observation, loc_start)
    return torch.bincount(row, minlength=observation.batch_size).float()


def pointing_terms(
    observation: Observation, prefix: Prefix, block: GemmaBlock, *, layer: int, loc_start: int, grid: int
) -> Term:
    """Sum `−log` of the attention that falls inside each box, the mean over the tokens that predict it.

    `block` is the backbone's `layer`, `grid` the patches along a side of a picture. The count is that of boxes.
    """
    zeros = prefix.hidden.new_zeros(observation.batch_size)
    row, first = find_boxes(observation, loc_start)
    if not len(row):
        return zeros, zeros
    # 1) The patches that each box covers.
    inside = covers(box_edges(observation, row, first, loc_start), grid)
    # 2) The tokens that predict the box; a token's logits come from the token before it.
    num_patches = prefix.kinds.shape[1] - observation.tokens.shape[1]
    queries = num_patches + first[:, None] - 1 + torch.arange(NUM_QUERIES, device=row.device)  # [n q]
    # A box at the very end has no two words behind it; its last tokens count again.
    queries = queries.clamp(max=prefix.kinds.shape[1] - 1)
    # 3) The share of their attention that lands on these patches.
    weights = log_attention(block, prefix, layer=layer, row=row, queries=queries)  # [n q s]
    patches = weights[:, :, : inside.shape[1]].masked_fill(~inside[:, None], -torch.inf)
    # The sum over the box, not each patch: where in the box it looks is the model's own choice.
    return _sum_by_row(zeros, row, -patches.logsumexp(-1).mean(-1))


def log_attention(
    block: GemmaBlock, prefix: Prefix, *, layer: int, row: Int[Tensor, " n"], queries: Int[Tensor, "n q"]
) -> Float[Tensor, "n q s"]:
    """Return the logarithm of the attention that the first head of a layer pays from some tokens to all."""
    # The attention kernel does not return its weights, so this one head is computed again, for a few queries.
    x = prefix.block_inputs[layer][row[:, None], queries]  # [n q d]
    positions = token_positions(prefix.kinds)[row[:, None], queries]
    q, _, _ = block.project(block.attention_norm(x, None), rotary_angles(positions, block.config.head_dim))
    keys = prefix.cache[layer][0][row, 0]  # [n s h]
    bias = additive_mask(backbone_mask(prefix.kinds)[row[:, None], queries], x.dtype)[:, 0]
    return torch.log_softmax(q[:, 0] @ keys.mT * q.shape[-1] ** -0.5 + bias, dim=-1)


def count_seen(observation: Observation, loc_start: int, *, losses: frozenset[str]) -> dict[str, Float[Tensor, " b"]]:
    """Return the counts of `seeing_terms`, from the tokens alone."""
    counts = {"name": count_named_boxes(observation, loc_start)}
    return counts | ({"place": count_boxes(observation, loc_start)} if "place" in losses else {})


def seeing_terms(
    observation: Observation,
    patches: Float[Tensor, "b p d"],
    logits: Callable[[Tensor], Tensor],
    *,
    losses: frozenset[str],
    loc_start: int,
    grid: int,
) -> dict[str, Term]:
    """Return the losses that reach the vision tower directly: "name", and "place" if it is asked for.

    The mean of the vision tower's tokens in a box, each by how much of it the box covers, is scored by the text head
    (`logits`). "name": it must predict the bag of words that follows the box, what the vision tower of a pre-trained
    VLM has learned from captions; the count is that of boxes with words. "place": it must predict the four edges, for
    naming pays for forgetting where a thing is, and without that no model above the tower can write its box; the count
    is that of boxes.
    """
    zeros = patches.new_zeros(observation.batch_size)
    row, first = find_boxes(observation, loc_start)
    # Without boxes the sums are 0 and still depend on the tower: where these are the only losses, backward needs a way.
    region = mean_tokens(patches, row, box_edges(observation, row, first, loc_start), grid)  # [n d]

    words, is_word = following_words(observation, row, first, loc_start)  # [n w]
    named = is_word.any(1)
    log_probs = torch.log_softmax(logits(region[named]), dim=-1).gather(1, words[named])
    share = is_word[named].float()
    terms = {"name": _sum_by_row(zeros, row[named], -(log_probs * share).sum(1) / share.sum(1))}

    if "place" in losses:
        edges = box_tokens(observation, row, first)  # [n 4]
        # Rotated by another fifth of the channels for each edge, so that the name and the four edges can be told apart
        # without weights of their own.
        turned = torch.stack([region.roll(i * region.shape[1] // 5, -1) for i in range(1, 5)], dim=1)  # [n 4 d]
        log_probs = torch.log_softmax(logits(turned), dim=-1).gather(2, edges[:, :, None])[:, :, 0]
        terms["place"] = _sum_by_row(zeros, row, -log_probs.mean(1))
    return terms


def _sum_by_row(zeros: Float[Tensor, " b"], row: Int[Tensor, " n"], loss: Float[Tensor, " n"]) -> Term:
    """Sum the losses of the boxes in each row, and count them."""
    return zeros.index_add(0, row, loss), zeros.index_add(0, row, torch.ones_like(loss))


def count_named_boxes(observation: Observation, loc_start: int) -> Float[Tensor, " b"]:
    """Count the boxes in the target text of each row that are followed by words."""
    row, first = find_boxes(observation, loc_start)
    _, is_word = following_words(observation, row, first, loc_start)
    return torch.bincount(row[is_word.any(1)], minlength=observation.batch_size).float()


def mean_tokens(
    patches: Float[Tensor, "b p d"], row: Int[Tensor, " n"], boxes: Float[Tensor, "n 4"], grid: int
) -> Float[Tensor, "n d"]:
    """Return the mean of the tokens in each box, each by how much of the box lies in its patch."""
    weight = overlap(boxes, grid)
    return (weight[:, None] @ patches[row, : weight.shape[1]])[:, 0]


def find_boxes(observation: Observation, loc_start: int) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"]]:
    """Return the row and the first token of every box in the target text."""
    tokens = observation.tokens
    loc = (tokens >= loc_start) & (tokens < loc_start + LOC_BINS) & observation.token_loss
    starts = loc.clone()
    # The first of a run of `<loc>` tokens.
    starts[:, 1:] &= ~loc[:, :-1]
    starts[:, -3:] = False  # the token budget cut the box off
    row, first = starts.nonzero(as_tuple=True)
    return row, first


def box_edges(observation: Observation, row: Tensor, first: Tensor, loc_start: int) -> Float[Tensor, "n 4"]:
    """Return boxes as `y0 x0 y1 x1` in [0, 1]."""
    return (box_tokens(observation, row, first) - loc_start).float() / LOC_BINS


def box_tokens(observation: Observation, row: Tensor, first: Tensor) -> Int[Tensor, "n 4"]:
    """Return the four `<loc>` tokens of each box."""
    return observation.tokens[row[:, None], first[:, None] + torch.arange(4, device=row.device)]


def following_words(
    observation: Observation, row: Tensor, first: Tensor, loc_start: int
) -> tuple[Int[Tensor, "n w"], Bool[Tensor, "n w"]]:
    """Return the `MAX_WORDS` tokens after each box, and which of them are its words.

    Its words end at the next box or at the end of the text.
    """
    columns = first[:, None] + 4 + torch.arange(MAX_WORDS, device=row.device)
    exists = columns < observation.tokens.shape[1]
    columns = columns.clamp(max=observation.tokens.shape[1] - 1)
    words = observation.tokens[row[:, None], columns]
    loc = (words >= loc_start) & (words < loc_start + LOC_BINS)
    text = observation.token_kinds[row[:, None], columns] == Kind.TEXT
    # The product ends at the first token that is no word of this box.
    return words, (exists & text & ~loc).cumprod(1).bool()


def covers(boxes: Float[Tensor, "n 4"], grid: int) -> Bool[Tensor, "n p"]:
    """Return which patches of a square grid each box touches; the one at its centre at least."""
    return overlap(boxes, grid) > 0


def overlap(boxes: Float[Tensor, "n 4"], grid: int) -> Float[Tensor, "n p"]:
    """Return how much of each box lies in each patch of a square grid, in shares that sum to 1."""
    low = torch.arange(grid, device=boxes.device) / grid
    y0, x0, y1, x1 = (edge[:, None] for edge in boxes.unbind(1))
    # A box of no height still has its row: the edge is moved by a thousandth of the picture.
    rows = (torch.minimum(low + 1 / grid, torch.maximum(y1, y0 + 1e-3)) - torch.maximum(low, y0)).clamp(min=0)
    columns = (torch.minimum(low + 1 / grid, torch.maximum(x1, x0 + 1e-3)) - torch.maximum(low, x0)).clamp(min=0)
    shares = (rows[:, :, None] * columns[:, None, :]).flatten(1)
    return shares / shares.sum(1, keepdim=True).clamp(min=1e-12)
