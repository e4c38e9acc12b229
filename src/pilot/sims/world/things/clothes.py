"""Clothes, towels and pillows: stiff stand-ins for cloth, folded or rolled up, that look like the real thing."""

from functools import partial

import numpy as np

from pilot.sims.world.things.grasps import above, around
from pilot.sims.world.things.kind import Form, ThingKind
from pilot.sims.world.things.looks import BLACK, PATTERNS, WHITE, Look, darker, lighter
from pilot.sims.world.things.pieces import (
    Pieces,
    about,
    box,
    chain,
    cushion,
    cylinder,
    disc,
    ellipsoid,
    lathe,
    only_seen,
    prism,
    rod,
    sphere,
)


def _folded(look: Look, half_x: float, half_y: float, half_z: float) -> Pieces:
    """Return a folded stack: a slab with a rounded fold on one side and the lines of its layers on the other."""
    slab = box((half_x, half_y, half_z), (0, 0, half_z), look.rgb)
    fold = rod(half_z * 0.95, ((-half_x, -half_y + half_z, half_z), (-half_x, half_y - half_z, half_z)), look.rgb)
    layers = [
        box((0.0008, half_y * 0.98, 0.0012), (half_x, 0, z), darker(look.rgb)) for z in (half_z * 0.7, half_z * 1.3)
    ]
    sides = [
        box((half_x, half_y + 0.0006, 0.0010), (0, 0, z), darker(look.rgb, 0.8)) for z in (half_z * 0.7, half_z * 1.3)
    ]
    return (slab, *only_seen(fold, *layers, *sides))


def _shirt(look: Look) -> Form:
    half_x, half_y, top = 0.070 * look.stretch, 0.038, 0.030
    collar = [
        box(
            (0.018, 0.005, 0.003),
            (half_x - 0.020, s * 0.014, top + 0.002),
            lighter(look.rgb, 0.35),
            turn=about("z", s * 0.7),
        )
        for s in (-1, 1)
    ]
    placket = box((half_x - 0.018, 0.003, 0.0012), (-0.014, 0, top), lighter(look.rgb, 0.35))
    buttons = [
        sphere(0.0035, (x, 0, top + 0.001), WHITE if look.colour != "white" else BLACK)
        for x in (-0.050, -0.020, 0.010, 0.036)
    ]
    pattern = look.top(half_x, half_y, top)
    return Form(
        (*_folded(look, half_x, half_y, top / 2), *pattern, *only_seen(*collar, placket, *buttons)),
        above((0, 0, 0.0215), half_y),
    )


def _trousers(look: Look) -> Form:
    half_x, half_y, top = 0.085 * look.stretch, 0.034, 0.032
    belt = box((0.009, half_y, 0.0012), (half_x - 0.010, 0, top), darker(look.rgb, 0.5))
    loops = [
        box((0.010, 0.003, 0.002), (half_x - 0.010, y, top + 0.001), darker(look.rgb, 0.8))
        for y in (-0.022, 0.004, 0.026)
    ]
    seam = box((half_x - 0.020, 0.0016, 0.0012), (-0.020, 0.004, top), darker(look.rgb, 0.6))
    pocket = box((0.014, 0.0015, 0.0012), (half_x - 0.045, -0.018, top), darker(look.rgb, 0.6), turn=about("z", 0.8))
    return Form(
        (*_folded(look, half_x, half_y, top / 2), *only_seen(belt, *loops, seam, pocket)), above((0, 0, 0.022), half_y)
    )


def _socks(look: Look) -> Form:
    """A pair, one rolled into the other."""
    roll = ellipsoid((0.036, 0.030, 0.028), (0, 0, 0.027), look.rgb).rolling()
    base = box((0.022, 0.018, 0.005), (0, 0, 0.005), look.rgb)
    cuff = [
        cylinder(r, ((x - 0.003, 0, 0.028), (x + 0.003, 0, 0.028)), look.accent_rgb)
        for r, x in ((0.0295, 0.006), (0.0275, 0.016))
    ]
    toe = ellipsoid((0.020, 0.013, 0.011), (0.048, 0.006, 0.016), look.rgb)
    tip = ellipsoid((0.009, 0.011, 0.0095), (0.060, 0.006, 0.016), look.accent_rgb)
    return Form((roll, base, *only_seen(*cuff, toe, tip)), above((0, 0, 0.028), 0.030))


def _hat(look: Look) -> Form:
    brim = disc(0.074, (0, 0.007), look.rgb)
    crown = lathe(((0.038, 0.007), (0.036, 0.045), (0.028, 0.056)), look.rgb)
    band = lathe(((0.0392, 0.008), (0.0386, 0.021)), look.accent_rgb).only_seen()
    return Form((brim, crown, band), around(0.036, 0.037))


