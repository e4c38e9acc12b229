"""Books and paper, what belongs in a bathroom, and small things that lie about in a home."""

from functools import partial

import numpy as np

from pilot.sims.world.things.grasps import above, around, sideways
from pilot.sims.world.things.kind import Form, ThingKind
from pilot.sims.world.things.looks import BLACK, GREY, PATTERNS, STEEL, WHITE, Look, darker, lighter
from pilot.sims.world.things.pieces import (
    about,
    box,
    cushion,
    cylinder,
    disc,
    ellipsoid,
    lathe,
    moved,
    only_seen,
    prism,
    ring,
    rod,
    sphere,
)

_PAGES = (0.95, 0.93, 0.86)


def _book(look: Look) -> Form:
    half_x, half_y, top = 0.062 * look.stretch, 0.040, 0.030
    body = box((half_x, half_y, top / 2), (0, 0, top / 2), look.rgb)
    pages = box((half_x + 0.0006, half_y - 0.003, top / 2 - 0.005), (0, 0, top / 2), _PAGES)
    edge = box((half_x - 0.004, half_y / 2, top / 2 - 0.005), (0, half_y / 2 + 0.0006, top / 2), _PAGES)
    title = box((0.012, 0.024, 0.0006), (half_x * 0.45, 0, top), look.accent_rgb)
    line = box((0.003, 0.018, 0.0006), (-half_x * 0.6, 0, top), look.accent_rgb)
    return Form((body, *only_seen(pages, edge, title, line)), above((0, 0, 0.0215), half_y))


def _notebook(look: Look) -> Form:
    half_x, half_y, top = 0.058 * look.stretch, 0.038, 0.022
    body = box((half_x, half_y, top / 2), (0, 0, top / 2), look.rgb)
    pages = box((half_x - 0.002, half_y + 0.0006, top / 2 - 0.004), (0.002, 0, top / 2), _PAGES)
    coils = [rod(0.003, ((-half_x, y, 0.003), (-half_x, y, top - 0.001)), STEEL) for y in np.linspace(-0.030, 0.030, 6)]
    label = box((0.014, 0.020, 0.0006), (0.010, 0, top), WHITE)
    return Form((body, *only_seen(pages, *coils, label)), above((0, 0, 0.0205), half_y))


def _newspaper(look: Look) -> Form:
    length, radius = 0.105 * look.stretch, 0.022
    roll = cylinder(radius, ((-length, 0, radius), (length, 0, radius)), (0.83, 0.82, 0.78)).rolling()
    band = cylinder(radius + 0.001, ((-0.008, 0, radius), (0.008, 0, radius)), look.rgb)
    text = [
        cylinder(radius + 0.0006, ((x, 0, radius), (x + w, 0, radius)), GREY)
        for x, w in ((-0.085, 0.012), (-0.062, 0.003), (-0.050, 0.003), (0.040, 0.003), (0.052, 0.003), (0.070, 0.012))
    ]
    ends = [cylinder(0.010, ((s * length, 0, radius), (s * (length + 0.0006), 0, radius)), GREY) for s in (-1, 1)]
    flap = box((length, 0.008, 0.003), (0, 0.014, 0.003), (0.80, 0.79, 0.75))
    return Form((roll, flap, *only_seen(band, *text, *ends)), above((0, 0, 0.024), radius))


def _gift(look: Look) -> Form:
    half_x, half = 0.040 * look.stretch, 0.034
    body = box((half_x, half, half), (0, 0, half), look.rgb)
    ribbon = [
        box((half_x + 0.0006, 0.007, half + 0.0006), (0, 0, half), look.accent_rgb),
        box((0.007, half + 0.0006, half + 0.0006), (0, 0, half), look.accent_rgb),
    ]
    bow = [
        ellipsoid((0.014, 0.007, 0.007), (x, y, 2 * half + 0.006), look.accent_rgb, turn=about("z", t))
        for x, y, t in ((0.012, 0, 0), (-0.012, 0, 0), (0, 0.012, 1.57), (0, -0.012, 1.57))
    ]
    return Form((body, *only_seen(*ribbon, *bow)), above((0, 0, 0.044), half))


