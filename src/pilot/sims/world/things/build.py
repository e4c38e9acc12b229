"""Puts things into a MuJoCo model (MjSpec): the one module here that needs MuJoCo."""

from typing import Any

from pilot.sims.world.physics import add_geom, quat_about, quat_of
from pilot.sims.world.things.kind import ThingKind
from pilot.sims.world.things.looks import Look
from pilot.sims.world.things.pieces import Piece, Vec3

COLLIDER_GROUP = 3  # of geoms that are touched and not seen; MuJoCo does not draw it unless asked
_ROLLING = [1.0, 0.02, 0.004]  # friction along, about and against rolling; the last two in metres


def add_thing(
    spec: Any,
    name: str,
    kind: ThingKind,
    *,
    look: Look,
    pos: Vec3 = (0, 0, 0),
    yaw: float = 0.0,
    parent: Any = None,
    is_free: bool = True,
) -> Any:
    """Add a body `name` with a thing that stands at `pos`, and return it; its free joint has the same name.

    `parent` is the body that it is attached to (the world); `is_free=False` leaves the joint out.
    """
    body = (parent or spec.worldbody).add_body(name=name, pos=pos, quat=quat_about((0, 0, 1), yaw))
    if is_free:
        body.add_freejoint(name=name)
    build(spec, body, kind, look=look)
    return body


def build(spec: Any, body: Any, kind: ThingKind, *, look: Look) -> None:
    """Add the geoms of a thing to a body of `spec`, in the body's frame; its mass is spread over what is touched."""
    pieces = kind.pieces(look)
    density = kind.total_mass(look) / sum(piece.volume for piece in pieces if piece.is_touched)
    for index, piece in enumerate(pieces):
        mesh = "" if piece.mesh is None else _add_mesh(spec, f"{body.name}.{index}", piece)
        _add_piece(body, piece, mass=density * piece.volume, mesh=mesh)


def _add_mesh(spec: Any, name: str, piece: Piece) -> str:
    assert piece.mesh is not None
    mesh = spec.add_mesh(name=name)
    mesh.uservert = piece.mesh.vertices.ravel()
    mesh.userface = piece.mesh.faces.ravel()
    return name


def _add_piece(body: Any, piece: Piece, *, mass: float, mesh: str) -> None:
    contact = "none" if not piece.is_touched else "round" if piece.rolls else "solid"
    geom = add_geom(
        body,
        piece.shape,
        size=piece.size,
        pos=piece.at,
        quat=quat_of(piece.turn) if piece.is_turned else None,
        rgb=piece.rgb,
        alpha=piece.alpha,
        mass=mass if piece.is_touched else 0,
        contact=contact,
        mesh=mesh,
    )
    if piece.rolls:
        geom.friction = _ROLLING
    if not piece.is_seen:
        geom.group = COLLIDER_GROUP
