"""What nobody moves and makes a room look lived in: walls, windows, pictures, rugs, lamps, plants, appliances."""

from math import pi
from typing import Any

import numpy as np

from pilot.sims.rooms.furniture.parts import ball, bar, box
from pilot.sims.rooms.paints import CHROME, DARK, METAL, SCREEN, WHITE, Paint, draw_rgb
from pilot.sims.rooms.room import Place, Room
from pilot.sims.world.physics import add_geom

WALL_HEIGHT = 2.5
SKY, SOIL = Paint((0.72, 0.85, 0.97)), Paint((0.3, 0.22, 0.16))


def add_shell(room: Room) -> None:
    """Add the floor, four walls with skirting boards, and a ceiling."""
    paints, world = room.palette, room.spec.worldbody
    add_geom(world, "plane", size=(8, 8, 0.1), rgb=paints.floor.rgb, material=paints.floor.material, name="floor")
    east, north, west, south = room.walls
    middle, half = ((east - west) / 2, (north - south) / 2), ((east + west) / 2, (north + south) / 2)
    for i, wall in enumerate(wall_places(room)):
        piece = room.add_piece(room.number("wall"), wall)
        paint = paints.wall if i % 2 else paints.wall.shade(0.95)
        width = half[1 - i % 2]
        box(piece, (0.04, width + 0.08, WALL_HEIGHT / 2), paint, at=(0.04, 0, WALL_HEIGHT / 2))
        box(piece, (0.008, width, 0.04), paints.trim, at=(-0.008, 0, 0.04), solid=False)
    box(world, (*half, 0.02), paints.trim.shade(0.97), at=(*middle, WALL_HEIGHT + 0.02), solid=False)


def wall_places(room: Room) -> tuple[Place, Place, Place, Place]:
    """Return the middles of the walls, +x, +y, -x, -y, with x into the wall."""
    east, north, west, south = room.walls
    x, y = (east - west) / 2, (north - south) / 2
    return Place(east, y, 0), Place(x, north, pi / 2), Place(-west, y, pi), Place(x, -south, -pi / 2)


def add_lights(room: Room) -> None:
    """Add a lamp's and the sky's light, warm or cold, from a drawn direction; all light together stays below 1."""
    from pilot.sims.gl import mujoco

    rng = room.rng
    warmth, bright = rng.uniform(-0.05, 0.05), rng.uniform(0.85, 1.05)
    tint = np.array([1 + warmth, 1.0, 1 - warmth]) * bright
    for share, slope in ((0.4, 0.4), (0.24, 0.9)):
        direction = np.array([*rng.uniform(-slope, slope, 2), -1.0])
        room.spec.worldbody.add_light(
            type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL,
            pos=(0, 0, 2.4),
            dir=direction / np.linalg.norm(direction),
            diffuse=tint * share,
            ambient=[0, 0, 0],
            specular=[0.05] * 3,
            castshadow=False,
        )
    headlight = room.spec.visual.headlight
    headlight.ambient, headlight.diffuse = tint * rng.uniform(0.4, 0.5), tint * rng.uniform(0.26, 0.34)


def add_window(room: Room, wall: Place, *, half_width: float, z: float = 1.45) -> None:
    """Add a window with a frame, a sill and now and then curtains; `wall` is a place on the wall, x into it."""
    piece = room.add_piece(room.number("window"), wall)
    tall = 0.48
    add_geom(piece, "box", size=(0.004, half_width, tall), pos=(-0.006, 0, z), rgb=_sky(room.rng), contact="none")
    frame = room.palette.trim
    for sign in (-1, 1):
        box(piece, (0.015, 0.03, tall + 0.03), frame, at=(-0.012, sign * half_width, z), solid=False)
        box(piece, (0.015, half_width, 0.03), frame, at=(-0.012, 0, z + sign * tall), solid=False)
    box(piece, (0.012, 0.015, tall), frame, at=(-0.012, 0, z), solid=False)
    box(piece, (0.06, half_width + 0.06, 0.015), frame, at=(-0.05, 0, z - tall - 0.03), solid=False)
    if room.rng.uniform() < 0.6:
        for sign in (-1, 1):
            at = (-0.05, sign * (half_width + 0.12), z + 0.02)
            box(piece, (0.02, 0.14, tall + 0.12), room.palette.second_cloth, at=at, solid=False)
        bar(piece, (0.012, half_width + 0.28), METAL, at=(-0.06, 0, z + tall + 0.14), along="y")


