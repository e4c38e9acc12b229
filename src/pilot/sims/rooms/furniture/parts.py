"""What furniture is made of: boxes, bars, open boxes, handles, drawers, doors and lids.

Static friction keeps what is jointed where it was left; the parts of one piece do not collide with each other.
"""

from typing import Any

from pilot.sims.rooms.paints import Paint
from pilot.sims.rooms.room import STAND_AT_DOOR, STAND_AT_DRAWER, Place, Room
from pilot.sims.world.physics import add_geom, quat_about

Vec3 = tuple[float, float, float]
QUARTER = 1.5708
_TURNS = {"x": ((0, 1, 0), QUARTER), "y": ((1, 0, 0), QUARTER), "z": ((0, 0, 1), 0.0)}
SHELL = 0.009  # half thickness of panels that things lie on or in [m]
GRIP = 0.007  # radius of a handle's bar [m]
LOWEST = 0.34  # where drawers begin: an arm on a lift pulls no lower handles [m]
BEFORE = 0.045  # from a handle's bar to the face behind it [m]


def box(body: Any, half: Vec3, paint: Paint, *, at: Vec3, solid: bool = True, mass: float | None = None) -> None:
    """Add a box with these half sizes; one that is not `solid` is only to be looked at."""
    contact = "solid" if solid else "none"
    add_geom(body, "box", size=half, pos=at, rgb=paint.rgb, material=paint.material, contact=contact, mass=mass)


def bar(
    body: Any,
    size: tuple[float, float],
    paint: Paint,
    *,
    at: Vec3,
    along: str = "z",
    shape: str = "capsule",
    solid: bool = False,
    mass: float | None = None,
) -> None:
    """Add a capsule or cylinder of a radius and half length along "x", "y" or "z"."""
    axis, angle = _TURNS[along]
    contact = "solid" if solid else "none"
    quat = quat_about(axis, angle)
    add_geom(body, shape, size=size, pos=at, quat=quat, rgb=paint.rgb, contact=contact, mass=mass)


def ball(body: Any, radii: Vec3, paint: Paint, *, at: Vec3) -> None:
    """Add an ellipsoid that is only to be looked at."""
    add_geom(body, "ellipsoid", size=radii, pos=at, rgb=paint.rgb, material=paint.material, contact="none")


def open_box(
    body: Any,
    half: tuple[float, float],
    height: float,
    *,
    at: Vec3,
    paint: Paint,
    wall: float = SHELL,
    mass: float = 2,
) -> None:
    """Add a box without a lid; `half` is its inside, `at` the middle of its floor from below."""
    x, y, z = at
    a, b, share = *half, mass / 5
    box(body, (a + 2 * wall, b + 2 * wall, wall), paint, at=(x, y, z + wall), mass=share)
    for sign in (-1, 1):
        box(body, (wall, b, height / 2), paint, at=(x + sign * (a + wall), y, z + height / 2), mass=share)
        box(body, (a + 2 * wall, wall, height / 2), paint, at=(x, y + sign * (b + wall), z + height / 2), mass=share)


def add_handle(body: Any, name: str, *, at: Vec3, paint: Paint, upright: bool, half_length: float = 0.05) -> None:
    """Add a bar in front of the face at `at`, and the site `<name> handle` in its middle.

    The site's axes are those of a gripper that holds it: x goes into the face, y is the way the fingers close.
    """
    x, y, z = at[0] - BEFORE, at[1], at[2]
    bar(body, (GRIP, half_length), paint, at=(x, y, z), along="z" if upright else "y", solid=True, mass=0.05)
    for sign in (-1, 1):
        post = (0, sign * half_length) if upright else (sign * half_length, 0)
        bar(body, (0.006, 0.016), paint, at=(x + 0.022, y + post[0], z + post[1]), along="x", solid=True, mass=0.02)
    turn = 0.0 if upright else QUARTER
    body.add_site(name=f"{name} handle", pos=(x, y, z), quat=quat_about((1, 0, 0), turn), size=[0.004] * 3, group=4)


