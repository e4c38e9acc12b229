"""Pictures from inside a policy agree with the policy they are of."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from eval.checkpoints import save_random_policy
from pilot.eval.report.introspect import (
    RecordAttention,
    attention_picture,
    flow_trajectory,
    patch_columns,
    place_attention,
)
from pilot.infer.policy import load_policy
from pilot.robots.homes import ROBOT


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    return load_policy(save_random_policy(tmp_path_factory.mktemp("policy") / "debug"), device="cpu")


@pytest.fixture
def observation():
    rng = np.random.default_rng(0)
    images = {camera: rng.integers(0, 256, (64, 64, 3), np.uint8) for camera in ("room", "wrist")}
    return {"images": images, "state": np.zeros(5, np.float32), "prompt": "put the red cup in the sink"}


def test_recorded_weights_are_those_of_torch():
    q, k, v = (torch.randn(2, 3, t, 8, generator=torch.Generator().manual_seed(t)) for t in (4, 6, 6))
    mask = torch.zeros(2, 1, 4, 6).masked_fill_(torch.arange(6) > 3, -1e30)
    with RecordAttention() as recorded:
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    (weights,) = recorded.weights
    torch.testing.assert_close(weights @ v, out)
    assert weights[..., 4:].abs().max() == 0
    F.scaled_dot_product_attention(q, k, v)
    assert len(recorded.weights) == 1


def test_attention_is_a_share_per_patch_of_the_room(policy, observation):
    seen = attention_picture(policy, observation)
    assert seen.weights.shape == (2, 2) and (seen.weights > 0).all() and seen.weights.sum() < 1
    np.testing.assert_array_equal(seen.picture, observation["images"]["room"])
    again = attention_picture(policy, observation)
    np.testing.assert_array_equal(seen.weights, again.weights)
    assert seen.subtask == again.subtask
    wrist = attention_picture(policy, observation, camera="wrist")
    assert wrist.weights.sum() + seen.weights.sum() < 1


def test_saying_is_the_first_head_of_the_pointing_layer(policy, monkeypatch):
    calls = [torch.full((1, 2, 1, 5), float(10 * token + layer)) for token in range(4) for layer in range(2)]
    config = policy.model.config
    assert len(place_attention(policy, calls)) == 6
    monkeypatch.setattr(policy.model, "config", replace(config, point_layer=1))
    picked = place_attention(policy, calls)
    assert [call.shape for call in picked] == [(1, 1, 1, 5)] * 3 and [call.max() for call in picked] == [1, 11, 21]


def test_patches_stand_in_the_order_of_the_cameras(policy):
    assert patch_columns(policy, ROBOT, ["room", "wrist"], camera="room") == slice(0, 4)
    assert patch_columns(policy, ROBOT, ["room", "wrist"], camera="wrist") == slice(4, 8)
    with pytest.raises(ValueError, match="not 'roof'"):
        patch_columns(policy, ROBOT, ["room", "wrist"], camera="roof")


def test_the_flow_ends_in_the_chunk_that_the_policy_acts_on(policy, observation):
    flow = flow_trajectory(policy, observation, num_steps=policy.num_steps)
    chunk = policy.infer(observation)["actions"]
    assert flow.shape == (policy.num_steps + 1, *chunk.shape)
    np.testing.assert_allclose(flow[-1], chunk, atol=1e-4)
    assert np.abs(flow[0] - flow[-1]).max() > 1e-3
