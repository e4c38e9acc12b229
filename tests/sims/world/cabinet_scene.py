"""A cabinet with a drawer and a door, a table with a spill, a sponge and a block: for skills beyond pick and place."""

import numpy as np

from pilot.sims.gl import mujoco
from pilot.sims.world.bodies import load_body
from pilot.sims.world.env import WorldEnv
from pilot.sims.world.goals import Closed, NearTo, Opened, Wiped, Wiping
from pilot.sims.world.physics import add_geom, new_spec, quat_about
from pilot.sims.world.scene import Fixture, Item, Scene
from pilot.sims.world.task import Step, Task
from pilot.sims.world.things.build import add_thing
from pilot.sims.world.things.catalogue import find_kind

TOP = 0.74  # of the table [m]
SPOTS = tuple(f"spill {i}" for i in range(4))
STEPS = {
    "open drawer": Step(Opened("drawer"), ("open the drawer",), "open"),
    "close drawer": Step(Closed("drawer"), ("close the drawer",), "close"),
    "open door": Step(Opened("door"), ("open the door",), "open"),
    "close door": Step(Closed("door"), ("close the door",), "close"),
    "push": Step(NearTo("block", (0.86, -0.62), 0.05), ("push the block",), "push"),
    "wipe": Step(Wiped(SPOTS), ("wipe the table",), "wipe"),
}


def make_env(*steps, body="mobile", size=16):
    """Make an environment whose task is some of `STEPS`, one after the other."""
    robot = load_body(body)
    return WorldEnv(lambda *numbers: draw(robot, numbers, steps), robot=robot.robot, image_size=size)


def draw(body, numbers, steps):
    rng, spec = np.random.default_rng(numbers), new_spec()
    add_geom(spec.worldbody, "plane", size=(4, 4, 0.1))
    spec.worldbody.add_light(pos=(0, 0, 3), dir=(0.2, 0, -1), diffuse=(0.5, 0.5, 0.5))
    add_cabinet(spec, drawer_open="close drawer" in steps[:1], door_open="close door" in steps[:1])
    items = add_table(spec, rng)
    task = Task("steps", "do it", tuple(STEPS[step] for step in steps), ordered=True, length="steps", max_seconds=90)
    front = (0.9 - 0.56, 0.6, 0.0)
    fixtures = {
        "drawer": Fixture(
            "drawer", "drawer", "container", (0.15, 0, 0.08), (0.12, 0.15, 0.08), "drawer", 0.25, 0.0, "drawer handle",
            front,
        ),
        "door": Fixture(
            "door", "door", "opening", (0, -0.18, 0), (0.03, 0.18, 0.2), "door", -1.45, 0.0, "door handle", front
        ),
        "table": Fixture("table", "table", "surface", (-0.12, 0, TOP + 0.1), (0.16, 0.5, 0.1), front=(0.41, -0.7, 0.0)),
    }  # fmt: skip
    pose = (float(rng.uniform(-0.4, 0.0)), float(rng.uniform(-0.3, 0.3)), float(rng.uniform(-1, 1)))
    return Scene(
        name="cabinet",
        spec=spec,
        body=body,
        task=task,
        robot_pose=pose,
        items=items,
        fixtures=fixtures,
        effects=(Wiping(SPOTS, ("sponge",)),),
    )


