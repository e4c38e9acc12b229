"""π0-FAST with the mistakes of openpi's decoding, each behind a switch, to reproduce its numbers.

`Pi.generate_text(…, kind=Kind.FAST)` does it right, and so does `generate` here with all switches off. Weights trained
by openpi are none the worse for that: its training makes none of these mistakes, its sampling departs from it.

Axes: `b` batch, `n` said tokens, `s` backbone tokens, `l` text tokens, `d` width, `v` vocabulary.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from pilot.data.layout import Kind, Observation, backbone_mask, token_positions
from pilot.models.pi import Pi
from pilot.nn.attention import KV


@dataclass(frozen=True, kw_only=True)
class FastQuirks:
    """What openpi's π0-FAST does differently.

    `late_positions`: token `k` that is said stands one position later than the same token did in training.
    `shifted_window`: with a masked camera, a said token sees as many of the first prefix tokens too few as there are
    masked ones, and the masked ones instead, which have read everything and the empty cache.
    `stop_together`: all stop once every row says `eos` in the same step; until then rows go on behind their own.
    `counted_masks`: in training, masked cameras and padding take positions.
    """

    late_positions: bool = False
    shifted_window: bool = False
    stop_together: bool = False
    counted_masks: bool = False


OPENPI = FastQuirks(late_positions=True, shifted_window=True, stop_together=True, counted_masks=True)


def embed(model: Pi, observation: Observation) -> tuple[Float[Tensor, "b s d"], Int[Tensor, "b s"]]:
    """All tokens and their kinds; masked cameras are embedded too."""
    masks = observation.image_masks
    images, _ = model.embed_images(replace(observation, image_masks={n: torch.ones_like(m) for n, m in masks.items()}))
    each = images.shape[1] // len(masks)  # openpi has all cameras in one size
    shown = torch.stack([masks[name] for name in observation.images], dim=1).repeat_interleave(each, dim=1)
    kinds = torch.cat((shown * int(Kind.PREFIX), observation.token_kinds), dim=1)
    return torch.cat((images, model.embed_text(observation)), dim=1), kinds


def loss(model: Pi, observation: Observation, *, quirks: FastQuirks = OPENPI) -> Float[Tensor, " b"]:
    """The mean cross-entropy of each row's FAST tokens."""
    x, kinds = embed(model, observation)
    positions = torch.arange(x.shape[1]).expand(len(x), -1) if quirks.counted_masks else token_positions(kinds)
    attention = model.attention_inputs(positions.to(x.device), backbone_mask(kinds), x.dtype)
    h, _ = model.vlm(x, **attention, tail=observation.tokens.shape[1])
    row, column = observation.target_positions()
    logits = model.logits(h[row, column - 1]).float()
    nll = functional.cross_entropy(logits, observation.tokens[row, column], reduction="none")
    zeros = nll.new_zeros(observation.batch_size)
    return zeros.index_add(0, row, nll) / zeros.index_add(0, row, torch.ones_like(nll)).clamp(min=1)


@torch.no_grad()
def generate(
    model: Pi, observation: Observation, *, eos: int, max_tokens: int, quirks: FastQuirks = OPENPI
) -> tuple[Int[Tensor, "b n"], Float[Tensor, "b n v"]]:
    """The tokens said greedily after the prompt, and the logits of which each is the largest."""
    x, kinds = embed(model, observation)
    cache, hidden = prefill(model, x, kinds, empty=max_tokens if quirks.shifted_window else 0)
    length, seen = kinds.shape[1], kinds.count_nonzero(dim=1)[:, None]
    visible = window(kinds) if quirks.shifted_window else kinds != Kind.PAD
    finished = torch.zeros_like(seen[:, 0], dtype=torch.bool)
    said, scores = [], []
    for step in range(max_tokens):
        scores.append(model.logits(hidden))
        token = scores[-1].argmax(-1).masked_fill(finished, 0)
        said.append(token)
        ends = token == eos
        finished = torch.zeros_like(finished) if quirks.stop_together else finished | ends
        if (ends if quirks.stop_together else finished).all():
            break
        mask = torch.cat((visible, visible.new_ones(len(visible), step + 1)), dim=1)[:, None]
        attention = model.attention_inputs(seen + step + int(quirks.late_positions), mask, x.dtype)
        h, cache = model.vlm(model.embed_tokens(token[:, None]), **attention, past=cache)
        hidden = h[:, 0]
    assert cache[0][0].shape[2] <= length + max_tokens
    return torch.stack(said, dim=1), torch.stack(scores, dim=1)


def prefill(
    model: Pi, x: Float[Tensor, "b s d"], kinds: Int[Tensor, "b s"], *, empty: int
) -> tuple[list[KV], Float[Tensor, "b d"]]:
    """The cache of the prefix, and the hidden state of each row's last token.

    `empty` cache slots are there to be read by tokens that see nothing, who average over all slots.
    """
    config = model.config.vlm
    shape = (len(x), config.num_kv_heads, empty, config.head_dim)
    past = [(x.new_zeros(shape), x.new_zeros(shape)) for _ in range(config.depth)]
    mask = backbone_mask(kinds)
    mask = torch.cat((mask.new_zeros(*mask.shape[:2], empty), mask), dim=2)
    h, cache = model.vlm(x, **model.attention_inputs(token_positions(kinds), mask, x.dtype), past=past)
    last = ends_of(kinds) - 1
    return [(k[:, :, empty:], v[:, :, empty:]) for k, v in cache], h[torch.arange(len(h)), last]


def ends_of(kinds: Int[Tensor, "b s"]) -> Int[Tensor, " b"]:
    """One behind each row's last token."""
    order = torch.arange(1, kinds.shape[1] + 1, device=kinds.device)
    return ((kinds != Kind.PAD) * order).amax(1)


def window(kinds: Int[Tensor, "b s"]) -> Bool[Tensor, "b s"]:
    """What openpi's said tokens see of the prefix: as many slots as it has tokens, counted back from its end."""
    end = ends_of(kinds)[:, None]
    order = torch.arange(kinds.shape[1], device=kinds.device)[None]
    return (order >= end - kinds.count_nonzero(dim=1)[:, None]) & (order < end)
