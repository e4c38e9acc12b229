"""A counter with a basket and things on it, drawn by a seed, for tests and benches of what robots can do there."""

import numpy as np

from pilot.robots import load_robot
from pilot.sims.world.bodies import load_body
from pilot.sims.world.env import WorldEnv
from pilot.sims.world.goals import Inside
from pilot.sims.world.physics import add_geom, new_spec
from pilot.sims.world.scene import Fixture, ImpossibleSceneError, Item, Scene
from pilot.sims.world.task import Step, Task
from pilot.sims.world.things.build import add_thing
from pilot.sims.world.things.catalogue import find_kind

HEIGHT = 0.86  # of the counter [m]
KINDS = ("mug", "bowl", "plate", "apple", "soup can", "spoon", "sponge", "block")


def make_env(name="arm", *, kinds=KINDS, things=5, moves=1, size=16):
    """Make an environment: scene `i` asks to put a thing of kind `kinds[i]` into the basket, and so on."""
    body = load_body(name)
    return WorldEnv(
        lambda scene, episode, seed: draw(body, (scene, episode, seed), kinds=kinds, things=things, moves=moves),
        robot=load_robot(name),
        image_size=size,
    )


def draw(body, numbers, *, kinds=KINDS, things=5, moves=1):
    rng = np.random.default_rng(numbers)
    spec, side = new_spec(), 1 if rng.random() < 0.5 else -1
    middle = side * rng.uniform(0.5, 0.8) if body.is_mobile else rng.uniform(-0.05, 0.05)
    add_furniture(spec, middle)
    items, taken = {}, [((0.95, middle), 0.15)]
    for number in range(things):
        kind = find_kind(kinds[numbers[0] % len(kinds)] if number == 0 else str(rng.choice(kinds)))
        look = kind.draw_look(rng)
        name, radius = kind.names(look)[0], kind.footprint(look)
        spot = draw_spot(rng, radius, taken, is_mobile=body.is_mobile)
        if spot is None or name in items:
            if number < moves:
                raise ImpossibleSceneError("no room on the counter")
            continue
        taken.append((spot, radius))
        add_thing(spec, f"thing {number}", kind, look=look, pos=(*spot, HEIGHT + 0.001), yaw=rng.uniform(-3, 3))
        items[name] = Item(name=name, body=f"thing {number}", kind=kind, look=look)
    return Scene(
        name="counter",
        spec=spec,
        body=body,
        task=make_task(list(items)[:moves]),
        items=items,
        fixtures={
            "counter": Fixture(
                name="counter", body="counter", centre=(0.92, 0, HEIGHT + 0.09), half=(0.2, 1.1, 0.1),
                front=(0.41, 0, 0),
            ),
            "basket": Fixture(
                name="basket", body="basket", role="container", centre=(0, 0, 0.06), half=(0.12, 0.12, 0.07),
                front=(0.41, middle, 0),
            ),
        },
        robot_pose=(*rng.uniform((-0.6, -1, -1.5), (0.1, 1, 1.5)),) if body.is_mobile else (0.56, 0, 0),
        robot_height=0 if body.is_mobile else HEIGHT,
    )  # fmt: skip


def add_furniture(spec, middle):
    """Add a floor, a counter and, `middle` to the left of the counter's middle, a basket."""
    world = spec.worldbody
    add_geom(world, "plane", size=(4, 4, 0.1))
    world.add_light(pos=(0, 0, 3), dir=(0.2, 0, -1), diffuse=(0.5, 0.5, 0.5))
    counter = world.add_body(name="counter")
    add_geom(counter, "box", size=(0.3, 1.2, 0.03), pos=(1.0, 0, HEIGHT - 0.03))
    add_geom(counter, "box", size=(0.28, 1.2, 0.4), pos=(1.02, 0, 0.41))
    basket = world.add_body(name="basket", pos=(0.95, middle, HEIGHT))
    add_geom(basket, "box", size=(0.12, 0.12, 0.004), pos=(0, 0, 0.004))
    for sign in (-1, 1):
        add_geom(basket, "box", size=(0.004, 0.12, 0.04), pos=(sign * 0.12, 0, 0.04))
        add_geom(basket, "box", size=(0.12, 0.004, 0.04), pos=(0, sign * 0.12, 0.04))


def draw_spot(rng, radius, taken, *, is_mobile):
    low, high = ((0.78, -0.9), (1.0, 0.9)) if is_mobile else ((0.80, -0.42), (1.1, 0.42))
    for _ in range(100):
        spot = rng.uniform(low, high)
        if all(np.hypot(*(spot - other)) > radius + size + 0.03 for other, size in taken):
            return spot
    return None


def make_task(names):
    steps = tuple(
        Step(
            goal=Inside(item=name, fixture="basket"), subtasks=(f"pick up the {name}", f"put the {name} in the basket")
        )
        for name in names
    )
    return Task(name="move", prompt="tidy up", steps=steps, max_seconds=40.0 * len(names))
