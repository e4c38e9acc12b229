"""Questions about pictures of rooms: true, repeatable, and about things that robot data never has."""

import io

import numpy as np
import pytest
from PIL import Image

from pilot.eval.suites import load_suite
from pilot.sims.rooms.draw import SceneDraw
from pilot.sims.rooms.questions import _is_seen, annotate, extra_kinds, pictures_of_home
from pilot.sims.world.env import WorldEnv
from pilot.sims.world.things import HELD_OUT_KINDS, handled_kinds

DRAW = SceneDraw(body="mobile", length="steps", split="train", level=2, extras=extra_kinds())


@pytest.fixture(scope="module")
def pictures():
    return pictures_of_home(DRAW, 0, rows=18, seed=0, image_size=48)


def test_the_same_numbers_give_the_same_rows(pictures):
    assert pictures_of_home(DRAW, 0, rows=18, seed=0, image_size=48) == pictures
    assert len(pictures) == 3 and sum(len(asked) for _, asked in pictures) == 18
    assert np.asarray(Image.open(io.BytesIO(pictures[0][0]))).shape == (48, 48, 3)


def test_many_kinds_are_there_that_no_robot_handles_and_those_held_out():
    handled = {kind.name for kind in handled_kinds()}
    assert set(HELD_OUT_KINDS) < set(extra_kinds()) and not handled & set(extra_kinds())
    assert len(extra_kinds()) >= 40 + len(HELD_OUT_KINDS)
    kinds = {item.kind.name for scene in range(3) for item in DRAW(scene, 0, 0).items.values()}
    assert kinds & set(extra_kinds()) and kinds & handled


def test_what_stands_behind_something_has_no_box():
    env = WorldEnv(DRAW, robot=load_suite("rooms-steps").robot, image_size=48)
    for scene in range(8):  # until the robot happens to look at a thing
        env.reset_to(scene)
        notes = annotate(env, "front")
        seen = next((note["name"] for note in notes if note["box"] and not note["is_receptacle"]), None)
        if seen is not None:
            break
    assert seen is not None
    under = env.world.centre(seen) - [0, 0, 2.0]  # below the floor
    assert _is_seen(env, env.world.centre(seen), seen, "front") and not _is_seen(env, under, seen, "front")
    env.close()


def test_the_suite_offers_them():
    rows = load_suite("rooms-move").web_rows(1, rows=6, seed=0, image_size=32)
    assert sum(len(asked) for _, asked in rows) >= 6 and all("list everything" in dict(asked) for _, asked in rows)
