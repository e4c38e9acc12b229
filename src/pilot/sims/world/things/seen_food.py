"""Food that no gripper here holds; it is only looked at."""

from functools import partial

import numpy as np

from pilot.sims.world.things.kind import Form, ThingKind
from pilot.sims.world.things.looks import BLACK, LEAF, WHITE, Look, darker, lighter
from pilot.sims.world.things.pieces import (
    about,
    box,
    disc,
    ellipsoid,
    lathe,
    moved,
    rod,
    sphere,
)

_CRUST = (0.80, 0.58, 0.32)


def _pineapple(look: Look) -> Form:
    body = lathe(((0.040, 0), (0.056, 0.04), (0.056, 0.09), (0.035, 0.130)), look.rgb)
    eyes = [
        sphere(0.006, (0.054 * np.cos(a), 0.054 * np.sin(a), z), darker(look.rgb))
        for k, z in enumerate((0.03, 0.055, 0.08, 0.105))
        for a in np.arange(6) * 1.047 + 0.52 * (k % 2)
    ]
    leaves = []
    for k in range(8):
        leaf = ellipsoid((0.010, 0.004, 0.045), (0, 0, 0.045), LEAF)
        leaves += moved((leaf,), (0, 0, 0.125), turn=about("z", k * 2.4) @ about("y", 0.12 + 0.07 * k))
    return Form((body, *eyes, *leaves))


def _watermelon(look: Look) -> Form:
    """Half a melon, cut side up."""
    rind = lathe(((0.030, 0), (0.075, 0.030), (0.095, 0.080)), (0.16, 0.50, 0.18))
    seeds = [
        ellipsoid((0.003, 0.005, 0.001), (r * np.cos(a), r * np.sin(a), 0.083), BLACK)
        for r, n in ((0.03, 5), (0.06, 9))
        for a in np.arange(n) * 2 * np.pi / n
    ]
    return Form(
        (rind, disc(0.093, (0.080, 0.0815), (0.85, 0.95, 0.75)), disc(0.083, (0.0815, 0.083), look.rgb), *seeds)
    )


def _grapes(look: Look) -> Form:
    grapes = [
        sphere(0.013, (x + 0.011 * (row % 2), 0.020 * (k - (5 - row) / 2), 0.013 + 0.016 * (k % 2)), look.rgb)
        for row, x in enumerate((0.04, 0.02, 0, -0.02, -0.04))
        for k in range(6 - row)
    ]
    return Form(
        (
            *grapes,
            rod(0.004, ((0.050, 0, 0.025), (0.085, 0.005, 0.030)), (0.35, 0.25, 0.1)),
            ellipsoid((0.022, 0.018, 0.002), (0.065, 0.022, 0.030), LEAF),
        )
    )


def _pumpkin(look: Look) -> Form:
    ribs = [
        ellipsoid(
            (0.040, 0.030, 0.062),
            (0.048 * np.cos(a), 0.048 * np.sin(a), 0.062),
            look.rgb if k % 2 else darker(look.rgb, 0.85),
            turn=about("z", a),
        )
        for k, a in enumerate(np.arange(8) * np.pi / 4)
    ]
    return Form((*ribs, rod(0.010, ((0, 0, 0.110), (0.008, 0, 0.145)), LEAF)))


def _mushroom(look: Look) -> Form:
    cap = lathe(((0.045, 0.055), (0.040, 0.080), (0.018, 0.095)), look.rgb)
    dots = [
        sphere(0.008, (r * np.cos(a), r * np.sin(a), z), WHITE)
        for r, z, n in ((0.036, 0.078, 6), (0.012, 0.093, 2))
        for a in np.arange(n) * 2 * np.pi / n
    ]
    return Form((lathe(((0.020, 0), (0.015, 0.06)), (0.95, 0.92, 0.85)), cap, *dots))


