"""The vision tower's two ways in: cut patches, and a stem of convolutions for small towers."""

import pytest
import torch

from pilot.nn.configs import SiglipConfig
from pilot.nn.siglip import Siglip, patchify

PLAIN = SiglipConfig(image_size=16, patch_size=4, width=8, depth=1, mlp_dim=16, num_heads=2)
STEM = SiglipConfig(image_size=16, patch_size=4, width=8, depth=1, mlp_dim=16, num_heads=2, stem=(4, 6, 8))


def test_patches_are_cut_in_rows():
    pixels = torch.arange(2 * 4 * 4 * 3, dtype=torch.float32).view(2, 4, 4, 3)
    patches = patchify(pixels, 2)
    assert patches.shape == (2, 4, 12)
    torch.testing.assert_close(patches[1, 1], pixels[1, :2, 2:].flatten())


@pytest.mark.parametrize("config", [PLAIN, STEM], ids=["cut", "stem"])
@pytest.mark.parametrize("rows, columns", [(16, 16), (8, 12)])
def test_one_token_per_patch(config, rows, columns):
    tokens = Siglip(config, 10)(torch.zeros(3, rows, columns, 3))
    assert tokens.shape == (3, rows * columns // 16, 10)


def test_a_stem_sees_what_lies_in_the_patch():
    torch.manual_seed(0)
    tower, picture = Siglip(STEM, 10), torch.zeros(1, 16, 16, 3)
    assert tower.stem is not None
    plain = tower.stem(picture)
    picture[0, 9, 5] = 1.0  # row 2, column 1 of the patches
    changed = (tower.stem(picture) != plain).any(-1)[0].view(4, 4)
    assert changed[2, 1] and not changed[0].any() and not changed[:, 3].any()


def test_a_stem_that_does_not_make_the_patches_is_refused():
    with pytest.raises(ValueError, match="makes patches of 4 pixels, patch_size is 8"):
        SiglipConfig(patch_size=8, stem=(4, 6, 8))
