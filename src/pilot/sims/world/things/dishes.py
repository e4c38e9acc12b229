"""Dishes, cutlery and what one cooks with.

The rims of plates rise by 45 degrees: a flatter rim slips out of the pads. Handles of cutlery are 13 mm thick, so that
the pads hold more than their tips.
"""

from functools import partial

import numpy as np

from pilot.sims.world.things.grasps import above, around, rims, sideways
from pilot.sims.world.things.kind import Form, ThingKind, shifted
from pilot.sims.world.things.looks import BLACK, PATTERNS, STEEL, Look, darker, lighter
from pilot.sims.world.things.pieces import (
    Pieces,
    Vec3,
    box,
    cylinder,
    disc,
    ellipsoid,
    only_seen,
    prism,
    ring,
    rod,
)

_RIM_LEAN = np.radians(20)


def _plate(look: Look) -> Form:
    wall = ring(0.075, (0.003, 0.036), look.side, tilt=np.radians(45))
    inner = lighter(look.rgb, 0.35) if look.pattern == "plain" else look.accent_rgb
    base = disc(0.060, (0, 0.008), look.rgb)
    return Form((base, *wall, disc(0.045, (0.008, 0.009), inner).only_seen()), rims(0.082, 0.031, lean=_RIM_LEAN))


def _saucer(look: Look) -> Form:
    wall = ring(0.052, (0.003, 0.028), look.side, tilt=np.radians(45))
    well = disc(0.022, (0.007, 0.0085), darker(look.rgb, 0.75)).only_seen()
    return Form((disc(0.042, (0, 0.007), look.rgb), *wall, well), rims(0.058, 0.028, lean=_RIM_LEAN))


def _bowl(look: Look) -> Form:
    height = 0.062 * look.stretch
    wall = ring(0.053, (0.004, height), look.side, tilt=np.radians(30))
    base = disc(0.038, (0, 0.008), look.rgb)
    inside = disc(0.036, (0.008, 0.009), darker(look.rgb, 0.8)).only_seen()
    z = height - 0.018
    radius = 0.053 + np.tan(np.radians(30)) * (z - (height + 0.004) / 2)
    return Form((base, *wall, inside), rims(radius, z) + rims(radius, z, lean=np.radians(30)))


def _handle(x: float, low: float, high: float, rgb: Vec3, *, out: float = 0.026) -> Pieces:
    """Make a handle of three rods at the side of something round."""
    upper, lower = ((x, 0, high), (x + out, 0, high - 0.006)), ((x, 0, low), (x + out, 0, low + 0.006))
    return (rod(0.005, upper, rgb), rod(0.005, lower, rgb), rod(0.005, (lower[1], upper[1]), rgb))


def _mug(look: Look) -> Form:
    height = 0.090 * look.stretch
    wall = ring(0.036, (0.004, height), look.side, sides=10)
    handle = _handle(0.038, 0.022, height - 0.016, look.accent_rgb if look.pick(0, 0, 1) else look.rgb)
    inside = disc(0.033, (0.010, 0.012), darker(look.rgb, 0.35)).only_seen()
    grasps = rims(0.036, height - 0.020, skip=0.5) + above((0.064, 0, height / 2 + 0.004), 0.006, part="handle")
    return Form((disc(0.034, (0, 0.010), look.rgb), *wall, *handle, inside), grasps)


def _glass(look: Look) -> Form:
    height, tilt = 0.105 * look.stretch, np.radians(4)
    wall = ring(0.031, (0.004, height), look.side, sides=10, tilt=tilt)
    pieces = [piece.clear(0.45) for piece in (disc(0.029, (0, 0.010), look.rgb), *wall)]
    return Form(tuple(pieces), around(height * 0.6, 0.033) + rims(0.034, height - 0.02, count=10))


