"""What things are made of: primitives and small meshes, as data that needs no physics engine.

Lengths are in metres and sizes are half sizes, as in MuJoCo; z points up. A piece is seen and touched unless it says
otherwise. Hollow things are rings of boxes, because a mesh collides as its convex hull.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

Vec3 = tuple[float, float, float]
Levels = tuple[float, float]
Pieces = tuple["Piece", ...]
_UNTURNED = np.eye(3)


@dataclass(frozen=True, eq=False)
class Mesh:
    """A closed surface: `vertices` [n 3] and triangles `faces` [m 3], counter-clockwise seen from outside."""

    vertices: np.ndarray
    faces: np.ndarray


@dataclass(frozen=True, eq=False)
class Piece:
    """One primitive or mesh. `at` is its middle, `turn` its rotation, both in the frame of the thing."""

    shape: str  # box (half x, y, z), cylinder or capsule (radius, half length along z), sphere, ellipsoid, mesh
    size: tuple[float, ...]
    at: Vec3
    rgb: Vec3
    turn: np.ndarray = field(default_factory=lambda: _UNTURNED)
    alpha: float = 1.0
    is_touched: bool = True
    is_seen: bool = True
    rolls: bool = False
    mesh: Mesh | None = None

    @property
    def is_turned(self) -> bool:
        """Whether it stands in another way than its shape does."""
        return self.turn is not _UNTURNED

    def only_seen(self) -> "Piece":
        """Return the piece as decoration, which nothing touches."""
        return replace(self, is_touched=False)

    def only_touched(self) -> "Piece":
        """Return the piece as a collider that no camera sees."""
        return replace(self, is_seen=False)

    def rolling(self) -> "Piece":
        """Return the piece with friction against rolling, without which round things never stop."""
        return replace(self, rolls=True)

    def clear(self, alpha: float) -> "Piece":
        """Return the piece with this opacity."""
        return replace(self, alpha=alpha)

    def stood(self, scale: float, *, lift: float = 0.0) -> "Piece":
        """Return the piece raised by `lift`, of a thing that is then made `scale` times as large."""
        mesh = None if self.mesh is None else Mesh(self.mesh.vertices * scale, self.mesh.faces)
        x, y, z = self.at
        at, size = (x * scale, y * scale, (z + lift) * scale), tuple(s * scale for s in self.size)
        flags = (self.alpha, self.is_touched, self.is_seen, self.rolls)
        return Piece(self.shape, size, at, self.rgb, self.turn, *flags, mesh)

    def reach(self, direction: np.ndarray) -> float:
        """Return how far the piece reaches from the thing's origin in a unit direction [3] (its support function)."""
        return float(self.reaches(direction[None])[0])

    def reaches(self, directions: np.ndarray) -> np.ndarray:
        """Return how far the piece reaches in each of the unit directions [k 3]."""
        local, size = directions @ self.turn, self.size
        if self.shape == "mesh":
            assert self.mesh is not None
            own = (local @ self.mesh.vertices.T).max(axis=1)
        elif self.shape == "box":
            own = np.abs(local) @ size
        elif self.shape == "cylinder":
            own = np.abs(local[:, 2]) * size[1] + size[0] * np.hypot(local[:, 0], local[:, 1])
        elif self.shape == "capsule":
            own = np.abs(local[:, 2]) * size[1] + size[0]
        else:
            own = np.linalg.norm(local * (size * 3 if self.shape == "sphere" else size), axis=1)
        return directions @ np.asarray(self.at) + own

    @property
    def volume(self) -> float:
        """The volume in m³; a mesh counts as the ellipsoid in its bounding box."""
        ball = 4 / 3 * np.pi
        if self.shape == "mesh":
            assert self.mesh is not None
            return float(ball * np.prod(np.ptp(self.mesh.vertices, axis=0) / 2))
        if self.shape == "box":
            return 8 * float(np.prod(self.size))
        if self.shape in ("cylinder", "capsule"):
            radius, half = self.size
            return 2 * np.pi * radius**2 * half + (ball * radius**3 if self.shape == "capsule" else 0)
        return ball * float(np.prod(self.size if self.shape == "ellipsoid" else self.size * 3))


