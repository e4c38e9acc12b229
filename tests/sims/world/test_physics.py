"""Worlds rest, wake up, repeat themselves to the bit, and say when they blow up."""

import numpy as np
import pytest

from pilot.sims.world.physics import Physics, add_geom, look_at, multiply_quats, new_spec, quat_about, quat_of
from sims.world.small_scene import TOP, table_spec


def test_things_rest_where_they_stand():
    world = Physics(table_spec(boxes=8))
    before = [world.pos(f"item{i}") for i in range(8)]
    world.step(200)
    for i, stood in enumerate(before):
        assert np.linalg.norm(world.pos(f"item{i}") - stood) < 0.003
        assert world.speed(f"item{i}") < 1e-3
    assert not world.is_broken() and world.speed("table") == 0.0


def test_a_round_thing_comes_to_rest():
    spec = table_spec(boxes=0)
    ball = spec.worldbody.add_body(name="ball", pos=(0.4, 0.2, TOP + 0.035))
    ball.add_freejoint()
    add_geom(ball, "sphere", size=(0.033,), mass=0.1, contact="round")
    world = Physics(spec)
    world.data.qvel[:2] = 0.1
    world.step(400)
    assert world.speed("ball") < 0.01 and world.pos("ball")[2] > TOP


def test_what_sleeps_wakes_up_when_it_is_moved():
    world = Physics(table_spec())
    world.step(400)
    world.set_pose("item0", (0.4, 0.3, TOP + 0.3))
    world.forward()
    assert world.pos("item0") == pytest.approx([0.4, 0.3, TOP + 0.3])
    world.step(150)
    assert world.pos("item0")[2] == pytest.approx(TOP + 0.03, abs=0.005)


def test_the_same_world_repeats_itself_to_the_bit():
    ends = []
    for _ in range(2):
        world = Physics(table_spec())
        world.set_pose("item0", (0.4, 0.0, TOP + 0.2), quat=quat_about((1, 1, 0), 0.7))
        world.step(100)
        ends.append(world.data.qpos.copy())
    assert np.array_equal(*ends)


@pytest.mark.parametrize("what", ["nan", "fast", "far"])
def test_physics_that_blows_up_is_noticed(what):
    world = Physics(table_spec())
    assert not world.is_broken()
    if what == "nan":
        world.data.qpos[0] = np.nan
    elif what == "fast":
        world.data.qvel[0] = 100.0
    else:
        world.set_pose("item0", (0, 0, -200))
    world.step(2)
    assert world.is_broken()


def test_overlaps_are_named():
    world = Physics(table_spec())
    world.set_pose("item1", world.pos("item0") + [0.02, 0, 0])
    world.forward()
    assert ("item0", "item1") in {(first, second) for first, second, _ in world.contacts(deeper_than=0.01)}
    assert all(depth > 0.01 for *_, depth in world.contacts(deeper_than=0.01))


def test_what_is_only_looked_at_weighs_nothing_and_touches_nothing():
    spec = new_spec()
    body = spec.worldbody.add_body(name="body", pos=(0, 0, 0.01))
    body.add_freejoint()
    add_geom(body, "box", size=(0.1, 0.1, 0.1), mass=2.0)
    add_geom(body, "box", size=(0.2, 0.2, 0.5), contact="none")
    add_geom(spec.worldbody, "plane", size=(1, 1, 0.1), pos=(0, 0, -0.1))
    world = Physics(spec)
    assert world.model.body_mass[1] == 2.0 and all(pair[:2] != ("body", "body") for pair in world.contacts())
    assert world.contacts() == [("world", "body", pytest.approx(0, abs=1e-6))] * world.data.ncon or world.data.ncon == 0


def test_quaternions():
    quarter = quat_about((0, 0, 1), np.pi / 2)
    assert multiply_quats(quarter, quarter) == pytest.approx(quat_about((0, 0, 1), np.pi))
    assert quat_of(np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]])) == pytest.approx(quarter)


@pytest.mark.parametrize("target", [(1, 0, 0), (1, 2, -1), (0, 0, -1)])
def test_a_camera_looks_at_its_target(target):
    spec = new_spec()
    spec.worldbody.add_camera(name="camera", pos=(0, 0, 0), quat=look_at((0, 0, 0), target))
    world = Physics(spec)
    axes = world.data.cam_xmat[0].reshape(3, 3)
    assert -axes[:, 2] == pytest.approx(np.array(target) / np.linalg.norm(target))
    assert axes[2, 1] >= -1e-9  # upright