def _soap(look: Look) -> Form:
    bar = box((0.036, 0.022, 0.013), (0, 0, 0.013), look.rgb).only_touched()
    stamp = ellipsoid((0.020, 0.011, 0.002), (0, 0, 0.0268), lighter(look.rgb, 0.5)).only_seen()
    return Form((bar, cushion((0.042, 0.026, 0.0135), look.rgb).only_seen(), stamp), above((0, 0, 0.0205), 0.022))


def _sponge(look: Look) -> Form:
    foam = box((0.045, 0.030, 0.012), (0, 0, 0.012), look.rgb)
    scrub = box((0.045, 0.030, 0.004), (0, 0, 0.028), (0.10, 0.38, 0.20) if look.colour != "green" else GREY)
    rng = look.rng()
    holes = [
        sphere(0.004, (x, s * 0.028, z), darker(look.rgb, 0.7))
        for s in (-1, 1)
        for x, z in zip(rng.uniform(-0.040, 0.040, 4), rng.uniform(0.006, 0.020, 4), strict=True)
    ]
    return Form((foam, scrub, *only_seen(*holes)), above((0, 0, 0.022), 0.030))


def _toothbrush(look: Look) -> Form:
    handle = box((0.070, 0.0055, 0.0065), (-0.010, 0, 0.0065), look.rgb)
    grip = box((0.022, 0.0062, 0.0071), (-0.045, 0, 0.0071), look.accent_rgb).only_seen()
    head = box((0.016, 0.007, 0.004), (0.074, 0, 0.006), look.rgb)
    bristles = [
        box((0.004, 0.006, 0.007), (x, 0, 0.016), WHITE if k % 2 else look.accent_rgb)
        for k, x in enumerate((0.063, 0.072, 0.081))
    ]
    return Form((handle, grip, head, *bristles), above((0, 0, 0.0205), 0.0055, part="handle"))


def _hairbrush(look: Look) -> Form:
    handle = box((0.045, 0.009, 0.009), (-0.060, 0, 0.011), look.rgb)
    pad = ellipsoid((0.055, 0.031, 0.011), (0.035, 0, 0.011), look.rgb)
    foot = box((0.030, 0.018, 0.003), (0.035, 0, 0.003), look.rgb)
    cushion = ellipsoid((0.046, 0.024, 0.010), (0.035, 0, 0.016), (0.85, 0.80, 0.76))
    bristles = [
        rod(0.002, ((x, y, 0.020), (x, y, 0.036)), BLACK)
        for x in (0.008, 0.026, 0.044, 0.062)
        for y in (-0.012, 0, 0.012)
    ]
    return Form((handle, pad, foot, *only_seen(cushion, *bristles)), above((-0.030, 0, 0.0205), 0.010, part="handle"))


def _comb(look: Look) -> Form:
    """A comb with a handle: its teeth are too thin to hold."""
    handle = box((0.042, 0.006, 0.0065), (-0.060, 0.006, 0.0065), look.rgb)
    spine = box((0.050, 0.008, 0.0065), (0.030, 0.008, 0.0065), look.rgb)
    teeth = [box((0.0018, 0.012, 0.003), (x, -0.011, 0.004), look.rgb) for x in np.linspace(-0.018, 0.078, 11)]
    plate = box((0.049, 0.011, 0.003), (0.030, -0.011, 0.003), look.rgb).only_touched()
    return Form((handle, spine, plate, *only_seen(*teeth)), above((-0.040, 0.006, 0.0205), 0.006, part="handle"))


def _shampoo(look: Look) -> Form:
    height = 0.120 * look.stretch
    body = lathe(((0.030, 0), (0.033, 0.02), (0.033, height - 0.02), (0.016, height)), look.rgb).rolling()
    cap = disc(0.017, (height, height + 0.030), look.accent_rgb)
    label = lathe(((0.0336, 0.030), (0.0336, height - 0.034)), WHITE).only_seen()
    stripe = lathe(((0.0342, height * 0.42), (0.0342, height * 0.52)), look.accent_rgb).only_seen()
    return Form((body, cap, label, stripe), around(height + 0.012, 0.017, part="cap") + sideways(height * 0.5, 0.033))


