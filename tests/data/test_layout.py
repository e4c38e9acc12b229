"""Masks cell by cell, for each layout of the family."""

from dataclasses import replace

import torch

from pilot.data.layout import (
    Batch,
    Kind,
    Observation,
    backbone_mask,
    flow_mask,
    flow_positions,
    token_positions,
)

P, T, F, _ = Kind.PREFIX, Kind.TEXT, Kind.FAST, Kind.PAD


def rows(mask: torch.Tensor) -> list[str]:
    return ["".join("#" if cell else "." for cell in row) for row in mask[0].tolist()]


def kinds(*values: Kind) -> torch.Tensor:
    return torch.tensor([[int(v) for v in values]])


def test_pi05_row_with_subtask_and_fast_tokens():
    layout = kinds(P, P, T, T, F, F, _)
    assert rows(backbone_mask(layout)) == [
        "##.....",
        "##.....",
        "###....",
        "####...",
        "#####..",
        "######.",
        ".......",
    ]
    assert rows(flow_mask(layout, horizon=2)) == ["####...##", "####...##"]


def test_pi0_row_has_a_state_token_that_does_not_see_the_actions():
    layout = kinds(P, P, _)
    assert rows(backbone_mask(layout)) == ["##.", "##.", "..."]
    assert rows(flow_mask(layout, horizon=2, state_token=True)) == ["##.#..", "##.###", "##.###"]


def test_pi0_fast_row_is_causal_behind_the_prompt():
    assert rows(backbone_mask(kinds(P, P, F, F))) == ["##..", "##..", "###.", "####"]


def test_web_row_is_causal_behind_the_question():
    assert rows(backbone_mask(kinds(P, P, T, T))) == ["##..", "##..", "###.", "####"]


def test_a_masked_camera_in_front_is_seen_by_nobody_and_takes_no_position():
    layout = kinds(_, _, P, T)
    assert rows(backbone_mask(layout)) == ["....", "....", "..#.", "..##"]
    assert token_positions(layout).tolist() == [[-1, -1, 0, 1]]


def test_positions_skip_padding_wherever_it_stands():
    assert token_positions(kinds(P, _, P, T, _)).tolist() == [[0, 0, 1, 2, 2]]


def test_flow_positions_skip_fast_tokens_so_that_training_equals_acting():
    with_fast, without = kinds(P, P, T, F, F, F), kinds(P, P, T)
    assert flow_positions(with_fast, length=3).tolist() == [[3, 4, 5]]
    assert flow_positions(without, length=3).tolist() == [[3, 4, 5]]


def observation(**changes) -> Observation:
    """Two rows: `P P T F _` with both cameras, `P T _ _ _` with one; FAST and TEXT are targets."""
    values = {
        "images": {"room": torch.zeros(2, 2, 2, 3), "wrist": torch.ones(2, 2, 2, 3)},
        "image_masks": {"room": torch.tensor([True, True]), "wrist": torch.tensor([False, True])},
        "state": torch.zeros(2, 3),
        "tokens": torch.arange(10).reshape(2, 5),
        "token_kinds": torch.cat((kinds(P, P, T, F, _), kinds(P, T, _, _, _))),
        "token_loss": torch.tensor([[False, False, True, True, False], [False, True, False, False, False]]),
    }
    return Observation(**(values | changes))


def test_rows_cameras_and_targets_are_found():
    seen = observation()
    assert seen.batch_size == 2
    assert seen.rows_with("room").tolist() == [0, 1] and seen.rows_with("wrist").tolist() == [1]
    assert [part.tolist() for part in seen.target_positions()] == [[0, 0, 1], [2, 3, 1]]


def test_a_target_in_the_first_column_has_nothing_before_it_and_is_none():
    loss = torch.zeros(2, 5, dtype=torch.bool)
    loss[0, 0] = loss[1, 4] = True
    assert [part.tolist() for part in observation(token_loss=loss).target_positions()] == [[1], [4]]


