"""A room while it is being furnished: where pieces stand, what they offer, and where a robot can drive.

Each piece of furniture has a frame of its own on the floor: x points away from the person who stands in front of it
(to the wall), y to that person's left, and x = 0 is its front edge. A mobile base stands at negative x.
"""

from dataclasses import dataclass, field
from math import cos, pi, sin
from typing import Any

import numpy as np

from pilot.sims.rooms.paints import Palette
from pilot.sims.world.physics import multiply_quats, quat_about
from pilot.sims.world.scene import Fixture

STAND = 0.29  # from the centre of a mobile base to the front edge of what it reaches over [m]
STAND_AT_DRAWER = 0.56  # to the face of a drawer or lid that it pulls [m]
STAND_AT_DOOR = 0.66  # to the face of a door that swings out [m]
STRIP = (0.06, 0.34)  # what an arm reaches from above, from the front edge of a surface [m]


@dataclass(frozen=True)
class Place:
    """A frame on the floor: a position [m] and the direction of its x axis [rad]."""

    x: float
    y: float
    yaw: float

    def at(self, x: float, y: float, *, yaw: float = 0.0) -> "Place":
        """Return the place that has these coordinates in this frame."""
        c, s = cos(self.yaw), sin(self.yaw)
        turned = (self.yaw + yaw + pi) % (2 * pi) - pi
        return Place(self.x + c * x - s * y, self.y + s * x + c * y, turned)

    def local(self, x: float, y: float) -> tuple[float, float]:
        """Return the coordinates in this frame of a point of the world."""
        c, s = cos(self.yaw), sin(self.yaw)
        return c * (x - self.x) + s * (y - self.y), -s * (x - self.x) + c * (y - self.y)

    @property
    def quat(self) -> tuple[float, float, float, float]:
        """The turn from the world's frame to this one."""
        return cos(self.yaw / 2), 0.0, 0.0, sin(self.yaw / 2)

    @property
    def pose(self) -> tuple[float, float, float]:
        """Its numbers: x, y [m] and yaw [rad]."""
        return self.x, self.y, self.yaw


@dataclass(frozen=True)
class Spot:
    """A rectangle on a surface where things may lie at the start, all of it within an arm's reach."""

    fixture: str
    place: Place  # the frame of the piece
    x: tuple[float, float]
    y: tuple[float, float]
    z: float  # height of the surface [m]

    @property
    def area(self) -> float:
        """How much room it has [m2]."""
        return (self.x[1] - self.x[0]) * (self.y[1] - self.y[0])


@dataclass(frozen=True)
class Station:
    """Where a robot that cannot drive stands: in front of a surface, as high as the surface."""

    fixture: str
    place: Place  # on the front edge; the robot looks along x
    height: float
    span: tuple[float, float]  # of y, where things may lie [m]
    also: tuple[str, ...] = ()  # other fixtures within reach


@dataclass(frozen=True)
class Taken:
    """A circle in which something stands already; things are laid beside it."""

    x: float
    y: float
    z: float
    radius: float
    name: str = ""


@dataclass
class Room:
    """What furniture is added to, and what it leaves behind for tasks."""

    name: str
    spec: Any
    rng: np.random.Generator
    palette: Palette
    floor: tuple[float, float] = (1.0, 1.0)  # half sizes of the free rectangle that a base's centre may be in [m]
    walls: tuple[float, float, float, float] = (2.0, 2.0, 2.0, 2.0)  # from the middle to +x, +y, -x and -y [m]
    fixtures: dict[str, Fixture] = field(default_factory=dict)
    spots: dict[str, Spot] = field(default_factory=dict)
    stations: dict[str, Station] = field(default_factory=dict)
    taken: list["Taken"] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    def add_piece(self, name: str, place: Place, *, z: float = 0.0) -> Any:
        """Add the body of a piece of furniture, fixed in the world."""
        return self.spec.worldbody.add_body(name=name, pos=(place.x, place.y, z), quat=place.quat)

    def number(self, name: str) -> str:
        """Return a name for one of several alike: "picture 1", "picture 2", …"""
        self.counts[name] = self.counts.get(name, 0) + 1
        return f"{name} {self.counts[name]}"

    def offer(
        self,
        name: str,
        *,
        body: str,
        role: str,
        centre: tuple[float, float, float],
        half: tuple[float, float, float],
        front: Place,
        joint: str | None = None,
        open_at: float = 0.0,
        closed_at: float = 0.0,
    ) -> None:
        """Register a fixture: a region in a body's frame, and where a mobile base stands in front of it."""
        assert name not in self.fixtures, name
        handle = f"{joint} handle" if joint else None
        self.fixtures[name] = Fixture(
            name=name,
            body=body,
            role=role,
            centre=centre,
            half=half,
            joint=joint,
            open_at=open_at,
            closed_at=closed_at,
            handle=handle,
            front=front.pose,
        )

    def leave_open(self, name: str, *, share: float = 1.0) -> None:
        """Let a fixture begin open by a share of its way."""
        from pilot.sims.gl import mujoco

        fixture = self.fixtures[name]
        assert fixture.joint is not None, name
        joint, body = self.spec.joint(fixture.joint), self.spec.body(fixture.body)
        value = fixture.closed_at + share * (fixture.open_at - fixture.closed_at)
        joint.ref = value  # what the joint reads where the spec has the body
        if joint.type == mujoco.mjtJoint.mjJNT_SLIDE:
            turned = np.zeros(3)
            mujoco.mju_rotVecQuat(turned, np.array(joint.axis, float), np.array(body.quat, float))
            body.pos = np.array(body.pos) + turned * value
        else:
            body.quat = multiply_quats(body.quat, quat_about(joint.axis, value))

    def offer_surface(
        self, name: str, *, body: str, place: Place, y: tuple[float, float], z: float, depth: float, is_station: bool
    ) -> None:
        """Register a surface at height `z` from y[0] to y[1]: its strip along the front, which arms reach."""
        low, high = STRIP[0], min(STRIP[1], depth - 0.05)
        middle, width = (y[0] + y[1]) / 2, y[1] - y[0]
        self.offer(
            name,
            body=body,
            role="surface",
            centre=((low + high) / 2, middle, z + 0.09),
            half=((high - low) / 2 + 0.05, width / 2, 0.1),
            front=place.at(-STAND, middle),
        )
        self.spots[name] = Spot(name, place, (low + 0.02, high - 0.06), (y[0] + 0.08, y[1] - 0.08), z)
        if is_station and width > 0.8:
            self.stations[name] = Station(name, place.at(0, middle), z, (0.08 - width / 2, width / 2 - 0.08))
