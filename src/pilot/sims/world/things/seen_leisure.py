"""Things for sport, music and play that are only looked at."""

from functools import partial

import numpy as np

from pilot.sims.world.things.kind import Form, ThingKind
from pilot.sims.world.things.looks import BLACK, GREY, STEEL, TOY_PAINTS, WHITE, WOOD, Look, darker
from pilot.sims.world.things.pieces import (
    about,
    box,
    chain,
    cylinder,
    disc,
    ellipsoid,
    lathe,
    moved,
    prism,
    rod,
    sphere,
)

_UPRIGHT = about("x", np.pi / 2)  # turns what was made flat to face -y
_GOLD = (0.83, 0.66, 0.24)


def _football(look: Look) -> Form:
    spots = []
    for x, y, z in (
        (0, 0, 1),
        (0.9, 0, 0.44),
        (0.28, 0.85, 0.44),
        (-0.72, 0.53, 0.44),
        (-0.72, -0.53, 0.44),
        (0.28, -0.85, 0.44),
        (0.72, 0.53, -0.44),
        (0.72, -0.53, -0.44),
        (-0.28, -0.85, -0.44),
    ):
        spots.append(sphere(0.040, tuple(0.074 * np.array((x, y, z)) + (0, 0, 0.1)), look.rgb))
    return Form((sphere(0.100, (0, 0, 0.100), WHITE), *spots))


def _basketball(look: Look) -> Form:
    lines = [
        cylinder(
            0.1008, (tuple(np.array((0, 0, 0.1)) - 0.003 * axis), tuple(np.array((0, 0, 0.1)) + 0.003 * axis)), BLACK
        )
        for axis in np.eye(3)
    ]
    return Form((sphere(0.100, (0, 0, 0.100), look.rgb), *lines))


def _racket(look: Look) -> Form:
    points = [(0.10 + 0.075 * np.cos(a), 0.058 * np.sin(a), 0.010) for a in np.arange(13) * np.pi / 6]
    strings = [
        rod(0.0012, ((0.10 + x, -h, 0.010), (0.10 + x, h, 0.010)), WHITE)
        for x, h in ((-0.05, 0.043), (-0.025, 0.054), (0, 0.058), (0.025, 0.054), (0.05, 0.043))
    ]
    strings += [
        rod(0.0012, ((0.10 - h, y, 0.010), (0.10 + h, y, 0.010)), WHITE)
        for y, h in ((-0.03, 0.064), (0, 0.075), (0.03, 0.064))
    ]
    fork = [rod(0.005, ((-0.04, 0, 0.010), (0.04, s * 0.036, 0.010)), look.rgb) for s in (-1, 1)]
    return Form(
        (
            *chain([0.0065] * 12, points, look.rgb),
            *strings,
            *fork,
            rod(0.011, ((-0.13, 0, 0.011), (-0.04, 0, 0.011)), BLACK),
        )
    )


def _skateboard(look: Look) -> Form:
    deck = box((0.130, 0.048, 0.006), (0, 0, 0.056), look.rgb)
    ends = [box((0.034, 0.046, 0.006), (s * 0.158, 0, 0.066), look.rgb, turn=about("y", -s * 0.35)) for s in (-1, 1)]
    wheels = [
        cylinder(0.020, ((x, s * 0.030, 0.020), (x, s * 0.050, 0.020)), look.accent_rgb)
        for x in (-0.095, 0.095)
        for s in (-1, 1)
    ]
    trucks = [box((0.012, 0.034, 0.012), (x, 0, 0.036), STEEL) for x in (-0.095, 0.095)]
    return Form((deck, *ends, *wheels, *trucks))


def _dumbbell(look: Look) -> Form:
    weights = [
        cylinder(r, ((s * x, 0, 0.038), (s * (x + 0.022), 0, 0.038)), look.rgb)
        for s in (-1, 1)
        for r, x in ((0.038, 0.055), (0.030, 0.077))
    ]
    return Form((cylinder(0.012, ((-0.10, 0, 0.038), (0.10, 0, 0.038)), STEEL), *weights))


def _trophy(look: Look) -> Form:
    cup = lathe(((0.012, 0.060), (0.040, 0.095), (0.048, 0.150)), look.rgb)
    handles = [
        part
        for s in (-1, 1)
        for part in chain(
            [0.005] * 3,
            ((s * 0.044, 0, 0.140), (s * 0.075, 0, 0.138), (s * 0.070, 0, 0.100), (s * 0.036, 0, 0.090)),
            look.rgb,
        )
    ]
    return Form(
        (
            box((0.036, 0.036, 0.020), (0, 0, 0.020), BLACK),
            disc(0.020, (0.040, 0.050), look.rgb),
            disc(0.009, (0.050, 0.065), look.rgb),
            cup,
            *handles,
        )
    )


