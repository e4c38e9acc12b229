"""Goals are judged from the state of the world alone."""

import numpy as np
import pytest

from pilot.sims.gl import mujoco
from pilot.sims.world.control import JointCommand
from pilot.sims.world.env import WorldEnv
from pilot.sims.world.goals import Closed, Holding, Inside, NearTo, On, Opened, StackedOn, Wiped, Wiping
from pilot.sims.world.physics import add_geom
from pilot.sims.world.scene import Fixture, held_items, openness, region_centre
from sims.world.small_scene import TOP, make_scene, table_spec


@pytest.fixture
def enter():
    envs = []

    def make(scene):
        envs.append(WorldEnv(lambda *_: scene, robot=scene.body.robot))
        envs[-1].reset_to(0)
        return envs[-1]

    yield make
    for env in envs:
        env.close()


def grasp(env, item):
    """Put an item between the open fingers of the right hand, and close them."""
    arm = env.scene.body.arm("right")
    pos, _ = env.controller.ik.pose(env.controller.command.q, arm)
    env.world.set_pose(env.scene.items[item].body, pos)
    env.world.forward()
    for _ in range(12):
        env.advance(env.controller.encode(JointCommand(env.controller.command.q, np.zeros(1))))


def test_where_things_are(enter):
    env = enter(make_scene())
    world, scene = env.world, env.scene
    inside, near = Inside("red box", "tray"), NearTo("red box", (0.42, -0.22))
    assert not inside.holds(world, scene) and not near.holds(world, scene)
    world.set_pose("item0", (0.42, -0.22, TOP + 0.04))
    world.forward()
    assert inside.holds(world, scene) and near.holds(world, scene) and On("red box", "tray").holds(world, scene)
    world.set_pose("item1", (0.43, -0.22, TOP + 0.10))
    world.forward()
    assert StackedOn("blue box", "red box").holds(world, scene)
    assert not StackedOn("red box", "blue box").holds(world, scene)
    world.set_pose("item0", (0.42, -0.22, TOP + 0.3))  # high above the tray
    world.forward()
    assert not inside.holds(world, scene) and region_centre(world, scene.fixtures["tray"])[2] == TOP + 0.06


def test_what_is_held_is_not_yet_put_anywhere(enter):
    env = enter(make_scene())
    assert not held_items(env.world, env.scene)
    grasp(env, "red box")
    world, scene = env.world, env.scene
    assert held_items(world, scene) == {"red box": scene.body.arms[0]}
    assert Holding("red box").holds(world, scene) and not Holding("blue box").holds(world, scene)
    around = Fixture("air", "table", "surface", tuple(world.pos("item0") - world.pos("table")), (0.1, 0.1, 0.1))
    scene.fixtures["air"] = around
    assert not Inside("red box", "air").holds(world, scene)  # it is there, but in the hand
    table_top = world.pos("item0") * [1, 1, 0] + [0, 0, TOP + 0.02]
    scene.items["held up"] = scene.items["red box"]
    q = env.controller.ik.solve(env.controller.command.q, {"r_tcp": (table_top, world.site("r_tcp")[1])}).q
    for t in range(30):
        start = env.controller.command.q
        env.advance(env.controller.encode(JointCommand(start + (q - start) / max(1, 25 - t), np.zeros(1))))
    assert "red box" in held_items(world, scene) and not Holding("red box").holds(world, scene)  # it stands


def test_what_opens(enter):
    spec = table_spec()
    box = spec.worldbody.add_body(name="lid", pos=(0.3, 0.35, TOP + 0.1))
    box.add_joint(name="lid", type=mujoco.mjtJoint.mjJNT_HINGE, axis=(0, 1, 0), range=(-1.5, 0), limited=1, damping=1)
    add_geom(box, "box", size=(0.05, 0.05, 0.004), pos=(0.05, 0, 0), mass=0.1, contact="none")
    scene = make_scene(spec=spec)
    scene.fixtures["lid"] = Fixture("lid", "lid", "opening", joint="lid", open_at=-1.5, closed_at=0.0)
    env = enter(scene)
    for at, is_open, is_closed in ((0.0, False, True), (-0.5, False, False), (-1.4, True, False)):
        env.world.set_joint("lid", at)
        env.world.forward()
        assert openness(env.world, scene.fixtures["lid"]) == pytest.approx(-at / 1.5)
        assert Opened("lid").holds(env.world, scene) is is_open and Closed("lid").holds(env.world, scene) is is_closed
    with pytest.raises(ValueError, match="'tray' does not open"):
        openness(env.world, scene.fixtures["tray"])


def test_a_spill_is_wiped_away(enter):
    spec, spots = table_spec(), ("spot0", "spot1")
    for i, spot in enumerate(spots):
        at = (0.3, 0.2 + 0.1 * i, TOP + 0.0005)
        add_geom(spec.worldbody, "cylinder", size=(0.02, 0.0005), pos=at, contact="none", name=spot)
    scene = make_scene(spec=spec, effects=[Wiping(spots, ("red box",))])
    env, goal = enter(scene), Wiped(spots)
    stay = env.controller.encode(env.controller.command)
    env.advance(stay)
    assert not goal.holds(env.world, scene)
    for spot in spots:
        for height, is_wiped in ((0.2, False), (0.031, True)):
            env.world.set_pose("item0", env.world.data.geom(spot).xpos + [0.01, 0, height])
            env.world.forward()
            env.advance(stay)
            assert (float(env.world.model.geom(spot).rgba[3]) == 0) is is_wiped
    assert goal.holds(env.world, scene)


def test_goals_that_name_what_is_not_there_are_refused():
    scene = make_scene()
    Inside("red box", "tray").check(scene)
    for goal, missing in (
        (Inside("cup", "tray"), "cup"),
        (On("red box", "sink"), "sink"),
        (StackedOn("red box", "cup"), "cup"),
    ):
        with pytest.raises(ValueError, match=f"names (item|fixture) '{missing}'; the scene 'table' has"):
            goal.check(scene)


def test_goals_say_what_they_are_about():
    assert (Inside("cup", "sink").item, Inside("cup", "sink").fixture) == ("cup", "sink")
    assert (Opened("door").item, Opened("door").fixture, Opened("door").items) == (None, "door", ())
    assert (Holding("cup").item, Holding("cup").fixture) == ("cup", None)
    assert StackedOn("cup", "plate").items == ("cup", "plate")
    assert On("cup", "sink") != Inside("cup", "sink")
