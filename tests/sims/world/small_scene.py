"""A bare table with a red box, a blue box and a tray, for any body: enough to try the world's toolkit on."""

import numpy as np

from pilot.sims.world.bodies import load_body
from pilot.sims.world.goals import Inside
from pilot.sims.world.physics import add_geom, new_spec
from pilot.sims.world.scene import Fixture, Item, Scene
from pilot.sims.world.task import Step, Task

TOP = 0.75  # height of the table [m]
TRAY = Fixture("tray", "tray", "container", (0, 0, 0.06), (0.1, 0.1, 0.06))


def table_spec(*, boxes=2, tray=True):
    spec = new_spec()
    add_geom(spec.worldbody, "plane", size=(3, 3, 0.1), rgb=(0.5, 0.45, 0.4))
    table = spec.worldbody.add_body(name="table", pos=(0.45, 0, TOP - 0.05))
    add_geom(table, "box", size=(0.3, 0.5, 0.05), rgb=(0.7, 0.65, 0.6))
    if tray:
        body = spec.worldbody.add_body(name="tray", pos=(0.42, -0.22, TOP))
        add_geom(body, "box", size=(0.1, 0.1, 0.004), pos=(0, 0, 0.004), rgb=(0.5, 0.3, 0.2))
        for x, y in ((1, 0), (-1, 0), (0, 1), (0, -1)):
            size = (0.004 if x else 0.1, 0.004 if y else 0.1, 0.03)
            add_geom(body, "box", size=size, pos=(0.1 * x, 0.1 * y, 0.03), rgb=(0.5, 0.3, 0.2))
    for i in range(boxes):
        body = spec.worldbody.add_body(name=f"item{i}", pos=(0.36 + 0.12 * (i % 2), 0.06 + 0.1 * (i // 2), TOP + 0.031))
        body.add_freejoint()
        add_geom(body, "box", size=(0.022, 0.022, 0.03), rgb=((0.8, 0.1, 0.1), (0.1, 0.1, 0.8))[i % 2], mass=0.1)
    return spec


def make_scene(name="arm", *, spec=None, task=None, **options):
    """Make the scene for a body; the robot stands at the table's near edge."""
    body = load_body(name)
    items = {"red box": Item("item0", None, None, "red box"), "blue box": Item("item1", None, None, "blue box")}
    goal = Inside("red box", "tray")
    step = Step(goal, ("pick up the red box", "put the red box in the tray"))
    return Scene(
        name="table",
        spec=spec or table_spec(),
        body=body,
        task=task or Task("move", "put the red box in the tray", (step,), max_seconds=10),
        robot_pose=(-0.18, 0, 0) if body.is_mobile else (0.05, 0, 0),
        robot_height=0.0 if body.is_mobile else TOP,
        items=items,
        fixtures={"tray": TRAY},
        **options,
    )


def draw(name="arm"):
    """Return a function that draws scenes whose boxes stand elsewhere each time."""

    def draw_scene(scene, episode, seed):
        rng = np.random.default_rng((scene, episode, seed))
        spec = table_spec()
        for i in range(2):
            spec.body(f"item{i}").pos = [0.36 + 0.12 * i, rng.uniform(0.0, 0.3), TOP + 0.031]
        return make_scene(name, spec=spec, camera_jitter=rng)

    return draw_scene
