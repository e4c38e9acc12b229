"""Octo: the published sizes, who sees whom, and its stem."""

from dataclasses import replace

import pytest
import torch

from models.baseline_rows import rows
from pilot.data.layout import Kind
from pilot.models.baselines.configs import OctoConfig, octo
from pilot.models.baselines.octo import Octo, StandardizedConv


def model(**changes) -> Octo:
    return Octo(octo("debug", **changes)).initialize(torch.Generator().manual_seed(0))


def without_words(config: OctoConfig, *, moments: int) -> int:
    """Weights beside the language encoder, with positions for as many moments as the published models have."""
    with torch.device("meta"):
        it = Octo(config)
    positions = sum(stem.position.numel() for stem in it.vision.values())
    return sum(p.numel() for p in it.parameters()) - it.words.weight.numel() + (moments - 1) * positions


def test_the_published_sizes():
    small = octo(width=384, mlp_dim=1536, num_heads=6)
    assert without_words(small, moments=10) == pytest.approx(27e6, rel=0.01)
    assert without_words(octo(), moments=10) == pytest.approx(93e6, rel=0.01)


def test_the_task_sees_no_picture_and_nothing_sees_the_readout():
    it, batch = model(), rows(octo("debug"))
    observation = batch.observation
    other = replace(observation, images={name: -image for name, image in observation.images.items()})
    seen = []

    def keep(_module, _inputs, output) -> None:
        seen.append(output)

    it.transformer[-1].register_forward_hook(keep)
    with torch.no_grad():
        it.encode(observation)
        it.encode(other)
        it.readout += 1.0
        it.encode(observation)
    words = observation.token_kinds == Kind.PREFIX
    length = words.shape[1]
    assert torch.equal(seen[0][:, :length][words], seen[1][:, :length][words])
    assert not torch.allclose(seen[0][:, length:], seen[1][:, length:])
    assert torch.equal(seen[0][:, :-1][:, length:], seen[2][:, :-1][:, length:])
    assert not torch.allclose(seen[0][:, -1], seen[2][:, -1])


def test_the_state_is_a_token_where_it_is_asked_for():
    batch = rows(octo("debug"))
    moved = replace(batch.observation, state=batch.observation.state + 1)
    for state_input, sees in (("token", True), ("none", False)):
        it = model(state_input=state_input)
        with torch.no_grad():
            assert torch.equal(it.encode(batch.observation), it.encode(moved)) != sees


def test_weights_of_the_stem_are_standardised():
    convolution = StandardizedConv(3, 8)
    picture = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = convolution(picture)
        convolution.weight.mul_(3.0).add_(1.0)
        assert torch.allclose(convolution(picture), before, rtol=1e-3, atol=1e-3)


def test_cameras_of_another_size_than_told_are_named():
    it, batch = model(wrist_picture_size=8, wrist_towers=()), rows(octo("debug", wrist_picture_size=8))
    with pytest.raises(ValueError, match="camera 'wrist' shows 4 patches, the model has positions for 16"):
        it.encode(batch.observation)
