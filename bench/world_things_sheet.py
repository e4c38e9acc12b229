"""Draws a contact sheet of all kinds of things, each in its own picture of 96 x 96 with its name below.

`python bench/world_things_sheet.py FILE.png [--seed N] [--looks N] [kind …]`; with `--looks` above 1 every kind has
that many pictures side by side. The sheet in the documentation is made without options.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from pilot.sims.gl import Renderer
from pilot.sims.world.physics import Physics, add_geom, look_at, new_spec
from pilot.sims.world.things import KINDS, ThingKind, find_kind
from pilot.sims.world.things.build import add_thing

SIZE, CAPTION, COLUMNS = 96, 12, 14
_DIRECTION = np.array([0.55, -0.62, 0.62])  # from the thing to the camera


def draw_thing(kind: ThingKind, seed: tuple[int, ...], *, size: int = SIZE) -> np.ndarray:
    """Return a picture of a thing in a drawn look, as large as fits."""
    rng = np.random.default_rng(seed)
    look = kind.draw_look(rng)
    spec = new_spec()
    add_geom(spec.worldbody, "box", size=(2, 2, 0.02), pos=(0, 0, -0.02), rgb=(0.80, 0.74, 0.66))
    spec.worldbody.add_light(pos=(0.5, -0.5, 2), dir=(-0.3, 0.35, -1), castshadow=False, diffuse=[0.6] * 3)
    add_thing(spec, "thing", kind, look=look, yaw=float(rng.uniform(-0.4, 0.4)), is_free=False)
    height, radius = kind.height(look), kind.footprint(look)
    middle = np.array([0, 0, height / 2])
    distance = 1.15 * max(np.hypot(radius, height / 2), 0.04) / np.tan(np.radians(15))
    eye = middle + _DIRECTION / np.linalg.norm(_DIRECTION) * distance
    spec.worldbody.add_camera(name="camera", pos=eye, quat=look_at(eye, middle), fovy=30)
    physics = Physics(spec)
    renderer = Renderer(physics.model, size)
    try:
        return renderer.render(physics.data, "camera")
    finally:
        renderer.close()


def draw_sheet(kinds: list[ThingKind], *, seed: int, looks: int) -> Image.Image:
    """Return all pictures in rows, each with its caption."""
    pictures = [(kind.name, draw_thing(kind, (seed, i, look))) for i, kind in enumerate(kinds) for look in range(looks)]
    columns = COLUMNS - COLUMNS % looks
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * SIZE, rows * (SIZE + CAPTION)), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (name, picture) in enumerate(pictures):
        x, y = i % columns * SIZE, i // columns * (SIZE + CAPTION)
        sheet.paste(Image.fromarray(picture), (x, y))
        draw.text((x + 2, y + SIZE), name, fill="black")
    return sheet


def main() -> None:
    """Write the sheet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("kinds", nargs="*")
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--looks", type=int, default=1)
    arguments = parser.parse_intermixed_args()
    kinds = [find_kind(name) for name in arguments.kinds] or list(KINDS.values())
    sheet = draw_sheet(kinds, seed=arguments.seed, looks=arguments.looks)
    sheet.quantize(128).save(arguments.file, optimize=True)
    print(f"{arguments.file}: {len(kinds)} kinds, {arguments.file.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