def _toothpaste(look: Look) -> Form:
    wedge = prism(((-0.060, -0.003), (0.050, -0.017), (0.050, 0.017), (-0.060, 0.003)), (-0.020, 0.020), look.rgb)
    tube = moved((wedge,), (0, 0, 0.017), turn=about("x", np.pi / 2))
    foot = box((0.050, 0.018, 0.004), (0, 0, 0.004), look.rgb).only_touched()
    shoulder = cylinder(0.012, ((0.050, 0, 0.017), (0.058, 0, 0.017)), look.rgb).only_seen()
    cap = cylinder(0.012, ((0.056, 0, 0.017), (0.076, 0, 0.017)), look.accent_rgb)
    stripe = box((0.030, 0.0204, 0.005), (0.010, 0, 0.017), look.accent_rgb).only_seen()
    fold = box((0.004, 0.021, 0.005), (-0.060, 0, 0.017), lighter(look.rgb, 0.5)).only_seen()
    return Form((*tube, foot, shoulder, cap, stripe, fold), above((0.010, 0, 0.0205), 0.020))


def _toilet_roll(look: Look) -> Form:
    height = 0.085
    solid = disc(0.039, (0, height), look.rgb).only_touched().rolling()
    wall = ring(0.027, (0, height), lambda _: look.rgb, sides=10, thick=0.012)
    core = ring(0.0145, (0, height + 0.0008), lambda _: (0.62, 0.48, 0.34), sides=10, thick=0.0015)
    sheet = box((0.0006, 0.020, 0.028), (0.0396, 0, height * 0.6), darker(look.rgb, 0.88))
    hole = disc(0.014, (0, 0.002), BLACK)
    grasps = around(height - 0.022, 0.039) + sideways(height * 0.55, 0.039)
    return Form((solid, *only_seen(*wall, *core, sheet, hole)), grasps)


def _tissue_box(look: Look) -> Form:
    half_x, half_z = 0.060 * look.stretch, 0.030
    body = box((half_x, 0.036, half_z), (0, 0, half_z), look.rgb)
    slot = ellipsoid((0.034, 0.014, 0.0015), (0, 0, 2 * half_z), darker(look.rgb, 0.4))
    tissue = [
        box((0.020, 0.002, 0.018), (0, y, 2 * half_z + 0.012), WHITE, turn=about("x", a) @ about("y", a))
        for y, a in ((0.004, 0.4), (-0.004, -0.4))
    ]
    side = look.top(half_x * 0.98, 0.034, 2 * half_z)
    return Form((body, *only_seen(slot, *tissue), *side), above((0, 0, 0.038), 0.036))


def _remote(look: Look) -> Form:
    length = 0.080 * look.stretch
    body = box((length, 0.022, 0.010), (0, 0, 0.010), look.rgb)
    buttons = [
        box((0.0045, 0.004, 0.0014), (x, y, 0.0205), (0.75, 0.76, 0.78) if look.colour != "white" else GREY)
        for x in (-0.030, -0.014, 0.002)
        for y in (-0.012, 0, 0.012)
    ]
    power = [
        disc(0.006, (0.020, 0.0218), (0.85, 0.12, 0.10), xy=(length - 0.016, 0)),
        disc(0.011, (0.020, 0.0216), GREY, xy=(0.030, 0)),
    ]
    return Form((body, *only_seen(*buttons, *power)), above((0, 0, 0.0205), 0.022))


def _phone(look: Look) -> Form:
    body = box((0.066, 0.032, 0.008), (0, 0, 0.008), look.rgb)
    screen = box((0.060, 0.028, 0.0006), (0, 0, 0.016), (0.05, 0.07, 0.12))
    tiles = ((0.85, 0.3, 0.3), (0.3, 0.75, 0.4), (0.95, 0.8, 0.3), (0.35, 0.55, 0.95))
    icons = [
        box((0.006, 0.006, 0.0006), (x, y, 0.0168), tiles[(i + j) % 4])
        for i, x in enumerate((-0.02, 0.005, 0.030))
        for j, y in enumerate((-0.015, 0, 0.015))
    ]
    return Form((body, *only_seen(screen, *icons)), above((0, 0, 0.0205), 0.032))