def only_seen(*pieces: Piece) -> Pieces:
    """Return these pieces as decoration."""
    return tuple(piece.only_seen() for piece in pieces)


def about(axis: str, angle: float) -> np.ndarray:
    """Return the rotation [3 3] by `angle` radians about "x", "y" or "z"."""
    c, s = np.cos(angle), np.sin(angle)
    rows = {"x": [[1, 0, 0], [0, c, -s], [0, s, c]], "y": [[c, 0, s], [0, 1, 0], [-s, 0, c]]}
    return np.array(rows.get(axis, [[c, -s, 0], [s, c, 0], [0, 0, 1]]))


def moved(pieces: Sequence[Piece], at: Vec3 = (0, 0, 0), *, turn: np.ndarray = _UNTURNED) -> Pieces:
    """Return the pieces turned about the origin, then shifted by `at`."""
    return tuple(replace(p, at=tuple(turn @ p.at + at), turn=turn @ p.turn) for p in pieces)


def box(half: Vec3, at: Vec3, rgb: Vec3, *, turn: np.ndarray = _UNTURNED) -> Piece:
    """Make a box of these half sizes."""
    return Piece("box", half, at, rgb, turn)


def sphere(radius: float, at: Vec3, rgb: Vec3) -> Piece:
    """Make a sphere."""
    return Piece("sphere", (radius,), at, rgb)


def ellipsoid(half: Vec3, at: Vec3, rgb: Vec3, *, turn: np.ndarray = _UNTURNED) -> Piece:
    """Make an ellipsoid of these half axes."""
    return Piece("ellipsoid", half, at, rgb, turn)


def cylinder(radius: float, ends: tuple[Vec3, Vec3], rgb: Vec3) -> Piece:
    """Make a cylinder whose faces have their middles at the two `ends`."""
    return _between("cylinder", radius, ends, rgb)


def rod(radius: float, ends: tuple[Vec3, Vec3], rgb: Vec3) -> Piece:
    """Make a capsule whose round ends have their middles at the two `ends`."""
    return _between("capsule", radius, ends, rgb)


def disc(radius: float, levels: Levels, rgb: Vec3, *, xy: tuple[float, float] = (0, 0)) -> Piece:
    """Make an upright cylinder from one height to another."""
    low, high = levels
    return Piece("cylinder", (radius, (high - low) / 2), (*xy, (low + high) / 2), rgb)


def _between(shape: str, radius: float, ends: tuple[Vec3, Vec3], rgb: Vec3) -> Piece:
    axis = np.subtract(ends[1], ends[0])
    length = math.sqrt(axis @ axis)
    a, b, c = axis / length
    # Any axes across will do: what is round looks the same from all sides.
    across = math.hypot(a, b)
    x = (b / across, -a / across, 0.0) if across > 1e-9 else (1.0, 0.0, 0.0)
    y = (-c * x[1], c * x[0], a * x[1] - b * x[0])
    turn = np.array([(x[0], y[0], a), (x[1], y[1], b), (x[2], y[2], c)])
    return Piece(shape, (radius, length / 2), tuple(np.add(*ends) / 2), rgb, turn)


def chain(radii: Sequence[float], points: Sequence[Vec3], rgb: Vec3) -> Pieces:
    """Make capsules along a line of points; each segment has the radius that is given for it."""
    return tuple(rod(r, (a, b), rgb) for r, a, b in zip(radii, points[:-1], points[1:], strict=True))


