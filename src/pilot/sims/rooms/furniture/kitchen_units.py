"""Kitchen furniture: the counter with sink, drawers and cupboard, the microwave, the fridge, cabinets on the wall."""

from typing import Any

from pilot.sims.rooms.furniture.parts import LOWEST, add_door, add_drawer, bar, box, open_box
from pilot.sims.rooms.paints import CHROME, DARK, METAL, SCREEN
from pilot.sims.rooms.room import STAND, Place, Room, Station

DEPTH = 0.6  # of a counter [m]
SLAB = 0.03  # half thickness of its top: things that fall go through thinner ones
SINK = (0.17, 0.21)  # half sizes of the basin, along x and y [m]
SINK_X, BASIN = 0.25, 0.15  # its middle from the front edge, and its depth [m]
DRAWERS = ("top drawer", "middle drawer", "bottom drawer")


def add_counter(room: Room, place: Place, *, height: float, units: tuple[tuple[str, float], ...]) -> None:
    """Add a counter of units side by side, each a name and a width, from the left to the right as one faces it.

    Units: "sink", "drawers", "cupboard" (with a door), "cabinet" (closed for good), "stove", and "end", a cabinet on
    which the microwave stands. Adjacent drawers and cabinets make the surface `counter`.
    """
    piece = room.add_piece("counter", place)
    left = sum(width for _, width in units) / 2
    y = left
    for unit, width in units:
        middle = y - width / 2
        if unit == "sink":
            _add_sink_unit(room, piece, place, y=middle, width=width, height=height)
        else:
            box(piece, (DEPTH / 2, width / 2, SLAB), room.palette.stone, at=(DEPTH / 2, middle, height - SLAB))
            _UNDER[unit](room, piece, place, middle, width, height)
        y -= width
    box(piece, (0.008, left, 0.04), room.palette.stone, at=(DEPTH - 0.008, 0, height + 0.04), solid=False)
    box(piece, (DEPTH / 2 - 0.03, left, 0.04), DARK, at=(DEPTH / 2 + 0.03, 0, 0.04), solid=False)
    low, high = surface_span(units)
    room.offer_surface("counter", body="counter", place=place, y=(low, high), z=height, depth=DEPTH, is_station=True)
    _add_sink_station(room, place, span=(low, high), height=height)


def _add_sink_station(room: Room, place: Place, *, span: tuple[float, float], height: float) -> None:
    """Let a robot that cannot drive stand between the work top and the sink, where they meet."""
    low, high = span
    sink = room.fixtures["sink"].centre[1]
    edge, usable = (high, (-0.6, -0.09)) if sink > high else (low, (0.09, 0.6))
    if abs(sink - edge) < 0.32:
        room.stations["sink"] = Station("counter", place.at(0, edge), height, usable, also=("sink",))


def surface_span(units: tuple[tuple[str, float], ...]) -> tuple[float, float]:
    """Return from where to where (y) the counter's top is free to work on: its longest run without sink and stove."""
    y = sum(width for _, width in units) / 2
    runs, top = [], None
    for unit, width in units:
        if unit in ("drawers", "cabinet", "cupboard"):
            top = y if top is None else top
            runs.append((top - (y - width), y - width, top))
        else:
            top = None
        y -= width
    _, low, high = max(runs)
    return low, high


def _closed(room: Room, piece: Any, place: Place, y: float, width: float, height: float) -> None:
    body = height / 2 - SLAB - 0.04
    box(
        piece,
        (DEPTH / 2 - 0.01, width / 2, body),
        room.palette.fronts.shade(0.96),
        at=(DEPTH / 2 + 0.01, y, body + 0.08),
    )
    doors = 1 if width < 0.5 else 2
    for i in range(doors):
        at = y + width * ((i + 0.5) / doors - 0.5)
        half = (0.008, width / doors / 2 - 0.006, body - 0.006)
        box(piece, half, room.palette.fronts, at=(0.005, at, body + 0.08), solid=False)
        knob = at + (1 if i == 0 else -1) * (width / doors / 2 - 0.05)
        bar(piece, (0.006, 0.04), room.palette.handle, at=(-0.02, knob, height - 0.2))


