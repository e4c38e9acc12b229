"""Every kind that a robot handles rests on a table, stays in a gripper, and can be grasped when it has fallen over."""

import numpy as np
import pytest

import world_things
from pilot.sims.world.physics import Physics, new_spec
from pilot.sims.world.things import KINDS, find_kind
from pilot.sims.world.things.build import COLLIDER_GROUP, add_thing
from pilot.sims.world.things.grasps import as_it_lies
from pilot.sims.world.things.pieces import about

HANDLED = [kind for kind in KINDS.values() if kind.is_handled]


@pytest.mark.parametrize("kind", HANDLED, ids=lambda kind: kind.name)
def test_it_rests_on_a_table_and_stays_in_the_gripper(kind):
    trials = [world_things.try_thing(kind, np.random.default_rng([7, seed]), swing_seconds=0.4) for seed in range(2)]
    assert [trial.outcome for trial in trials] == ["held", "held"]


def test_the_bench_sees_a_thing_that_does_not_hold():
    """A plate whose grasps are beside it."""
    plate = find_kind("plate")
    rng = np.random.default_rng(0)
    look = plate.draw_look(rng)
    grasp = world_things.replace(plate.grasps(look)[0], tcp=np.array([0.3, 0, 0.03]))
    pose = (np.zeros(3), np.eye(3))
    trial = world_things._grasp_and_swing(plate, look, grasp=grasp, pose=pose, rng=rng, swing_seconds=0.2)
    assert trial.outcome == "not lifted"


@pytest.mark.parametrize("name", ["soup can", "shampoo bottle", "cereal box", "block"])
def test_what_has_fallen_over_is_grasped_from_above(name):
    kind = find_kind(name)
    look = kind.draw_look(np.random.default_rng(0))
    for rotation in (about("y", np.pi / 2), about("z", 1) @ about("x", np.pi / 2)):
        grasps = as_it_lies(kind.pieces(look), rotation)
        assert grasps
        assert len(kind.grasps_as_it_lies(look, rotation)) == len(grasps) + len(kind.grasps(look))
        for grasp in grasps:
            assert (rotation @ grasp.approach)[2] == pytest.approx(-1)
            ground = -max(piece.reach(rotation.T @ [0, 0, -1.0]) for piece in kind.pieces(look))
            assert (rotation @ grasp.tcp)[2] >= ground + 0.019


def test_what_stands_is_grasped_as_its_kind_says():
    kind = find_kind("mug")
    look = kind.draw_look(np.random.default_rng(0))
    assert kind.grasps_as_it_lies(look, about("z", 2)) is kind.grasps(look)


def test_a_bowl_upside_down_is_too_wide():
    kind = find_kind("bowl")
    assert not as_it_lies(kind.pieces(kind.draw_look(np.random.default_rng(0))), about("x", np.pi))


def test_a_thing_weighs_what_its_kind_says_and_its_decoration_nothing():
    for seed, kind in enumerate(HANDLED):
        look = kind.draw_look(np.random.default_rng(seed))
        spec = new_spec()
        add_thing(spec, "thing", kind, look=look)
        model = Physics(spec).model
        assert model.body("thing").mass[0] == pytest.approx(kind.total_mass(look), rel=1e-6)
        assert (model.geom_contype == 0).sum() == sum(not piece.is_touched for piece in kind.pieces(look))
        hidden = sum(not piece.is_seen for piece in kind.pieces(look))
        assert (model.geom_group == COLLIDER_GROUP).sum() == hidden


def test_two_things_of_one_look_are_equal_models():
    kind = find_kind("crumpled paper")
    look = kind.draw_look(np.random.default_rng(1))
    models = []
    for _ in range(2):
        spec = new_spec()
        add_thing(spec, "thing", kind, look=look, pos=(0.1, 0.2, 0.3), yaw=0.5)
        models.append(Physics(spec).model)
    np.testing.assert_array_equal(models[0].mesh_vert, models[1].mesh_vert)
    np.testing.assert_array_equal(models[0].body_pos, models[1].body_pos)
