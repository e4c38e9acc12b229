"""A picture of the lab's tasks as their expert does them, for the docs: `python bench/lab_strips.py docs/lab.jpg`.

One row for each task, from the beginning of an episode to its end. `--body`, `--size` and `--scene` choose others.
"""

import argparse
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from pilot.sims.lab import SUITES
from pilot.sims.world.suites import WorldSuite

COLUMNS = 7
SECONDS = 0.5  # between the pictures that are chosen from


def pictures_of(suite: WorldSuite, *, scene: int, size: int) -> list[np.ndarray]:
    """Return `COLUMNS` pictures of an episode, the first from its start and the last from its end."""
    env: Any = suite.make_env(image_size=2 * size)
    env.reset_to(scene)
    expert, every = suite.expert(env, np.random.default_rng(scene)), round(SECONDS * env.robot.control_hz)
    pictures, rested = [env.render()], 0
    for step in range(env.max_steps):
        info = env.advance(expert.act())
        rested = rested + 1 if info["success"] else 0
        if step % every == 0 or rested == every:
            pictures.append(env.render())
        if rested == every:
            break
    env.close()
    return [pictures[i] for i in np.linspace(0, len(pictures) - 1, COLUMNS).round().astype(int)]


def main() -> None:
    """Let the expert do each task once, and save the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("--body", default="bimanual")
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--scene", type=int, default=1)
    args = parser.parse_args()
    rows = []
    for suite in SUITES:
        if args.body not in suite.bodies or suite.level == 1:
            continue
        chosen = replace(suite, split="train").with_robot(args.body)
        strip = [
            np.asarray(Image.fromarray(picture).resize((args.size, args.size), Image.Resampling.LANCZOS))
            for picture in pictures_of(chosen, scene=args.scene, size=args.size)
        ]
        row = Image.fromarray(np.hstack(strip))
        ImageDraw.Draw(row).text((4, 2), suite.name, fill=(0, 0, 0))
        rows.append(np.asarray(row))
    Image.fromarray(np.vstack(rows)).save(args.out, quality=80)


if __name__ == "__main__":
    main()
