"""Draws a bedroom: a bed with a blanket, a chest of drawers, a desk, a laundry basket, a box of toys, shelves."""

from typing import Any

import numpy as np

from pilot.sims.rooms.furniture.decor import add_screen, add_table_lamp
from pilot.sims.rooms.furniture.seats import add_bed, add_chair, add_desk
from pilot.sims.rooms.furniture.storage import add_chest, add_lidded_box, add_shelf, add_vessel
from pilot.sims.rooms.layout import Unit, furnish
from pilot.sims.rooms.paints import Paint, Palette
from pilot.sims.rooms.room import Place, Room


def draw_bedroom(spec: Any, rng: np.random.Generator, palette: Palette) -> Room:
    """Add a bedroom to a spec."""
    room = Room("bedroom", spec, rng, palette)
    length, deep = float(rng.uniform(0.96, 1.04)), float(rng.uniform(0.85, 1.1))
    desk = (float(rng.uniform(0.52, 0.65)), float(rng.uniform(0.55, 0.66)), float(rng.uniform(0.71, 0.76)))
    chest = (float(rng.uniform(0.3, 0.42)), float(rng.uniform(0.76, 0.86)))

    def build_bed(place: Place) -> None:
        add_bed(room, place, half_length=length, depth=deep, head_left=bool(rng.uniform() < 0.5))

    def build_desk(place: Place) -> None:
        add_desk(room, place, half_width=desk[0], depth=desk[1], height=desk[2], paint=palette.second_wood)
        body = spec.body("desk")
        if rng.uniform() < 0.6:
            add_screen(body, (desk[1] - 0.1, float(rng.uniform(-0.15, 0.15)), desk[2]))
        add_table_lamp(body, (desk[1] - 0.12, desk[0] - 0.12, desk[2]), _shade(rng))

    def build_chest(place: Place) -> None:
        drawers = ("top drawer", "middle drawer", "bottom drawer")
        add_chest(
            room,
            place,
            name="chest of drawers",
            half_width=chest[0],
            height=chest[1],
            depth=0.46,
            drawers=drawers,
            paint=palette.wood,
        )
        if rng.uniform() < 0.5:
            add_table_lamp(spec.body("chest of drawers"), (0.38, chest[0] - 0.12, chest[1]), _shade(rng))

    def build_laundry(place: Place) -> None:
        half, tall = (float(rng.uniform(0.15, 0.18)), float(rng.uniform(0.16, 0.2))), float(rng.uniform(0.4, 0.52))
        add_vessel(room, place, name="laundry basket", half=half, height=tall, paint=palette.rug, rim=True)

    def build_toys(place: Place) -> None:
        add_toy_box(room, place)

    def build_shelf(place: Place) -> None:
        add_shelf(room, place, half_width=0.4, boards=(0.1, 0.47, 0.84))

    bed = Unit(build_bed, width=2 * length + 0.1, depth=deep)
    desk_unit, chest_unit = Unit(build_desk, 2 * desk[0], desk[1]), Unit(build_chest, 2 * chest[0], 0.46)
    chair = Unit(lambda place: add_chair(room, place, name="chair", paint=palette.second_wood), 0.46, 0.42)
    far = [desk_unit, chest_unit, *([chair] if rng.uniform() < 0.5 else [])]
    small = [Unit(build_laundry, 0.46, 0.42), Unit(build_toys, 0.5, 0.36)]
    sides = [small, [Unit(build_shelf, 0.84, 0.34)]]
    if rng.uniform() < 0.5:
        sides.reverse()
    furnish(room, ([bed], sides[0], far, sides[1]), floor=tuple(rng.uniform([0.65, 0.85], [0.9, 1.1])))
    return room


def add_toy_box(room: Room, place: Place) -> None:
    """Add the box for toys on the floor; its lid is the fixture `lid of the toy box`."""
    rng = room.rng
    half = (float(rng.uniform(0.12, 0.15)), float(rng.uniform(0.17, 0.21)))
    paint, tall = room.palette.second_cloth, float(rng.uniform(0.4, 0.46))
    add_lidded_box(room, place, name="toy box", lid="toy box lid", half=half, height=tall, paint=Paint(paint.rgb))


def _shade(rng: np.random.Generator) -> Paint:
    """Draw the paint of a lampshade."""
    return [Paint((0.97, 0.9, 0.75)), Paint((0.9, 0.5, 0.4)), Paint((0.6, 0.75, 0.85))][int(rng.integers(3))]