def _cake(look: Look) -> Form:
    layers = [
        disc(0.085, (0.006, 0.040), look.rgb),
        disc(0.086, (0.036, 0.044), WHITE),
        disc(0.060, (0.044, 0.078), look.rgb),
        disc(0.061, (0.074, 0.082), WHITE),
    ]
    candles = [
        disc(0.004, (0.082, 0.110), look.accent_rgb, xy=(0.035 * np.cos(a), 0.035 * np.sin(a)))
        for a in np.arange(5) * 1.257
    ]
    flames = [
        ellipsoid((0.004, 0.004, 0.008), (0.035 * np.cos(a), 0.035 * np.sin(a), 0.118), (1.0, 0.75, 0.2))
        for a in np.arange(5) * 1.257
    ]
    return Form((disc(0.105, (0, 0.006), WHITE), *layers, *candles, *flames))


def _pizza(look: Look) -> Form:
    rim = [
        rod(
            0.011,
            (
                (0.12 * np.cos(a), 0.12 * np.sin(a), 0.012),
                (0.12 * np.cos(a + 0.5236), 0.12 * np.sin(a + 0.5236), 0.012),
            ),
            _CRUST,
        )
        for a in np.arange(12) * 0.5236
    ]
    salami = [
        disc(0.018, (0.013, 0.0155), (0.72, 0.15, 0.12), xy=(r * np.cos(a), r * np.sin(a)))
        for r, n in ((0.035, 3), (0.080, 6))
        for a in np.arange(n) * 2 * np.pi / n + r * 10
    ]
    basil = [
        ellipsoid((0.012, 0.006, 0.002), (0.06 * np.cos(a), 0.06 * np.sin(a), 0.015), LEAF, turn=about("z", a * 2))
        for a in np.arange(4) * 1.6 + 0.4
    ]
    return Form((disc(0.120, (0, 0.010), _CRUST), disc(0.112, (0.010, 0.013), look.rgb), *rim, *salami, *basil))


def _hamburger(look: Look) -> Form:
    bun = lathe(((0.050, 0.044), (0.044, 0.066), (0.022, 0.078)), _CRUST)
    middle = [
        disc(0.053, (0.018, 0.032), (0.35, 0.18, 0.10)),
        disc(0.050, (0.037, 0.044), (0.85, 0.15, 0.12)),
        disc(0.058, (0.0315, 0.0345), (0.45, 0.75, 0.25)),
        box((0.040, 0.040, 0.0015), (0, 0, 0.036), (0.98, 0.8, 0.2), turn=about("z", 0.4)),
    ]
    seeds = [
        ellipsoid((0.003, 0.002, 0.0015), (r * np.cos(a), r * np.sin(a), z), (0.97, 0.92, 0.75))
        for r, z, n in ((0.036, 0.072, 6), (0.012, 0.0785, 3))
        for a in np.arange(n) * 2 * np.pi / n
    ]
    return Form((disc(0.050, (0, 0.018), darker(_CRUST, 0.9)), *middle, bun, *seeds))


def _ice_cream(look: Look) -> Form:
    cone = lathe(((0.006, 0), (0.030, 0.100)), _CRUST)
    scoops = [
        sphere(0.034, (0, 0, 0.118), look.rgb),
        sphere(0.027, (0, 0, 0.160), look.accent_rgb),
        sphere(0.009, (0, 0, 0.192), (0.8, 0.08, 0.1)),
    ]
    return Form((cone, *scoops))


def _cupcake(look: Look) -> Form:
    cup = lathe(((0.026, 0), (0.036, 0.040)), look.accent_rgb)
    icing = [
        lathe(((r, z), (r * 0.82, z + 0.016)), look.rgb) for r, z in ((0.041, 0.040), (0.031, 0.054), (0.019, 0.068))
    ]
    return Form((cup, *icing, sphere(0.010, (0, 0, 0.090), (0.8, 0.08, 0.1))))