def _key(look: Look) -> Form:
    """A key with a thick leather fob to hold it by."""
    bow = cylinder(0.017, ((-0.012, 0, 0), (-0.012, 0, 0.013)), look.rgb)
    hole = disc(0.008, (0.0125, 0.0138), darker(look.rgb, 0.25), xy=(-0.012, 0)).only_seen()
    shaft = box((0.026, 0.0050, 0.0055), (0.030, 0, 0.0065), look.rgb)
    teeth = [box((0.005, 0.006, 0.005), (x, 0.009, 0.0065), look.rgb) for x in (0.034, 0.050)]
    fob = box((0.022, 0.012, 0.008), (-0.050, 0, 0.008), look.accent_rgb)
    grasps = above((-0.040, 0, 0.0205), 0.012, part="fob") + above((0.016, 0, 0.0205), 0.0055, part="shaft")
    return Form((bow, hole, shaft, *teeth, fob), grasps)


def _screwdriver(look: Look) -> Form:
    handle = cylinder(0.014, ((-0.085, 0, 0.014), (-0.005, 0, 0.014)), look.rgb)
    flat = box((0.036, 0.010, 0.004), (-0.045, 0, 0.004), look.rgb)
    bands = [cylinder(0.0146, ((x, 0, 0.014), (x + 0.006, 0, 0.014)), BLACK) for x in (-0.078, -0.020)]
    shaft = rod(0.0045, ((-0.004, 0, 0.014), (0.080, 0, 0.010)), STEEL)
    tip = box((0.008, 0.006, 0.002), (0.086, 0, 0.010), STEEL)
    return Form((handle, flat, shaft, *only_seen(*bands, tip)), above((-0.022, 0, 0.0205), 0.014, part="handle"))


def _hammer(look: Look) -> Form:
    handle = box((0.085, 0.009, 0.009), (-0.020, 0, 0.0125), look.rgb)
    head = box((0.012, 0.026, 0.0125), (0.074, 0.006, 0.0125), STEEL)
    face = cylinder(0.0122, ((0.074, 0.032, 0.0125), (0.074, 0.046, 0.0125)), STEEL)
    claw = prism(((-0.012, 0), (-0.006, -0.034), (0.006, -0.034), (0.012, 0)), (0.006, 0.016), STEEL)
    grip = box((0.030, 0.0105, 0.0105), (-0.074, 0, 0.0125), BLACK)
    return Form(
        (handle, head, face, *moved((claw,), (0.074, -0.018, 0)), grip), above((0.035, 0, 0.0215), 0.009, part="handle")
    )


def _tape(look: Look) -> Form:
    solid = disc(0.037, (0, 0.026), look.rgb).only_touched().rolling()
    wall = ring(0.030, (0, 0.026), lambda _: look.rgb, thick=0.007)
    core = ring(0.0226, (0, 0.0266), lambda _: (0.75, 0.60, 0.42), thick=0.002)
    return Form((solid, *only_seen(*wall, *core)), around(0.0215, 0.037))


def _torch(look: Look) -> Form:
    body = cylinder(0.015, ((-0.080, 0, 0.022), (0.030, 0, 0.022)), look.rgb)
    cone = moved(
        (lathe(((0.015, 0.028), (0.022, 0.050), (0.022, 0.072)), BLACK),), (0, 0, 0.022), turn=about("y", np.pi / 2)
    )
    tail = cylinder(0.021, ((-0.088, 0, 0.022), (-0.074, 0, 0.022)), BLACK)
    feet = [box((0.006, 0.012, 0.003), (x, 0, 0.003), BLACK) for x in (-0.081, 0.062)]
    lamp = cylinder(0.018, ((0.070, 0, 0.022), (0.0728, 0, 0.022)), (1.0, 0.97, 0.70))
    switch = box((0.010, 0.005, 0.003), (0, 0, 0.037), (0.85, 0.15, 0.12))
    return Form((body, *cone, tail, *feet, *only_seen(lamp, switch)), above((-0.010, 0, 0.024), 0.015))


