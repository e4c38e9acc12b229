"""Machines and what lies on a desk; they are only looked at."""

from functools import partial

import numpy as np

from pilot.sims.world.things.kind import Form, ThingKind
from pilot.sims.world.things.looks import BLACK, GREY, STEEL, WHITE, WOOD, Look, darker
from pilot.sims.world.things.pieces import (
    about,
    box,
    chain,
    cushion,
    cylinder,
    disc,
    ellipsoid,
    lathe,
    moved,
    prism,
    ring,
    rod,
    sphere,
)

_METALS = ("silver", "red", "black", "white", "blue", "green")
_CASES = ("black", "grey", "silver", "white")
_GOLD = (0.83, 0.66, 0.24)


def _laptop(look: Look) -> Form:
    base = box((0.150, 0.105, 0.008), (0, 0, 0.008), look.rgb)
    keys = [
        box((0.013, 0.010, 0.001), (x, y, 0.0165), BLACK)
        for x in np.linspace(-0.12, 0.12, 8)
        for y in (0.005, 0.035, 0.065)
    ]
    lid = [
        box((0.150, 0.005, 0.100), (0, 0.130, 0.110), look.rgb, turn=about("x", -0.25)),
        box((0.138, 0.0056, 0.088), (0, 0.1285, 0.110), (0.25, 0.5, 0.85), turn=about("x", -0.25)),
    ]
    return Form((base, *keys, box((0.030, 0.022, 0.0006), (0, -0.055, 0.0165), darker(look.rgb, 0.75)), *lid))


def _keyboard(look: Look) -> Form:
    base = box((0.180, 0.060, 0.009), (0, 0, 0.009), look.rgb)
    cap = WHITE if look.colour in ("black", "grey") else GREY
    keys = [
        box((0.0115, 0.0085, 0.003), (x, y, 0.020), cap)
        for x in np.linspace(-0.162, 0.162, 12)
        for y in (-0.015, 0.012, 0.039)
    ]
    return Form((base, *keys, box((0.075, 0.0085, 0.003), (0, -0.042, 0.020), cap)))


def _mouse(look: Look) -> Form:
    body = cushion((0.056, 0.033, 0.018), look.rgb)
    line = box((0.018, 0.001, 0.003), (0.032, 0, 0.031), BLACK, turn=about("y", 0.5))
    cable = chain(
        [0.003] * 3, ((0.050, 0, 0.008), (0.080, 0.010, 0.004), (0.105, -0.010, 0.004), (0.130, 0.005, 0.004)), GREY
    )
    return Form((body, line, cylinder(0.008, ((0.028, -0.004, 0.034), (0.028, 0.004, 0.034)), GREY), *cable))


def _television(look: Look) -> Form:
    frame = box((0.230, 0.014, 0.135), (0, 0, 0.175), BLACK)
    screen = box((0.218, 0.0146, 0.123), (0, 0, 0.175), look.rgb)
    show = [
        cylinder(0.045, ((0.07, 0, 0.20), (0.07, -0.0152, 0.20)), look.accent_rgb),
    ]
    return Form(
        (
            frame,
            screen,
            *show,
            box((0.02, 0.012, 0.025), (0, 0.006, 0.025), GREY),
            box((0.11, 0.05, 0.005), (0, 0, 0.005), GREY),
        )
    )


def _radio(look: Look) -> Form:
    body = box((0.090, 0.030, 0.050), (0, 0, 0.050), look.rgb)
    front = [
        cylinder(0.034, ((-0.046, 0, 0.05), (-0.046, -0.031, 0.05)), GREY),
        box((0.030, 0.0306, 0.010), (0.042, 0, 0.072), (0.95, 0.9, 0.7)),
    ]
    knobs = [cylinder(0.010, ((x, 0, 0.034), (x, -0.038, 0.034)), BLACK) for x in (0.025, 0.060)]
    return Form((body, *front, *knobs, rod(0.003, ((0.075, 0.02, 0.10), (0.13, 0.02, 0.22)), STEEL)))