def ring(
    radius: float,
    levels: Levels,
    rgb: Callable[[int], Vec3],
    *,
    sides: int = 12,
    thick: float = 0.003,
    tilt: float = 0.0,
) -> Pieces:
    """Make an upright wall of boxes around the z axis, `radius` at its middle, from one height to another.

    The wall leans outwards by `tilt` radians and is twice `thick` thick; `rgb` gives the colour of each side.
    """
    low, high = levels
    half = (high - low) / 2 / np.cos(tilt)
    width = (radius + thick + half * abs(np.sin(tilt))) * np.tan(np.pi / sides)
    lean, pieces = about("y", tilt), []
    for k in range(sides):
        angle = 2 * np.pi * k / sides
        at = (radius * np.cos(angle), radius * np.sin(angle), (low + high) / 2)
        pieces.append(box((thick, width, half), at, rgb(k), turn=about("z", angle) @ lean))
    return tuple(pieces)


def lathe(profile: Sequence[tuple[float, float]], rgb: Vec3, *, sides: int = 12) -> Piece:
    """Make the solid that a profile of (radius, height), from the bottom to the top, sweeps around the z axis."""
    angles = 2 * np.pi * np.arange(sides) / sides
    rings = [np.stack([r * np.cos(angles), r * np.sin(angles), np.full(sides, z)], axis=1) for r, z in profile]
    return _mesh(np.concatenate(rings), _sleeve(len(profile), sides), rgb)


def cushion(half: Vec3, rgb: Vec3, *, z: float = 0.0) -> Piece:
    """Make a puffed rectangle, thick in the middle and thin at its hem, whose lowest point is at height `z`."""
    angles = 2 * np.pi * (np.arange(12) + 0.5) / 12
    square = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    square = np.sign(square) * np.abs(square) ** 0.45
    levels = ((0.72, 0.0), (0.97, 0.34), (1.0, 0.5), (0.95, 0.66), (0.78, 0.86), (0.42, 1.0))
    rings = [np.insert(square * half[:2] * share, 2, z + 2 * half[2] * level, axis=1) for share, level in levels]
    return _mesh(np.concatenate(rings), _sleeve(len(levels), len(angles)), rgb)


def prism(outline: Sequence[tuple[float, float]], levels: Levels, rgb: Vec3) -> Piece:
    """Make a convex outline of (x, y), counter-clockwise, that stands from one height to another."""
    rings = [np.array([(x, y, z) for x, y in outline]) for z in levels]
    return _mesh(np.concatenate(rings), _sleeve(2, len(outline)), rgb)


def lump(radius: float, rgb: Vec3, rng: np.random.Generator, *, roughness: float = 0.12) -> Piece:
    """Make a crumpled ball whose surface lies within `roughness` of `radius`, relative to it."""
    rows, sides = 5, 9
    latitudes = np.linspace(-0.9, 0.9, rows) * np.pi / 2
    longitudes = 2 * np.pi * np.arange(sides) / sides
    points = np.array(
        [(np.cos(a) * np.cos(b), np.cos(a) * np.sin(b), np.sin(a)) for a in latitudes for b in longitudes]
    )
    points *= radius * rng.uniform(1 - roughness, 1 + roughness, size=(len(points), 1))
    return _mesh(points, _sleeve(rows, sides), rgb)


def _mesh(vertices: np.ndarray, faces: np.ndarray, rgb: Vec3) -> Piece:
    return Piece("mesh", (), (0, 0, 0), rgb, mesh=Mesh(vertices, faces))


def _sleeve(rows: int, sides: int) -> np.ndarray:
    """Return the triangles between rings of `sides` points, row after row, with both ends closed."""
    faces = []
    for row in range(rows - 1):
        for k in range(sides):
            a, b = row * sides + k, row * sides + (k + 1) % sides
            faces += [(a, b, b + sides), (a, b + sides, a + sides)]
    last = (rows - 1) * sides
    for k in range(1, sides - 1):
        faces += [(0, k + 1, k), (last, last + k, last + k + 1)]
    return np.array(faces, np.int32)