def _marker(look: Look) -> Form:
    body = cylinder(0.009, ((-0.055, 0, 0.009), (0.025, 0, 0.009)), WHITE)
    cap = cylinder(0.0098, ((0.022, 0, 0.0098), (0.064, 0, 0.0098)), look.rgb)
    clip = box((0.018, 0.0025, 0.004), (0.040, 0, 0.018), look.rgb)
    end = cylinder(0.0094, ((-0.066, 0, 0.009), (-0.054, 0, 0.009)), look.rgb)
    flat = box((0.050, 0.007, 0.002), (0, 0, 0.002), WHITE).only_touched()
    return Form((body, cap, flat, *only_seen(clip, end)), above((0, 0, 0.0205), 0.0095))


def _candle(look: Look) -> Form:
    height = 0.085 * look.stretch
    wax = disc(0.028, (0, height), look.rgb).rolling()
    wick = rod(0.002, ((0, 0, height), (0.001, 0, height + 0.010)), BLACK)
    pool = disc(0.022, (height, height + 0.001), lighter(look.rgb, 0.4))
    flame = ellipsoid((0.006, 0.006, 0.012), (0, 0, height + 0.020), (1.0, 0.75, 0.20))
    drips = [
        rod(
            0.005,
            (
                (0.026 * np.cos(a), 0.026 * np.sin(a), height - 0.004),
                (0.0265 * np.cos(a), 0.0265 * np.sin(a), height - d),
            ),
            look.rgb,
        )
        for a, d in ((0.5, 0.03), (2.4, 0.045), (4.4, 0.02))
    ]
    return Form((wax, *only_seen(wick, pool, flame, *drips)), around(height - 0.024, 0.029))


def _spray_bottle(look: Look) -> Form:
    height = 0.115 * look.stretch
    body = lathe(((0.033, 0), (0.033, height * 0.55), (0.015, height)), look.rgb).rolling()
    neck = disc(0.014, (height, height + 0.018), WHITE)
    head = box((0.026, 0.011, 0.010), (0.008, 0, height + 0.028), WHITE)
    nozzle = cylinder(0.006, ((0.034, 0, height + 0.030), (0.042, 0, height + 0.030)), look.accent_rgb)
    trigger = box((0.003, 0.006, 0.016), (0.026, 0, height + 0.008), look.accent_rgb, turn=about("y", 0.35))
    label = lathe(((0.0336, height * 0.15), (0.0336, height * 0.45)), WHITE)
    grasps = above((-0.002, 0, height + 0.026), 0.011, part="head") + sideways(height * 0.35, 0.033)
    return Form((body, neck, head, *only_seen(nozzle, trigger, label)), grasps)


def _light_bulb(look: Look) -> Form:
    bulb = sphere(0.030, (0.012, 0, 0.030), look.rgb).rolling()
    neck = moved(
        (lathe(((0.026, 0.004), (0.014, 0.034)), look.rgb, sides=10),), (0.006, 0, 0.030), turn=about("y", -np.pi / 2)
    )
    base = [
        cylinder(r, ((-x, 0, 0.0285), (-x - 0.008, 0, 0.0285)), rgb)
        for r, x, rgb in ((0.014, 0.026, STEEL), (0.0125, 0.034, GREY), (0.014, 0.040, STEEL))
    ]
    foot = box((0.022, 0.010, 0.008), (-0.020, 0, 0.008), STEEL).only_touched()
    return Form((bulb, *neck, foot, *only_seen(*base)), above((0.012, 0, 0.031), 0.030))


_paper = partial(ThingKind, family="books and papers")
_bath = partial(ThingKind, family="bathroom things")
_tool = partial(ThingKind, family="tools")
_gadget = partial(ThingKind, family="small things")
_TINTS = ("red", "green", "blue", "yellow", "purple", "orange", "white", "turquoise", "pink")

