"""Homes and episodes as drawn: reproducible, disjoint between splits, never ambiguous, and with room for everything."""

import functools

import numpy as np
import pytest

from pilot.sims.homes import language
from pilot.sims.homes.episodes import draw_episode
from pilot.sims.homes.rooms import FIRST_TEST_SEED, SPACING, draw_home, home_seed


@functools.cache
def home(seed: int, level: int = 2, kinds=language.KINDS, receptacles=language.RECEPTACLES):
    return draw_home(seed, level, kinds=kinds, receptacles=receptacles)


@functools.cache
def episodes(task: str, level: int = 2):
    return [draw_episode(home(seed, level), n, task=task) for seed in range(10) for n in range(4)]


def test_train_and_test_homes_never_share_a_seed():
    assert home_seed("train", FIRST_TEST_SEED - 1) < home_seed("test", 0)
    for split, number in (("train", FIRST_TEST_SEED), ("test", -1), ("valid", 0)):
        with pytest.raises(ValueError):
            home_seed(split, number)


def test_a_seed_is_a_home():
    again = draw_home(7, 2, kinds=language.KINDS, receptacles=language.RECEPTACLES)
    assert home(7) == again
    assert home(7).wall != home(8).wall
    assert home(7).receptacles != home(8).receptacles


def test_things_have_names_of_their_own_and_room():
    for task in ("single", "multi"):
        for episode in episodes(task):
            names = [t.name for t in episode.things]
            assert len(set(names)) == len(names)
            spots = np.array([t.xy for t in episode.things])
            gaps = np.linalg.norm(spots[:, None] - spots, axis=-1) + 9 * np.eye(len(spots))
            assert gaps.min() > SPACING


def test_level_2_needs_both_words():
    drawn = episodes("single")
    assert {len(e.things) for e in drawn} == {3, 4, 5}
    same_colour = [any(t.colour == e.things[0].colour for t in e.things[1:]) for e in drawn]
    same_kind = [any(t.kind == e.things[0].kind for t in e.things[1:]) for e in drawn]
    assert np.mean(same_colour) > 0.8 and np.mean(same_kind) > 0.2


def test_level_1_is_two_things():
    drawn = episodes("single", level=1)
    assert {len(e.things) for e in drawn} == {2}
    assert all(e.targets == (0,) for e in drawn)


def test_prompts_mean_their_targets():
    forms = set()
    for e in episodes("multi"):
        targets = {e.things[t].name for t in e.targets}
        for category, kinds in language.CATEGORIES.items():
            if e.prompt == language.category_instruction(category, e.receptacle.name):
                assert targets == {t.name for t in e.things if t.kind in kinds}
                forms.add(category)
        if e.prompt == language.everything_instruction(e.receptacle.name):
            assert len(targets) == len(e.things)
            forms.add("everything")
        if " and the " in e.prompt:
            assert all(name in e.prompt for name in targets) and len(targets) == 2
            forms.add("list")
        assert 2 <= len(targets) <= 3
    assert forms == {"dishes", "toys", "everything", "list"}


def test_held_out_words_appear_only_when_named():
    ordinary = {kind for seed in range(20) for kind, _ in home(seed).pool}
    assert ordinary == set(language.KINDS)
    special = home(3, kinds=("hat",), receptacles=("crate",))
    assert {kind for kind, _ in special.pool} == {"hat"} and special.receptacles[0].name == "crate"


def test_receptacle_frames_are_inverse():
    r = home(5).receptacles[0]
    points = np.random.default_rng(0).uniform(-0.3, 0.3, (5, 2))
    assert np.allclose(r.world(r.local(points)), points)
    assert r.distance(np.array(r.pos)) == 0
    assert np.isclose(r.distance(r.world(np.array([r.inner[0] + 0.03, 0]))), 0.03)