def _hollow(room: Room, piece: Any, y: float, width: float, height: float) -> None:
    """Add the carcass that drawers or a door belong to."""
    paint, top = room.palette.fronts.shade(0.8), height - 2 * SLAB
    for sign in (-1, 1):
        side = y + sign * (width / 2 - 0.008)
        box(piece, (DEPTH / 2, 0.008, top / 2 - 0.04), paint, at=(DEPTH / 2, side, top / 2 + 0.04))
    box(piece, (0.01, width / 2, top / 2 - 0.04), paint, at=(DEPTH - 0.01, y, top / 2 + 0.04))
    box(piece, (DEPTH / 2, width / 2, 0.008), paint, at=(DEPTH / 2, y, 0.09))


def _with_drawers(room: Room, piece: Any, place: Place, y: float, width: float, height: float) -> None:
    _hollow(room, piece, y, width, height)
    top, bottom = height - 2 * SLAB - 0.005, LOWEST
    tall = (top - bottom) / 3
    plinth = (DEPTH / 2 - 0.01, width / 2 - 0.016, (bottom - 0.1) / 2)
    box(piece, plinth, room.palette.fronts, at=(DEPTH / 2 + 0.01, y, (bottom + 0.1) / 2 - 0.005))
    for i, name in enumerate(DRAWERS):
        z = (top - (i + 1) * tall, top - i * tall)
        half, paint = width / 2 - 0.02, room.palette.fronts
        add_drawer(
            room,
            piece,
            name,
            place=place,
            y=y,
            z=z,
            half_width=half,
            depth=0.42,
            paint=paint,
            siblings=DRAWERS[:i],
        )


def _with_cupboard(room: Room, piece: Any, place: Place, y: float, width: float, height: float) -> None:
    _hollow(room, piece, y, width, height)
    z, sign = (0.1, height - 2 * SLAB - 0.005), -1 if room.rng.uniform() < 0.5 else 1
    add_door(
        room,
        piece,
        "cupboard",
        place=place,
        hinge=y - sign * (width / 2 - 0.012),
        width=sign * (width - 0.024),
        z=z,
        paint=room.palette.fronts,
        handle_z=z[1] - 0.14,
    )


def _with_stove(room: Room, piece: Any, place: Place, y: float, width: float, height: float) -> None:
    body = height / 2 - SLAB - 0.04
    box(piece, (DEPTH / 2 - 0.01, width / 2, body), METAL, at=(DEPTH / 2 + 0.01, y, body + 0.08))
    box(piece, (0.006, width / 2 - 0.04, 0.18), SCREEN, at=(0.003, y, 0.38), solid=False)
    bar(piece, (0.01, width / 2 - 0.08), CHROME, at=(-0.03, y, 0.62), along="y")
    for i in range(4):
        at = (0.18 + 0.25 * (i % 2), y + (0.13 if i < 2 else -0.13), height + 0.002)
        bar(piece, (0.085 - 0.01 * (i % 3), 0.003), DARK, at=at, shape="cylinder")


_UNDER = {
    "cabinet": _closed,
    "end": _closed,
    "drawers": _with_drawers,
    "cupboard": _with_cupboard,
    "stove": _with_stove,
}


def _add_sink_unit(room: Room, piece: Any, place: Place, *, y: float, width: float, height: float) -> None:
    """Add a counter top with a hole, and a basin under it."""
    stone, z = room.palette.stone, height - SLAB
    a, b = SINK
    front, back = SINK_X - a, SINK_X + a
    box(piece, (front / 2, width / 2, SLAB), stone, at=(front / 2, y, z))
    box(piece, ((DEPTH - back) / 2, width / 2, SLAB), stone, at=((DEPTH + back) / 2, y, z))
    side = (width / 2 - b) / 2
    for sign in (-1, 1):
        box(piece, (a, side, SLAB), stone, at=(SINK_X, y + sign * (b + side), z))
    open_box(piece, (a - 0.018, b - 0.018), BASIN, at=(SINK_X, y, height - BASIN - 0.002), paint=METAL)
    half = height / 2 - 0.04 - BASIN / 2 - 0.01
    box(
        piece,
        (DEPTH / 2 - 0.01, width / 2, half),
        room.palette.fronts.shade(0.96),
        at=(DEPTH / 2 + 0.01, y, half + 0.08),
    )
    for sign in (-1, 1):
        face = (0.008, width / 4 - 0.006, height / 2 - SLAB - 0.05)
        box(piece, face, room.palette.fronts, at=(0.003, y + sign * width / 4, height / 2 + 0.01), solid=False)
        bar(piece, (0.006, 0.04), room.palette.handle, at=(-0.02, y + sign * 0.06, height - 0.2))
    bar(piece, (0.014, 0.11), CHROME, at=(back + 0.06, y, height + 0.11))
    bar(piece, (0.011, 0.08), CHROME, at=(back - 0.02, y, height + 0.22), along="x")
    room.offer(
        "sink",
        body="counter",
        role="container",
        centre=(SINK_X, y, height - BASIN / 2 + 0.01),
        half=(a - 0.02, b - 0.02, BASIN / 2 + 0.01),
        front=place.at(-STAND, y),
    )