def _guitar(look: Look) -> Form:
    flat = [cylinder(r, ((x, 0, 0), (x, 0, 0.045)), look.rgb) for r, x in ((0.085, -0.075), (0.065, 0.030))]
    flat += [
        box((0.060, 0.052, 0.0225), (-0.02, 0, 0.0225), look.rgb),
        disc(0.030, (0.045, 0.0462), BLACK, xy=(0.005, 0)),
    ]
    flat += [
        box((0.100, 0.014, 0.008), (0.170, 0, 0.045), (0.25, 0.15, 0.08)),
        box((0.028, 0.022, 0.008), (0.295, 0, 0.045), look.rgb),
        box((0.006, 0.034, 0.004), (-0.085, 0, 0.047), (0.25, 0.15, 0.08)),
    ]
    strings = [rod(0.001, ((-0.085, y, 0.054), (0.280, y, 0.055)), WHITE) for y in (-0.008, 0, 0.008)]
    return Form((*flat, *strings))


def _drum(look: Look) -> Form:
    body = disc(0.080, (0.008, 0.110), look.rgb)
    rims = [disc(0.084, (z, z + 0.012), _GOLD) for z in (0.002, 0.104)]
    cords = [
        rod(
            0.003,
            ((0.082 * np.cos(a), 0.082 * np.sin(a), 0.012), (0.082 * np.cos(a + 0.4), 0.082 * np.sin(a + 0.4), 0.106)),
            WHITE,
        )
        for a in np.arange(8) * 0.7854
    ]
    sticks = [rod(0.004, ((-0.06, s * 0.02, 0.122), (0.07, s * 0.035, 0.126)), WOOD) for s in (-1, 1)]
    return Form((body, *rims, disc(0.078, (0.116, 0.118), WHITE), *cords, *sticks))


def _trumpet(look: Look) -> Form:
    tubes = [
        rod(0.007, ((-0.13, 0, 0.045), (0.09, 0, 0.045)), look.rgb),
        rod(0.007, ((-0.06, 0, 0.012), (0.06, 0, 0.012)), look.rgb),
    ]
    bends = [
        chain([0.007] * 2, ((s * 0.06, 0, 0.012), (s * 0.082, 0, 0.028), (s * 0.06, 0, 0.045)), look.rgb)
        for s in (-1, 1)
    ]
    bell = moved(
        (lathe(((0.008, 0), (0.014, 0.05), (0.024, 0.075), (0.048, 0.095)), look.rgb),),
        (0.085, 0, 0.045),
        turn=about("y", np.pi / 2),
    )
    valves = [disc(0.009, (0.010, 0.070), look.rgb, xy=(x, 0)) for x in (-0.022, 0, 0.022)]
    return Form(
        (
            *tubes,
            *bends[0],
            *bends[1],
            *bell,
            *valves,
            *(disc(0.007, (0.070, 0.080), WHITE, xy=(x, 0)) for x in (-0.022, 0, 0.022)),
        )
    )


def _microphone(look: Look) -> Form:
    stand = [disc(0.055, (0, 0.012), BLACK), disc(0.006, (0.012, 0.13), STEEL)]
    handle = rod(0.014, ((-0.045, 0, 0.120), (0.030, 0, 0.165)), look.rgb)
    return Form(
        (
            *stand,
            handle,
            sphere(0.028, (0.050, 0, 0.178), GREY),
            cylinder(0.0285, ((0.047, 0, 0.176), (0.053, 0, 0.180)), STEEL),
        )
    )


def _plane(look: Look) -> Form:
    body = ellipsoid((0.090, 0.020, 0.022), (0, 0, 0.042), look.rgb)
    wings = [
        box((0.024, 0.090, 0.004), (0.010, 0, 0.040), look.accent_rgb),
        box((0.014, 0.036, 0.003), (-0.078, 0, 0.048), look.accent_rgb),
        box((0.014, 0.003, 0.022), (-0.080, 0, 0.070), look.accent_rgb),
    ]
    nose = [
        box((0.003, 0.006, 0.034), (0.093, 0, 0.042), GREY, turn=about("x", 0.5)),
        sphere(0.008, (0.092, 0, 0.042), BLACK),
    ]
    wheels = [sphere(0.009, (x, y, 0.009), BLACK) for x, y in ((0.03, 0.025), (0.03, -0.025))]
    legs = [rod(0.003, ((0.03, y, 0.009), (0.03, y * 0.5, 0.035)), GREY) for y in (0.025, -0.025)]
    return Form(
        (body, *wings, *nose, *wheels, *legs, ellipsoid((0.022, 0.014, 0.014), (0.028, 0, 0.060), (0.6, 0.8, 0.95)))
    )