def _headphones(look: Look) -> Form:
    angles = np.linspace(0, np.pi, 8)
    band = chain([0.008] * 7, [(0.075 * np.cos(a), 0, 0.07 + 0.085 * np.sin(a)) for a in angles], look.rgb)
    cups = [cylinder(0.034, ((s * 0.060, 0, 0.05), (s * 0.085, 0, 0.05)), look.rgb) for s in (-1, 1)]
    return Form(
        (*band, *cups, *(cylinder(0.030, ((s * 0.048, 0, 0.05), (s * 0.060, 0, 0.05)), BLACK) for s in (-1, 1)))
    )


def _camera(look: Look) -> Form:
    body = box((0.062, 0.024, 0.038), (0, 0, 0.038), look.rgb)
    lens = [
        cylinder(0.030, ((0, 0, 0.038), (0, -0.055, 0.038)), BLACK),
        cylinder(0.020, ((0, -0.05, 0.038), (0, -0.0558, 0.038)), (0.3, 0.4, 0.7)),
    ]
    top = [
        box((0.020, 0.018, 0.010), (0, 0, 0.084), look.rgb),
        disc(0.009, (0.076, 0.084), (0.8, 0.1, 0.1), xy=(0.045, 0)),
    ]
    return Form((body, *lens, *top, box((0.0626, 0.0246, 0.016), (0, 0, 0.034), BLACK)))


def _toaster(look: Look) -> Form:
    body = box((0.110, 0.070, 0.080), (0, 0, 0.090), look.rgb)
    slots = [box((0.080, 0.013, 0.001), (0, y, 0.1705), BLACK) for y in (-0.028, 0.028)]
    toast = [box((0.050, 0.008, 0.030), (0, -0.028, 0.180), (0.80, 0.58, 0.32))] if look.pick(0, 1) else []
    return Form(
        (
            box((0.112, 0.072, 0.010), (0, 0, 0.010), BLACK),
            body,
            *slots,
            *toast,
            box((0.012, 0.014, 0.006), (0.118, 0, 0.110), BLACK),
        )
    )


def _kettle(look: Look) -> Form:
    body = lathe(((0.075, 0.010), (0.072, 0.06), (0.052, 0.150)), look.rgb)
    handle = chain([0.010] * 3, ((-0.050, 0, 0.140), (-0.105, 0, 0.145), (-0.110, 0, 0.060), (-0.070, 0, 0.045)), BLACK)
    spout = rod(0.012, ((0.055, 0, 0.090), (0.090, 0, 0.130)), look.rgb)
    return Form((disc(0.080, (0, 0.012), BLACK), body, *handle, spout, sphere(0.012, (0, 0, 0.160), BLACK)))


def _coffee_machine(look: Look) -> Form:
    back = box((0.085, 0.045, 0.140), (0, 0.055, 0.140), look.rgb)
    top, base = box((0.085, 0.100, 0.030), (0, 0, 0.250), look.rgb), box((0.085, 0.100, 0.015), (0, 0, 0.015), BLACK)
    pot = [
        lathe(((0.050, 0.030), (0.056, 0.07), (0.040, 0.130)), (0.25, 0.14, 0.08)),
        box((0.006, 0.006, 0.04), (0.075, -0.03, 0.085), BLACK),
    ]
    lights = [
        cylinder(0.008, ((x, -0.09, 0.25), (x, -0.1012, 0.25)), rgb)
        for x, rgb in ((-0.03, (0.2, 0.8, 0.3)), (0.03, (0.9, 0.2, 0.2)))
    ]
    return Form((back, top, base, *moved(pot, (0, -0.030, 0)), *lights))


def _blender(look: Look) -> Form:
    jar = lathe(((0.045, 0.110), (0.060, 0.260)), (0.80, 0.88, 0.92)).clear(0.55)
    juice = lathe(((0.043, 0.112), (0.050, 0.180)), look.accent_rgb)
    base = lathe(((0.070, 0), (0.052, 0.105)), look.rgb)
    return Form(
        (
            base,
            juice,
            jar,
            disc(0.062, (0.260, 0.278), BLACK),
            cylinder(0.014, ((0, -0.05, 0.045), (0, -0.070, 0.045)), STEEL),
        )
    )


