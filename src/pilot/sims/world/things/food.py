"""Food: fruit and vegetables, what is baked, and what comes in cans, jars and cartons."""

from functools import partial

import numpy as np

from pilot.sims.world.things.grasps import above, around, sideways
from pilot.sims.world.things.kind import Form, ThingKind
from pilot.sims.world.things.looks import LEAF, WHITE, WOOD, Look, darker, lighter
from pilot.sims.world.things.pieces import (
    Pieces,
    Vec3,
    about,
    box,
    chain,
    cylinder,
    disc,
    ellipsoid,
    lathe,
    moved,
    only_seen,
    prism,
    rod,
    sphere,
)

_TAB = (0.88, 0.89, 0.91)
_STALK = (0.32, 0.22, 0.10)


def _stalk(z: float) -> Pieces:
    leaf = ellipsoid((0.014, 0.007, 0.0025), (0.013, 0, z + 0.006), LEAF, turn=about("y", -0.4))
    return only_seen(rod(0.0025, ((0, 0, z - 0.004), (0.002, 0, z + 0.012)), _STALK), leaf)


def _apple(look: Look) -> Form:
    body = ellipsoid((0.037, 0.037, 0.034), (0, 0, 0.034), look.rgb).rolling()
    return Form((body, *_stalk(0.066)), around(0.036, 0.037))


def _orange(look: Look) -> Form:
    navel = disc(0.006, (0.070, 0.0725), (0.30, 0.42, 0.10)).only_seen()
    return Form((sphere(0.036, (0, 0, 0.036), look.rgb).rolling(), navel), around(0.038, 0.036))


def _tomato(look: Look) -> Form:
    body = ellipsoid((0.036, 0.036, 0.028), (0, 0, 0.028), look.rgb).rolling()
    star = [box((0.015, 0.003, 0.001), (0, 0, 0.0565), LEAF, turn=about("z", a)) for a in (0, np.pi / 3, 2 * np.pi / 3)]
    return Form((body, *only_seen(*star)), around(0.030, 0.036))


def _lemon(look: Look) -> Form:
    body = ellipsoid((0.040, 0.027, 0.027), (0, 0, 0.027), look.rgb).rolling()
    tips = [ellipsoid((0.010, 0.008, 0.008), (s * 0.038, 0, 0.027), look.rgb) for s in (-1, 1)]
    return Form((body, *only_seen(*tips)), above((0, 0, 0.028), 0.027))


def _pear(look: Look) -> Form:
    belly = ellipsoid((0.034, 0.034, 0.034), (0, 0, 0.033), look.rgb).rolling()
    neck = lathe(((0.031, 0.045), (0.020, 0.070), (0.015, 0.085), (0.008, 0.091)), look.rgb, sides=10)
    base = disc(0.018, (0, 0.010), darker(look.rgb, 0.8))
    return Form((base, belly, neck, *_stalk(0.092)), around(0.038, 0.034))


def _banana(look: Look) -> Form:
    angles, bend = np.linspace(-1.0, 1.0, 6), 0.092 * look.stretch
    points = [(bend * np.sin(a), bend * (np.cos(a) - 1), 0.017) for a in angles]
    body = chain((0.011, 0.016, 0.0175, 0.016, 0.011), points, look.rgb)
    tips = only_seen(sphere(0.0075, _further(points[1], points[0]), _STALK), sphere(0.0065, points[-1], _STALK))
    stem = rod(0.006, (points[0], _further(points[1], points[0])), darker(look.rgb, 0.85)).only_seen()
    return Form((*body, stem, *tips), above((0, 0, 0.0205), 0.0175))


def _further(start: Vec3, end: Vec3) -> Vec3:
    """Return the point a little beyond `end`."""
    x, y, z = (b + (b - a) * 0.45 for a, b in zip(start, end, strict=True))
    return (x, y, z)


def _carrot(look: Look) -> Form:
    cone = lathe(((0.006, -0.075), (0.013, -0.02), (0.019, 0.04), (0.019, 0.055), (0.010, 0.062)), look.rgb, sides=10)
    body = moved((cone,), (0, 0, 0.0185), turn=about("y", np.pi / 2))[0]
    ends = ((0.115, 0.018, 0.020), (0.125, 0, 0.028), (0.112, -0.018, 0.018))
    greens = only_seen(*(rod(0.005, ((0.058, 0, 0.019), end), LEAF) for end in ends))
    return Form((body.rolling(), *greens), above((0.018, 0, 0.0205), 0.018))


def _egg(look: Look) -> Form:
    body = ellipsoid((0.029, 0.0225, 0.0225), (0, 0, 0.0225), look.rgb).rolling()
    return Form((body,), above((0, 0, 0.023), 0.0225))


