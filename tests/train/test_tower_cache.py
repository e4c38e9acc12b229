"""A frozen tower's tokens are computed once for each picture, and a run with them is the run without."""

import json

import pytest
import torch

from pilot.nn.configs import SiglipConfig
from pilot.nn.siglip import Siglip
from pilot.train.checks import check_config
from pilot.train.loop import train
from pilot.train.tower_cache import TowerCache
from train import toy

CONFIG = SiglipConfig(image_size=16, patch_size=8, width=16, depth=1, mlp_dim=32, num_heads=2)
TOKENS = 4 * 24 * 4  # bytes of a picture


@pytest.fixture
def tower():
    torch.manual_seed(0)
    return Siglip(CONFIG, 24).requires_grad_(False)


def test_a_picture_goes_through_the_tower_once(tower):
    pictures = torch.randn(3, 16, 16, 3)
    expected = tower(pictures)
    cache = TowerCache(tower, most_bytes=3 * TOKENS)
    for _ in range(2):
        torch.testing.assert_close(cache(pictures), expected)
    assert torch.equal(cache(pictures[[2, 0, 2]]), cache(pictures)[[2, 0, 2]])
    assert cache.computed == 3


def test_the_longest_unused_make_room(tower):
    cache, pictures = TowerCache(tower, most_bytes=2 * TOKENS), torch.randn(3, 16, 16, 3)
    cache(pictures[:2])
    cache(pictures[:1])
    cache(pictures[2:])  # in place of the second
    assert cache.bytes == 2 * TOKENS and cache.computed == 3
    cache(pictures[[0, 2]])
    assert cache.computed == 3
    cache(pictures[1:2])
    assert cache.computed == 4


def test_a_run_with_a_cache_learns_the_same(tmp_path):
    run = toy.config(toy.record(tmp_path / "data"), freeze=("vision",))
    for name, gigabytes in (("without", 0.0), ("with", 0.01)):
        cached = toy.changed(run, compute={"tower_cache_gb": gigabytes})
        train(cached, out=tmp_path / name, progress=False)
    without, cached = (
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("without", "with")
    )
    for name in ("loss/text", "loss/fast", "loss/flow"):
        losses = [line[name] for line in without if name in line]
        assert losses and [line[name] for line in cached if name in line] == pytest.approx(losses, rel=1e-5)


def test_a_run_that_went_on_is_the_same_to_the_bit(tmp_path):
    run = toy.config(toy.record(tmp_path / "data"), freeze=("vision",), compute={"tower_cache_gb": 0.01})
    train(run, out=tmp_path / "whole", progress=False)
    train(run, out=tmp_path / "cut", progress=False, until=5)
    train(run, out=tmp_path / "cut", progress=False)
    whole, cut = (tmp_path / name / "policy" / "model.safetensors" for name in ("whole", "cut"))
    assert whole.read_bytes() == cut.read_bytes()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"compute": {"tower_cache_gb": 1.0}}, "add 'vision' to freeze"),
        ({"compute": {"tower_cache_gb": 1.0}, "freeze": ("vision",), "data": {"augment": True}}, "data.augment"),
        ({"compute": {"tower_cache_gb": -1.0}}, "at least 0, got -1"),
    ],
)
def test_what_cannot_be_kept_is_refused(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        check_config(toy.config(tmp_path, **changes))
