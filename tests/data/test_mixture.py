"""Shares follow n^0.43 or the given weights; epochs hold every row once; draws are a function of (seed, step)."""

import json
import math
from collections import Counter

import numpy as np
import pytest

from pilot.data.loading.shuffle import shuffled_position
from pilot.data.mixture import Draw, Mixture, count_before
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


class NothingToDraw(Toy):
    """Rows of which settings leave none."""

    def groups(self) -> dict[str, np.ndarray]:
        return {}


SOURCES = {"robot": Toy(single=5000, multi=1000), "web": Toy(web=200)}


def test_drawn_shares_match_the_weights():
    """The golden ratio fills the groups evenly: a share is met far better than by chance."""
    mixture = Mixture(SOURCES, seed=0)
    natural = np.array([5000, 1000, 200]) ** 0.43
    np.testing.assert_allclose(list(mixture.shares.values()), natural / natural.sum())
    draws = [draw for step in range(10) for draw in mixture.draw(step, 200)]
    counts = Counter(group_of(draw) for draw in draws)
    for key, share in mixture.shares.items():
        assert counts[key] / len(draws) == pytest.approx(share, abs=2e-3)


def test_a_power_of_one_draws_all_rows_alike():
    shares = Mixture(SOURCES, seed=0, power=1.0).shares
    np.testing.assert_allclose(list(shares.values()), np.array([5000, 1000, 200]) / 6200)


def group_of(draw: Draw) -> tuple[str, str]:
    return draw.source, "web" if draw.source == "web" else "single" if draw.index < 5000 else "multi"


