"""Colours and textures of a home, drawn anew for each: floors, walls, wood, counters, cloth.

Textures are greyscale pictures of 64 x 64 that multiply a colour, so a home has few of them and any number of colours.
"""

import colorsys
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Rgb = tuple[float, float, float]
PIXELS = 64


@dataclass(frozen=True)
class Paint:
    """What a surface looks like: a colour, and the name of a material of the spec that carries a texture."""

    rgb: Rgb
    material: str = ""

    def shade(self, factor: float) -> "Paint":
        """Return a darker (below 1) or lighter paint."""
        r, g, b = (float(np.clip(c * factor, 0, 1)) for c in self.rgb)
        return Paint((r, g, b), self.material)


METAL, DARK, WHITE = Paint((0.6, 0.63, 0.66)), Paint((0.16, 0.16, 0.18)), Paint((0.93, 0.93, 0.92))
CHROME, SCREEN = Paint((0.78, 0.8, 0.82)), Paint((0.07, 0.08, 0.1))


def planks(rng: np.random.Generator) -> np.ndarray:
    """Draw boards of unequal brightness, with grain along them."""
    rows = int(rng.integers(4, 9))
    tone = rng.uniform(0.78, 1.0, rows)[np.arange(PIXELS) * rows // PIXELS][:, None]
    grain = np.repeat(rng.uniform(0.93, 1.0, (PIXELS, 8)), 8, axis=1)
    seams = np.where(np.arange(PIXELS) * rows % PIXELS < rows, 0.72, 1.0)[:, None]
    return tone * grain * seams


def tiles(rng: np.random.Generator) -> np.ndarray:
    """Draw square tiles with joints; sometimes two tones, like a chess board."""
    count = int(rng.choice([2, 4]))
    at = np.arange(PIXELS) * count // PIXELS
    checker = (at[:, None] + at[None, :]) % 2
    tone = np.where(checker, 1.0, rng.choice([1.0, 0.86, 0.68]))
    joint = np.arange(PIXELS) % (PIXELS // count) < 2
    return np.where(joint[:, None] | joint[None, :], 0.75, tone)


def speckle(rng: np.random.Generator) -> np.ndarray:
    """Draw stone: grains and larger flecks."""
    fine = rng.uniform(0.85, 1.0, (PIXELS, PIXELS))
    coarse = np.kron(rng.uniform(0.85, 1.0, (16, 16)), np.ones((4, 4)))
    return fine * coarse


def grain(rng: np.random.Generator) -> np.ndarray:
    """Draw wood grain along one direction."""
    lines = np.cumsum(rng.normal(0, 0.05, PIXELS))
    lines = 0.92 + 0.08 * np.sin(6 * lines + np.linspace(0, 12, PIXELS))
    return lines[:, None] * rng.uniform(0.96, 1.0, (PIXELS, PIXELS))


def weave(rng: np.random.Generator) -> np.ndarray:
    """Draw cloth: plain, striped or checked, with a woven ground."""
    period = int(rng.choice([8, 16, 32]))
    stripe = np.where(np.arange(PIXELS) % period < period // 2, 1.0, rng.uniform(0.7, 0.95))
    pattern = {"plain": np.ones(PIXELS)[:, None], "stripes": stripe[:, None], "checks": stripe[:, None] * stripe}
    ground = rng.uniform(0.9, 1.0, (PIXELS, PIXELS))
    return pattern[str(rng.choice(list(pattern)))] * ground


TEXTURES = {"floor": None, "wall": weave, "wood": grain, "stone": speckle, "cloth": weave, "rug": weave}
REPEATS = {"floor": 8.0, "wall": 1.0, "wood": 1.0, "stone": 2.0, "cloth": 2.0, "rug": 3.0}


def add_textures(spec: Any, rng: np.random.Generator, *, hard_floor: bool) -> None:
    """Add the materials `floor`, `wall`, `wood`, `stone`, `cloth` and `rug` to a spec."""
    from pilot.sims.gl import mujoco

    floors = (planks, tiles) if hard_floor else (planks, weave, speckle)
    for name, draw in TEXTURES.items():
        draw = draw or floors[int(rng.integers(len(floors)))]
        grey = np.clip(draw(rng) * 255, 0, 255).astype(np.uint8)
        texture = spec.add_texture(name=name, type=mujoco.mjtTexture.mjTEXTURE_2D, width=PIXELS, height=PIXELS)
        texture.nchannel, texture.data = 3, np.repeat(grey[:, :, None], 3, axis=2).tobytes()
        material = spec.add_material(name=name)
        material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = name
        material.texrepeat = [REPEATS[name] * float(rng.uniform(0.8, 1.3))] * 2
        material.specular, material.shininess = 0.05, 0.1


def draw_rgb(
    rng: np.random.Generator, *, saturation: tuple[float, float], value: tuple[float, float], hue: float | None = None
) -> Rgb:
    """Draw a colour of any hue, or of one near `hue`."""
    hue = float(rng.uniform()) if hue is None else hue + float(rng.normal(0, 0.02))
    return colorsys.hsv_to_rgb(hue % 1, float(rng.uniform(*saturation)), float(rng.uniform(*value)))


def draw_wood(rng: np.random.Generator) -> Paint:
    """Draw wood: from birch to walnut, now and then painted."""
    if rng.uniform() < 0.25:
        return Paint(draw_rgb(rng, saturation=(0.0, 0.3), value=(0.6, 0.95)), "wood")
    return Paint(draw_rgb(rng, hue=0.085, saturation=(0.3, 0.6), value=(0.35, 0.85)), "wood")


def draw_cloth(rng: np.random.Generator) -> Paint:
    """Draw a cloth of any hue."""
    return Paint(draw_rgb(rng, saturation=(0.15, 0.6), value=(0.4, 0.9)), "cloth")


@dataclass(frozen=True)
class Palette:
    """The paints of one home. Surfaces are pale or dull, so that the things on them stand out."""

    floor: Paint
    wall: Paint
    wood: Paint
    second_wood: Paint
    stone: Paint
    fronts: Paint
    cloth: Paint
    second_cloth: Paint
    rug: Paint
    handle: Paint
    trim: Paint = field(default=WHITE)


def draw_palette(rng: np.random.Generator) -> Palette:
    """Draw the paints of one home."""
    if rng.uniform() < 0.65:
        floor = draw_rgb(rng, hue=0.08, saturation=(0.15, 0.5), value=(0.45, 0.9))
    else:
        floor = draw_rgb(rng, saturation=(0.02, 0.18), value=(0.45, 0.9))
    return Palette(
        floor=Paint(floor, "floor"),
        wall=Paint(draw_rgb(rng, saturation=(0.02, 0.2), value=(0.8, 0.98)), "wall" if rng.uniform() < 0.3 else ""),
        wood=draw_wood(rng),
        second_wood=draw_wood(rng),
        stone=Paint(draw_rgb(rng, saturation=(0.0, 0.15), value=(0.4, 0.95)), "stone"),
        fronts=Paint(draw_rgb(rng, saturation=(0.03, 0.4), value=(0.5, 0.95))),
        cloth=draw_cloth(rng),
        second_cloth=draw_cloth(rng),
        rug=Paint(draw_rgb(rng, saturation=(0.15, 0.5), value=(0.4, 0.8)), "rug"),
        handle=[METAL, DARK, CHROME, Paint((0.72, 0.58, 0.3))][int(rng.integers(4))],
    )
