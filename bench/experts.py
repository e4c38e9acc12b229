"""How often scripted experts succeed, and what an episode costs.

`python bench/experts.py rooms-move rooms-move@arm lab-stack_bowls@bimanual libero-object [--scenes 200]
[--split train] [--disturbed]`. One episode in each of the first scenes, without pictures; CPU time of one process, the
drawing of the scene and the suite's own bookkeeping in it. `--disturbed` plays what goes wrong in demonstrations. `-v`
lists failures.
"""

import argparse
import collections
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pilot.eval.stats import wilson
from pilot.eval.suites import load_suite
from pilot.sims.base import DONE, Disturbance, Suite, TaskSuite
from pilot.sims.world.suites import WorldSuite

REST = 5  # steps that success has to last


@dataclass(frozen=True)
class Outcome:
    """What came of one episode."""

    task: str
    success: bool
    progress: float
    steps: int
    collisions: int
    again: tuple[str, ...]  # why motions began again
    cpu: float  # seconds
    actions: list[np.ndarray]
    pictures: list[np.ndarray]  # of each half second, where a film was asked for

    def describe(self, scene: int) -> str:
        return f"  {scene} {self.task}: {self.progress:.0%} of the steps, {self.steps} ticks; {list(self.again[-4:])}"


def play(suite: Suite, env: Any, scene: int, *, disturbed: bool = False, film: bool = False) -> Outcome:
    """Let the expert act in one scene until success has lasted."""
    began = time.process_time()
    env.reset_to(scene)
    rng = np.random.default_rng((1, scene))
    expert: Any = suite.expert(env, rng)
    disturbance = suite.disturb(env, rng) if disturbed else Disturbance()
    every, rested, actions, pictures = round(0.5 * env.robot.control_hz), 0, [], []
    info: dict[str, Any] = {"success": False}
    while len(actions) < env.max_steps and rested < REST:
        if film and len(actions) % every == 0:
            pictures.append(env.render())
        action = np.asarray(expert.act(), np.float32)
        actions.append(disturbance.apply(env.state(), action)[0] if disturbed else action)
        info = env.advance(actions[-1])
        at_rest = info["success"] and expert.subtask[0] in (DONE, None)
        rested = rested + 1 if at_rest else 0
    if film:
        pictures.append(env.render())
    if isinstance(suite, TaskSuite):
        task = suite.task_of(scene)
    else:
        task = env.scene.task.name if isinstance(suite, WorldSuite) else suite.name
    return Outcome(
        task, rested >= REST, info.get("progress", float(info["success"])), len(actions), info.get("collisions", 0),
        tuple(getattr(expert, "failures", ())), time.process_time() - began, actions, pictures,
    )  # fmt: skip


def report(name: str, outcomes: list[Outcome], *, redrawn: int) -> None:
    """Print one line per suite, and one per task."""
    groups = collections.defaultdict(list)
    for outcome in outcomes:
        groups[outcome.task].append(outcome)
    for label, group in ((name, outcomes), *((f"  {task}", group) for task, group in sorted(groups.items()))):
        n = sum(outcome.success for outcome in group)
        low, high = wilson(n, len(group))
        mean = {key: np.mean([getattr(o, key) for o in group]) for key in ("progress", "steps", "collisions", "cpu")}
        again = np.mean([bool(outcome.again) for outcome in group])
        print(
            f"{label:32s} {n:4d}/{len(group):<4d} {n / len(group):4.0%} [{low:.0%}, {high:.0%}]  of the steps "
            f"{mean['progress']:.0%}  ticks {mean['steps']:.0f}  began again {again:.0%}  bumps "
            f"{mean['collisions']:.1f}  CPU {mean['cpu']:.2f} s",
            flush=True,
        )
        if label == name:
            print(f"  scenes drawn again: {redrawn}")


def main() -> None:
    """Run the suites that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suites", nargs="+")
    parser.add_argument("--scenes", type=int, default=20)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--split", default="train")
    parser.add_argument("--tasks", nargs="+")
    parser.add_argument("--disturbed", action="store_true")
    parser.add_argument("-v", "--verbose", action="store_true")
    args = parser.parse_args()
    for name in args.suites:
        suite: Any = replace(load_suite(name), split=args.split)
        if args.tasks:
            suite = replace(suite, tasks=tuple(args.tasks))
        env: Any = suite.make_env(image_size=16)
        outcomes = []
        scenes = list(range(args.first, args.first + args.scenes))
        if isinstance(suite, TaskSuite):  # task by task: its world is made once
            scenes.sort(key=suite.task_of)
        for scene in scenes:
            outcomes.append(play(suite, env, scene, disturbed=args.disturbed))
            if args.verbose and (not outcomes[-1].success or len(outcomes[-1].again) > 1):
                print(("" if outcomes[-1].success else "FAILED") + outcomes[-1].describe(scene), flush=True)
        report(name, outcomes, redrawn=getattr(env, "redrawn", 0))
        env.close()


if __name__ == "__main__":
    main()
