"""Objects and receptacles: a few low-poly primitives each, which a person can tell apart at 64 x 64 pixels.

An object collides as one box with a flat top, so that it stands still, does not roll away and can be held by suction
some 3 cm off its centre; its primitives are only visual.
Lengths are in metres, half sizes as in MuJoCo; an object's origin is the middle of its base.
"""

from dataclasses import dataclass

import numpy as np

Vec3 = tuple[float, float, float]
_CORNERS = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float)
_OCTAGON = np.array([(np.cos(a), np.sin(a)) for a in np.arange(8) * np.pi / 4])


@dataclass(frozen=True)
class Primitive:
    """One visual primitive. `shade`: main, dark, light (of the object's colour), white or black."""

    shape: str  # box: half x, half y, half z; cylinder: radius, half height; ellipsoid: three half axes
    size: tuple[float, ...]
    pos: Vec3
    shade: str = "main"

    def hull(self) -> np.ndarray:
        """Return points [n, 3] on its outline: the corners of a box, rings of eight around a round one."""
        if self.shape == "box":
            return _CORNERS * self.size + self.pos
        radius, half = self.size[0], self.size[-1]
        rings = [(1, -1), (1, 1)] if self.shape == "cylinder" else [(0.7, -0.7), (1, 0), (0.7, 0.7)]
        return np.vstack([np.insert(_OCTAGON * radius * r, 2, half * z, axis=1) for r, z in rings]) + self.pos


@dataclass(frozen=True)
class Shape:
    """A kind of object: its collision box (half x, half y, full height), and its visual primitives."""

    collision: Vec3
    visual: tuple[Primitive, ...]

    def hull(self) -> np.ndarray:
        """Return points [n, 3] around everything that is visible."""
        return np.vstack([primitive.hull() for primitive in self.visual])


def _disc(radius: float, low: float, high: float, shade: str = "main") -> Primitive:
    return Primitive("cylinder", (radius, (high - low) / 2), (0, 0, (low + high) / 2), shade)


def _slab(half_x: float, half_y: float, low: float, high: float, shade: str = "main", x: float = 0) -> Primitive:
    return Primitive("box", (half_x, half_y, (high - low) / 2), (x, 0, (low + high) / 2), shade)


SHAPES = {
    "cup": Shape(
        (0.035, 0.035, 0.078),
        (
            _disc(0.038, 0, 0.078),
            _disc(0.030, 0.077, 0.079, "black"),
            Primitive("box", (0.012, 0.006, 0.006), (0.046, 0, 0.062)),
            Primitive("box", (0.012, 0.006, 0.006), (0.046, 0, 0.020)),
            Primitive("box", (0.005, 0.006, 0.027), (0.057, 0, 0.041)),
        ),
    ),
    "bowl": Shape(
        (0.038, 0.038, 0.044),
        (
            _disc(0.028, 0, 0.016),
            _disc(0.040, 0.014, 0.030),
            _disc(0.048, 0.028, 0.044),
            _disc(0.038, 0.043, 0.0445, "dark"),
        ),
    ),
    "plate": Shape(
        (0.040, 0.040, 0.014),
        (_disc(0.034, 0, 0.008), _disc(0.052, 0.006, 0.014), _disc(0.031, 0.013, 0.0155, "light")),
    ),
    "block": Shape(
        (0.038, 0.038, 0.060),
        (_slab(0.038, 0.038, 0, 0.060), _slab(0.020, 0.020, 0.059, 0.061, "light")),
    ),
    "ball": Shape(
        (0.035, 0.035, 0.086),
        (Primitive("ellipsoid", (0.043,) * 3, (0, 0, 0.043)), _disc(0.0445, 0.038, 0.048, "white")),
    ),
    "bottle": Shape(
        (0.033, 0.033, 0.135),
        (
            _disc(0.036, 0, 0.080),
            _disc(0.0365, 0.025, 0.055, "light"),
            _disc(0.024, 0.080, 0.098),
            _disc(0.014, 0.098, 0.125),
            _disc(0.017, 0.122, 0.135, "white"),
        ),
    ),
    "book": Shape(
        (0.050, 0.036, 0.030),
        (
            _slab(0.048, 0.038, 0, 0.007, x=-0.004),
            _slab(0.046, 0.036, 0.006, 0.024, "white", x=0.004),
            _slab(0.042, 0.038, 0.023, 0.030, x=-0.008),
            _slab(0.006, 0.024, 0.029, 0.031, "light", x=-0.022),
        ),
    ),
    "hat": Shape(
        (0.036, 0.036, 0.052),
        (_disc(0.052, 0, 0.008), _disc(0.031, 0.006, 0.052), _disc(0.0325, 0.008, 0.022, "black")),
    ),
}

COLOURS_RGB = {
    "red": (0.86, 0.08, 0.08),
    "green": (0.10, 0.62, 0.16),
    "blue": (0.10, 0.24, 0.88),
    "yellow": (0.98, 0.86, 0.06),
    "purple": (0.50, 0.10, 0.70),
    "orange": (1.00, 0.46, 0.02),
}


def shade_colour(rgb: np.ndarray, shade: str) -> np.ndarray:
    """Return the colour of a primitive, from its object's colour."""
    rgb = np.asarray(rgb, float)
    fixed = {"white": np.full(3, 0.95), "black": np.full(3, 0.06)}
    return fixed[shade] if shade in fixed else {"main": rgb, "dark": rgb * 0.4, "light": rgb * 0.4 + 0.6}[shade]


@dataclass(frozen=True)
class Vessel:
    """A kind of receptacle: wall height, colours of base and rim, and what decorates it."""

    wall: float
    rgb: Vec3
    rim: Vec3
    decoration: str = ""


VESSELS = {
    "sink": Vessel(0.034, (0.60, 0.64, 0.68), (0.84, 0.87, 0.90), "tap"),
    "basket": Vessel(0.046, (0.62, 0.42, 0.22), (0.42, 0.26, 0.12), "weave"),
    "tray": Vessel(0.014, (0.93, 0.88, 0.78), (0.72, 0.62, 0.48), "handles"),
    "bin": Vessel(0.074, (0.16, 0.17, 0.19), (0.30, 0.31, 0.34), ""),
    "crate": Vessel(0.056, (0.80, 0.64, 0.42), (0.90, 0.76, 0.54), "slats"),
}