def _sky(rng: np.random.Generator) -> tuple[float, float, float]:
    evening = float(rng.uniform(0, 1)) ** 3
    day, dusk = np.array(SKY.rgb), np.array([0.95, 0.72, 0.55])
    r, g, b = (float(c) for c in day + (dusk - day) * evening)
    return r, g, b


def add_picture(room: Room, wall: Place, *, z: float) -> None:
    """Add a framed picture of coloured shapes on a wall."""
    rng = room.rng
    piece = room.add_piece(room.number("picture"), wall)
    half = rng.uniform([0.14, 0.12], [0.32, 0.26])
    box(
        piece,
        (0.008, half[0] + 0.02, half[1] + 0.02),
        DARK if rng.uniform() < 0.5 else WHITE,
        at=(-0.008, 0, z),
        solid=False,
    )
    ground = Paint(draw_rgb(rng, saturation=(0.05, 0.5), value=(0.5, 0.95)))
    box(piece, (0.003, *half), ground, at=(-0.018, 0, z), solid=False)
    for _ in range(int(rng.integers(1, 4))):
        size = half * rng.uniform(0.2, 0.5, 2)
        y, up = rng.uniform(-1, 1, 2) * (half - size)
        shape = Paint(draw_rgb(rng, saturation=(0.3, 0.9), value=(0.3, 0.9)))
        if rng.uniform() < 0.5:
            box(piece, (0.002, *size), shape, at=(-0.022, y, z + up), solid=False)
        else:
            ball(piece, (0.003, *size), shape, at=(-0.022, y, z + up))


def add_rug(room: Room, place: Place, *, half: tuple[float, float]) -> None:
    """Add a rug, with a border, that nothing stumbles over."""
    piece = room.add_piece("rug", place)
    box(piece, (*half, 0.003), room.palette.rug.shade(0.8), at=(0, 0, 0.003), solid=False)
    box(piece, (half[0] - 0.08, half[1] - 0.08, 0.003), room.palette.rug, at=(0, 0, 0.005), solid=False)


def add_floor_lamp(room: Room, place: Place) -> None:
    """Add a floor lamp."""
    piece = room.add_piece("floor lamp", place)
    bar(piece, (0.13, 0.012), DARK, at=(0, 0, 0.012), shape="cylinder", solid=True)
    bar(piece, (0.012, 0.72), METAL, at=(0, 0, 0.74))
    bar(piece, (0.16, 0.12), Paint((0.97, 0.9, 0.75)), at=(0, 0, 1.5), shape="cylinder")


def add_plant(room: Room, place: Place) -> None:
    """Add a plant in a pot."""
    rng = room.rng
    piece = room.add_piece(room.number("plant"), place)
    pot = Paint(draw_rgb(rng, hue=0.05, saturation=(0.1, 0.6), value=(0.4, 0.9)))
    bar(piece, (0.14, 0.15), pot, at=(0, 0, 0.15), shape="cylinder", solid=True)
    bar(piece, (0.125, 0.005), SOIL, at=(0, 0, 0.3), shape="cylinder")
    for _ in range(int(rng.integers(5, 9))):
        leaf = Paint(draw_rgb(rng, hue=0.33, saturation=(0.4, 0.7), value=(0.3, 0.6)))
        at = (*rng.uniform(-0.14, 0.14, 2), rng.uniform(0.45, 0.95))
        ball(piece, tuple(rng.uniform([0.06, 0.06, 0.1], [0.13, 0.13, 0.2])), leaf, at=at)


def add_television(room: Room, wall: Place, *, z: float) -> None:
    """Add a flat screen on the wall."""
    piece = room.add_piece("television", wall)
    box(piece, (0.02, 0.55, 0.31), DARK, at=(-0.04, 0, z), solid=False)
    box(piece, (0.002, 0.53, 0.29), SCREEN, at=(-0.062, 0, z), solid=False)


def add_table_lamp(body: Any, at: tuple[float, float, float], paint: Paint) -> None:
    """Add a small lamp to the back of a surface."""
    x, y, z = at
    bar(body, (0.05, 0.01), DARK, at=(x, y, z + 0.01), shape="cylinder", solid=True)
    bar(body, (0.01, 0.1), METAL, at=(x, y, z + 0.12), solid=True)
    bar(body, (0.09, 0.06), paint, at=(x, y, z + 0.27), shape="cylinder")


