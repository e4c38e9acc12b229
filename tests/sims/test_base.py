"""What all suites share: numbered starts of simulators that draw everything from one number."""

import pytest

from pilot.sims.base import SEEDS_PER_SPLIT, start_seed


def test_starts_of_one_split_are_none_of_another():
    assert start_seed("train", SEEDS_PER_SPLIT - 1, episode=0, seed=0) == SEEDS_PER_SPLIT - 1
    assert start_seed("test", 3 * SEEDS_PER_SPLIT, episode=0, seed=0) == 5 * SEEDS_PER_SPLIT, "the last has no end"
    for split, start in (("train", SEEDS_PER_SPLIT), ("train", 2 * SEEDS_PER_SPLIT), ("validation", SEEDS_PER_SPLIT)):
        for seed in (0, 1):
            with pytest.raises(ValueError, match=f"the {split} split has starts 0 to 49999, not {start}"):
                start_seed(split, start, episode=0, seed=seed)
    with pytest.raises(ValueError, match="not -1"):
        start_seed("test", -1, episode=0, seed=0)
