"""Tables, chairs, desks, sofas and beds."""

from pilot.sims.rooms.furniture.parts import QUARTER, add_drawer, bar, box
from pilot.sims.rooms.paints import Paint
from pilot.sims.rooms.room import STAND, Place, Room
from pilot.sims.world.physics import quat_about


def add_table(
    room: Room, place: Place, *, name: str, half_width: float, depth: float, height: float, paint: Paint
) -> None:
    """Add a table on four legs or two panels; what lies on it is on the surface `name`."""
    piece = room.add_piece(name, place)
    box(piece, (depth / 2, half_width, 0.025), paint, at=(depth / 2, 0, height - 0.025))
    leg, under = paint.shade(0.8), (height - 0.05) / 2
    if room.rng.uniform() < 0.7:
        for x in (0.05, depth - 0.05):
            for sign in (-1, 1):
                box(piece, (0.025, 0.025, under), leg, at=(x, sign * (half_width - 0.05), under))
    else:
        for sign in (-1, 1):
            box(piece, (depth / 2 - 0.05, 0.02, under), leg, at=(depth / 2, sign * (half_width - 0.08), under))
    y = (-half_width, half_width)
    room.offer_surface(name, body=name, place=place, y=y, z=height, depth=depth, is_station=True)


def add_desk(room: Room, place: Place, *, half_width: float, depth: float, height: float, paint: Paint) -> None:
    """Add a desk with a drawer at one end and legs at the other."""
    side = -1 if room.rng.uniform() < 0.5 else 1
    piece = room.add_piece("desk", place)
    box(piece, (depth / 2, half_width, 0.025), paint, at=(depth / 2, 0, height - 0.025))
    under, y = (height - 0.05) / 2, side * (half_width - 0.22)
    for sign in (-1, 1):
        box(piece, (depth / 2 - 0.01, 0.01, under), paint.shade(0.85), at=(depth / 2 + 0.01, y + sign * 0.2, under))
    box(piece, (0.01, 0.2, under), paint.shade(0.8), at=(depth - 0.01, y, under))
    box(piece, (depth / 2 - 0.01, 0.19, under - 0.1), paint.shade(0.9), at=(depth / 2 + 0.01, y, under - 0.1))
    for x in (0.05, depth - 0.05):
        box(piece, (0.02, 0.02, under), paint.shade(0.8), at=(x, -side * (half_width - 0.04), under))
    top = height - 0.055
    add_drawer(
        room,
        piece,
        "desk drawer",
        place=place,
        y=y,
        z=(top - 0.17, top),
        half_width=0.185,
        depth=0.4,
        paint=paint,
    )
    y_range = (-half_width, half_width)
    room.offer_surface("desk", body="desk", place=place, y=y_range, z=height, depth=depth, is_station=True)


def add_chair(room: Room, place: Place, *, name: str, paint: Paint) -> None:
    """Add a chair; its place is the front of its seat, and x goes to its back."""
    piece = room.add_piece(name, place)
    box(piece, (0.2, 0.2, 0.02), paint, at=(0.2, 0, 0.45))
    box(piece, (0.015, 0.19, 0.22), paint, at=(0.39, 0, 0.69))
    for x in (0.03, 0.37):
        for sign in (-1, 1):
            box(piece, (0.016, 0.016, 0.215), paint.shade(0.8), at=(x, sign * 0.17, 0.215))


def add_sofa(room: Room, place: Place, *, half_width: float) -> None:
    """Add a sofa; what lies on its front half is on the surface `sofa`."""
    cloth, depth, seat = room.palette.cloth, 0.82, 0.42
    piece = room.add_piece("sofa", place)
    box(piece, (depth / 2, half_width, 0.14), cloth.shade(0.85), at=(depth / 2, 0, 0.2))
    cushions = 2 if half_width < 0.9 else 3
    for i in range(cushions):
        y = half_width * ((2 * i + 1) / cushions - 1) * 0.86
        half = half_width * 0.86 / cushions - 0.006
        box(piece, (0.3, half, 0.04), cloth, at=(0.31, y, seat - 0.04))
        box(piece, (0.07, half, 0.2), cloth, at=(0.66, y, seat + 0.2), solid=False)
    box(piece, (0.1, half_width, 0.26), cloth.shade(0.9), at=(depth - 0.1, 0, 0.56))
    for sign in (-1, 1):
        box(
            piece,
            (depth / 2, half_width * 0.07, 0.28),
            cloth.shade(0.9),
            at=(depth / 2, sign * half_width * 0.93, 0.32),
        )
    y_range = (-half_width * 0.82, half_width * 0.82)
    room.offer_surface("sofa", body="sofa", place=place, y=y_range, z=seat, depth=0.6, is_station=False)


