"""What a model of the family is trained by: cross-entropy of what it says, and the error of its flow.

Each loss comes as a sum and a count per row, for a trainer to divide the one by the other over a whole batch: then it
does not depend on padding, on what else is in the batch, or on how many ranks share it. The counts follow from masks
alone, and are the same numbers to the bit whether the model has run or not.

Axes: `b` batch, `l` text tokens, `k` noise draws, `r` rows with actions times their draws, `ah` action horizon, `ad`
action dims.
"""

from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pilot.data.layout import Batch, Kind, Observation
from pilot.models import flow
from pilot.nn.cross_entropy import cross_entropy

if TYPE_CHECKING:
    from pilot.models.pi import Pi, Prefix

Term = tuple[Float[Tensor, " b"], Float[Tensor, " b"]]
"""Sum and count of a loss per row."""

SAID = {"text": Kind.TEXT, "fast": Kind.FAST}


def text_counts(observation: Observation) -> dict[str, Float[Tensor, " b"]]:
    """How many tokens of each kind a row is to say."""
    said, kinds = observation.token_loss[:, 1:], observation.token_kinds[:, 1:]
    return {name: (said & (kinds == kind)).sum(1).float() for name, kind in SAID.items()}


def text_terms(model: "Pi", observation: Observation, context: "Prefix") -> dict[str, Term]:
    """Cross-entropy of the tokens marked in `token_loss`, each from the hidden state of the token before it."""
    row, column = observation.target_positions()
    hidden = context.hidden[row, column - 1]  # [said d]
    nll = cross_entropy(hidden, model.embedding.weight, observation.tokens[row, column])
    kinds = observation.token_kinds[row, column]
    zeros, counts = nll.new_zeros(observation.batch_size), text_counts(observation)
    return {name: (zeros.index_add(0, row, nll * (kinds == kind).float()), counts[name]) for name, kind in SAID.items()}


def flow_counts(batch: Batch, time: Tensor, *, draws: int) -> Float[Tensor, " b"]:
    """How many elements of a row's chunk are sought, on average over its draws."""
    each, _, mask = flow_rows(batch, time, draws=draws)
    zeros = torch.zeros(len(batch.actions), device=batch.actions.device)
    return zeros.index_add(0, each, (mask.sum((1, 2)) / draws).to(zeros.dtype))


def flow_rows(
    batch: Batch, time: Tensor, *, draws: int, at_least_one: bool = False
) -> tuple[Int[Tensor, " r"], Float[Tensor, "r #ah"], Bool[Tensor, "r ah ad"]]:
    """Of each flow block, one per draw and row with actions: the row, its times, and which elements have a loss.

    Actions that are given (at time 0, where each has a time of its own) have none. `at_least_one` takes the first row
    where none has actions.
    """
    rows, action_mask = batch.rows_with_actions(), batch.action_mask
    if at_least_one and not len(rows):
        rows = rows.new_zeros(1)
    each = rows.repeat_interleave(draws)
    time = time[rows].reshape(len(each), -1) if len(rows) else time.new_zeros(0, 1)
    return each, time, action_mask[each] & (time > 0)[..., None] if time.shape[1] > 1 else action_mask[each]


def flow_terms(
    model: "Pi",
    context: "Prefix",
    batch: Batch,
    *,
    noise: Float[Tensor, "b *k ah ad"],
    time: Float[Tensor, "b *k"] | Float[Tensor, "b *k ah"],
    at_least_one: bool = False,
) -> Term:
    """Squared error of the velocity at each noise draw, for the rows that have actions."""
    actions, rows = batch.actions, len(batch.actions)
    draws = noise[0].numel() // actions[0].numel()
    each, time, mask = flow_rows(batch, time, draws=draws, at_least_one=at_least_one)
    if not len(each):
        zeros = actions.new_zeros(rows)
        return zeros, zeros
    noise = noise[each[::draws]].reshape(-1, *actions.shape[1:])
    x_t, u_t = flow.path(actions[each], noise, time)
    state, cache, kinds = batch.observation.state, context.cache, context.kinds
    if len(each) != rows * draws:  # else every row has actions
        action_rows = each[::draws]
        cache = [(k[action_rows], v[action_rows]) for k, v in cache]
    block = model.flow_block(cache, kinds[each], state[each], horizon=x_t.shape[1])
    v_t = model.velocity(block, x_t, model.embed_time(time, model.dtype))
    error, count = ((v_t - u_t).square() * mask).sum((1, 2)) / draws, mask.sum((1, 2)) / draws
    zeros = error.new_zeros(rows)
    return zeros.index_add(0, each, error), zeros.index_add(0, each, count.to(zeros.dtype))
