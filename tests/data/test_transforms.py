"""Each step and its inverse."""

from dataclasses import replace

import numpy as np
import pytest

from pilot.data import transforms
from pilot.types import NormStats

STATS = NormStats(
    mean=np.array([0.0, 1.0]), std=np.array([1.0, 2.0]), q01=np.array([-1.0, 0.0]), q99=np.array([3.0, 10.0])
)


@pytest.mark.parametrize("kind", ["quantile", "zscore"])
def test_normalising_goes_back(kind):
    x = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    back = transforms.unnormalize(transforms.normalize(x, STATS, kind), STATS, kind)
    np.testing.assert_allclose(back, x, atol=1e-5)


def test_quantiles_go_to_the_ends():
    x = np.array([[-1.0, 0.0], [3.0, 10.0]], np.float32)
    np.testing.assert_allclose(transforms.normalize(x, STATS), [[-1, -1], [1, 1]], atol=1e-5)


def test_delta_moves_only_the_masked_dims_and_goes_back():
    actions, state = np.ones((4, 3), np.float32), np.array([1.0, 2.0, 3.0, 4.0], np.float32)
    delta = transforms.to_delta(actions, state, (True, False, True))
    np.testing.assert_array_equal(delta[0], [0, 1, -2])
    np.testing.assert_array_equal(transforms.to_absolute(delta, state, (True, False, True)), actions)


def test_delta_of_many_chunks_uses_each_ones_state():
    actions, state = np.zeros((2, 3, 2), np.float32), np.array([[1.0, 1.0], [2.0, 2.0]], np.float32)
    delta = transforms.to_delta(actions, state, (True, False))
    np.testing.assert_array_equal(delta[:, 0], [[-1, 0], [-2, 0]])


def test_resize_keeps_the_aspect_and_pads_with_black():
    image = np.full((10, 20, 3), 200, np.uint8)
    out = transforms.resize_with_pad(image, 8)
    assert out.shape == (8, 8, 3)
    assert (out[2:6] == 200).all() and not out[:2].any() and not out[6:].any()


def test_resize_to_a_shape_that_is_not_square():
    assert transforms.resize_with_pad(np.full((10, 20, 3), 7, np.uint8), (6, 30)).shape == (6, 30, 3)
    with pytest.raises(ValueError, match="too long and thin"):
        transforms.resize_with_pad(np.zeros((1, 1000, 3), np.uint8), 8)


@pytest.mark.parametrize("channels_first", [False, True])
def test_pictures_come_as_bytes_or_as_shares_of_one(channels_first):
    shares = np.random.default_rng(0).random((4, 5, 3)).astype(np.float32)
    given = shares.transpose(2, 0, 1) if channels_first else shares
    np.testing.assert_array_equal(transforms.picture(given), (shares * 255).astype(np.uint8))
    np.testing.assert_array_equal(transforms.picture((given * 255).astype(np.uint8)), (shares * 255).astype(np.uint8))


@pytest.mark.parametrize(
    "wrong",
    [np.zeros((4, 4)), np.zeros((4, 4, 4), np.uint8), np.full((4, 4, 3), 2.0), np.zeros((4, 4, 3), np.int64),
     np.full((4, 4, 3), np.nan), np.zeros((0, 4, 3), np.uint8)],
)  # fmt: skip
def test_what_is_no_picture_is_refused(wrong):
    with pytest.raises(ValueError, match=r"uint8 \[h w 3\]"):
        transforms.picture(wrong)


@pytest.mark.parametrize("kind", ["quantile", "zscore"])
def test_only_the_named_dims_are_clipped(kind):
    clipped = replace(STATS, clip=np.array([5.0, np.inf]))
    x = np.array([[1000.0, 1000.0]], np.float32)
    free = transforms.normalize(x, STATS, kind)
    np.testing.assert_array_equal(transforms.normalize(x, clipped, kind), [[5.0, free[0, 1]]])


def test_too_many_dims_are_refused():
    with pytest.raises(ValueError, match="raise action_dim"):
        transforms.pad_dims(np.zeros((2, 9), np.float32), 8)