def _robot(look: Look) -> Form:
    body, head = (
        box((0.030, 0.022, 0.034), (0, 0, 0.072), look.rgb),
        box((0.022, 0.018, 0.018), (0, 0, 0.128), look.accent_rgb),
    )
    eyes = [cylinder(0.006, ((s * 0.009, 0, 0.132), (s * 0.009, -0.020, 0.132)), (0.98, 0.95, 0.3)) for s in (-1, 1)]
    limbs = [box((0.010, 0.012, 0.020), (s * 0.016, 0, 0.020), GREY) for s in (-1, 1)]
    arms = [rod(0.008, ((s * 0.038, 0, 0.096), (s * 0.046, -0.008, 0.056)), GREY) for s in (-1, 1)]
    panel = [
        box((0.016, 0.0226, 0.010), (0, 0, 0.078), BLACK),
        rod(0.002, ((0, 0, 0.146), (0, 0, 0.164)), STEEL),
        sphere(0.006, (0, 0, 0.168), (0.9, 0.1, 0.1)),
    ]
    return Form((body, head, disc(0.008, (0.106, 0.112), GREY), *eyes, *limbs, *arms, *panel))


def _snowman(look: Look) -> Form:
    balls = [sphere(r, (0, 0, z), WHITE) for r, z in ((0.048, 0.042), (0.034, 0.108), (0.025, 0.158))]
    hat = [disc(0.030, (0.176, 0.180), BLACK), disc(0.020, (0.180, 0.208), BLACK)]
    face = [sphere(0.004, (s * 0.009, -0.023, 0.163), BLACK) for s in (-1, 1)]
    carrot = moved((lathe(((0.005, 0), (0.001, 0.024)), (0.95, 0.5, 0.1)),), (0, -0.022, 0.156), turn=_UPRIGHT)
    return Form(
        (
            *balls,
            *hat,
            *face,
            *carrot,
            disc(0.028, (0.130, 0.140), look.rgb),
            *(sphere(0.005, (0, -0.034, z), BLACK) for z in (0.095, 0.112)),
        )
    )


def _piggy_bank(look: Look) -> Form:
    body = ellipsoid((0.060, 0.044, 0.044), (0, 0, 0.060), look.rgb)
    legs = [disc(0.012, (0, 0.035), look.rgb, xy=(x, y)) for x in (-0.032, 0.032) for y in (-0.022, 0.022)]
    snout = cylinder(0.018, ((0.050, 0, 0.062), (0.072, 0, 0.062)), darker(look.rgb, 0.85))
    ears = [
        prism(((0, -0.012), (0.004, 0), (0, 0.012), (-0.004, 0)), (0, 0.020), darker(look.rgb, 0.85)) for _ in range(2)
    ]
    face = [sphere(0.005, (0.052, s * 0.016, 0.082), BLACK) for s in (-1, 1)]
    head = [part for s, ear in zip((-1, 1), ears, strict=True) for part in moved((ear,), (0.034, s * 0.024, 0.092))]
    return Form((body, *legs, snout, *face, *head, box((0.014, 0.003, 0.001), (0, 0, 0.1042), BLACK)))


def _chess_piece(look: Look) -> Form:
    """A pawn, or with a crown a king."""
    body = lathe(((0.026, 0), (0.026, 0.010), (0.013, 0.030), (0.010, 0.060), (0.018, 0.064), (0.010, 0.070)), look.rgb)
    king = [
        lathe(((0.012, 0.070), (0.020, 0.095), (0.014, 0.100)), look.rgb),
        box((0.003, 0.003, 0.012), (0, 0, 0.112), look.rgb),
        box((0.009, 0.003, 0.003), (0, 0, 0.114), look.rgb),
    ]
    return Form((body, *(king if look.pick(0, 1) else (sphere(0.017, (0, 0, 0.084), look.rgb),))))


_sport = partial(ThingKind, is_handled=False, family="sport and music")
_play = partial(ThingKind, is_handled=False, family="other toys", colours=TOY_PAINTS)

KINDS = (
    _sport(name="football", form=_football, synonyms=("soccer ball",), colours=("black", "red", "blue", "green")),
    _sport(name="basketball", form=_basketball, colours=("orange", "brown", "red")),
    _sport(name="tennis racket", form=_racket, synonyms=("racket",)),
    _sport(name="skateboard", form=_skateboard),
    _sport(name="dumbbell", form=_dumbbell, synonyms=("weight",)),
    _sport(name="trophy", form=_trophy, synonyms=("winner's cup",), plural="trophies", colours=("golden", "silver")),
    _sport(name="guitar", form=_guitar, colours=("wooden", "red", "black", "blue")),
    _sport(name="drum", form=_drum, synonyms=("snare drum",)),
    _sport(name="trumpet", form=_trumpet, colours=("golden", "silver")),
    _sport(name="microphone", form=_microphone, synonyms=("mic",)),
    _play(name="toy plane", form=_plane, synonyms=("plane", "airplane")),
    _play(name="toy robot", form=_robot, synonyms=("robot",)),
    _play(name="snowman", form=_snowman, plural="snowmen"),
    _play(
        name="piggy bank",
        form=_piggy_bank,
        synonyms=("money box",),
        colours=("yellow", "blue", "green", "white", "pink"),
    ),
    _play(name="chess piece", form=_chess_piece, colours=("white", "black", "wooden", "brown")),
)