def _wine_glass(look: Look) -> Form:
    wall = ring(0.033, (0.078, 0.150), look.side, sides=8, tilt=np.radians(5))
    bowl = (disc(0.031, (0.074, 0.082), look.rgb), *wall)
    stem = (disc(0.036, (0, 0.006), look.rgb), disc(0.006, (0.006, 0.075), look.rgb))
    return Form(stem + tuple(p.clear(0.5) for p in bowl), around(0.115, 0.036) + sideways(0.045, 0.008, part="stem"))


def _jug(look: Look) -> Form:
    height = 0.130 * look.stretch
    wall = ring(0.044, (0.004, height), look.side, sides=10, tilt=np.radians(3))
    handle = _handle(0.048, 0.030, height - 0.018, look.rgb, out=0.032)
    spout = box((0.012, 0.014, 0.006), (-0.054, 0, height - 0.005), look.rgb).only_seen()
    grasps = rims(0.046, height - 0.020, skip=0.5, count=10)
    return Form((disc(0.042, (0, 0.010), look.rgb), *wall, *handle, spout), grasps)


def _saucepan(look: Look) -> Form:
    wall = ring(0.070, (0.004, 0.072), look.side)
    handle = box((0.045, 0.009, 0.006), (0.115, 0, 0.058), BLACK)
    rim = ring(0.070, (0.068, 0.074), lambda _: lighter(look.rgb), thick=0.004)
    inside = disc(0.066, (0.008, 0.010), darker(look.rgb)).only_seen()
    pieces = (disc(0.068, (0, 0.008), look.rgb), *wall, handle, *only_seen(*rim), inside)
    return shifted(Form(pieces, rims(0.070, 0.054, skip=0.6)), -0.040)


def _food_container(look: Look) -> Form:
    length = 0.066 * look.stretch
    tub = box((length, 0.036, 0.024), (0, 0, 0.024), (0.84, 0.88, 0.92)).clear(0.75)
    lid = box((length + 0.002, 0.038, 0.006), (0, 0, 0.054), look.rgb)
    ridge = box((length - 0.012, 0.026, 0.001), (0, 0, 0.0605), lighter(look.rgb, 0.3)).only_seen()
    return Form((tub, lid, ridge), above((0, 0, 0.046), 0.038))


def _spoon(look: Look) -> Form:
    rgb, tip = look.rgb, 0.062 * look.stretch
    handle = box((0.052, 0.0055, 0.0065), (-0.015, 0, 0.0065), rgb)
    bowl = ellipsoid((0.024, 0.017, 0.007), (tip, 0, 0.007), rgb)
    hollow = ellipsoid((0.018, 0.012, 0.003), (tip, 0, 0.0125), darker(rgb)).only_seen()
    return Form((handle, bowl, hollow), above((-0.003, 0, 0.0205), 0.006, part="handle"))


def _fork(look: Look) -> Form:
    rgb = look.rgb
    handle = box((0.052, 0.0055, 0.0065), (-0.020, 0, 0.0065), rgb)
    head = box((0.012, 0.015, 0.004), (0.042, 0, 0.005), rgb)
    tines = [box((0.020, 0.0022, 0.003), (0.072, y, 0.006), rgb) for y in (-0.0125, -0.0042, 0.0042, 0.0125)]
    return Form((handle, head, *tines), above((-0.003, 0, 0.0205), 0.006, part="handle"))


def _knife(look: Look) -> Form:
    handle = box((0.042, 0.007, 0.0065), (-0.048, 0, 0.0065), look.rgb if look.colour != "silver" else BLACK)
    blade = prism(
        ((-0.008, -0.009), (0.070, -0.009), (0.096, 0.004), (0.090, 0.009), (-0.008, 0.009)), (0.002, 0.007), STEEL
    )
    return Form((handle, blade), above((-0.022, 0, 0.0205), 0.008, part="handle"))


def _spatula(look: Look) -> Form:
    handle = box((0.075, 0.007, 0.0065), (-0.050, 0, 0.0065), look.rgb)
    blade = box((0.045, 0.034, 0.003), (0.070, 0, 0.003), look.accent_rgb if look.pick(0, 1) else STEEL)
    slots = [box((0.028, 0.003, 0.0006), (0.075, y, 0.0062), BLACK).only_seen() for y in (-0.016, 0, 0.016)]
    return Form((handle, blade, *slots), above((0.0, 0, 0.0205), 0.008, part="handle"))