def add_microwave(room: Room, place: Place, *, y: float, height: float) -> None:
    """Add a microwave on the counter at `y`: its face 0.2 m behind the counter's front edge."""
    d, w, h, t = 0.15, 0.21, 0.13, 0.008
    shell = [DARK, METAL, room.palette.trim][int(room.rng.integers(3))]
    at = place.at(0.2, y)
    piece = room.add_piece("microwave body", at, z=height)
    box(piece, (d, w, t), shell, at=(d, 0, t))
    box(piece, (d, w, t), shell, at=(d, 0, 2 * h - t))
    box(piece, (t, w, h), shell, at=(2 * d, 0, h))
    box(piece, (d, t, h), shell, at=(d, w, h))
    box(piece, (d, 0.05, h), shell, at=(d, -w + 0.05, h))
    for i in range(3):
        box(piece, (0.003, 0.025, 0.012), CHROME, at=(-0.002, -w + 0.05, h - 0.06 + 0.05 * i), solid=False)
    paint = SCREEN if shell is not DARK else METAL.shade(0.5)
    add_door(
        room,
        piece,
        "microwave",
        place=at,
        hinge=w,
        width=-2 * w + 0.11,
        z=(0.004, 2 * h - 0.004),
        paint=paint,
        handle_z=h,
    )


def add_fridge(room: Room, place: Place, *, hinge_left: bool) -> None:
    """Add a fridge with a freezer above; its lower door opens."""
    half, depth, tall, split = 0.3, 0.6, 1.75, 1.2
    shell = room.palette.trim if room.rng.uniform() < 0.6 else METAL
    piece = room.add_piece("fridge body", place)
    box(piece, (0.02, half, tall / 2), shell, at=(depth - 0.02, 0, tall / 2))
    for sign in (-1, 1):
        box(piece, (depth / 2, 0.02, tall / 2), shell, at=(depth / 2, sign * (half - 0.02), tall / 2))
    box(piece, (depth / 2, half, (tall - split) / 2), shell, at=(depth / 2, 0, (tall + split) / 2))
    box(piece, (0.008, half - 0.004, (tall - split) / 2 - 0.004), shell, at=(-0.01, 0, (tall + split) / 2), solid=False)
    for z in (0.1, 0.5, 0.85):
        box(piece, (depth / 2 - 0.04, half - 0.03, 0.01), room.palette.trim.shade(0.9), at=(depth / 2, 0, z))
    sign = 1 if hinge_left else -1
    bar(piece, (0.008, 0.09), room.palette.handle, at=(-0.05, -sign * 0.24, split + 0.2))
    add_door(
        room,
        piece,
        "fridge",
        place=place,
        hinge=sign * half,
        width=-sign * 2 * half,
        z=(0.08, split),
        paint=shell,
        handle_z=0.85,
        mass=3.0,
    )


def add_wall_cabinets(room: Room, place: Place, *, y: tuple[float, float], z: float) -> None:
    """Add cabinets on the wall above a counter, from y[0] to y[1]."""
    piece = room.add_piece("wall cabinets", place)
    count = max(1, round((y[1] - y[0]) / 0.45))
    width, paint = (y[1] - y[0]) / count, room.palette.fronts
    middle = (y[0] + y[1]) / 2
    box(piece, (0.15, (y[1] - y[0]) / 2, 0.3), paint.shade(0.95), at=(DEPTH - 0.15, middle, z + 0.3))
    for i in range(count):
        at = y[0] + width * (i + 0.5)
        box(piece, (0.008, width / 2 - 0.006, 0.29), paint, at=(DEPTH - 0.306, at, z + 0.3), solid=False)