def _loaf(look: Look) -> Form:
    length, crust = 0.085 * look.stretch, look.rgb
    body = box((length, 0.035, 0.026), (0, 0, 0.026), lighter(crust, 0.25))
    roof = ellipsoid((length * 1.02, 0.0385, 0.026), (0, 0, 0.050), crust)
    cuts = [
        box((0.004, 0.024, 0.003), (x, 0, 0.075), lighter(crust, 0.55), turn=about("z", 0.5)) for x in (-0.04, 0, 0.04)
    ]
    return Form((body, roof.only_seen(), *only_seen(*cuts)), above((0, 0, 0.032), 0.037))


def _toast(look: Look) -> Form:
    crumb = lighter(look.rgb, 0.55)
    slab = box((0.042, 0.038, 0.009), (0, 0, 0.009), darker(look.rgb, 0.9))
    ears = [disc(0.020, (0, 0.018), darker(look.rgb, 0.9), xy=(0.038, s * 0.0185)) for s in (-1, 1)]
    face = box((0.036, 0.031, 0.0006), (0, 0, 0.018), crumb)
    crown = [disc(0.015, (0.0174, 0.0186), crumb, xy=(0.037, s * 0.016)) for s in (-1, 1)]
    return Form((slab, *only_seen(*ears, face, *crown)), above((-0.002, 0, 0.0205), 0.038))


def _can(look: Look) -> Form:
    height, tin = 0.105 * look.stretch, (0.72, 0.73, 0.75)
    label = disc(0.0335, (0.010, height - 0.010), look.rgb).only_seen()
    stripe = disc(0.0343, (height * 0.45, height * 0.62), WHITE).only_seen()
    lid = disc(0.028, (height, height + 0.001), darker(tin, 0.7)).only_seen()
    grasps = around(height - 0.035, 0.033) + sideways(height * 0.5, 0.033)
    return Form((disc(0.033, (0, height), tin).rolling(), label, stripe, lid), grasps)


def _tuna_tin(look: Look) -> Form:
    label = disc(0.0385, (0.006, 0.030), look.rgb).only_seen()
    lid = (disc(0.031, (0.036, 0.0368), (0.55, 0.56, 0.58)), box((0.012, 0.006, 0.001), (0.012, 0, 0.0375), _TAB))
    return Form((disc(0.038, (0, 0.036), (0.78, 0.79, 0.81)).rolling(), label, *only_seen(*lid)), around(0.024, 0.038))


def _milk_carton(look: Look) -> Form:
    height = 0.150 * look.stretch
    body = box((0.033, 0.033, height / 2), (0, 0, height / 2), WHITE)
    band = box((0.0336, 0.0336, height * 0.2), (0, 0, height * 0.32), look.rgb).only_seen()
    gable = prism(((-0.033, 0), (0.033, 0), (0.004, 0.032), (-0.004, 0.032)), (-0.033, 0.033), WHITE)
    roof = moved((gable,), (0, 0, height), turn=about("x", np.pi / 2))
    fold = box((0.003, 0.033, 0.010), (0, 0, height + 0.040), lighter(look.rgb, 0.2)).only_seen()
    cap = cylinder(0.010, ((0.014, 0, height + 0.018), (0.026, 0, height + 0.027)), look.rgb).only_seen()
    grasps = above((0, 0, height - 0.020), 0.033, yaws=np.arange(4) * np.pi / 2) + sideways(
        height * 0.45, 0.033, count=4
    )
    return Form((body, band, *roof, fold, cap), grasps)


def _cereal_box(look: Look) -> Form:
    height = 0.190 * look.stretch
    body = box((0.038, 0.026, height / 2), (0, 0, height / 2), look.rgb)
    title = [box((0.030, 0.0266, 0.014), (0, 0, height * 0.78), look.accent_rgb)]
    bowl = [cylinder(0.027, ((0, s * 0.020, height * 0.36), (0, s * 0.0268, height * 0.36)), WHITE) for s in (-1, 1)]
    flakes = [cylinder(0.018, ((0, s * 0.020, height * 0.36), (0, s * 0.0274, height * 0.36)), WOOD) for s in (-1, 1)]
    return Form((body, *only_seen(*title, *bowl, *flakes)), above((0, 0, height - 0.025), 0.026))


def _jam_jar(look: Look) -> Form:
    height = 0.075 * look.stretch
    glass = disc(0.032, (0, height), look.rgb).rolling()
    lid = disc(0.033, (height, height + 0.018), look.accent_rgb).rolling()
    label = disc(0.0326, (height * 0.25, height * 0.75), WHITE).only_seen()
    return Form((glass, lid, label), around(height - 0.005, 0.033))