def _corn(look: Look) -> Form:
    rows = [
        ellipsoid(
            (0.085, 0.009, 0.009),
            (0, 0.016 * np.cos(a), 0.024 + 0.016 * np.sin(a)),
            look.rgb if k % 2 else lighter(look.rgb, 0.3),
        )
        for k, a in enumerate(np.arange(8) * np.pi / 4)
    ]
    husk = [
        ellipsoid((0.060, 0.020, 0.005), (-0.060, y, z), LEAF, turn=about("z", a))
        for y, z, a in ((0.020, 0.016, -0.15), (-0.020, 0.016, 0.15), (0, 0.006, 0))
    ]
    return Form((*rows, *husk, rod(0.008, ((-0.08, 0, 0.022), (-0.120, 0, 0.018)), lighter(LEAF, 0.3))))


def _broccoli(look: Look) -> Form:
    heads = [
        sphere(0.022, (0.026 * np.cos(a), 0.026 * np.sin(a), 0.075), LEAF if k % 2 else look.rgb)
        for k, a in enumerate(np.arange(6) * 1.047)
    ]
    branches = [
        rod(0.008, ((0, 0, 0.035), (0.024 * np.cos(a), 0.024 * np.sin(a), 0.062)), lighter(LEAF, 0.45))
        for a in np.arange(6) * 1.047
    ]
    return Form(
        (disc(0.014, (0, 0.045), lighter(LEAF, 0.45)), *branches, *heads, sphere(0.026, (0, 0, 0.092), look.rgb))
    )


def _strawberry(look: Look) -> Form:
    body = lathe(((0.006, 0), (0.022, 0.022), (0.027, 0.040), (0.016, 0.052)), look.rgb)
    seeds = [
        sphere(0.0022, ((0.0065 + z * 0.58) * np.cos(a), (0.0065 + z * 0.58) * np.sin(a), z), (0.98, 0.85, 0.4))
        for z in (0.014, 0.024, 0.034)
        for a in np.arange(6) * 1.047 + z * 50
    ]
    leaves = [
        ellipsoid((0.013, 0.005, 0.002), (0.013 * np.cos(a), 0.013 * np.sin(a), 0.053), LEAF, turn=about("z", a))
        for a in np.arange(5) * 1.257
    ]
    return Form((body, *seeds, *leaves, rod(0.002, ((0, 0, 0.05), (0.003, 0, 0.066)), LEAF)))


_food = partial(ThingKind, is_handled=False, family="other food")

KINDS = (
    _food(name="pineapple", form=_pineapple, colours=("yellow", "orange")),
    _food(name="watermelon", form=_watermelon, synonyms=("melon",), colours=("red",)),
    _food(name="grapes", form=_grapes, synonyms=("bunch of grapes",), plural="grapes", colours=("green", "purple")),
    _food(name="pumpkin", form=_pumpkin, colours=("orange", "yellow", "green")),
    _food(name="mushroom", form=_mushroom, synonyms=("toadstool",), colours=("red", "brown", "white")),
    _food(name="cake", form=_cake, synonyms=("birthday cake",), colours=("brown", "white", "purple", "yellow", "pink")),
    _food(name="pizza", form=_pizza, colours=("yellow", "red")),
    _food(name="hamburger", form=_hamburger, synonyms=("burger",), colours=("brown",)),
    _food(
        name="ice cream",
        form=_ice_cream,
        synonyms=("ice cream cone",),
        colours=("white", "brown", "yellow", "red", "green", "pink"),
    ),
    _food(name="cupcake", form=_cupcake, synonyms=("muffin",), colours=("white", "brown", "purple", "yellow", "pink")),
    _food(name="corn", form=_corn, synonyms=("corn cob", "ear of corn"), plural="corn cobs", colours=("yellow",)),
    _food(name="broccoli", form=_broccoli, plural="heads of broccoli", colours=("green",)),
    _food(name="strawberry", form=_strawberry, plural="strawberries", colours=("red",)),
)