def add_cabinet(spec, *, drawer_open, door_open):
    """Add a cabinet whose face is at x = 0.9: a drawer above, a door hinged on the left below."""
    cabinet = spec.worldbody.add_body(name="cabinet", pos=(0.9, 0.6, 0))
    for sign in (-1, 1):
        add_geom(cabinet, "box", size=(0.25, 0.01, 0.45), pos=(0.25, sign * 0.21, 0.45))
    add_geom(cabinet, "box", size=(0.01, 0.2, 0.45), pos=(0.5, 0, 0.45))
    add_geom(cabinet, "box", size=(0.27, 0.22, 0.02), pos=(0.25, 0, 0.92))
    drawer = cabinet.add_body(name="drawer", pos=(0, 0, 0.66))
    add_joint(drawer, "drawer", "slide", axis=(-1, 0, 0), reach=(0, 0.3), friction=0.8, damping=4)
    add_geom(drawer, "box", size=(0.2, 0.17, 0.005), pos=(0.2, 0, 0.02), mass=0.5)
    add_geom(drawer, "box", size=(0.008, 0.19, 0.1), pos=(-0.008, 0, 0.1), mass=0.5)
    for sign in (-1, 1):
        add_geom(drawer, "box", size=(0.2, 0.005, 0.04), pos=(0.2, sign * 0.17, 0.06), mass=0.1)
    add_handle(drawer, "drawer", (-0.016, 0, 0.1), is_upright=False)
    door = cabinet.add_body(name="door", pos=(-0.01, 0.2, 0.4))
    add_joint(door, "door", "hinge", axis=(0, 0, 1), reach=(-1.9, 0), friction=0.1, damping=0.15)
    add_geom(door, "box", size=(0.009, 0.19, 0.22), pos=(0, -0.2, 0), mass=0.8)
    add_handle(door, "door", (-0.009, -0.34, 0.1), is_upright=True)
    spec.add_exclude(bodyname1="cabinet", bodyname2="drawer")
    spec.add_exclude(bodyname1="cabinet", bodyname2="door")
    if drawer_open:
        drawer.pos = (-0.25, 0, 0.66)
        drawer.joints[0].ref = 0.25
    if door_open:
        door.quat = quat_about((0, 0, 1), -1.3)
        door.joints[0].ref = -1.3


def add_joint(body, name, kind, *, axis, reach, friction, damping):
    kinds = {"slide": mujoco.mjtJoint.mjJNT_SLIDE, "hinge": mujoco.mjtJoint.mjJNT_HINGE}
    body.add_joint(
        name=name, type=kinds[kind], axis=axis, range=reach, limited=1, frictionloss=friction, damping=damping,
        armature=0.02,
    )  # fmt: skip


def add_handle(body, name, at, *, is_upright):
    """Add a bar 4.5 cm before the face, and the site that says how a hand grips it."""
    x, y, z = at[0] - 0.045, at[1], at[2]
    turn = quat_about((1, 0, 0), 0.0 if is_upright else np.pi / 2)
    add_geom(body, "capsule", size=(0.007, 0.05), pos=(x, y, z), quat=turn, mass=0.05)
    for sign in (-1, 1):
        offset = (0, sign * 0.05) if is_upright else (sign * 0.05, 0)
        add_geom(body, "box", size=(0.022, 0.005, 0.005), pos=(x + 0.022, y + offset[0], z + offset[1]), mass=0.02)
    body.add_site(name=f"{name} handle", pos=(x, y, z), quat=turn)


def add_table(spec, rng):
    """Add a table at y = -0.7 with a spill, a sponge and a block; return the items."""
    table = spec.worldbody.add_body(name="table", pos=(1.0, -0.7, 0))
    add_geom(table, "box", size=(0.3, 0.55, 0.03), pos=(0, 0, TOP - 0.03))
    for i, spot in enumerate(SPOTS):
        at = (-0.12 + 0.04 * (i % 2), 0.24 + 0.04 * (i // 2), TOP + 0.001)
        add_geom(table, "cylinder", size=(0.02, 0.001), pos=at, contact="none", name=spot)
    items = {}
    for name, y in (("sponge", -0.35), ("block", -0.7)):
        kind = find_kind(name)
        look = kind.draw_look(rng)
        add_thing(spec, name, kind, look=look, pos=(0.84, y - 0.15, TOP + 0.001), yaw=float(rng.uniform(-0.3, 0.3)))
        items[name] = Item(name, kind, look, name)
    return items
