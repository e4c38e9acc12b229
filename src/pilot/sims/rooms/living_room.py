"""Draws a living room: a sofa, a low table, a cabinet with drawers, a television, a shelf, a box of toys, a bin."""

from typing import Any

import numpy as np

from pilot.sims.rooms.bedroom import add_toy_box
from pilot.sims.rooms.furniture.decor import add_table_lamp, add_television
from pilot.sims.rooms.furniture.seats import add_sofa, add_table
from pilot.sims.rooms.furniture.storage import add_chest, add_shelf, add_vessel
from pilot.sims.rooms.layout import Unit, furnish
from pilot.sims.rooms.paints import METAL, Paint, Palette
from pilot.sims.rooms.room import Place, Room


def draw_living_room(spec: Any, rng: np.random.Generator, palette: Palette) -> Room:
    """Add a living room to a spec."""
    room = Room("living room", spec, rng, palette)
    sofa = float(rng.uniform(0.8, 1.0))
    table = (float(rng.uniform(0.45, 0.55)), float(rng.uniform(0.5, 0.62)), float(rng.uniform(0.45, 0.6)))

    def build_sofa(place: Place) -> None:
        add_sofa(room, place, half_width=sofa)

    def build_table(place: Place) -> None:
        add_table(room, place, name="table", half_width=table[0], depth=table[1], height=table[2], paint=palette.wood)

    def build_cabinet(place: Place) -> None:
        tall, drawers = float(rng.uniform(0.6, 0.7)), ("top drawer", "bottom drawer")
        add_chest(
            room,
            place,
            name="cabinet",
            half_width=0.55,
            height=tall,
            depth=0.44,
            drawers=drawers,
            paint=palette.second_wood,
        )
        if rng.uniform() < 0.75:
            add_television(room, place.at(0.44, 0), z=tall + 0.55)
        else:
            add_table_lamp(spec.body("cabinet"), (0.36, 0.4, tall), Paint((0.97, 0.9, 0.75)))

    def build_shelf(place: Place) -> None:
        add_shelf(room, place, half_width=0.42, boards=(0.1, 0.47, 0.84))

    def build_bin(place: Place) -> None:
        side = float(rng.uniform(0.11, 0.14))
        paint = METAL if rng.uniform() < 0.3 else Paint(palette.second_cloth.rgb)
        add_vessel(room, place, name="bin", half=(side, side), height=float(rng.uniform(0.3, 0.42)), paint=paint)

    sofa_unit, table_unit = Unit(build_sofa, 2 * sofa, 0.82), Unit(build_table, 2 * table[0], table[1])
    cabinet, shelf = Unit(build_cabinet, 1.14, 0.44, is_tall=True), Unit(build_shelf, 0.88, 0.34)
    toys = Unit(lambda place: add_toy_box(room, place), 0.5, 0.36)
    bin_unit = Unit(build_bin, 0.34, 0.34)
    sides = [[table_unit, bin_unit], [shelf]]
    if rng.uniform() < 0.5:
        sides.reverse()
    furnish(
        room, ([sofa_unit], sides[0], [cabinet, toys], sides[1]), floor=tuple(rng.uniform([0.65, 0.85], [0.9, 1.1]))
    )
    return room