def test_every_row_comes_once_per_epoch_in_an_order_of_its_own():
    mixture = Mixture({"web": SOURCES["web"]}, seed=1)
    order = [draw.index for step in range(8) for draw in mixture.draw(step, 100)]
    epochs = [order[start : start + 200] for start in range(0, 800, 200)]
    assert all(sorted(epoch) == list(range(200)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert [
        draw.index for step in range(8) for draw in Mixture({"web": SOURCES["web"]}, seed=2).draw(step, 100)
    ] != order


def test_epochs_of_a_group_do_not_depend_on_how_rows_are_batched():
    mixture = Mixture(SOURCES, seed=3)
    by_batch = {size: [d[:2] for s in range(600 // size) for d in mixture.draw(s, size)] for size in (1, 20, 600)}
    assert by_batch[1] == by_batch[20] == by_batch[600]
    single = [index for source, index in by_batch[600] if source == "robot" and index < 5000]
    assert len(set(single)) == len(single), "a row came twice in its group's first epoch"


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 65, 1000])
def test_shuffled_places_are_a_permutation(size):
    places = [shuffled_position(place, size, key=(1, 2, 3)) for place in range(size)]
    assert sorted(places) == list(range(size))
    if size > 3:
        assert places != [shuffled_position(place, size, key=(1, 2, 4)) for place in range(size)] != list(range(size))


def test_shuffled_places_are_spread_evenly():
    """Where place 0 goes over many keys: every tenth of the range as often."""
    tenths = Counter(shuffled_position(0, 1000, key=(0, 0, epoch)) // 100 for epoch in range(1000))
    assert min(tenths.values()) > 60 and max(tenths.values()) < 140


def test_points_below_an_edge_are_counted_without_a_loop():
    walk = {"start": 77, "stride": 619, "circle": 1000}
    points = [(77 + n * 619) % 1000 for n in range(300)]
    for edge in (0, 1, 250, 999, 1000):
        for rows in (0, 1, 2, 157, 300):
            assert count_before(edge, rows, **walk) == sum(point < edge for point in points[:rows])


def test_a_late_step_is_drawn_as_fast_as_the_first():
    """No loop over what came before: step 10¹² is as good as any, and the shares still hold there."""
    draws = Mixture(SOURCES, seed=0).draw(10**12, 500)
    assert sum(d.source == "web" for d in draws) / 500 == pytest.approx(
        Mixture(SOURCES, seed=0).shares["web", "web"], abs=0.01
    )


def test_given_weights_replace_the_sources_shares_only():
    mixture = Mixture(SOURCES, seed=0, weights={"robot": 3, "web": 1})
    assert sum(share for (source, _), share in mixture.shares.items() if source == "robot") == pytest.approx(0.75)
    ratio = mixture.shares["robot", "single"] / mixture.shares["robot", "multi"]
    assert ratio == pytest.approx(5**0.43)


def test_a_resumed_run_must_draw_from_the_same_data():
    state = json.loads(json.dumps(Mixture(SOURCES, seed=7).state_dict()))
    Mixture(SOURCES, seed=7).check(state)
    for other in (Mixture(SOURCES, seed=8), Mixture(SOURCES, seed=7, weights={"robot": 1, "web": 2})):
        with pytest.raises(ValueError, match=r"resume with the same data"):
            other.check(state)


def test_rounding_on_another_machine_is_no_other_data():
    """One row more in a group of a million is."""
    state = Mixture(SOURCES | {"large": Toy(all=10**6)}, seed=7).state_dict()
    for row in state["shares"]:
        row[-1] = math.nextafter(row[-1], 1)
    Mixture(SOURCES | {"large": Toy(all=10**6)}, seed=7).check(state)
    for other in (SOURCES | {"large": Toy(all=10**6 + 1)}, SOURCES, SOURCES | {"larger": Toy(all=10**6)}):
        with pytest.raises(ValueError, match=r"resume with the same data"):
            Mixture(other, seed=7).check(state)


def test_a_source_of_weight_zero_is_never_drawn():
    mixture = Mixture(SOURCES, seed=0, weights={"robot": 0, "web": 1})
    assert {draw.source for step in range(50) for draw in mixture.draw(step, 20)} == {"web"}


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
    with pytest.raises(ValueError, match=r"sources \['none'\] have no rows to draw; .* first_seconds, data.held_out"):
        Mixture(SOURCES | {"none": NothingToDraw(a=5)}, seed=0)
    with pytest.raises(ValueError, match=r"give one per source"):
        Mixture(SOURCES, seed=0, weights={"robot": 1})


@pytest.mark.parametrize("draws", ["rows", "windows"])
@pytest.mark.parametrize("streams", [1, 12])
def test_ranks_take_turns_in_the_same_batch(streams, draws):
    """However many ranks there are, and wherever a run goes on: a batch is a function of (seed, step)."""
    whole = [Mixture(SOURCES, seed=3, streams=streams, draws=draws).draw(step, 24) for step in range(6)]
    for ranks in (1, 2, 3, 4):
        for first in (0, 4):
            for rank in range(ranks):
                mixture = Mixture(SOURCES, seed=3, streams=streams, draws=draws)
                own = [mixture.draw(step, 24, rank=rank, ranks=ranks) for step in range(first, 6)]
                assert own == [rows[rank::ranks] for rows in whole[first:]]


def test_shares_and_epochs_hold_in_streams():
    mixture = Mixture(SOURCES, seed=0, streams=8)
    draws = [draw for step in range(200) for draw in mixture.draw(step, 48)]
    counts = Counter(group_of(draw) for draw in draws)
    for key, share in mixture.shares.items():
        assert counts[key] / len(draws) == pytest.approx(share, abs=2e-3)
    web = np.bincount([draw.index for draw in draws if draw.source == "web"])
    assert len(web) == 200 and web.max() - web.min() <= 2, "every row about as often as any other"


def test_a_run_goes_on_with_the_same_streams():
    state = Mixture(SOURCES, seed=7).state_dict()
    for name in ("draws", "streams"):
        del state[name]
    Mixture(SOURCES, seed=7).check(state)  # written before there were streams
    with pytest.raises(ValueError, match=r"the checkpoint has streams 1, this run 4; resume with the same"):
        Mixture(SOURCES, seed=7, streams=4).check(state)
    with pytest.raises(ValueError, match=r"the checkpoint has draws 'rows', this run 'windows'"):
        Mixture(SOURCES, seed=7, draws="windows").check(state)
