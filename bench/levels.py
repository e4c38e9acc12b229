"""The levels of our own worlds, from a table-top to whole rooms: who succeeds on each, and what it looks like.

    python bench/levels.py [--scenes 50] [--policy checkpoints/nano checkpoints/homes] [--only rooms-skill@mobile]

In the first test scenes of each level act the scripted expert, which reads the simulator; a baseline that sees nothing
and repeats what the expert did in the scene before; and the policies that know the robot, which see pictures and words.
Prints a table in Markdown. What is measured is kept in `--out` at once, so that the same command goes on where it
stopped. `bench/filmstrips.py` draws the levels.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from experts import play
from pilot.eval.runner import Job, Runner
from pilot.eval.settings import Settings
from pilot.eval.stats import wilson
from pilot.eval.suites import load_suite
from pilot.infer.policy import load_policy

LEVELS = (
    "homes-l1", "homes-l2", "homes-l2-multi",
    "lab-stack-bowls-l1@bimanual", "lab-stack-bowls@bimanual",
    "rooms-move-l1@arm", "rooms-move-l1@mobile", "rooms-skill@mobile", "rooms-move@mobile",
    "rooms-steps@mobile", "rooms-whole@mobile",
)  # fmt: skip


def repeat(env: Any, scene: int, actions: Iterable[np.ndarray]) -> bool:
    """Repeat actions in a scene, blind; return whether it succeeded at any time."""
    env.reset_to(scene)
    return any(env.advance(action)["success"] for action in actions)


def measure(name: str, *, scenes: int) -> dict[str, Any]:
    """Return the successes of expert and baseline on a level, and what an expert's episode takes."""
    suite = load_suite(name)
    env: Any = suite.make_env(image_size=16)
    began, expert, baseline, steps = time.process_time(), 0, 0, 0
    before = play(suite, env, scenes)  # a scene that is not counted
    for scene in range(scenes):
        baseline += repeat(env, scene, before.actions)
        before = play(suite, env, scene)
        expert, steps = expert + before.success, steps + before.steps
    env.close()
    return {
        "level": name, "title": suite.title, "scenes": scenes, "expert": expert, "baseline": baseline,
        "seconds": steps / scenes / env.robot.control_hz, "cpu": (time.process_time() - began) / scenes,
    }  # fmt: skip


def count_successes(policy: str, name: str, *, scenes: int, replan_steps: int | None) -> int | None:
    """Return in how many scenes a policy succeeds; None if it knows the body neither by joints nor by its hand."""
    suite, known = load_suite(name), load_policy(policy).robots
    robot = next((robot for robot in (suite.robot.name, f"{suite.robot.name}_ee") if robot in known), None)
    if robot is None:
        return None
    if robot != suite.robot.name:
        suite = load_suite(f"{name.partition('@')[0]}@{robot}")
    runner = Runner(policy, Settings(robot=robot, replan_steps=replan_steps))
    jobs = [Job(suite=suite, control="none", scene=scene, seed=0, episodes=scenes) for scene in range(scenes)]
    return sum(record.success for _, record, _ in runner.run_many(jobs))


def keep(path: Path, make: Callable[[], Any]) -> Any:
    """Return what the file holds; make and write it first if it is not there."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(make(), indent=2))
    return json.loads(path.read_text())


def table(found: list[dict[str, Any]], policies: list[str]) -> str:
    """Return the Markdown table of all levels."""
    lines = [
        f"| level | what is asked | an expert's episode | expert | blind repetition | {' | '.join(policies)} |",
        "|---" * (5 + len(policies)) + "|",
    ]
    for level in found:
        rates = [rate(level.get(who), level["scenes"]) for who in ("expert", "baseline", *policies)]
        lines.append(f"| `{level['level']}` | {level['title']} | {level['seconds']:.0f} s | {' | '.join(rates)} |")
    return "\n".join(lines)


def rate(count: int | None, scenes: int) -> str:
    """Format a rate with its interval."""
    if count is None:
        return "–"
    low, high = wilson(count, scenes)
    return f"{count} of {scenes} ({100 * low:.0f} – {100 * high:.0f} %)"


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=50)
    parser.add_argument("--policy", nargs="*", default=["checkpoints/nano"])
    parser.add_argument("--only", nargs="+", default=list(LEVELS))
    parser.add_argument("--replan-steps", type=int, help="actions of a chunk that are executed; default: 0.2 s of them")
    parser.add_argument("--out", type=Path, default=Path("outputs/levels"))
    args = parser.parse_args()
    found = []
    for name in args.only:
        level = keep(args.out / f"{name}-{args.scenes}.json", partial(measure, name, scenes=args.scenes))
        for policy in args.policy:
            counting = partial(count_successes, policy, name, scenes=args.scenes, replan_steps=args.replan_steps)
            level[policy] = keep(args.out / Path(policy).name / f"{name}-{args.scenes}.json", counting)
        found.append(level)
        print(found[-1], flush=True)
    print(table(found, args.policy))


if __name__ == "__main__":
    main()
