"""The levels of our own worlds, from a table-top to whole rooms: who succeeds on each, and what it looks like.

    python bench/levels.py [--scenes 50] [--policy checkpoints/nano checkpoints/homes] [--only rooms-skill@mobile]
    python bench/levels.py --sheet docs/images/levels.jpg

In the first test scenes of each level act the scripted expert, which reads the simulator; a baseline that sees nothing
and repeats what the expert did in the scene before; and the policies that know the robot, which see pictures and words.
Prints a table in Markdown. Each level is kept in `--out` as soon as it is done, so that the same command goes on where
it stopped. `--sheet` draws one row of pictures for each level instead.
"""

import argparse
import json
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from pilot.eval.runner import Job, Runner
from pilot.eval.settings import Settings
from pilot.eval.stats import wilson
from pilot.eval.suites import load_suite
from pilot.infer.policy import load_policy
from pilot.sims.base import DONE, Suite

LEVELS = (
    "homes-l1", "homes-l2", "homes-l2-multi",
    "lab-stack-bowls-l1@bimanual", "lab-stack-bowls@bimanual",
    "rooms-move-l1@arm", "rooms-move-l1@mobile", "rooms-skill@mobile", "rooms-move@mobile",
    "rooms-steps@mobile", "rooms-whole@mobile",
)  # fmt: skip
COLUMNS, SIZE = 6, 144
REST = 5  # steps that success has to last


def act(suite: Suite, env: Any, scene: int, *, film: bool = False) -> tuple[bool, list[np.ndarray], list[np.ndarray]]:
    """Let the expert act in a scene; return whether it succeeded, its actions, and a film of half seconds."""
    env.reset_to(scene)
    expert: Any = suite.expert(env, np.random.default_rng((1, scene)))
    every, actions, pictures, rested = round(0.5 * env.robot.control_hz), [], [], 0
    while len(actions) < env.max_steps and rested < REST:
        if film and len(actions) % every == 0:
            pictures.append(env.render())
        actions.append(np.asarray(expert.act(), np.float32))
        info = env.advance(actions[-1])
        rested = rested + 1 if info["success"] and expert.subtask[0] in (DONE, None) else 0
    if film:
        pictures.append(env.render())
    return rested >= REST, actions, pictures


def repeat(env: Any, scene: int, actions: Iterable[np.ndarray]) -> bool:
    """Repeat actions in a scene, blind; return whether it succeeded at any time."""
    env.reset_to(scene)
    return any(env.advance(action)["success"] for action in actions)


def measure(name: str, *, scenes: int, policies: list[str]) -> dict[str, Any]:
    """Return the number of successes of each on a level, and what an expert's episode takes."""
    suite = load_suite(name)
    env: Any = suite.make_env(image_size=16)
    began, expert, baseline, steps = time.process_time(), 0, 0, 0
    before = act(suite, env, scenes)[1]  # of a scene that is not counted
    for scene in range(scenes):
        baseline += repeat(env, scene, before)
        succeeded, before, _ = act(suite, env, scene)
        expert, steps = expert + succeeded, steps + len(before)
    env.close()
    found = {
        "level": name, "title": suite.title, "scenes": scenes, "expert": expert, "baseline": baseline,
        "seconds": steps / scenes / env.robot.control_hz, "cpu": (time.process_time() - began) / scenes,
    }  # fmt: skip
    return found | {
        policy: count for policy in policies if (count := count_successes(policy, suite, scenes)) is not None
    }


def count_successes(policy: str, suite: Suite, scenes: int) -> int | None:
    """Return in how many scenes a policy succeeds; None if it does not know the robot."""
    if suite.robot.name not in load_policy(policy).robots:
        return None
    runner = Runner(policy, Settings(robot=suite.robot.name))
    jobs = [Job(suite=suite, control="none", scene=scene, seed=0, episodes=scenes) for scene in range(scenes)]
    return sum(record.success for _, record, _ in runner.run_many(jobs))


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


def draw_sheet(path: Path, levels: list[str]) -> None:
    """Draw an expert's episode of each level as a row of pictures."""
    rows = []
    for scene, name in enumerate(levels):
        suite = replace(load_suite(name), split="train")
        env: Any = suite.make_env(image_size=2 * SIZE)
        pictures = act(suite, env, scene, film=True)[2]
        env.close()
        chosen = [pictures[i] for i in np.linspace(0, len(pictures) - 1, COLUMNS).round().astype(int)]
        row = Image.new("RGB", (COLUMNS * SIZE, SIZE))
        for i, picture in enumerate(chosen):
            row.paste(Image.fromarray(picture).resize((SIZE, SIZE), Image.Resampling.LANCZOS), (i * SIZE, 0))
        pen = ImageDraw.Draw(row)
        pen.rectangle((0, 0, pen.textlength(name) + 8, 14), fill="white")
        pen.text((4, 1), name, fill="black")
        rows.append(np.asarray(row))
        print(name, flush=True)
    Image.fromarray(np.vstack(rows)).save(path, quality=82)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=50)
    parser.add_argument("--policy", nargs="*", default=["checkpoints/nano"])
    parser.add_argument("--only", nargs="+", default=list(LEVELS))
    parser.add_argument("--out", type=Path, default=Path("outputs/levels"))
    parser.add_argument("--sheet", type=Path)
    args = parser.parse_args()
    if args.sheet:
        draw_sheet(args.sheet, args.only)
        return
    args.out.mkdir(parents=True, exist_ok=True)
    found = []
    for name in args.only:
        kept = args.out / f"{name}-{args.scenes}.json"
        if not kept.exists():
            kept.write_text(json.dumps(measure(name, scenes=args.scenes, policies=args.policy), indent=2))
        found.append(json.loads(kept.read_text()))
        print(found[-1], flush=True)
    print(table(found, args.policy))


if __name__ == "__main__":
    main()
