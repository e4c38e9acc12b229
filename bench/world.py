"""What the world with robot bodies costs: control steps, pictures, fresh scenes, and memory over many of them.

`python bench/world.py [--quick]`. CPU time of one process; nothing is asserted. Steps are at 50 Hz whatever the body's
own rate, arms wave among 8 things of 8 kinds, and everything that evaluation does in a step is in it: limits, contacts,
goals, what to do next. Times on a busy machine vary by half; the ratios of one run are steadier.
"""

import argparse
import gc
import os
import time
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from pilot.eval.suites import all_suites
from pilot.sims.gl import mujoco
from pilot.sims.world.bodies import body_names, load_body
from pilot.sims.world.control import JointCommand
from pilot.sims.world.env import WorldEnv
from pilot.sims.world.goals import Inside
from pilot.sims.world.physics import add_geom, new_spec
from pilot.sims.world.pictures import Pictures
from pilot.sims.world.scene import Fixture, ImpossibleSceneError, Item, Scene
from pilot.sims.world.task import Step, Task
from pilot.sims.world.things import KINDS
from pilot.sims.world.things.build import add_thing

THINGS = ("mug", "bowl", "plate", "apple", "spoon", "cereal box", "can", "book")
TOP = 0.75  # height of the table [m]
SIZES = (64, 96, 128, 224)
SLEEP = getattr(mujoco.mjtEnableBit, "mjENBL_SLEEP", 0)


def draw(name: str) -> Any:
    """Return a function that draws a table with eight things before a robot's body."""

    def draw_scene(scene: int, episode: int, seed: int) -> Scene:
        rng, spec, body = np.random.default_rng((scene, episode, seed)), new_spec(), load_body(name)
        add_geom(spec.worldbody, "plane", size=(4, 4, 0.1), rgb=(0.5, 0.45, 0.4))
        table = spec.worldbody.add_body(name="table", pos=(0.55, 0, TOP - 0.05))
        add_geom(table, "box", size=(0.4, 0.6, 0.05))
        kinds = [KINDS[kind] for kind in THINGS if kind in KINDS]
        items = {}
        for i, kind in enumerate(kinds):
            look, at = kind.draw_look(rng), (0.42 + 0.24 * (i % 2), -0.42 + 0.27 * (i // 2), TOP + 0.001)
            add_thing(spec, f"thing{i}", kind, look=look, pos=at, yaw=float(rng.uniform(-3, 3)))
            items[kind.name] = Item(f"thing{i}", kind, look, kind.name)
        step = Step(Inside(next(iter(items)), "shelf"), ("pick it up", "put it on the shelf"))
        return Scene(
            name="table", spec=spec, body=body, task=Task("move", "put it on the shelf", (step,)),
            robot_pose=(-0.18, 0, 0) if body.is_mobile else (0.05, 0, 0), robot_height=TOP, items=items,
            fixtures={"shelf": Fixture("shelf", "table", "surface", (0, 0, 1), (0.1, 0.1, 0.1))},
        )  # fmt: skip

    return draw_scene


def steps_per_second(name: str, *, sleep: bool, steps: int) -> tuple[float, float]:
    """Return control steps at 50 Hz per second of CPU time: all of them, and how many physics alone would do."""
    env = WorldEnv(draw(name), robot=replace(load_body(name).robot, control_hz=50.0))
    env.reset_to(0)
    if not sleep:
        env.world.model.opt.enableflags &= ~int(SLEEP)
        mujoco.mj_resetData(env.world.model, env.world.data)
        env.controller.reset(env.controller.command.q)
    controller, first = env.controller, 4 if env.scene.body.is_mobile else 0
    start, waves = controller.command.q.copy(), np.arange(len(controller.command.q) - first)
    spent = [0.0, 0.0]
    for step in range(steps):
        q = start.copy()
        q[first:] += 0.15 * np.sin(0.06 * step + waves)
        action = controller.encode(JointCommand(q, controller.command.grip))
        begin = time.process_time()
        env.advance(action)
        spent[0] += time.process_time() - begin
        begin = time.process_time()
        env.world.step(4)
        spent[1] += time.process_time() - begin
    env.close()
    return steps / spent[0], steps / spent[1]


def milliseconds(call: Any, *, times: int) -> float:
    """Return the CPU time of one call, the mean of `times`."""
    begin = time.process_time()
    for _ in range(times):
        call()
    return 1e3 * (time.process_time() - begin) / times


def make_env(image_size: int) -> tuple[str, WorldEnv]:
    """Return an environment of furnished homes where a simulator has them, else of the table, and what it is called."""
    if (rooms := all_suites().get("rooms-move")) is not None:
        env: Any = rooms.make_env(image_size=image_size)
        return rooms.name, env
    return "table", WorldEnv(draw("mobile"), robot=load_body("mobile").robot, image_size=image_size)


def draw_or_not(env: WorldEnv, scene: int) -> None:
    """Draw a scene; one that is impossible costs as much."""
    with suppress(ImpossibleSceneError):
        env.draw(scene, 0, 0)


def resident_mib() -> float:
    """Return the memory of this process in MiB."""
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of everything")
    share = 0.1 if parser.parse_args().quick else 1.0

    print("control steps per CPU second, 8 things   asleep  awake  ratio   physics alone")
    for name in body_names():
        asleep, awake = (steps_per_second(name, sleep=sleep, steps=round(1000 * share)) for sleep in (True, False))
        print(f"  {name:38s} {asleep[0]:6.0f} {awake[0]:6.0f} {asleep[0] / awake[0]:6.2f} {asleep[1]:10.0f}")

    what, env = make_env(96)
    scenes = iter(range(100_000))
    env.reset_to(next(scenes))
    model = env.world.model
    print(f"{what}: {model.ngeom} geoms, {model.nv} dofs, robot '{env.robot.name}'")
    for size in SIZES:
        pictures = Pictures(env.world, size)
        pictures.render("front")
        each = [milliseconds(partial(pictures.render, c), times=round(100 * share)) for c in env.robot.cameras]
        print(f"  a picture of {size:3d}²: {np.mean(each):.2f} ms ({', '.join(f'{ms:.2f}' for ms in each)})")
        pictures.close()
    draws = round(50 * share)
    drawing = milliseconds(lambda: draw_or_not(env, next(scenes)), times=draws)
    fresh = milliseconds(lambda: env.reset_to(next(scenes)), times=draws)
    print(f"  a fresh scene: {fresh:.1f} ms, {drawing:.1f} of them to draw it; with the first pictures")

    homes, before = round(1000 * share), resident_mib()
    for _ in range(homes):
        env.reset_to(next(scenes))
    print(
        f"  memory over {homes} scenes: {before:.0f} -> {resident_mib():.0f} MiB; {env.redrawn} redrawn {env.reasons}"
    )
    env.close()


if __name__ == "__main__":
    main()