def _ladle(look: Look) -> Form:
    bowl = ring(0.026, (0.002, 0.036), lambda _: look.rgb, sides=8, tilt=np.radians(20))
    base = disc(0.022, (0, 0.006), look.rgb)
    dark = disc(0.021, (0.006, 0.008), darker(look.rgb)).only_seen()
    handle = rod(0.0065, ((-0.030, 0, 0.032), (-0.170, 0, 0.012)), look.rgb)
    return shifted(Form((base, *bowl, dark, handle), above((-0.060, 0, 0.028), 0.0065, part="handle")), 0.072)


def _rolling_pin(look: Look) -> Form:
    roll = cylinder(0.024, ((-0.08, 0, 0.024), (0.08, 0, 0.024)), look.rgb).rolling()
    ends = [rod(0.009, ((s * 0.08, 0, 0.024), (s * 0.125, 0, 0.024)), darker(look.rgb, 0.75)) for s in (-1, 1)]
    return Form((roll, *ends), above((0, 0, 0.026), 0.024))


_TABLEWARE = ("silver", "golden", "black", "red", "blue", "green", "turquoise", "pink")
_COOKWARE = ("silver", "black", "red", "blue", "green", "turquoise")

_dish = partial(ThingKind, family="dishes")
_cutlery = partial(ThingKind, family="cutlery")
_tool = partial(ThingKind, family="cooking tools")

KINDS = (
    _dish(name="plate", form=_plate, synonyms=("dinner plate", "dish"), mass=0.25, patterns=PATTERNS[:2]),
    _dish(name="saucer", form=_saucer, synonyms=("small plate",), mass=0.12, patterns=PATTERNS[:2], is_held_out=True),
    _dish(name="bowl", form=_bowl, synonyms=("soup bowl", "cereal bowl"), mass=0.2, patterns=PATTERNS[:2]),
    _dish(name="mug", form=_mug, synonyms=("coffee mug", "cup"), mass=0.25, patterns=PATTERNS[:2]),
    _dish(
        name="glass",
        form=_glass,
        synonyms=("drinking glass", "tumbler"),
        plural="glasses",
        mass=0.15,
        colours=("blue", "green", "red", "yellow", "grey", "pink"),
    ),
    _dish(
        name="wine glass",
        form=_wine_glass,
        synonyms=("goblet", "stem glass"),
        plural="wine glasses",
        mass=0.12,
        colours=("white", "blue", "red", "green"),
    ),
    _dish(name="jug", form=_jug, synonyms=("pitcher", "water jug"), mass=0.35, patterns=PATTERNS[:2]),
    _dish(name="saucepan", form=_saucepan, synonyms=("pot", "cooking pot"), mass=0.35, colours=_COOKWARE),
    _dish(name="food container", form=_food_container, synonyms=("lunch box", "plastic container"), mass=0.15),
    _cutlery(name="spoon", form=_spoon, synonyms=("tablespoon", "soup spoon"), mass=0.05, colours=_TABLEWARE),
    _cutlery(name="fork", form=_fork, synonyms=("dinner fork",), mass=0.05, colours=_TABLEWARE),
    _cutlery(
        name="knife",
        form=_knife,
        synonyms=("table knife", "butter knife"),
        plural="knives",
        mass=0.07,
        colours=_TABLEWARE,
    ),
    _tool(name="spatula", form=_spatula, synonyms=("turner", "fish slice"), mass=0.08, colours=_COOKWARE),
    _tool(name="ladle", form=_ladle, synonyms=("soup ladle",), mass=0.1, colours=_COOKWARE, is_held_out=True),
    _tool(
        name="rolling pin",
        form=_rolling_pin,
        synonyms=("dough roller",),
        mass=0.25,
        colours=("wooden", "white", "red", "blue"),
    ),
)