def _fan(look: Look) -> Form:
    blades = []
    for k in range(3):
        blade = ellipsoid((0.020, 0.004, 0.045), (0, 0, 0.050), look.rgb)
        blades += moved((blade,), (0, -0.02, 0.20), turn=about("y", k * 2.094))
    cage = [
        rod(
            0.004,
            ((0.1 * np.cos(a), -0.02, 0.2 + 0.1 * np.sin(a)), (0.1 * np.cos(b), -0.02, 0.2 + 0.1 * np.sin(b))),
            STEEL,
        )
        for a, b in zip(np.arange(12) * 0.5236, np.arange(1, 13) * 0.5236, strict=True)
    ]
    return Form(
        (
            disc(0.065, (0, 0.018), look.rgb),
            disc(0.012, (0.018, 0.19), STEEL),
            sphere(0.022, (0, -0.01, 0.2), BLACK),
            *blades,
            *cage,
        )
    )


def _iron(look: Look) -> Form:
    outline = ((-0.10, -0.05), (0.02, -0.055), (0.11, 0), (0.02, 0.055), (-0.10, 0.05))
    body = prism([(x * 0.9, y * 0.85) for x, y in outline], (0.012, 0.055), look.rgb)
    handle = chain(
        [0.013] * 3, ((-0.08, 0, 0.06), (-0.075, 0, 0.115), (0.045, 0, 0.115), (0.055, 0, 0.06)), look.accent_rgb
    )
    return Form((prism(outline, (0, 0.012), STEEL), body, *handle))


def _hair_dryer(look: Look) -> Form:
    barrel = cylinder(0.034, ((-0.05, 0, 0.130), (0.075, 0, 0.130)), look.rgb)
    nozzle = cylinder(0.024, ((0.075, 0, 0.130), (0.110, 0, 0.130)), BLACK)
    handle = box((0.017, 0.016, 0.055), (-0.015, 0, 0.055), look.rgb, turn=about("y", -0.15))
    return Form(
        (
            barrel,
            nozzle,
            sphere(0.034, (-0.05, 0, 0.130), GREY),
            handle,
            box((0.004, 0.007, 0.012), (0.006, 0, 0.075), BLACK),
        )
    )


def _scale(look: Look) -> Form:
    plate = box((0.085, 0.085, 0.012), (0, 0, 0.030), look.rgb)
    display = box((0.030, 0.014, 0.002), (0, -0.060, 0.0425), (0.72, 0.82, 0.70))
    return Form(
        (
            box((0.080, 0.080, 0.010), (0, 0, 0.010), BLACK),
            plate,
            display,
            box((0.016, 0.006, 0.0006), (0, -0.060, 0.0448), BLACK),
        )
    )


def _globe(look: Look) -> Form:
    land = [
        ellipsoid((0.020, 0.034, 0.026), tuple(0.058 * np.array(d) + (0, 0, 0.115)), (0.25, 0.60, 0.25))
        for d in (
            (0.8, 0.5, 0.3),
            (-0.3, 0.9, 0.1),
            (0.4, -0.85, 0.3),
            (-0.85, -0.3, -0.3),
            (0.75, -0.2, -0.6),
            (-0.1, -0.8, -0.55),
        )
    ]
    bow = chain(
        [0.004] * 8, [(0.078 * np.cos(a), 0, 0.115 + 0.078 * np.sin(a)) for a in np.linspace(-1.57, 1.9, 9)], _GOLD
    )
    return Form(
        (
            disc(0.050, (0, 0.012), look.rgb),
            disc(0.010, (0.012, 0.04), look.rgb),
            sphere(0.070, (0, 0, 0.115), (0.15, 0.40, 0.85)),
            *land,
            *bow,
        )
    )


def _bell(look: Look) -> Form:
    body = lathe(((0.046, 0.008), (0.036, 0.030), (0.026, 0.065), (0.012, 0.078)), look.rgb)
    return Form(
        (
            disc(0.047, (0.004, 0.010), darker(look.rgb, 0.85)),
            body,
            sphere(0.009, (0, 0, 0.010), GREY),
            rod(0.010, ((0, 0, 0.085), (0, 0, 0.125)), WOOD),
        )
    )


def _magnet(look: Look) -> Form:
    points = [(0.036 * np.cos(a), 0.036 * np.sin(a), 0.012) for a in np.linspace(np.pi / 2, 3 * np.pi / 2, 7)]
    legs = [box((0.026, 0.011, 0.012), (0.026, s * 0.036, 0.012), look.rgb) for s in (-1, 1)]
    return Form(
        (
            *chain([0.012] * 6, points, look.rgb),
            *legs,
            *(box((0.012, 0.0112, 0.0122), (0.064, s * 0.036, 0.0122), STEEL) for s in (-1, 1)),
        )
    )


