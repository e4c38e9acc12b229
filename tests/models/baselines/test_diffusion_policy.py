"""Diffusion Policy: the published size, the U-Net's resolutions, and an encoder for each camera."""

from dataclasses import replace

import pytest
import torch

from models.baseline_rows import rows
from pilot.configs.baselines import diffusion_policy_pusht
from pilot.contracts import examples
from pilot.data.pipeline import collate
from pilot.models.baselines.configs import diffusion_policy
from pilot.models.baselines.diffusion_policy import DiffusionPolicy, FilmBlock, level_features
from pilot.models.bundle import empty_model
from pilot.robots.homes import ROBOT
from pilot.types import Moment


def model() -> DiffusionPolicy:
    it = DiffusionPolicy(diffusion_policy("debug")).initialize(torch.Generator().manual_seed(0))
    torch.nn.init.normal_(it.unet.out.weight, generator=torch.Generator().manual_seed(1))
    return it


def test_the_published_size():
    """LeRobot's `diffusion_pusht` has 262,709,026 weights: one camera, 2 dims, two observation steps of 64 + 2."""
    model = empty_model(diffusion_policy_pusht().model)
    built, unet = (sum(p.numel() for p in part.parameters()) for part in (model, model.unet))
    assert built == 262_709_026 and unet == pytest.approx(256e6, rel=0.02), "the paper's table"
    one_moment = empty_model(diffusion_policy("paper", observation_steps=1))
    second_step = 66 * sum(block.film.out_features for block in model.modules() if isinstance(block, FilmBlock))
    assert built - second_step == sum(p.numel() for p in one_moment.parameters())


def test_two_moments_are_seen_by_the_same_encoders_and_one_that_is_missing_is_the_present():
    config = diffusion_policy("debug", observation_steps=2)
    it = DiffusionPolicy(config).initialize(torch.Generator().manual_seed(0))
    pipeline = examples.make_pipeline(ROBOT, config)
    now, earlier = (examples.make_sample(ROBOT, horizon=6, seed=seed) for seed in (0, 1))
    past = Moment(images=earlier.images, state=earlier.state)
    alone, both = (collate([pipeline.encode(s)]).observation for s in (now, replace(now, past=past)))
    assert list(both.images) == ["room", "room@-1", "wrist", "wrist@-1"] == list(pipeline.picture_sizes())
    assert torch.equal(both.images["room"], alone.images["room"]) and torch.equal(
        alone.images["room"], alone.images["room@-1"]
    )
    features, dims = config.feature_width, config.action_dim
    with torch.no_grad():
        one, two = it.encode(alone)[0], it.encode(both)[0]
        seen_earlier = it.encode(collate([pipeline.encode(replace(earlier, prompt=now.prompt))]).observation)[0]
    assert len(one) == config.observation_width == 4 * features + 2 * dims + config.text_width
    assert torch.equal(one[: 2 * features], one[2 * features : 4 * features])
    assert torch.allclose(two[2 * features : 4 * features], seen_earlier[: 2 * features], atol=1e-6)
    state = slice(4 * features, 4 * features + dims), slice(4 * features + dims, 4 * features + 2 * dims)
    assert torch.equal(two[state[0]], one[state[0]]) and torch.allclose(two[state[1]], seen_earlier[state[0]])


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