KINDS = (
    _paper(name="book", form=_book, synonyms=("novel", "paperback"), mass=0.25, scales=(0.92, 1.0)),
    _paper(name="notebook", form=_notebook, synonyms=("notepad", "exercise book"), mass=0.15, is_held_out=True),
    _paper(
        name="newspaper",
        form=_newspaper,
        synonyms=("rolled newspaper", "paper"),
        mass=0.12,
        colours=("red", "blue", "green", "yellow"),
    ),
    _paper(name="gift", form=_gift, synonyms=("present", "wrapped present"), mass=0.15),
    _bath(
        name="soap",
        form=_soap,
        synonyms=("bar of soap",),
        plural="bars of soap",
        mass=0.1,
        colours=("white", "green", "yellow", "blue", "purple", "pink"),
    ),
    _bath(
        name="sponge",
        form=_sponge,
        synonyms=("scrubber", "kitchen sponge"),
        mass=0.03,
        colours=("yellow", "orange", "blue", "green", "pink"),
    ),
    _bath(
        name="toothbrush", form=_toothbrush, synonyms=("tooth brush",), plural="toothbrushes", mass=0.03, colours=_TINTS
    ),
    _bath(
        name="hairbrush",
        form=_hairbrush,
        synonyms=("brush",),
        plural="hairbrushes",
        mass=0.1,
        colours=("black", "wooden", "red", "blue", "purple", "turquoise"),
    ),
    _bath(
        name="comb",
        form=_comb,
        synonyms=("hair comb",),
        mass=0.03,
        colours=("black", "brown", "red", "blue", "turquoise"),
    ),
    _bath(name="shampoo bottle", form=_shampoo, synonyms=("shampoo", "bottle of shampoo"), mass=0.25, colours=_TINTS),
    _bath(
        name="toothpaste",
        form=_toothpaste,
        synonyms=("tube of toothpaste",),
        plural="tubes of toothpaste",
        mass=0.1,
        colours=("white", "red", "blue", "green"),
        is_held_out=True,
    ),
    _bath(
        name="toilet roll",
        form=_toilet_roll,
        synonyms=("toilet paper", "roll of toilet paper"),
        mass=0.1,
        colours=("white", "beige", "pink"),
    ),
    _bath(
        name="tissue box",
        form=_tissue_box,
        synonyms=("box of tissues", "tissues"),
        plural="tissue boxes",
        mass=0.12,
        patterns=PATTERNS,
    ),
    _gadget(
        name="remote control",
        form=_remote,
        synonyms=("remote", "TV remote"),
        mass=0.1,
        colours=("black", "grey", "white"),
    ),
    _gadget(
        name="phone",
        form=_phone,
        synonyms=("mobile phone", "smartphone"),
        mass=0.15,
        colours=("black", "white", "red", "blue", "golden", "pink"),
    ),
    _gadget(
        name="key",
        form=_key,
        synonyms=("door key", "house key"),
        mass=0.03,
        colours=("golden", "silver", "red", "blue"),
    ),
    _gadget(name="marker", form=_marker, synonyms=("marker pen", "felt-tip pen"), mass=0.03, colours=_TINTS[:6]),
    _gadget(name="candle", form=_candle, synonyms=("wax candle",), mass=0.12, colours=_TINTS),
    _gadget(name="light bulb", form=_light_bulb, synonyms=("bulb",), mass=0.05, colours=("white", "yellow")),
    _tool(name="screwdriver", form=_screwdriver, synonyms=("screw driver",), mass=0.1, colours=_TINTS[:6]),
    _tool(
        name="hammer",
        form=_hammer,
        synonyms=("claw hammer",),
        mass=0.3,
        colours=("wooden", "red", "blue", "yellow", "black"),
    ),
    _tool(
        name="tape",
        form=_tape,
        synonyms=("roll of tape", "sticky tape"),
        plural="rolls of tape",
        mass=0.08,
        colours=_TINTS,
    ),
    _tool(
        name="torch",
        form=_torch,
        synonyms=("flashlight",),
        plural="torches",
        mass=0.15,
        colours=("red", "yellow", "blue", "black", "silver", "green"),
    ),
    _tool(
        name="spray bottle",
        form=_spray_bottle,
        synonyms=("cleaning spray", "spray cleaner"),
        mass=0.25,
        colours=_TINTS,
    ),
)
