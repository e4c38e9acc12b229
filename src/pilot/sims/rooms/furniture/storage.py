"""Furniture that holds things: chests of drawers, shelves, boxes with lids, baskets, bins, trays."""

from typing import Any

from pilot.sims.rooms.furniture.parts import LOWEST, add_drawer, add_lid, bar, box, open_box
from pilot.sims.rooms.paints import METAL, Paint
from pilot.sims.rooms.room import STAND, Place, Room

DEEPEST = 0.17  # that a container is [m]


def add_chest(
    room: Room,
    place: Place,
    *,
    name: str,
    half_width: float,
    height: float,
    depth: float,
    drawers: tuple[str, ...],
    paint: Paint,
    is_surface: bool = True,
) -> None:
    """Add a chest with drawers of these names, from the top; what lies on it is on the surface `name`."""
    body = name if is_surface else f"{name} body"
    piece = room.add_piece(body, place)
    box(piece, (depth / 2 + 0.01, half_width + 0.01, 0.025), paint, at=(depth / 2 + 0.005, 0, height - 0.025))
    for sign in (-1, 1):
        at = (depth / 2 + 0.005, sign * (half_width - 0.01), height / 2 - 0.025)
        box(piece, (depth / 2 - 0.005, 0.01, height / 2 - 0.025), paint.shade(0.9), at=at)
    box(piece, (0.01, half_width, height / 2 - 0.03), paint.shade(0.8), at=(depth - 0.01, 0, height / 2 - 0.03))
    low, top = LOWEST, height - 0.055
    box(piece, (depth / 2 - 0.01, half_width - 0.02, low / 2), paint.shade(0.93), at=(depth / 2 + 0.01, 0, low / 2))
    tall = (top - low) / len(drawers)
    for i, drawer in enumerate(drawers):
        z = (top - (i + 1) * tall, top - i * tall)
        half = half_width - 0.022
        add_drawer(
            room,
            piece,
            drawer,
            place=place,
            y=0,
            z=z,
            half_width=half,
            depth=min(0.4, depth - 0.04),
            paint=paint,
            siblings=drawers[:i],
        )
    if is_surface:
        y = (-half_width, half_width)
        room.offer_surface(name, body=body, place=place, y=y, z=height, depth=depth, is_station=False)


def add_shelf(room: Room, place: Place, *, half_width: float, boards: tuple[float, ...], depth: float = 0.34) -> None:
    """Add open shelves with boards at these heights; the top of a low one is the surface `shelf`."""
    paint = room.palette.second_wood
    piece = room.add_piece("shelf", place)
    top = boards[-1]
    for sign in (-1, 1):
        box(piece, (depth / 2, 0.012, top / 2), paint, at=(depth / 2, sign * half_width, top / 2))
    box(piece, (0.008, half_width, top / 2), paint.shade(0.85), at=(depth - 0.008, 0, top / 2))
    for z in boards:
        box(piece, (depth / 2, half_width, 0.015), paint, at=(depth / 2, 0, z - 0.015))
    if top < 1.0:
        y = (-half_width + 0.02, half_width - 0.02)
        room.offer_surface("shelf", body="shelf", place=place, y=y, z=top, depth=depth, is_station=False)
    for z in boards[:-1]:
        add_books(room, piece, z=z, span=(-half_width + 0.05, half_width - 0.05), x=depth - 0.1)


def add_books(room: Room, piece: object, *, z: float, span: tuple[float, float], x: float) -> None:
    """Add a row of books that nobody can take."""
    rng, y = room.rng, span[0]
    while y < span[1] - 0.2:
        count = int(rng.integers(2, 4))
        for _ in range(count):
            half = (float(rng.uniform(0.06, 0.08)), float(rng.uniform(0.012, 0.03)), float(rng.uniform(0.09, 0.13)))
            r, g, b = (float(c) for c in rng.uniform(0.2, 0.85, 3))
            box(piece, half, Paint((r, g, b)), at=(x, y + half[1], z + half[2]), solid=False)
            y += 2 * half[1] + 0.002
        y += float(rng.uniform(0.08, 0.25))


def add_vessel(
    room: Room,
    place: Place,
    *,
    name: str,
    half: tuple[float, float],
    height: float,
    paint: Paint,
    z: float = 0.0,
    front: Place | None = None,
    rim: bool = False,
) -> None:
    """Add an open box to put things into: a basket, bin or tray, on the floor or on a surface at `z`.

    Its inside begins at x = 0 of its place. `front`: where a base stands; without it, right before the box.
    """
    piece = room.add_piece(name, place, z=z)
    x = half[0] + 0.02
    open_box(piece, half, height, at=(x, 0, 0.001), paint=paint)
    if rim:
        for sign in (-1, 1):
            at = (x, sign * (half[1] + 0.012), height)
            bar(piece, (0.01, half[0]), paint.shade(0.8), at=at, along="x")
            bar(piece, (0.01, half[1]), paint.shade(0.8), at=(x + sign * (half[0] + 0.012), 0, height), along="y")
    _offer_inside(room, piece, name, x=x, half=half, height=height, paint=paint, front=front or place.at(-STAND, 0))


def add_lidded_box(
    room: Room,
    place: Place,
    *,
    name: str,
    lid: str,
    half: tuple[float, float],
    height: float,
    paint: Paint,
    z: float = 0.0,
    front: Place | None = None,
) -> None:
    """Add a box with a hinged lid; the lid is a fixture of its own, to be opened and closed."""
    piece = room.add_piece(name, place, z=z)
    x = half[0] + 0.02
    open_box(piece, half, height, at=(x, 0, 0.001), paint=paint)
    bar(piece, (0.006, half[1]), METAL, at=(2 * half[0] + 0.03, 0, height), along="y")
    _offer_inside(room, piece, name, x=x, half=half, height=height, paint=paint, front=front or place.at(-STAND, 0))
    add_lid(room, piece, lid, place=place, half=half, z=height + 0.002, paint=paint)


def _offer_inside(
    room: Room,
    piece: Any,
    name: str,
    *,
    x: float,
    half: tuple[float, float],
    height: float,
    paint: Paint,
    front: Place,
) -> None:
    """Register what a box holds; a deep one has a raised floor, so that a hand can lay things down in it."""
    floor = max(0.0, height - DEEPEST)
    if floor > 0:
        box(piece, (half[0], half[1], floor / 2), paint.shade(0.7), at=(x, 0, floor / 2))
    top = max(height + 0.03, 0.18)  # tall things look out of a tray
    middle, region = (top + floor) / 2, (half[0], half[1], (top - floor) / 2)
    room.offer(name, body=name, role="container", centre=(x, 0, middle), half=region, front=front)
