"""What LIBERO's expert does next, in a scene that only says what is done (the real one: `make test-benchmarks`)."""

from types import SimpleNamespace

import numpy as np
import pytest

from pilot.sims.base import DONE
from pilot.sims.experts.libero import expert as module
from pilot.sims.experts.libero.motions import Missed

GOAL = ("in", "milk_1", "basket_1_contain_region")


class StubScene:
    """Milk that is in the basket once somebody has put it there."""

    def __init__(self, world):
        self.goals, self.done, self.held, self.world = world.goals, False, False, world
        self.data = SimpleNamespace(time=0.0)

    def is_done(self, goal):
        return self.done

    def hand(self):
        return np.zeros(3), np.eye(3)

    def box(self, name):
        return (0.1, 0.2, 0.3, 0.4)

    def site(self, region):
        return np.zeros(3), np.eye(3)

    def site_body(self, region):
        return "basket_1_main"


@pytest.fixture
def make(monkeypatch):
    def pick(hand, name, *, rng, tries, along):
        yield hand.still()
        if tries == 0:
            raise Missed(f"{name} is not in the hand")
        hand.scene.held = True

    def place_at(hand, name, where, *, rng):
        yield hand.still()
        hand.scene.held, hand.scene.done = False, True

    def again(hand):
        yield hand.still()

    monkeypatch.setattr(module, "LiberoScene", StubScene)
    monkeypatch.setattr(module, "is_held", lambda scene, name: scene.held)
    monkeypatch.setattr(module, "is_drawer", lambda scene, body: False)
    for name, skill in (("pick", pick), ("place_at", place_at), ("release", again)):
        monkeypatch.setattr(module, name, skill)

    def expert(*goals):
        world = SimpleNamespace(goals=list(goals), object_sites_dict={"basket_1_contain_region": None})
        env = SimpleNamespace(world=world, prompt="pick up the milk and place it in the basket")
        return module.LiberoExpert(env, np.random.default_rng(0))

    return expert


def play(expert, steps=20):
    """Let it act, and return what it says, each once."""
    said = []
    for _ in range(steps):
        expert.act()
        words, box = expert.subtask
        assert (box is None) == (words == DONE)
        said += [] if said and said[-1] == words else [words]
        expert.scene.data.time += 0.05
    return said


def test_it_says_what_it_does_and_tries_again(make):
    expert = make(GOAL)
    assert play(expert) == ["pick up the milk", "put the milk in the basket", DONE]
    assert expert.failures == ["milk_1 is not in the hand"]


def test_it_begins_anew_when_what_it_did_is_undone(make):
    expert = make(GOAL)
    play(expert)
    expert.scene.done = False
    assert play(expert) == ["pick up the milk", "put the milk in the basket", DONE]


def test_asking_twice_changes_nothing(make):
    expert = make(GOAL)
    first = expert.act()
    assert expert.act() is first and expert.subtask == expert.subtask


def test_a_goal_without_a_skill_is_refused(make):
    with pytest.raises(ValueError, match=r"expert knows the goals .* has .*close"):
        make(GOAL, ("close", "microwave_1"))