def test_indices_that_were_found_in_advance_are_those_that_are_used():
    found = observation().with_indices()
    assert set(found.indices) == {"camera/room", "camera/wrist", "target/row", "target/column"}
    assert found.indices["camera/wrist"].tolist() == [1]
    elsewhere = replace(found, token_loss=torch.zeros(2, 5, dtype=torch.bool), image_masks={})
    assert [part.tolist() for part in elsewhere.target_positions()] == [[0, 0, 1], [2, 3, 1]]
    assert elsewhere.rows_with("room").tolist() == [0, 1]


def test_added_targets_point_at_a_token_without_a_loss():
    padded = observation().pad_targets(5)
    row, column = padded.target_positions()
    assert row.tolist() == [0, 0, 1, 0, 0] and column.tolist() == [2, 3, 1, 1, 1], "the second token, a PREFIX"
    assert padded.rows_with("wrist").tolist() == [1]
    assert len(observation().pad_targets(3).target_positions()[0]) == 3
    assert len(observation().pad_targets(0).target_positions()[0]) == 3, "none is taken away"
    later = observation(token_kinds=torch.cat((kinds(P, T, T, F, F), kinds(P, T, T, _, F))))
    assert [part[-1].item() for part in later.pad_targets(4).target_positions()] == [1, 3], "the only free token"
    full = observation(token_kinds=torch.cat((kinds(P, T, T, F, F), kinds(P, T, T, F, F))))
    assert len(full.pad_targets(9).target_positions()[0]) == 3, "there is no place to point at"


def test_every_tensor_is_mapped():
    batch = Batch(
        observation=observation(), actions=torch.zeros(2, 3, 4), action_mask=torch.ones(2, 3, 4, dtype=torch.bool),
        sources=("a", "b"),
    )  # fmt: skip
    assert batch.map(lambda tensor: tensor[:1]).action_rows is None
    half = batch.with_indices().map(lambda tensor: tensor[:1])
    assert half.observation.batch_size == 1 and half.sources == ("a", "b")
    assert half.observation.images["room"].shape[0] == half.observation.image_masks["wrist"].shape[0] == 1
    assert half.actions.shape == half.action_mask.shape == (1, 3, 4)
    assert half.action_rows.tolist() == [0] and half.observation.indices["target/row"].tolist() == [0]


def test_rows_with_actions_are_those_with_one_that_counts():
    mask = torch.zeros(3, 3, 4, dtype=torch.bool)
    mask[1, 0, 0] = mask[2, 2, 3] = mask[2, 0, 1] = True
    batch = Batch(observation=observation(), actions=torch.zeros(3, 3, 4), action_mask=mask, sources=("a",) * 3)
    assert batch.rows_with_actions().tolist() == [1, 2]
    known = batch.with_indices()
    assert known.action_rows.tolist() == [1, 2] and "target/row" in known.observation.indices
    assert replace(known, action_mask=torch.zeros_like(mask)).rows_with_actions().tolist() == [1, 2]


def test_rows_of_a_batch_have_masks_and_positions_of_their_own():
    both = torch.cat((kinds(P, P, T, F, _), kinds(P, T, _, _, _)))
    mask = flow_mask(both, horizon=2, state_token=True)
    assert mask.shape == (2, 3, 8)
    assert rows(mask) == ["###..#..", "###..###", "###..###"]
    assert rows(mask[1:]) == ["##...#..", "##...###", "##...###"]
    assert flow_mask(both, horizon=2).shape == (2, 2, 7), "no state token unless one is asked for"
    assert rows(backbone_mask(both)[1:]) == ["#....", "##...", ".....", ".....", "....."]
    assert flow_positions(both, length=2).tolist() == [[3, 4], [2, 3]]
    assert token_positions(both).tolist() == [[0, 1, 2, 3, 3], [0, 1, 1, 1, 1]]