def _yoghurt(look: Look) -> Form:
    cup = lathe(((0.026, 0), (0.034, 0.070)), WHITE).rolling()
    sleeve = lathe(((0.0285, 0.018), (0.0332, 0.058)), look.rgb).only_seen()
    lid = disc(0.036, (0.070, 0.074), look.accent_rgb).rolling()
    return Form((cup, sleeve, lid), around(0.050, 0.034))


def _cheese(look: Look) -> Form:
    wedge = prism(
        ((-0.055, -0.002), (0.050, -0.030), (0.056, 0), (0.050, 0.030), (-0.055, 0.002)), (0, 0.040), look.rgb
    )
    holes = [
        disc(r, (0.039, 0.0406), darker(look.rgb, 0.72), xy=xy)
        for r, xy in ((0.008, (0.03, 0.008)), (0.005, (0.0, -0.004)))
    ]
    sides = [
        sphere(r, at, darker(look.rgb, 0.72))
        for r, at in ((0.007, (0.052, 0.010, 0.02)), (0.008, (0.020, -0.018, 0.022)))
    ]
    return Form((wedge, *only_seen(*holes, *sides)), above((0.022, 0, 0.024), 0.026))


def _donut(look: Look) -> Form:
    points = [(0.0255 * np.cos(a), 0.0255 * np.sin(a), 0.0135) for a in np.arange(11) * np.pi / 5]
    icing = [(x, y, 0.018) for x, y, _ in points]
    dough = chain([0.0135] * 10, points, (0.78, 0.55, 0.30))
    return Form((*dough, *only_seen(*chain([0.0122] * 10, icing, look.rgb))), around(0.0205, 0.039))


_food = partial(ThingKind, family="food")
_LABELS = ("red", "green", "blue", "yellow", "purple", "orange", "turquoise", "pink")

KINDS = (
    _food(name="apple", form=_apple, mass=0.12, colours=("red", "green", "yellow")),
    _food(name="orange", form=_orange, synonyms=("mandarin",), mass=0.12, colours=("orange",)),
    _food(name="tomato", form=_tomato, plural="tomatoes", mass=0.1, colours=("red",)),
    _food(name="lemon", form=_lemon, mass=0.08, colours=("yellow",)),
    _food(name="pear", form=_pear, mass=0.13, colours=("green", "yellow"), is_held_out=True),
    _food(name="banana", form=_banana, mass=0.12, colours=("yellow", "green")),
    _food(name="carrot", form=_carrot, mass=0.07, colours=("orange",)),
    _food(name="egg", form=_egg, synonyms=("hen's egg",), mass=0.06, colours=("white", "brown", "beige")),
    _food(
        name="loaf of bread",
        form=_loaf,
        synonyms=("bread", "loaf"),
        plural="loaves of bread",
        mass=0.2,
        colours=("brown",),
    ),
    _food(
        name="slice of toast",
        form=_toast,
        synonyms=("toast", "slice of bread"),
        plural="slices of toast",
        mass=0.05,
        colours=("brown",),
    ),
    _food(
        name="donut",
        form=_donut,
        synonyms=("doughnut",),
        mass=0.08,
        colours=("brown", "white", "yellow", "purple", "pink"),
    ),
    _food(
        name="cheese",
        form=_cheese,
        synonyms=("wedge of cheese", "piece of cheese"),
        plural="wedges of cheese",
        mass=0.12,
        colours=("yellow",),
    ),
    _food(name="soup can", form=_can, synonyms=("can of soup", "tin of soup"), mass=0.3, colours=_LABELS),
    _food(
        name="tuna tin",
        form=_tuna_tin,
        synonyms=("can of tuna", "tin of tuna"),
        mass=0.15,
        colours=_LABELS,
        is_held_out=True,
    ),
    _food(name="milk carton", form=_milk_carton, synonyms=("carton of milk", "milk"), mass=0.35, colours=_LABELS),
    _food(
        name="cereal box",
        form=_cereal_box,
        synonyms=("box of cereal", "cereal"),
        plural="cereal boxes",
        mass=0.25,
        colours=_LABELS,
    ),
    _food(
        name="jam jar",
        form=_jam_jar,
        synonyms=("jar of jam", "jam"),
        mass=0.25,
        colours=("red", "purple", "orange", "yellow"),
    ),
    _food(name="yoghurt", form=_yoghurt, synonyms=("yoghurt cup", "pot of yoghurt"), mass=0.12, colours=_LABELS),
)
