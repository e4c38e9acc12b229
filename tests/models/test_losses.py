"""What the losses sum and count; and a step of training asks the device for nothing, once indices are found."""

from dataclasses import replace

import pytest
import torch

from models.test_pi import ROBOT_ROW, model, observation
from nothing_asked import NothingAsked
from pilot.data.layout import Batch, Kind, Observation
from pilot.models import losses
from pilot.models.pi import pi0, pi05
from pilot.train.config import OptimConfig
from pilot.train.ema import Ema
from pilot.train.optim import Optimizer

WEB_ROW = [1, 1, 2, 2, 0, 0, 0]
LOSSES = frozenset({"text", "fast", "flow"})


def mixed_batch() -> Batch:
    """A robot row with both cameras, one with one, and a web row."""
    masks = {"room": [True, True, True], "wrist": [True, False, False]}
    mask = torch.ones(3, 6, 8, dtype=torch.bool)
    mask[2] = False
    obs = observation([ROBOT_ROW, ROBOT_ROW, WEB_ROW], masks=masks)
    return Batch(observation=obs, actions=torch.randn(3, 6, 8), action_mask=mask, sources=("a", "a", "web"))


@pytest.mark.parametrize("config", [pi05("debug"), pi0("debug"), pi05("debug", rtc_max_delay=2)])
def test_a_batch_with_indices_has_the_same_losses_and_asks_the_device_for_nothing(config, no_shape_checks):
    pi, batch = model(config).train(), mixed_batch()
    draws = pi.draw(3, torch.Generator().manual_seed(0), flow_draws=2)
    wanted = pi.loss_terms(batch, draws, losses=LOSSES)
    indexed = batch.with_indices().map(torch.clone)
    optimizer, ema = Optimizer(pi, OptimConfig(), steps=10), Ema(pi, decay=0.9)
    with NothingAsked():
        terms = pi.loss_terms(indexed, draws, losses=LOSSES)
        torch.stack([total.sum() for total, _ in terms.values()]).sum().backward()
        optimizer.step(0)
        ema.update()
    for name, (total, count) in wanted.items():
        assert torch.equal(total, terms[name][0]) and torch.equal(count, terms[name][1]), name


def test_nothing_is_copied_from_the_host_in_a_step(no_shape_checks):
    """On a device other than the host, after a first step: such a copy would wait for all that came before it."""
    pi, batch = model().train().to("meta"), mixed_batch()
    draws = {name: t.to("meta") for name, t in pi.draw(3, torch.Generator().manual_seed(0)).items()}
    there = batch.with_indices().map(lambda t: t.to("meta"))
    pi.loss_terms(there, draws, losses=LOSSES)
    with NothingAsked():
        terms = pi.loss_terms(there, draws, losses=LOSSES)
        torch.stack([total.sum() for total, _ in terms.values()]).sum().backward()
    with NothingAsked(), pytest.raises(AssertionError, match="a copy from the host"):
        torch.ones(3).to("meta")


def test_without_indices_the_device_is_asked(no_shape_checks):
    """The test above would notice a question to the device."""
    pi, batch = model(), mixed_batch()
    draws = pi.draw(3, torch.Generator().manual_seed(0))
    with NothingAsked(), pytest.raises(AssertionError, match="nonzero"):
        pi.loss_terms(batch, draws, losses=LOSSES)
    partly = replace(batch, observation=batch.observation.with_indices())
    with NothingAsked(), pytest.raises(AssertionError, match="nonzero"):
        pi.loss_terms(partly, draws, losses=LOSSES)


P, T, F, _ = Kind.PREFIX, Kind.TEXT, Kind.FAST, Kind.PAD


def written() -> Observation:
    """Two rows: one is trained on two of its three TEXT tokens and on FAST, the other on one TEXT token."""
    return Observation(
        images={}, image_masks={}, state=torch.zeros(2, 3), tokens=torch.zeros(2, 6, dtype=torch.long),
        token_kinds=torch.tensor([[P, T, T, T, F, F], [P, P, T, _, _, _]]),
        token_loss=torch.tensor([[False, True, False, True, True, True], [False, False, True, False, False, False]]),
    )  # fmt: skip


def test_targets_are_counted_by_row_and_kind():
    counts = losses.count_targets(written())
    assert {name: count.tolist() for name, count in counts.items()} == {"text": [2.0, 1.0], "fast": [2.0, 0.0]}
    first = replace(written(), token_loss=torch.ones(2, 6, dtype=torch.bool), token_kinds=torch.full((2, 6), int(T)))
    assert losses.count_targets(first)["text"].tolist() == [5.0, 5.0], "the first token has none before it"


