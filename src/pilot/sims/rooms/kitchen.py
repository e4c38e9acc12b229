"""Draws a kitchen: a counter with sink, drawers, microwave, cupboard or stove; a fridge, a bin, a table with chairs."""

from typing import Any

import numpy as np

from pilot.sims.rooms.furniture.decor import add_appliances
from pilot.sims.rooms.furniture.kitchen_units import (
    DEPTH,
    add_counter,
    add_fridge,
    add_microwave,
    add_wall_cabinets,
    surface_span,
)
from pilot.sims.rooms.furniture.seats import add_chair, add_table
from pilot.sims.rooms.furniture.storage import add_shelf, add_vessel
from pilot.sims.rooms.layout import Unit, furnish
from pilot.sims.rooms.paints import METAL, Palette
from pilot.sims.rooms.room import Place, Room

FRIDGE = 0.62  # [m]
Units = tuple[tuple[str, float], ...]


def draw_kitchen(spec: Any, rng: np.random.Generator, palette: Palette) -> Room:
    """Add a kitchen to a spec."""
    room = Room("kitchen", spec, rng, palette)
    units, fridge_left = _draw_units(rng), bool(rng.uniform() < 0.5)
    height, width = float(rng.uniform(0.84, 0.9)), sum(width for _, width in units)
    table = (float(rng.uniform(0.5, 0.75)), float(rng.uniform(0.62, 0.78)), float(rng.uniform(0.7, 0.77)))

    def build_run(place: Place) -> None:
        """The counter and the fridge, side by side."""
        sign = 1 if fridge_left else -1
        counter = place.at(0, -sign * (FRIDGE + 0.02) / 2)
        add_counter(room, counter, height=height, units=units)
        add_fridge(room, place.at(0, sign * (width + 0.02) / 2), hinge_left=fridge_left)
        _dress_counter(room, counter, units, height)

    def build_table(place: Place) -> None:
        add_table(room, place, name="table", half_width=table[0], depth=table[1], height=table[2], paint=palette.wood)
        for sign in (-1, 1):
            if rng.uniform() < 0.8:
                chair = place.at(table[1] / 2 + 0.05, sign * (table[0] - 0.1), yaw=sign * np.pi / 2)
                add_chair(room, chair, name=room.number("chair"), paint=palette.second_wood)

    def build_bin(place: Place) -> None:
        side, tall = float(rng.uniform(0.12, 0.15)), float(rng.uniform(0.38, 0.5))
        paint = METAL if rng.uniform() < 0.4 else palette.second_cloth.shade(0.8)
        add_vessel(room, place, name="bin", half=(side, side), height=tall, paint=paint, rim=True)

    def build_shelf(place: Place) -> None:
        add_shelf(room, place, half_width=0.35, boards=(0.12, 0.5, 0.86))

    run = Unit(build_run, width=width + FRIDGE + 0.02, depth=DEPTH, is_tall=True)
    dining = Unit(build_table, width=2 * table[0] + 0.8, depth=table[1])
    bin_unit, shelf = Unit(build_bin, width=0.36, depth=0.36), Unit(build_shelf, width=0.76, depth=0.34)
    sides = [[bin_unit], [shelf] if rng.uniform() < 0.5 else []]
    if rng.uniform() < 0.5:
        sides.reverse()
    furnish(room, ([run], sides[0], [dining], sides[1]), floor=tuple(rng.uniform([0.65, 1.0], [0.9, 1.2])))
    return room


def _draw_units(rng: np.random.Generator) -> Units:
    """Draw the order of the counter's units: the work top in the middle, sink and microwave or stove beside it."""
    work = [("drawers", float(rng.uniform(0.48, 0.56))), ("cabinet", float(rng.uniform(0.4, 0.6)))]
    if rng.uniform() < 0.5:
        work.reverse()
    units = [("sink", 0.6), *work, ("end" if rng.uniform() < 0.6 else "cupboard", 0.54)]
    if units[-1][0] == "cupboard":
        units = units[:-1] + [("cupboard", 0.5), ("end", 0.54)]
    elif rng.uniform() < 0.5:
        units.append(("stove", 0.6))
    return tuple(units if rng.uniform() < 0.5 else reversed(units))


def _dress_counter(room: Room, place: Place, units: Units, height: float) -> None:
    """Add the microwave, the cabinets on the wall, and what stands at the back of the work top."""
    y = width = sum(width for _, width in units) / 2
    for unit, wide in units:
        if unit == "end":
            add_microwave(room, place, y=y - wide / 2, height=height)
        y -= wide
    add_wall_cabinets(room, place, y=(-width, width), z=height + 0.55)
    low, high = surface_span(units)
    add_appliances(room, place, span=(low + 0.05, high - 0.05), z=height)
