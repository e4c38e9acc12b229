"""The two losses of the family: cross-entropy of the tokens that are written, and the squared error of the flow.

Each loss comes as a sum and a count per row. The trainer divides the one by the other over a whole batch, so a loss
does not depend on padding, on what else is in the batch, or on how many ranks share it. The counts follow from masks
alone, and are the same numbers to the bit whether the model has run or not.

Nothing here runs a model: `Pi.loss_terms` does, and hands over the cross-entropy of tokens and the velocities.

Axes: `b` batch, `n` target tokens, `k` noise draws, `r` chunks (rows with actions times their draws), `ah` action
horizon, `ad` action dims.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pilot.data.layout import Batch, Kind, Observation

Term = tuple[Float[Tensor, " b"], Float[Tensor, " b"]]
"""Sum and count of a loss per row."""

TEXT_LOSSES = {"text": Kind.TEXT, "fast": Kind.FAST}
"""The losses of the text head, and the kind of token that each is about."""


def count_targets(observation: Observation) -> dict[str, Float[Tensor, " b"]]:
    """Count the target tokens of each row, by loss."""
    # The first token has none before it that could predict it.
    is_target, kinds = observation.token_loss[:, 1:], observation.token_kinds[:, 1:]
    return {name: (is_target & (kinds == kind)).sum(1).float() for name, kind in TEXT_LOSSES.items()}


def text_terms(observation: Observation, nll: Float[Tensor, " n"]) -> dict[str, Term]:
    """Sum the cross-entropy of each row's target tokens, by loss; `nll` is that of `observation.target_positions()`."""
    row, column = observation.target_positions()
    kinds = observation.token_kinds[row, column]
    zeros, counts = nll.new_zeros(observation.batch_size), count_targets(observation)
    return {
        name: (zeros.index_add(0, row, nll * (kinds == kind).float()), counts[name])
        for name, kind in TEXT_LOSSES.items()
    }


@dataclass(frozen=True, kw_only=True)
class FlowChunks:
    """The chunks of a batch that are denoised: one for each noise draw of each row with actions.

    `row` is the row of the batch, `time` its flow time or that of each action, `mask` which elements have a loss.
    """

    row: Int[Tensor, " r"]
    time: Float[Tensor, "r #ah"]
    mask: Bool[Tensor, "r ah ad"]
    num_draws: int


def flow_chunks(batch: Batch, time: Tensor, *, num_draws: int, at_least_one: bool = False) -> FlowChunks:
    """Find the chunks to denoise; `time` is [b *k] or, where actions may be given, [b *k ah].

    A given action is at time 0 and has no loss. `at_least_one` takes the first row where none has actions.
    """
    rows = batch.rows_with_actions()
    if at_least_one and not len(rows):
        # Ranks that share the expert's weights gather them together: one without actions has to take part. The mask is
        # False all over, so this row adds 0.
        rows = rows.new_zeros(1)
    row = rows.repeat_interleave(num_draws)
    time = time[rows].reshape(len(row), -1) if len(rows) else time.new_zeros(0, 1)
    mask = batch.action_mask[row]
    if time.shape[1] > 1:
        # The robot is committed to actions at time 0 (real-time chunking): they are shown, not learned.
        mask = mask & (time > 0)[..., None]
    return FlowChunks(row=row, time=time, mask=mask, num_draws=num_draws)


def count_flow_elements(batch: Batch, time: Tensor, *, num_draws: int) -> Float[Tensor, " b"]:
    """Count the action elements of each row that have a loss, the mean over its draws."""
    chunks = flow_chunks(batch, time, num_draws=num_draws)
    zeros = torch.zeros(len(batch.actions), device=batch.actions.device)
    return zeros.index_add(0, chunks.row, (chunks.mask.sum((1, 2)) / num_draws).to(zeros.dtype))


def flow_terms(
    chunks: FlowChunks, v_t: Float[Tensor, "r ah ad"], u_t: Float[Tensor, "r ah ad"], *, batch_size: int
) -> Term:
    """Sum the squared error of the velocity over the elements of each row that have a loss, the mean over its draws."""
    # Draws of a row are averaged, so a row weighs the same however many it has.
    error = ((v_t - u_t).square() * chunks.mask).sum((1, 2)) / chunks.num_draws
    count = chunks.mask.sum((1, 2)) / chunks.num_draws
    zeros = error.new_zeros(batch_size)
    return zeros.index_add(0, chunks.row, error), zeros.index_add(0, chunks.row, count.to(zeros.dtype))