def add_drawer(
    room: Room,
    piece: Any,
    name: str,
    *,
    place: Place,
    y: float,
    z: tuple[float, float],
    half_width: float,
    depth: float,
    paint: Paint,
    siblings: tuple[str, ...] = (),
) -> None:
    """Add a drawer whose face is at x = 0 of its piece, from z[0] to z[1]; what is put in lies in its front part."""
    travel = min(0.25, depth - 0.08)
    height, handle = z[1] - z[0], room.palette.handle
    body = piece.add_body(name=name, pos=(0, y, z[0]))
    _add_joint(body, name, kind="slide", axis=(-1, 0, 0), reach=(0, travel), damping=4, friction=0.8, armature=0.05)
    face = paint.shade(0.97)
    inside = depth / 2 - 0.03
    walls = min(0.11, height - 0.06)
    open_box(body, (inside, half_width - 0.035), walls, at=(depth / 2, 0, 0.015), paint=paint.shade(0.85), mass=1.0)
    box(body, (0.008, half_width - 0.004, height / 2 - 0.004), face, at=(-0.008, 0, height / 2), mass=0.5)
    add_handle(body, name, at=(-0.016, 0, height / 2), paint=handle, upright=False)
    for other in (piece.name, *siblings):
        room.spec.add_exclude(bodyname1=other, bodyname2=name)
    room.offer(
        name,
        body=name,
        role="container",
        centre=(0.03 + travel / 2, 0, 0.03 + walls / 2),
        half=(travel / 2 - 0.005, half_width - 0.045, walls / 2 + 0.01),
        front=place.at(-STAND_AT_DRAWER, y),
        joint=name,
        open_at=travel,
    )


def add_door(
    room: Room,
    piece: Any,
    name: str,
    *,
    place: Place,
    hinge: float,
    width: float,
    z: tuple[float, float],
    paint: Paint,
    handle_z: float,
    mass: float = 0.8,
) -> None:
    """Add a door at x = 0 of its piece; `hinge` is the y of its hinge, `width` how far it goes from there along y."""
    side = -1 if width > 0 else 1  # +1: hinged on the left, opens clockwise from above
    middle, half = (z[0] + z[1]) / 2, (z[1] - z[0]) / 2
    body = piece.add_body(name=name, pos=(-0.012, hinge, middle))
    reach = (-1.9, 0.0) if side > 0 else (0.0, 1.9)
    _add_joint(body, name, kind="hinge", axis=(0, 0, 1), reach=reach, damping=0.15, friction=0.1, armature=0.01)
    gap = 0.004 * side
    box(body, (0.009, abs(width) / 2 - 0.004, half - 0.004), paint, at=(0, width / 2, 0), mass=mass)
    add_handle(
        body, name, at=(-0.009, width - 0.05 * -side + gap, handle_z - middle), paint=room.palette.handle, upright=True
    )
    room.spec.add_exclude(bodyname1=piece.name, bodyname2=name)
    room.offer(
        name,
        body=name,
        role="opening",
        centre=(0, width / 2, 0),
        half=(0.03, abs(width) / 2, half),
        front=place.at(-STAND_AT_DOOR, hinge + 0.75 * width),
        joint=name,
        open_at=-1.45 * side,
    )


def add_lid(
    room: Room, piece: Any, name: str, *, place: Place, half: tuple[float, float], z: float, paint: Paint
) -> None:
    """Add a lid on a box whose inside reaches from x = 0; it is hinged at the back and stays where it is left."""
    a, b = half
    body = piece.add_body(name=name, pos=(2 * a + 0.03, 0, z))
    _add_joint(body, name, kind="hinge", axis=(0, 1, 0), reach=(0, 1.5), damping=0.1, friction=0.6, armature=0.01)
    box(body, (a + 0.022, b + 0.022, 0.007), paint.shade(0.92), at=(-a - 0.02, 0, 0.008), mass=0.25)
    add_handle(body, name, at=(-2 * a - 0.042, 0, 0.008), paint=room.palette.handle, upright=False, half_length=0.035)
    room.spec.add_exclude(bodyname1=piece.name, bodyname2=name)
    room.offer(
        name,
        body=name,
        role="opening",
        centre=(-a, 0, 0),
        half=(a, b, 0.03),
        front=place.at(-STAND_AT_DRAWER - 0.02, 0),
        joint=name,
        open_at=1.35,
    )


def _add_joint(
    body: Any,
    name: str,
    *,
    kind: str,
    axis: Vec3,
    reach: tuple[float, float],
    damping: float,
    friction: float,
    armature: float,
) -> None:
    from pilot.sims.gl import mujoco

    kinds = {"slide": mujoco.mjtJoint.mjJNT_SLIDE, "hinge": mujoco.mjtJoint.mjJNT_HINGE}
    body.add_joint(
        name=name,
        type=kinds[kind],
        axis=axis,
        range=reach,
        limited=1,
        damping=damping,
        frictionloss=friction,
        armature=armature,
    )
