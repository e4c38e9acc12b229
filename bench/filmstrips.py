"""A picture of tasks as their expert does them, for the docs: one row for each, from the beginning to the end.

    python bench/filmstrips.py docs/images/levels.jpg levels
    python bench/filmstrips.py docs/lab.jpg lab --columns 7 --size 112
    python bench/filmstrips.py drawer.jpg rooms-skill@mobile rooms-steps@mobile

`levels` are those of `bench/levels.py`, `lab` all tasks of the laboratory for two arms. Scenes are of the training
split. What an expert fails is left out, and said.
"""

import argparse
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from experts import play
from levels import LEVELS
from pilot.eval.suites import load_suite
from pilot.sims import lab

BODY = "bimanual"
SETS = {
    "levels": LEVELS,
    "lab": tuple(f"{suite.name}@{BODY}" for suite in lab.SUITES if BODY in suite.bodies and suite.level != 1),
}


def draw_strip(name: str, scene: int, *, columns: int, size: int) -> np.ndarray | None:
    """Draw an expert's episode as a row of pictures; None if it failed."""
    suite = replace(load_suite(name), split="train")
    env: Any = suite.make_env(image_size=2 * size)  # drawn at half its size, edges are smooth
    outcome = play(suite, env, scene, film=True)
    env.close()
    if not outcome.success:
        print(f"{name}: the expert failed in scene {scene}; not drawn", flush=True)
        return None
    row = Image.new("RGB", (columns * size, size))
    for i, chosen in enumerate(np.linspace(0, len(outcome.pictures) - 1, columns).round().astype(int)):
        picture = Image.fromarray(outcome.pictures[chosen])
        row.paste(picture.resize((size, size), Image.Resampling.LANCZOS), (i * size, 0))
    pen = ImageDraw.Draw(row)
    pen.rectangle((0, 0, pen.textlength(name) + 8, 14), fill="white")
    pen.text((4, 1), name, fill="black")
    print(name, flush=True)
    return np.asarray(row)


def main() -> None:
    """Draw the rows, and save the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("suites", nargs="+", help="names of suites, 'levels' or 'lab'")
    parser.add_argument("--columns", type=int, default=6)
    parser.add_argument("--size", type=int, default=144, help="side of each picture, in pixels")
    parser.add_argument("--scene", type=int, default=1)
    args = parser.parse_args()
    names = [name for given in args.suites for name in SETS.get(given, (given,))]
    strips = [draw_strip(name, args.scene, columns=args.columns, size=args.size) for name in names]
    if not (rows := [strip for strip in strips if strip is not None]):
        parser.error("the expert failed everywhere; another --scene may do")
    Image.fromarray(np.vstack(rows)).save(args.out, quality=82)


if __name__ == "__main__":
    main()