def _cap(look: Look) -> Form:
    crown = lathe(((0.037, 0), (0.038, 0.016), (0.033, 0.034), (0.020, 0.047), (0.006, 0.052)), look.rgb)
    outline = [(0.020 + 0.062 * np.cos(a), 0.036 * np.sin(a)) for a in np.linspace(-1.57, 1.57, 7)]
    visor = prism(outline, (0.001, 0.006), look.accent_rgb)
    button = sphere(0.005, (0, 0, 0.052), look.accent_rgb).only_seen()
    return Form((crown, visor, button), above((0, 0, 0.024), 0.037))


def _towel(look: Look) -> Form:
    length, radius = 0.075 * look.stretch, 0.033
    roll = cylinder(radius, ((-length, 0, radius), (length, 0, radius)), look.rgb).rolling()
    flap = box((length, 0.012, 0.003), (0, 0.022, 0.003), look.rgb)
    spirals = []
    for s in (-1, 1):
        for r, shade in ((0.026, 0.72), (0.020, 1.0), (0.013, 0.72), (0.007, 1.0)):
            spirals.append(
                cylinder(
                    r, ((s * length, 0, radius), (s * (length + 0.0016 - r * 0.04), 0, radius)), darker(look.rgb, shade)
                )
            )
    hems = [
        cylinder(radius + 0.0008, ((x - 0.005, 0, radius), (x + 0.005, 0, radius)), look.accent_rgb)
        for x in (-length + 0.016, length - 0.016)
    ]
    return Form((roll, flap, *only_seen(*spirals, *hems)), above((0, 0, 0.036), radius))


def _glove(look: Look) -> Form:
    palm = box((0.032, 0.030, 0.012), (0, 0, 0.012), look.rgb)
    mitten = ellipsoid((0.040, 0.031, 0.012), (0.034, 0, 0.012), look.rgb)
    thumb = rod(0.010, ((0.0, 0.026, 0.011), (0.030, 0.048, 0.011)), look.rgb)
    cuff = box((0.010, 0.033, 0.0135), (-0.042, 0, 0.0135), look.accent_rgb)
    dots = look.top(0.030, 0.026, 0.0242)
    return Form((palm, mitten, *only_seen(thumb), cuff, *dots), above((-0.010, 0, 0.0205), 0.032))


def _pillow(look: Look) -> Form:
    """A pillow with a crease that stands up along its middle, so that fingers can pinch it."""
    half_x, half_y = 0.125 * look.stretch, 0.085
    body = box((half_x - 0.040, half_y - 0.012, 0.020), (0, 0, 0.020), look.rgb).only_touched()
    crease = box((0.055, 0.007, 0.028), (0, 0, 0.058), look.rgb).only_touched()
    ridge = ellipsoid((0.074, 0.013, 0.042), (0, 0, 0.048), darker(look.rgb, 0.95))
    corners = [(x * half_x * 0.93, y * half_y * 0.93, 0.028) for x, y in ((-1, -1), (1, -1), (1, 1), (-1, 1), (-1, -1))]
    piping = chain([0.006] * 4, corners, look.accent_rgb)
    stripes = [box((0.008, half_y * 0.72, 0.003), (x, 0, 0.0585), look.accent_rgb) for x in (-0.05, 0, 0.05)]
    seen = [cushion((half_x, half_y, 0.030), look.rgb), ridge, *piping]
    seen += stripes if look.pattern == "striped" else []
    grasps = tuple(grasp for x in (-0.03, 0, 0.03) for grasp in above((x, 0, 0.070), 0.007, part="crease"))
    return Form((body, crease, *only_seen(*seen)), grasps)


_clothing = partial(ThingKind, family="clothes")
_PLAIN_STRIPED = PATTERNS[:2]

KINDS = (
    _clothing(name="folded shirt", form=_shirt, synonyms=("shirt", "t-shirt"), mass=0.12, patterns=_PLAIN_STRIPED),
    _clothing(
        name="folded trousers",
        form=_trousers,
        synonyms=("trousers", "pants"),
        plural="folded trousers",
        mass=0.18,
        colours=("blue", "black", "grey", "brown", "beige", "green"),
    ),
    _clothing(
        name="socks",
        form=_socks,
        synonyms=("pair of socks", "rolled socks"),
        plural="socks",
        mass=0.06,
        patterns=("plain",),
    ),
    _clothing(name="hat", form=_hat, synonyms=("sun hat", "straw hat"), mass=0.08),
    _clothing(name="cap", form=_cap, synonyms=("baseball cap",), mass=0.07, is_held_out=True),
    _clothing(name="towel", form=_towel, synonyms=("rolled towel", "hand towel"), mass=0.15),
    _clothing(name="oven glove", form=_glove, synonyms=("mitten", "oven mitt"), mass=0.07, patterns=PATTERNS),
    ThingKind(
        name="pillow",
        family="bedding",
        form=_pillow,
        synonyms=("cushion",),
        mass=0.15,
        patterns=_PLAIN_STRIPED,
        scales=(0.95, 1.1),
    ),
)
