"""Kinds of things: enough of them, with words that name one kind only, and test words that training never draws."""

import subprocess
import sys

import numpy as np
import pytest

from pilot.sims.world.things import (
    FAMILIES,
    HELD_OUT_COLOURS,
    HELD_OUT_KINDS,
    KINDS,
    draw_things,
    find_kind,
    handled_kinds,
    looked_at_kinds,
)

ALL = list(KINDS.values())
HANDLED = [kind for kind in ALL if kind.is_handled]


def looks(kind, count=3):
    return [kind.draw_look(np.random.default_rng(seed)) for seed in range(count)]


def test_there_are_as_many_kinds_as_a_home_needs():
    assert len(handled_kinds()) >= 40
    assert len(looked_at_kinds()) >= 40
    assert 6 <= len(HELD_OUT_KINDS) <= 12


@pytest.mark.parametrize("family", ["dishes", "cutlery", "food", "rubbish", "toys", "clothes"])
def test_a_family_that_tasks_ask_for_has_several_kinds(family):
    assert len(handled_kinds(families=[family])) >= 3


def test_held_out_kinds_come_only_when_asked_for():
    assert {kind.name for kind in handled_kinds(held_out=True)} == set(HELD_OUT_KINDS)
    assert not {kind.name for kind in handled_kinds()} & set(HELD_OUT_KINDS)


def test_every_word_names_one_kind():
    words = [word for kind in ALL for word in (kind.name, *kind.synonyms)]
    twice = {word for word in words if words.count(word) > 1}
    assert not twice


def test_half_of_the_kinds_have_synonyms():
    assert sum(bool(kind.synonyms) for kind in HANDLED) > len(HANDLED) / 2


@pytest.mark.parametrize("name", ["mugg", "Mug"])
def test_a_near_name_is_answered_with_the_one_that_was_meant(name):
    with pytest.raises(ValueError, match="did you mean 'mug'"):
        find_kind(name)


def test_an_unknown_family_is_refused():
    with pytest.raises(ValueError, match="unknown family of things 'dishs'"):
        handled_kinds(families=["dishs"])
    assert "dishes" in FAMILIES


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name)
def test_training_draws_no_held_out_colour(kind):
    drawn = {colour for look in looks(kind, 12) for colour in (look.colour, look.accent)}
    assert not drawn & set(HELD_OUT_COLOURS)


def test_a_held_out_colour_can_be_asked_for():
    look = find_kind("mug").draw_look(np.random.default_rng(0), colours=HELD_OUT_COLOURS)
    assert look.colour in HELD_OUT_COLOURS
    with pytest.raises(ValueError, match="a banana comes in yellow, green, not in pink"):
        find_kind("banana").draw_look(np.random.default_rng(0), colours=("pink",))


def test_names_say_the_look():
    mug = find_kind("mug")
    plain = next(look for look in looks(mug, 20) if look.pattern == "plain")
    striped = next(look for look in looks(mug, 20) if look.pattern == "striped")
    assert mug.names(plain)[:2] == (f"{plain.colour} mug", f"{plain.colour} coffee mug")
    assert mug.names(striped)[0] == "striped mug"
    lemon = find_kind("lemon")
    assert lemon.names(looks(lemon)[0]) == ("lemon",)
    assert (mug.many(), find_kind("knife").many()) == ("mugs", "knives")


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name)
def test_looks_differ_and_the_same_seed_gives_the_same(kind):
    assert len(set(looks(kind, 6))) == 6
    assert looks(kind) == looks(kind)


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name)
def test_a_kind_stands_on_the_ground_and_is_as_large_as_a_thing(kind):
    for look in looks(kind):
        lows = {touched: [] for touched in (True, False)}
        for piece in kind.pieces(look):
            lows[piece.is_touched].append(-piece.reach(np.array([0, 0, -1.0])))
        assert min(lows[True]) == pytest.approx(0, abs=1e-9)
        assert min(lows[False], default=0) > -0.003
        assert 0.008 < kind.height(look) < (0.25 if kind.is_handled else 0.6)
        assert 0.015 < kind.footprint(look) < (0.2 if kind.is_handled else 0.5)


@pytest.mark.parametrize("kind", HANDLED, ids=lambda kind: kind.name)
def test_grasps_fit_between_the_fingers_and_spare_the_table(kind):
    for look in looks(kind):
        grasps = kind.grasps(look)
        assert len(grasps) >= 2
        for grasp in grasps:
            np.testing.assert_allclose(grasp.rotation @ grasp.rotation.T, np.eye(3), atol=1e-9)
            assert np.linalg.det(grasp.rotation) > 0
            assert 0.01 < grasp.opening <= 0.09
            lowest_of_pads = grasp.tcp[2] + 0.02 * grasp.approach[2]
            assert lowest_of_pads > 0


def test_drawn_things_can_be_told_apart():
    kinds = handled_kinds(families=["dishes", "cutlery"])
    things = draw_things(np.random.default_rng(0), 12, kinds=kinds)
    names = [name for kind, look in things for name in kind.names(look)]
    assert len(things) == 12
    assert len(set(names)) == len(names)
    assert things == draw_things(np.random.default_rng(0), 12, kinds=kinds)


def test_drawn_things_have_held_out_colours_where_they_come_in_them():
    kinds = [find_kind("mug"), find_kind("banana")]
    things = draw_things(np.random.default_rng(1), 3, kinds=kinds, colours=HELD_OUT_COLOURS)
    assert {look.colour for kind, look in things if kind.name == "mug"} <= set(HELD_OUT_COLOURS)
    assert {kind.name for kind, _ in things} == {"mug", "banana"}


def test_more_things_than_there_are_names_are_refused():
    with pytest.raises(ValueError, match="could not draw 3 things with different names of 1 kinds"):
        draw_things(np.random.default_rng(0), 3, kinds=[find_kind("lemon")])


def test_words_and_shapes_need_no_physics():
    code = (
        "import sys; sys.modules['mujoco'] = None\n"
        "import numpy as np\n"
        "from pilot.sims.world.things import KINDS\n"
        "[kind.pieces(kind.draw_look(np.random.default_rng(0))) for kind in KINDS.values()]"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