def add_appliances(room: Room, place: Place, *, span: tuple[float, float], z: float) -> None:
    """Add a few things that stay at the back of a counter: a kettle, a toaster, jars, a knife block, a bread bin."""
    rng = room.rng
    piece = room.add_piece("appliances", place, z=z)
    makers = [_kettle, _toaster, _jars, _knife_block, _bread_bin]
    count = min(len(makers), max(1, int((span[1] - span[0]) / 0.28)))
    slots = np.linspace(span[0], span[1], count + 1)
    for i, pick in enumerate(rng.permutation(len(makers))[:count]):
        if rng.uniform() < 0.75:
            y = float((slots[i] + slots[i + 1]) / 2 + rng.uniform(-0.03, 0.03))
            makers[int(pick)](piece, 0.505, y, rng)


def _kettle(body: Any, x: float, y: float, rng: np.random.Generator) -> None:
    paint = Paint(draw_rgb(rng, saturation=(0, 0.4), value=(0.3, 0.9)))
    bar(body, (0.065, 0.08), paint, at=(x, y, 0.08), shape="cylinder", solid=True)
    ball(body, (0.06, 0.06, 0.03), paint.shade(0.8), at=(x, y, 0.165))
    bar(body, (0.01, 0.05), DARK, at=(x, y + 0.09, 0.1))


def _toaster(body: Any, x: float, y: float, rng: np.random.Generator) -> None:
    paint = Paint(draw_rgb(rng, saturation=(0, 0.5), value=(0.4, 0.9)))
    box(body, (0.07, 0.12, 0.085), paint, at=(x, y, 0.09))
    for sign in (-1, 1):
        box(body, (0.012, 0.09, 0.002), SCREEN, at=(x + sign * 0.03, y, 0.177), solid=False)


def _jars(body: Any, x: float, y: float, rng: np.random.Generator) -> None:
    for i in range(3):
        paint = Paint(draw_rgb(rng, hue=0.1, saturation=(0.1, 0.6), value=(0.4, 0.9)))
        tall = 0.05 + 0.015 * i
        bar(body, (0.035, tall), paint, at=(x, y + (i - 1) * 0.08, tall), shape="cylinder", solid=True)
        bar(body, (0.037, 0.01), METAL, at=(x, y + (i - 1) * 0.08, 2 * tall + 0.01), shape="cylinder")


def _knife_block(body: Any, x: float, y: float, rng: np.random.Generator) -> None:
    box(
        body,
        (0.06, 0.045, 0.1),
        Paint(draw_rgb(rng, hue=0.08, saturation=(0.3, 0.6), value=(0.3, 0.7))),
        at=(x, y, 0.1),
    )
    for i in range(3):
        bar(body, (0.01, 0.03), DARK, at=(x - 0.03 + 0.03 * i, y, 0.22))


def _bread_bin(body: Any, x: float, y: float, rng: np.random.Generator) -> None:
    box(
        body, (0.09, 0.12, 0.085), Paint(draw_rgb(rng, saturation=(0, 0.4), value=(0.5, 0.95))), at=(x - 0.01, y, 0.086)
    )
    bar(body, (0.008, 0.05), CHROME, at=(x - 0.11, y, 0.1), along="y")


def add_screen(body: Any, at: tuple[float, float, float]) -> None:
    """Add a computer screen to the back of a desk."""
    x, y, z = at
    box(body, (0.06, 0.09, 0.008), DARK, at=(x, y, z + 0.008))
    box(body, (0.012, 0.02, 0.07), DARK, at=(x + 0.03, y, z + 0.08), solid=False)
    box(body, (0.012, 0.26, 0.16), DARK, at=(x, y, z + 0.27))
    box(body, (0.002, 0.245, 0.145), SCREEN, at=(x - 0.014, y, z + 0.27), solid=False)


def add_hall_door(room: Room, wall: Place) -> None:
    """Add the closed door to the hall."""
    piece = room.add_piece("hall door", wall)
    paint = room.palette.second_wood if room.rng.uniform() < 0.5 else room.palette.trim
    box(piece, (0.015, 0.46, 1.03), room.palette.trim, at=(-0.01, 0, 1.03), solid=False)
    box(piece, (0.012, 0.41, 1.0), paint, at=(-0.025, 0, 1.0), solid=False)
    for z in (0.55, 1.45):
        box(piece, (0.004, 0.28, 0.32), paint.shade(0.9), at=(-0.036, 0, z), solid=False)
    bar(piece, (0.01, 0.05), CHROME, at=(-0.07, 0.33, 1.0), along="y")
