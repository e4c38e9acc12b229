"""Shares follow n^0.43 or the given weights; draws are a function of (seed, step)."""

from collections import Counter

import numpy as np
import pytest

from pilot.data.mixture import Mixture
from pilot.types import Sample


class Toy:
    def __init__(self, **groups: int) -> None:
        self.sizes = groups

    def __len__(self) -> int:
        return sum(self.sizes.values())

    def groups(self) -> dict[str, np.ndarray]:
        edges = np.cumsum([0, *self.sizes.values()])
        return {name: np.arange(a, b) for name, a, b in zip(self.sizes, edges, edges[1:], strict=False)}

    def sample(self, i: int, rng: np.random.Generator) -> Sample:
        return Sample(images={}, prompt=f"{i} {rng.random()}")


SOURCES = {"robot": Toy(single=5000, multi=1000), "web": Toy(web=200)}


def test_drawn_shares_match_the_weights():
    mixture = Mixture(SOURCES, seed=0)
    natural = np.array([5000, 1000, 200]) ** 0.43
    np.testing.assert_allclose(list(mixture.shares.values()), natural / natural.sum())
    draws = [draw for _ in range(100) for draw in mixture.next(200)]
    counts = Counter((d.source, "single" if d.source == "robot" and d.index < 5000 else d.source) for d in draws)
    for (source, group), share in mixture.shares.items():
        got = counts[source, group if group == "single" else source] / len(draws)
        assert got == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / len(draws)))
    assert mixture.drawn["web"] == counts["web", "web"]


def test_rows_of_a_group_are_equally_likely():
    mixture = Mixture({"web": SOURCES["web"]}, seed=1)
    counts = np.bincount([d.index for step in range(200) for d in mixture.draw(step, 100)], minlength=200)
    assert counts.min() > 50 and counts.max() < 160


def test_given_weights_replace_the_sources_shares_only():
    mixture = Mixture(SOURCES, seed=0, weights={"robot": 3, "web": 1})
    assert mixture.source_shares() == pytest.approx({"robot": 0.75, "web": 0.25})
    ratio = mixture.shares["robot", "single"] / mixture.shares["robot", "multi"]
    assert ratio == pytest.approx(5**0.43)


def test_resume_is_exact():
    whole = Mixture(SOURCES, seed=7)
    expected = [whole.next(16) for _ in range(6)]
    first = Mixture(SOURCES, seed=7)
    for _ in range(3):
        first.next(16)
    second = Mixture(SOURCES, seed=7)
    second.load_state_dict(first.state_dict())
    assert [second.next(16) for _ in range(3)] == expected[3:]
    assert second.drawn == whole.drawn
    assert second.read(expected[5][0]).prompt == whole.read(expected[5][0]).prompt


def test_steps_and_rows_draw_differently():
    mixture = Mixture(SOURCES, seed=7)
    assert mixture.draw(0, 8) != mixture.draw(1, 8)
    same_row = [d._replace(index=3) for d in mixture.draw(0, 2)]
    assert mixture.read(same_row[0]).prompt != mixture.read(same_row[1]).prompt


def test_bad_mixtures_are_refused():
    with pytest.raises(ValueError, match=r"at least one source"):
        Mixture({}, seed=0)
    with pytest.raises(ValueError, match=r"sources \['none'\] have no rows"):
        Mixture({"none": Toy()}, seed=0)
    with pytest.raises(ValueError, match=r"give one per source"):
        Mixture(SOURCES, seed=0, weights={"robot": 1})
    with pytest.raises(ValueError, match=r"resume with the same data"):
        Mixture(SOURCES, seed=0).load_state_dict(Mixture(SOURCES, seed=1).state_dict())