def _stapler(look: Look) -> Form:
    arm = box((0.068, 0.015, 0.010), (0.004, 0, 0.040), look.rgb, turn=about("y", 0.12))
    return Form(
        (
            box((0.070, 0.018, 0.006), (0, 0, 0.006), BLACK),
            arm,
            box((0.062, 0.011, 0.005), (0.004, 0, 0.027), STEEL, turn=about("y", 0.10)),
            box((0.012, 0.013, 0.018), (-0.058, 0, 0.024), BLACK),
        )
    )


def _calculator(look: Look) -> Form:
    keys = [
        box((0.007, 0.006, 0.002), (x, y, 0.017), (0.9, 0.5, 0.1) if k == 3 else WHITE)
        for x in (-0.052, -0.032, -0.012, 0.008)
        for k, y in enumerate((0.024, 0.008, -0.008, -0.024))
    ]
    return Form(
        (
            box((0.070, 0.038, 0.008), (0, 0, 0.008), look.rgb),
            box((0.016, 0.031, 0.001), (0.042, 0, 0.0165), (0.70, 0.80, 0.66)),
            *keys,
            box((0.006, 0.012, 0.0006), (0.042, -0.012, 0.018), BLACK),
        )
    )


def _basket(look: Look) -> Form:
    rows = [
        part
        for z, r in ((0.0, 0.075), (0.022, 0.080), (0.044, 0.085), (0.066, 0.090))
        for part in ring(
            r, (z, z + 0.022), lambda k, z=z: look.rgb if (k + round(z / 0.022)) % 2 else darker(look.rgb, 0.75)
        )
    ]
    bow = chain(
        [0.006] * 6,
        [(0.09 * np.cos(a), 0, 0.085 + 0.10 * np.sin(a)) for a in np.linspace(0, np.pi, 7)],
        darker(look.rgb, 0.75),
    )
    return Form((disc(0.074, (0, 0.004), look.rgb), *rows, *bow))


_machine = partial(ThingKind, is_handled=False, family="machines")
_desk = partial(ThingKind, is_handled=False, family="things of a desk")

KINDS = (
    _machine(name="laptop", form=_laptop, synonyms=("notebook computer",), colours=_CASES),
    _machine(name="keyboard", form=_keyboard, synonyms=("computer keyboard",), colours=_CASES),
    _machine(name="computer mouse", form=_mouse, synonyms=("mouse",), plural="computer mice", colours=_CASES),
    _machine(
        name="television", form=_television, synonyms=("TV", "TV set"), colours=("blue", "green", "grey", "purple")
    ),
    _machine(name="radio", form=_radio, synonyms=("portable radio",)),
    _machine(name="headphones", form=_headphones, plural="headphones"),
    _machine(name="camera", form=_camera, synonyms=("photo camera",), colours=("silver", "red", "grey", "brown")),
    _machine(name="toaster", form=_toaster, colours=_METALS),
    _machine(name="kettle", form=_kettle, synonyms=("water kettle",), colours=_METALS),
    _machine(name="coffee machine", form=_coffee_machine, synonyms=("coffee maker",), colours=_METALS),
    _machine(name="blender", form=_blender, synonyms=("mixer",), colours=_METALS),
    _machine(name="fan", form=_fan, synonyms=("desk fan",), colours=_METALS),
    _machine(name="iron", form=_iron, synonyms=("clothes iron",)),
    _machine(name="hair dryer", form=_hair_dryer, synonyms=("blow dryer",)),
    _machine(name="kitchen scale", form=_scale, synonyms=("scale",), colours=_METALS),
    _desk(name="globe", form=_globe, colours=("wooden", "black", "white", "red")),
    _desk(name="bell", form=_bell, synonyms=("hand bell",), colours=("golden", "silver", "brown")),
    _desk(name="magnet", form=_magnet, synonyms=("horseshoe magnet",), colours=("red", "blue", "green")),
    _desk(name="stapler", form=_stapler),
    _desk(
        name="calculator", form=_calculator, synonyms=("pocket calculator",), colours=("black", "grey", "blue", "red")
    ),
    _desk(name="picnic basket", form=_basket, synonyms=("wicker basket",), colours=("wooden", "brown", "beige")),
)
