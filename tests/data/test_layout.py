"""Masks cell by cell, for each layout of the family."""

import torch

from pilot.data.layout import Kind, backbone_mask, flow_mask, flow_positions, token_positions

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
