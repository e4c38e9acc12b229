"""Diffusion Policy: the published size, the U-Net's resolutions, and an encoder for each camera."""

import pytest
import torch

from models.baseline_rows import rows
from pilot.configs.baselines import diffusion_policy_pusht
from pilot.models.baselines.configs import diffusion_policy
from pilot.models.baselines.diffusion_policy import DiffusionPolicy, FilmBlock, level_features
from pilot.models.bundle import empty_model


def model() -> DiffusionPolicy:
    it = DiffusionPolicy(diffusion_policy("debug")).initialize(torch.Generator().manual_seed(0))
    torch.nn.init.normal_(it.unet.out.weight, generator=torch.Generator().manual_seed(1))
    return it


def test_the_published_size_less_the_second_observation_step():
    """LeRobot's `diffusion_pusht` has 262,709,026 weights: one camera, 2 dims, two observation steps of 64 + 2.

    The model that the configs build sees one step, so each block's FiLM layer has 66 inputs less.
    """
    model = empty_model(diffusion_policy_pusht().model)
    built, unet = (sum(p.numel() for p in part.parameters()) for part in (model, model.unet))
    second_step = 66 * sum(block.film.out_features for block in model.modules() if isinstance(block, FilmBlock))
    assert built == 260_816_674 and built + second_step == 262_709_026
    assert unet + second_step == pytest.approx(256e6, rel=0.02), "the paper's table"


def test_horizons_that_do_not_halve_are_refused():
    with pytest.raises(ValueError, match="2 resolutions takes chunks of a multiple of 2 actions, got action_horizon 7"):
        diffusion_policy("debug", action_horizon=7)
    with pytest.raises(ValueError, match="name them in vision_towers"):
        diffusion_policy("debug", vision_towers=())


def test_each_camera_has_an_encoder_of_its_own():
    it, batch = model(), rows(diffusion_policy("debug"))
    room = batch.observation.images["room"]
    with torch.no_grad():
        assert not torch.allclose(it.vision["room"](room), it.vision["wrist"](room))


def test_a_level_is_told_from_others():
    features = level_features(torch.arange(100), 16)
    assert features.shape == (100, 16) and len(features.unique(dim=0)) == 100


def test_the_unet_sees_the_level_and_the_observation_at_every_step_of_the_chunk():
    it = model()
    noisy, seen = torch.zeros(1, 6, 8), torch.zeros(1, it.config.observation_width)
    with torch.no_grad():
        base = it.predict_noise(noisy, torch.tensor([3]), seen)
        other_level, other_seen = (
            it.predict_noise(noisy, torch.tensor([50]), seen),
            it.predict_noise(noisy, torch.tensor([3]), seen + 1),
        )
    assert (base != other_level).all() and (base != other_seen).all()
