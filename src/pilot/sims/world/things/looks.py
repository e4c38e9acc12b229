"""How one thing looks: its colours, its pattern, its proportions; drawn at random, and said in words.

Some colours are held out: no training split draws them, so that a test can ask for a word that no robot has acted on.
"""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pilot.sims.world.things.pieces import Piece, Pieces, Vec3, box, disc, only_seen, sphere

COLOURS: dict[str, Vec3] = {
    "red": (0.82, 0.09, 0.09),
    "green": (0.12, 0.58, 0.18),
    "blue": (0.12, 0.26, 0.82),
    "yellow": (0.96, 0.83, 0.10),
    "purple": (0.48, 0.14, 0.66),
    "orange": (0.96, 0.46, 0.06),
    "brown": (0.45, 0.27, 0.13),
    "black": (0.09, 0.09, 0.10),
    "white": (0.93, 0.93, 0.91),
    "grey": (0.50, 0.51, 0.53),
    "beige": (0.86, 0.76, 0.58),
    "silver": (0.74, 0.76, 0.79),
    "golden": (0.83, 0.66, 0.24),
    "wooden": (0.70, 0.49, 0.28),
    "turquoise": (0.12, 0.74, 0.70),
    "pink": (0.96, 0.50, 0.68),
}
HELD_OUT_COLOURS = ("turquoise", "pink")
PAINTS = ("red", "green", "blue", "yellow", "purple", "orange", "white", "black", "grey", *HELD_OUT_COLOURS)
"""What a thing may be painted in."""
TOY_PAINTS = ("red", "green", "blue", "yellow", "purple", "orange", *HELD_OUT_COLOURS)
_ACCENTS = (*(c for c in TOY_PAINTS if c not in HELD_OUT_COLOURS), "white")
PATTERNS = ("plain", "striped", "spotted")

WHITE, BLACK, GREY = COLOURS["white"], COLOURS["black"], (0.33, 0.34, 0.36)
STEEL, WOOD, LEAF = COLOURS["silver"], COLOURS["wooden"], (0.16, 0.45, 0.12)


def darker(rgb: Vec3, factor: float = 0.6) -> Vec3:
    """Return a colour with `factor` of its light."""
    r, g, b = rgb
    return (r * factor, g * factor, b * factor)


def lighter(rgb: Vec3, share: float = 0.5) -> Vec3:
    """Return a colour mixed with a `share` of white."""
    r, g, b = (c + (1 - c) * share for c in rgb)
    return (r, g, b)


@dataclass(frozen=True)
class Look:
    """One drawn appearance. `rgb` and `accent_rgb` are the colours of the words, a little off as paint is."""

    colour: str
    accent: str
    pattern: str
    rgb: Vec3
    accent_rgb: Vec3
    scale: float  # of all lengths
    stretch: float  # of the length that the kind may vary
    variant: int  # decides details that have no name

    def side(self, index: int) -> Vec3:
        """Return the colour of one side of a ring: stripes alternate."""
        return self.accent_rgb if self.pattern == "striped" and index % 2 else self.rgb

    def pick(self, *options: int) -> int:
        """Return one of the options, always the same for this look."""
        return options[self.variant % len(options)]

    def rng(self) -> np.random.Generator:
        """Return a generator for random shapes, the same each time."""
        return np.random.default_rng(self.variant)

    def bands(self, radius: float, low: float, high: float) -> Pieces:
        """Return the pattern around an upright cylinder: rings of colour, or spots; nothing if it is plain."""
        size, paint = (high - low) / 7, self.accent_rgb
        if self.pattern == "striped":
            levels = (low + 1.5 * size, low + 4.5 * size)
            return only_seen(*(disc(radius + 0.0008, (z, z + size), paint) for z in levels))
        if self.pattern != "spotted":
            return ()
        spot, spots = min(size, radius * 0.35), []
        for k in range(8):
            angle, z = k * np.pi / 4, low + (2 + 3 * (k % 2)) * size
            at = ((radius - spot * 0.6) * np.cos(angle), (radius - spot * 0.6) * np.sin(angle), z)
            spots.append(sphere(spot, at, paint))
        return only_seen(*spots)

    def top(self, half_x: float, half_y: float, z: float) -> Pieces:
        """Return the pattern on a flat top at height `z`: stripes across it, or spots; nothing if it is plain."""
        pieces: list[Piece] = []
        if self.pattern == "striped":
            for x in (-0.6, 0, 0.6):
                pieces.append(box((half_x / 7, half_y, 0.0006), (x * half_x, 0, z), self.accent_rgb))
        elif self.pattern == "spotted":
            radius = min(half_x, half_y) * 0.22
            for x, y in ((-0.6, -0.5), (-0.6, 0.5), (0, 0), (0.6, -0.5), (0.6, 0.5)):
                pieces.append(disc(radius, (z - 0.0006, z + 0.0006), self.accent_rgb, xy=(x * half_x, y * half_y)))
        return only_seen(*pieces)


def draw_look(
    rng: np.random.Generator,
    colours: Sequence[str],
    *,
    patterns: Sequence[str] = ("plain",),
    scales: tuple[float, float] = (0.92, 1.06),
) -> Look:
    """Draw a look in one of these colours; half of the things that may have a pattern are plain."""
    colour = _one(colours, rng)
    accent = _one([c for c in _ACCENTS if c != colour], rng)
    pattern = "plain" if rng.random() < 0.5 else _one(patterns, rng)
    return Look(
        colour=colour,
        accent=accent,
        pattern=pattern,
        rgb=_jitter(COLOURS[colour], rng),
        accent_rgb=_jitter(COLOURS[accent], rng),
        scale=float(rng.uniform(*scales)),
        stretch=float(rng.uniform(0.88, 1.12)),
        variant=int(rng.integers(1 << 16)),
    )


def _one(options: Sequence[str], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]  # `rng.choice` takes ten times as long


def _jitter(rgb: Vec3, rng: np.random.Generator) -> Vec3:
    hue, saturation, value = colorsys.rgb_to_hsv(*rgb)
    turn, wash, shade = rng.uniform((-0.012, 0.85, 0.88), (0.012, 1.08, 1.06))
    hue, saturation, value = (hue + turn) % 1, min(saturation * wash, 1.0), min(value * shade, 1.0)
    r, g, b = colorsys.hsv_to_rgb(hue, saturation, value)
    return (r, g, b)