def add_bed(room: Room, place: Place, *, half_length: float, depth: float, head_left: bool) -> None:
    """Add a bed with its long side to the room, a place for the pillow at its head, and a blanket that slides up.

    The blanket is a stiff plate, a stand-in for cloth; the ridge along its upper edge is what a gripper pulls.
    """
    from pilot.sims.gl import mujoco

    sign, top, wood = (1 if head_left else -1), 0.5, room.palette.wood
    piece = room.add_piece("bed", place)
    box(piece, (depth / 2, half_length, 0.11), wood, at=(depth / 2, 0, 0.21))
    box(piece, (depth / 2 - 0.02, half_length - 0.03, 0.09), room.palette.trim, at=(depth / 2, 0, top - 0.09))
    box(piece, (depth / 2, 0.025, 0.42), wood.shade(0.9), at=(depth / 2, sign * (half_length + 0.025), 0.42))
    box(piece, (depth / 2, 0.02, 0.26), wood.shade(0.9), at=(depth / 2, -sign * (half_length + 0.02), 0.26))
    head = sign * (half_length - 0.24)
    room.offer(
        "head of the bed",
        body="bed",
        role="surface",
        centre=(0.24, head, top + 0.09),
        half=(0.2, 0.2, 0.11),
        front=place.at(-STAND, head),
    )
    travel = 0.34
    edge = sign * (half_length - 0.52 - travel)  # of the blanket, where it lies when it is pulled down
    foot = -sign * (half_length - 0.04)
    half = abs(edge - foot) / 2
    blanket, cloth = piece.add_body(name="blanket", pos=(0, edge, top)), room.palette.second_cloth
    blanket.add_joint(
        name="blanket",
        type=mujoco.mjtJoint.mjJNT_SLIDE,
        axis=(0, sign, 0),
        range=(0, travel),
        limited=1,
        damping=6,
        frictionloss=1.5,
        armature=0.1,
    )
    box(blanket, (depth / 2 - 0.002, half, 0.012), cloth, at=(depth / 2 - 0.012, -sign * half, 0.014), mass=1.0)
    box(blanket, (0.006, half, 0.12), cloth, at=(-0.014, -sign * half, -0.1), solid=False)
    box(blanket, (0.15, 0.006, 0.022), cloth.shade(1.2), at=(0.19, -sign * 0.02, 0.046), mass=0.05)
    box(
        blanket,
        (depth / 2 - 0.001, 0.06, 0.003),
        cloth.shade(1.15),
        at=(depth / 2 - 0.012, -sign * 0.08, 0.028),
        solid=False,
    )
    down_fingers_along_y = quat_about((0, 1, 0), QUARTER)
    site = {"pos": (0.17, -sign * 0.02, 0.055), "quat": down_fingers_along_y, "size": [0.004] * 3, "group": 4}
    blanket.add_site(name="blanket handle", **site)
    room.spec.add_exclude(bodyname1="bed", bodyname2="blanket")
    room.offer(
        "blanket",
        body="blanket",
        role="opening",
        centre=(0.2, -sign * 0.02, 0.04),
        half=(0.2, 0.04, 0.05),
        front=place.at(-STAND, edge + sign * travel / 2),
        joint="blanket",
        closed_at=0.0,
        open_at=travel,
    )
    low, high = sorted((edge - sign * 0.1, -sign * (half_length - 0.15)))
    room.offer_surface("bed", body="bed", place=place, y=(low, high), z=top + 0.026, depth=depth, is_station=False)


def add_coat_stand(room: Room, place: Place, *, paint: Paint) -> None:
    """Add a coat stand: a pole with pegs."""
    piece = room.add_piece("coat stand", place)
    bar(piece, (0.02, 0.8), paint, at=(0, 0, 0.82), solid=True)
    for sign in (-1, 1):
        bar(piece, (0.012, 0.09), paint, at=(0, 0, 1.5 + 0.06 * sign), along="x")
        bar(piece, (0.012, 0.09), paint, at=(0, 0, 1.5 - 0.06 * sign), along="y")
