"""What training does to pictures, seen by eye-checkable pictures; the numbers of JAX are in tests/parity."""

import math

import numpy as np
import pytest
import torch

from pilot.data.augment import (
    BRIGHTNESS,
    CROP,
    DEGREES,
    HUE,
    UNCHANGED,
    Augmentation,
    augment,
    draw_augmentation,
    hsv_to_rgb,
    rgb_to_hsv,
)


def pictures(count: int = 2, *, height: int = 40, width: int = 40) -> torch.Tensor:
    return torch.rand(count, height, width, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1


def dot(y: int, x: int, *, size: int = 41) -> torch.Tensor:
    picture = torch.full((1, size, size, 3), -1.0)
    picture[0, y, x] = 1.0
    return picture


def brightest(picture: torch.Tensor) -> tuple[int, int]:
    return divmod(int(picture[0, :, :, 0].argmax()), picture.shape[2])


def test_nothing_to_do_changes_nothing():
    images = pictures()
    assert augment(images, [UNCHANGED, UNCHANGED]) is images


def test_each_picture_gets_its_own():
    images = pictures(3)
    out = augment(images, [UNCHANGED, Augmentation(angle=0.1), Augmentation(brightness=0.2)])
    assert torch.equal(out[0], images[0])
    assert not torch.allclose(out[1], images[1]) and not torch.allclose(out[2], images[2])
    alone = augment(images[2:], [Augmentation(brightness=0.2)])
    torch.testing.assert_close(out[2:], alone)


def test_a_quarter_turn_goes_against_the_clock():
    assert brightest(augment(dot(10, 20), [Augmentation(angle=math.pi / 2)])) == (20, 10)
    wide = torch.full((1, 20, 40, 3), -1.0)
    wide[0, 5, 20] = 1.0
    turned = augment(wide, [Augmentation(angle=math.pi)])
    assert brightest(turned) == (14, 19), "half a turn of a picture that is not square"


def test_a_crop_enlarges_what_is_left():
    middle = Augmentation(crop=0.5)
    out = augment(dot(25, 20, size=40), [middle])
    assert brightest(out)[0] in (30, 31) and brightest(out)[1] in (20, 21)
    quarter = torch.full((1, 40, 40, 3), -1.0)
    quarter[0, :20, 20:] = 1.0
    corner = augment(quarter, [Augmentation(crop=0.5, centre=(-1.0, 1.0))])
    torch.testing.assert_close(corner[0, 1:-1, 1:-1], torch.ones(38, 38, 3))


def test_outside_is_black():
    out = augment(torch.ones(1, 40, 40, 3), [Augmentation(angle=math.pi / 4)])
    assert (out[0, ::39, ::39] == -1).all() and torch.allclose(out[0, 20, 20], torch.ones(3))


def test_colours_go_to_hsv_and_back():
    light = (pictures() + 1) / 2
    light[0, 0, 0], light[0, 0, 1] = 0.0, 0.5  # black and grey have no hue
    torch.testing.assert_close(hsv_to_rgb(*rgb_to_hsv(light)), light, atol=1e-6, rtol=0)
    hue, saturation, value = rgb_to_hsv(torch.tensor([[[[1.0, 0, 0], [0, 1, 0], [0, 0, 1]]]]))
    torch.testing.assert_close(hue[0, 0], torch.tensor([0, 1 / 3, 2 / 3]))
    assert (saturation == 1).all() and (value == 1).all()


@pytest.mark.parametrize("amount", [-0.4, -0.1, 0.1, 0.4])
def test_light_stays_between_black_and_white(amount):
    out = augment(pictures(), [Augmentation(contrast=amount), Augmentation(brightness=amount, hue=0.1)])
    assert out.min() >= -1 - 1e-6 and out.max() <= 1 + 1e-6
    grey = augment(torch.tensor([-1.0, 0, 1]).view(1, 1, 3, 1).expand(1, 1, 3, 3), [Augmentation(contrast=amount)])
    torch.testing.assert_close(grey[0, 0, :, 0], torch.tensor([-1.0, 0, 1])), "contrast keeps black, grey and white"


def test_brightness_goes_towards_white_or_black():
    grey = torch.zeros(1, 2, 2, 3)
    assert augment(grey, [Augmentation(brightness=0.3)]).mean() == pytest.approx(0.3)
    assert augment(grey, [Augmentation(brightness=-0.3)]).mean() == pytest.approx(-0.3)


def test_draws_follow_the_distribution():
    rng = np.random.default_rng(0)
    drawn = [draw_augmentation(rng, moves=True) for _ in range(2000)]
    assert all(plan.crop == CROP and abs(plan.angle) <= math.radians(DEGREES) for plan in drawn)
    assert np.std([plan.angle for plan in drawn]) == pytest.approx(math.radians(DEGREES) / math.sqrt(3), rel=0.05)
    assert np.mean([plan.changes_colors for plan in drawn]) == pytest.approx(0.5, abs=0.04)
    recoloured = [plan for plan in drawn if plan.changes_colors]
    assert np.ptp([plan.brightness for plan in recoloured]) == pytest.approx(2 * BRIGHTNESS, rel=0.02)
    assert np.ptp([plan.hue for plan in recoloured]) == pytest.approx(2 * HUE, rel=0.02)
    wrist = [draw_augmentation(rng, moves=False) for _ in range(100)]
    assert not any(plan.moves for plan in wrist) and any(plan.changes_colors for plan in wrist)
