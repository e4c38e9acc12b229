"""A picture of twelve homes with their tasks begun, for the docs: `python bench/rooms_sheet.py docs/rooms.jpg`.

Rows: kitchens, bedrooms, living rooms, of the train split. `--body`, `--size` and `--first` choose others.
"""

import argparse
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from pilot.sims.rooms.choices import ROOMS
from pilot.sims.rooms.suites import SUITES

COLUMNS = 4


def main() -> None:
    """Draw the homes and save the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("--body", default="mobile")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--first", type=int, default=0, help="number of the first home")
    args = parser.parse_args()
    suite = next(suite for suite in SUITES if suite.length == "room").with_robot(args.body)
    rows = []
    for room in ROOMS:
        env: Any = replace(suite, split="train", rooms=(room,)).make_env(image_size=2 * args.size)
        pictures = []
        for home in range(args.first, args.first + COLUMNS):
            env.reset_to(home)
            picture = Image.fromarray(env.render()).resize((args.size, args.size), Image.Resampling.LANCZOS)
            pictures.append(np.asarray(picture))
        env.close()
        rows.append(np.hstack(pictures))
    Image.fromarray(np.vstack(rows)).save(args.out, quality=85)


if __name__ == "__main__":
    main()
