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


@pytest.mark.parametrize("size", [(32, 64), (64, 32), (64, 64)])
def test_a_box_is_where_its_pixels_are_in_the_padded_square(size):
    image = np.zeros((*size, 3), np.uint8)
    image[8:24, 16:28] = 255
    box = (8 / size[0], 16 / size[1], 24 / size[0], 28 / size[1])
    rows, columns = np.nonzero(transforms.resize_with_pad(image, 64)[..., 0])
    edges = np.array([rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]) / 64
    np.testing.assert_allclose(transforms.pad_box(box, size), edges)
    np.testing.assert_allclose(transforms.unpad_box(edges.tolist(), size), box)


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


def test_a_picture_of_shares_may_be_black_and_white():
    np.testing.assert_array_equal(transforms.picture(np.ones((1, 2, 3), np.float32)), np.full((1, 2, 3), 255))
    assert not transforms.picture(np.zeros((1, 2, 3))).any()
    for wrong in (np.full((1, 2, 3), 1.01), np.full((1, 2, 3), -0.01)):
        with pytest.raises(ValueError, match="floats in 0 to 1"):
            transforms.picture(wrong)


def test_channels_are_looked_for_last_and_then_first():
    """Of three rows and three columns nothing is turned."""
    square = np.arange(27, dtype=np.uint8).reshape(3, 3, 3)
    assert transforms.picture(square) is square
    wide = np.arange(24, dtype=np.uint8).reshape(3, 2, 4)
    np.testing.assert_array_equal(transforms.picture(wide), wide.transpose(1, 2, 0))
    with pytest.raises(ValueError, match=r"got uint8 \[4, 2, 5\]"):
        transforms.picture(np.zeros((4, 2, 5), np.uint8))


def test_a_picture_of_the_right_size_is_returned_itself():
    image = np.full((4, 6, 3), 7, np.uint8)
    assert transforms.resize_with_pad(image, (4, 6)) is image
    assert transforms.resize_with_pad(image, 6).shape == (6, 6, 3)


def test_a_picture_stands_in_the_middle_of_its_frame():
    tall = transforms.resize_with_pad(np.full((12, 4, 3), 9, np.uint8), (6, 9))
    assert tall[:, 3:5].all() and not tall[:, :3].any() and not tall[:, 5:].any()
    flat = transforms.resize_with_pad(np.full((4, 12, 3), 9, np.uint8), (9, 6))
    assert flat[3:5].all() and not flat[:3].any() and not flat[5:].any()
    for thin in (np.zeros((1, 1000, 3), np.uint8), np.zeros((1000, 1, 3), np.uint8)):
        with pytest.raises(ValueError, match="too long and thin to fit 8 x 8"):
            transforms.resize_with_pad(thin, 8)


def test_normalised_numbers_are_those_of_the_formulas():
    """A dim that hardly moves is divided by a millionth more than its range."""
    still = NormStats(mean=np.array([1.0, 3.0]), std=np.array([0.0, 1e-6]), q01=np.array([1.0, 2.0]),
                      q99=np.array([1.0, 2.0 + 1e-6]))  # fmt: skip
    x = np.array([[1.0 + 4e-6, 2.0 + 4e-6]])
    np.testing.assert_allclose(transforms.normalize(x, still, "quantile"), [[7.0, 3.0]], atol=1e-4)
    np.testing.assert_allclose(transforms.normalize(np.array([[1.0 + 4e-6, 3.0 + 4e-6]]), still, "zscore"),
                               [[4.0, 2.0]], atol=1e-4)  # fmt: skip
    back = transforms.unnormalize(np.array([[7.0, 3.0]]), replace(still, q01=np.zeros(2), q99=np.array([0.0, 1e-6])))
    np.testing.assert_allclose(back, [[4e-6, 4e-6]], rtol=1e-4)
    back = transforms.unnormalize(np.array([[4.0, 2.0]]), replace(still, mean=np.zeros(2)), "zscore")
    np.testing.assert_allclose(back, [[4e-6, 4e-6]], rtol=1e-4)
    np.testing.assert_allclose(transforms.normalize(np.array([[2.0, 6.0]]), STATS), [[0.5, 0.2]], atol=1e-6)


def test_statistics_may_have_more_dims_and_clip_at_both_ends():
    clipped = replace(STATS, clip=np.array([5.0, 2.0]))
    for kind, ends in (("quantile", [[-5.0, -2.0], [5.0, 2.0]]), ("zscore", [[-5.0, -2.0], [5.0, 2.0]])):
        np.testing.assert_allclose(transforms.normalize(np.array([[-99.0, -99], [99, 99]]), clipped, kind), ends)
        assert transforms.normalize(np.array([[-99.0]]), clipped, kind).tolist() == [[-5.0]]
        assert transforms.unnormalize(np.zeros((2, 1)), STATS, kind).shape == (2, 1)


def test_one_action_is_relative_to_its_state():
    action, state = np.array([1.0, 2.0]), np.array([0.5, 0.5, 9.0])
    assert transforms.to_delta(action, state, (True, True)).tolist() == [0.5, 1.5]
    both = transforms.to_delta(np.ones((2, 2)), np.array([[1.0, 1.0], [2.0, 2.0]]), (True, True))
    assert both.tolist() == [[0, 0], [-1, -1]], "a state for each"


def test_padding_appends_zeros():
    padded = transforms.pad_dims(np.ones((2, 3)), 5)
    assert padded.dtype == np.float32 and padded.tolist() == [[1, 1, 1, 0, 0]] * 2
    assert transforms.pad_dims(np.ones((2, 3)), 3).tolist() == [[1, 1, 1]] * 2
    assert transforms.pad_dims(np.ones((1, 9, 2)), 4).shape == (1, 9, 4)
    assert transforms.pad_dims(np.ones(2), 3).tolist() == [1, 1, 0]


@pytest.mark.parametrize("stride", [1, 2, 5])
def test_actions_in_between_lie_on_straight_lines(stride):
    start, slopes = np.array([0.5, -1.0], np.float32), np.array([[0.2, 0.1], [-0.3, 0.4], [0.0, 0.0]], np.float32)
    moves = np.repeat(slopes, stride, axis=0)
    whole = start + np.cumsum(moves, axis=0) - moves
    few = transforms.take_every(whole, stride)
    assert few.shape == (3, 2)
    np.testing.assert_allclose(transforms.interpolate(few, stride), whole, atol=1e-5)
    np.testing.assert_array_equal(transforms.take_every(np.stack([whole, whole]), stride)[1], few)