def test_cross_entropy_is_summed_by_row_and_kind():
    terms = losses.text_terms(written(), torch.tensor([1.0, 10.0, 100.0, 1000.0, 10_000.0]))
    assert {name: (total.tolist(), count.tolist()) for name, (total, count) in terms.items()} == {
        "text": ([11.0, 10_000.0], [2.0, 1.0]), "fast": ([1100.0, 0.0], [2.0, 0.0]),
    }  # fmt: skip


def chunks_of(rows: int, *, with_actions: tuple[int, ...]) -> Batch:
    """Chunks of 3 actions with 2 dims; the last action of each row is padding."""
    mask = torch.zeros(rows, 3, 2, dtype=torch.bool)
    for row in with_actions:
        mask[row, :2] = True
    return Batch(observation=written(), actions=torch.zeros(rows, 3, 2), action_mask=mask, sources=tuple("abc"[:rows]))


def test_each_row_with_actions_is_denoised_once_for_each_draw():
    time = torch.tensor([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]])
    batch = chunks_of(3, with_actions=(0, 2))
    chunks = losses.flow_chunks(batch, time, num_draws=2)
    assert chunks.row.tolist() == [0, 0, 2, 2] and chunks.num_draws == 2
    torch.testing.assert_close(chunks.time, torch.tensor([[0.1], [0.2], [0.5], [0.6]]))
    assert torch.equal(chunks.mask, batch.action_mask[chunks.row])
    assert losses.count_flow_elements(batch, time, num_draws=2).tolist() == [4.0, 0.0, 4.0]


def test_given_actions_are_shown_and_not_learned():
    time = torch.tensor([[[0.0, 0.7, 0.7], [0.0, 0.0, 0.2]]])
    batch = chunks_of(1, with_actions=(0,))
    chunks = losses.flow_chunks(batch, time, num_draws=2)
    assert chunks.time.shape == (2, 3)
    assert chunks.mask.any(-1).tolist() == [[False, True, False], [False, False, False]], "the last is padding"
    assert losses.count_flow_elements(batch, time, num_draws=2).tolist() == [1.0], "2 elements, in one of two draws"


def test_also_of_two_actions_the_given_one_is_not_learned():
    batch = Batch(
        observation=written(), actions=torch.zeros(1, 2, 2), action_mask=torch.ones(1, 2, 2, dtype=torch.bool),
        sources=("a",),
    )  # fmt: skip
    chunks = losses.flow_chunks(batch, torch.tensor([[[0.0, 0.7]]]), num_draws=1)
    assert chunks.mask.any(-1).tolist() == [[False, True]]


def test_a_time_of_zero_for_the_whole_chunk_is_learned():
    """One time per chunk says nothing of given actions."""
    chunks = losses.flow_chunks(chunks_of(1, with_actions=(0,)), torch.zeros(1, 1), num_draws=1)
    assert chunks.mask.sum() == 4


def test_without_actions_one_row_takes_part_only_where_it_must():
    batch, time = chunks_of(2, with_actions=()), torch.full((2, 1), 0.5)
    none = losses.flow_chunks(batch, time, num_draws=1)
    assert none.row.shape == (0,) and none.time.shape == (0, 1) and none.mask.shape == (0, 3, 2)
    one = losses.flow_chunks(batch, time, num_draws=1, at_least_one=True)
    assert one.row.tolist() == [0] and one.time.tolist() == [[0.5]] and not one.mask.any()
    some = losses.flow_chunks(chunks_of(2, with_actions=(1,)), time, num_draws=1, at_least_one=True)
    assert some.row.tolist() == [1]


def test_the_squared_error_is_summed_over_what_counts_and_averaged_over_draws():
    batch = chunks_of(3, with_actions=(0, 2))
    chunks = losses.flow_chunks(batch, torch.full((3, 2), 0.5), num_draws=2)
    v_t = torch.arange(1.0, 5.0)[:, None, None].expand(4, 3, 2)
    total, count = losses.flow_terms(chunks, v_t, torch.full((4, 3, 2), 0.5), batch_size=3)
    wrong = [(value - 0.5) ** 2 * 4 for value in (1, 2, 3, 4)]
    assert total.tolist() == [(wrong[0] + wrong[1]) / 2, 0.0, (wrong[2] + wrong[3]) / 2]
    assert count.tolist() == [4.0, 0.0, 4.0] == losses.count_flow_elements(batch, torch.full((3, 2), 0.5),
                                                                             num_draws=2).tolist()  # fmt: skip
