"""Things of a home that are only looked at: lamps and plants, pots and pans, what one wears and carries."""

from functools import partial
from itertools import pairwise

import numpy as np

from pilot.sims.world.things.kind import Form, ThingKind
from pilot.sims.world.things.looks import BLACK, LEAF, PATTERNS, STEEL, WHITE, WOOD, Look, darker, lighter
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
    moved,
    prism,
    ring,
    rod,
    sphere,
)

_LAMP = (1.0, 0.94, 0.70)
_UPRIGHT = about("x", np.pi / 2)  # turns what was made flat to face -y


def _lamp(look: Look) -> Form:
    shade = lathe(((0.085, 0.22), (0.050, 0.33)), look.rgb)
    glow = disc(0.060, (0.214, 0.220), _LAMP)
    return Form((disc(0.060, (0, 0.015), look.accent_rgb), disc(0.010, (0.015, 0.24), look.accent_rgb), shade, glow))


def _desk_lamp(look: Look) -> Form:
    arm = chain([0.008, 0.008], ((0, 0, 0.015), (-0.060, 0, 0.170), (0.060, 0, 0.270)), STEEL)
    head = moved((lathe(((0.050, 0), (0.022, 0.060)), look.rgb),), (0.080, 0, 0.230), turn=about("y", -0.5))
    return Form((disc(0.065, (0, 0.018), look.rgb), *arm, *head))


def _vase(look: Look) -> Form:
    profile = ((0.040, 0), (0.062, 0.06), (0.050, 0.12), (0.026, 0.17), (0.036, 0.20))
    flowers: list = []
    for k, colour in enumerate(((0.9, 0.2, 0.3), (0.95, 0.8, 0.2), (0.7, 0.3, 0.8))):
        a = k * 2.1
        top = (0.040 * np.cos(a), 0.040 * np.sin(a), 0.27 + 0.015 * k)
        flowers += [rod(0.004, ((0, 0, 0.19), top), LEAF), sphere(0.022, top, colour)]
    bands = look.bands(0.061, 0.030, 0.100) if look.pattern == "striped" else ()
    return Form((lathe(profile, look.rgb), *bands, *flowers))


def _potted_plant(look: Look) -> Form:
    pot, leaves = lathe(((0.045, 0), (0.062, 0.10)), look.rgb), []
    for k in range(9):
        tilt, turn = 0.35 + 0.35 * (k % 3), about("z", k * 2.4)
        leaf = ellipsoid((0.022, 0.008, 0.075), (0, 0, 0.075), LEAF if k % 2 else lighter(LEAF, 0.2))
        leaves += moved((leaf,), (0, 0, 0.10), turn=turn @ about("y", tilt))
    return Form((pot, disc(0.056, (0.098, 0.103), (0.25, 0.16, 0.10)), *leaves))


def _cactus(look: Look) -> Form:
    green = (0.20, 0.50, 0.25)
    stem = rod(0.030, ((0, 0, 0.08), (0, 0, 0.19)), green)
    arms = chain([0.015] * 2, ((0.020, 0, 0.13), (0.060, 0, 0.13), (0.060, 0, 0.17)), green)
    other = chain([0.015] * 2, ((-0.020, 0, 0.11), (-0.055, 0, 0.11), (-0.055, 0, 0.15)), green)
    return Form(
        (
            lathe(((0.036, 0), (0.050, 0.07)), look.rgb),
            stem,
            *arms,
            *other,
            sphere(0.012, (0, 0, 0.222), (0.95, 0.4, 0.6)),
        )
    )


def _clock(look: Look) -> Form:
    face = [
        cylinder(0.095, ((0, 0.012, 0.1), (0, -0.012, 0.1)), look.rgb),
        cylinder(0.080, ((0, -0.01, 0.1), (0, -0.0128, 0.1)), WHITE),
    ]
    for k in range(12):
        a = k * np.pi / 6
        face.append(
            box((0.003, 0.001, 0.007), (0.068 * np.sin(a), -0.0132, 0.1 + 0.068 * np.cos(a)), BLACK, turn=about("y", a))
        )
    for length, a in ((0.050, look.variant % 60 / 60 * 6.283), (0.034, look.variant % 12 / 12 * 6.283)):
        at = (length / 2 * np.sin(a), -0.0142, 0.1 + length / 2 * np.cos(a))
        face.append(box((0.0035, 0.001, length / 2), at, BLACK, turn=about("y", a)))
    return Form((*face, box((0.04, 0.03, 0.01), (0, 0, 0.01), look.rgb)))


def _alarm_clock(look: Look) -> Form:
    body = [
        cylinder(0.045, ((0, 0.022, 0.060), (0, -0.022, 0.060)), look.rgb),
        cylinder(0.037, ((0, -0.02, 0.06), (0, -0.023, 0.06)), WHITE),
    ]
    hands = [
        box((0.002, 0.001, 0.014), (0, -0.0236, 0.073), BLACK),
        box((0.010, 0.001, 0.002), (0.010, -0.0236, 0.060), BLACK),
    ]
    bells = [sphere(0.017, (s * 0.026, 0, 0.108), STEEL) for s in (-1, 1)]
    legs = [rod(0.006, ((s * 0.022, 0, 0.025), (s * 0.034, 0, 0.006)), STEEL) for s in (-1, 1)]
    return Form((*body, *hands, *bells, *legs, disc(0.005, (0.10, 0.128), STEEL)))


def _picture(look: Look) -> Form:
    parts = [
        box((0.090, 0.008, 0.070), (0, 0, 0.070), look.rgb),
        box((0.076, 0.0086, 0.056), (0, 0, 0.070), (0.60, 0.80, 0.95)),
    ]
    parts += [
        box((0.076, 0.009, 0.018), (0, 0, 0.032), (0.35, 0.62, 0.28)),
        cylinder(0.014, ((0.04, 0, 0.10), (0.04, -0.0094, 0.10)), (0.98, 0.85, 0.3)),
    ]
    hill = prism(((-0.05, 0), (0.05, 0), (0, 0.045)), (-0.0092, 0.0092), (0.45, 0.42, 0.50))
    return Form(
        (*parts, *moved((hill,), (-0.02, 0, 0.044), turn=_UPRIGHT), box((0.004, 0.035, 0.03), (0, 0.03, 0.03), BLACK))
    )


def _teapot(look: Look) -> Form:
    body = ellipsoid((0.065, 0.065, 0.052), (0, 0, 0.052), look.rgb)
    spout = chain([0.014, 0.010], ((0.050, 0, 0.045), (0.090, 0, 0.065), (0.110, 0, 0.098)), look.rgb)
    handle = chain(
        [0.008] * 3, ((-0.055, 0, 0.075), (-0.100, 0, 0.080), (-0.100, 0, 0.040), (-0.058, 0, 0.030)), look.rgb
    )
    return Form(
        (
            disc(0.040, (0, 0.010), look.rgb),
            body,
            *spout,
            *handle,
            ellipsoid((0.030, 0.030, 0.010), (0, 0, 0.102), look.accent_rgb),
            sphere(0.010, (0, 0, 0.118), look.accent_rgb),
        )
    )


def _frying_pan(look: Look) -> Form:
    wall = ring(0.110, (0.004, 0.040), lambda _: look.rgb, tilt=0.4)
    egg = [
        ellipsoid((0.040, 0.034, 0.003), (0.01, 0, 0.013), WHITE),
        ellipsoid((0.016, 0.016, 0.010), (0.01, 0, 0.015), (0.98, 0.75, 0.1)),
    ]
    return Form(
        (
            disc(0.104, (0, 0.008), darker(look.rgb, 0.8)),
            *wall,
            box((0.080, 0.012, 0.007), (0.190, 0, 0.036), BLACK),
            *(egg if look.pick(0, 1) else ()),
        )
    )


def _cutting_board(look: Look) -> Form:
    board = box((0.140, 0.085, 0.010), (0, 0, 0.010), look.rgb)
    cuts = [
        box((0.055, 0.0012, 0.0006), (-0.02, y, 0.0205), darker(look.rgb, 0.7), turn=about("z", a))
        for y, a in ((-0.03, 0.3), (0.01, -0.2), (0.035, 0.1))
    ]
    return Form(
        (
            board,
            *cuts,
            disc(0.014, (0.0194, 0.0206), BLACK, xy=(0.118, 0)),
            box((0.024, 0.030, 0.010), (0.155, 0, 0.010), look.rgb),
        )
    )


def _pepper_mill(look: Look) -> Form:
    profile = ((0.028, 0), (0.028, 0.03), (0.018, 0.08), (0.026, 0.120), (0.026, 0.130), (0.014, 0.136))
    return Form((lathe(profile, look.rgb), sphere(0.024, (0, 0, 0.152), look.rgb), sphere(0.008, (0, 0, 0.178), STEEL)))


def _bucket(look: Look) -> Form:
    wall = ring(0.085, (0.004, 0.170), lambda _: look.rgb, tilt=0.14)
    bow = chain(
        [0.004] * 6, [(0.105 * np.cos(a), 0, 0.165 + 0.10 * np.sin(a)) for a in np.linspace(0, np.pi, 7)], STEEL
    )
    return Form((disc(0.075, (0, 0.008), look.rgb), *wall, *bow))


def _watering_can(look: Look) -> Form:
    body = disc(0.062, (0, 0.120), look.rgb)
    spout = chain([0.010] * 2, ((0.055, 0, 0.035), (0.110, 0, 0.110), (0.145, 0, 0.140)), look.rgb)
    rose = moved((lathe(((0.012, 0), (0.028, 0.025)), look.accent_rgb),), (0.140, 0, 0.136), turn=about("y", 0.9))
    handle = chain(
        [0.008] * 3, ((-0.055, 0, 0.110), (-0.110, 0, 0.120), (-0.105, 0, 0.050), (-0.060, 0, 0.030)), look.rgb
    )
    return Form((body, *spout, *rose, *handle, disc(0.045, (0.120, 0.122), BLACK)))


def _umbrella(look: Look) -> Form:
    roof: Pieces = ()
    for k in range(8):
        panel = prism(
            ((0, 0), (0.150, -0.062), (0.150, 0.062)), (-0.002, 0.002), look.rgb if k % 2 else look.accent_rgb
        )
        roof += moved((panel,), (0, 0, 0.26), turn=about("z", k * np.pi / 4) @ about("y", 0.42))
    hook = chain([0.006] * 3, ((0, 0, 0.012), (0.010, 0, 0.006), (0.028, 0, 0.006), (0.034, 0, 0.022)), WOOD)
    return Form((*roof, rod(0.005, ((0, 0, 0.012), (0, 0, 0.285)), STEEL), *hook))


def _backpack(look: Look) -> Form:
    body = moved((cushion((0.090, 0.130, 0.055), look.rgb),), (0, 0.055, 0.130), turn=_UPRIGHT)
    pocket = moved((cushion((0.065, 0.055, 0.024), look.accent_rgb),), (0, -0.030, 0.085), turn=_UPRIGHT)
    loop = chain([0.006] * 3, ((-0.025, 0, 0.250), (-0.018, 0, 0.280), (0.018, 0, 0.280), (0.025, 0, 0.250)), BLACK)
    straps = [rod(0.010, ((s * 0.07, 0.06, 0.21), (s * 0.085, 0.085, 0.06)), BLACK) for s in (-1, 1)]
    return Form((*body, *pocket, *loop, *straps, box((0.070, 0.004, 0.003), (0, -0.052, 0.175), BLACK)))


def _suitcase(look: Look) -> Form:
    body = box((0.130, 0.055, 0.180), (0, 0, 0.200), look.rgb)
    ribs = [box((0.006, 0.057, 0.170), (x, 0, 0.200), darker(look.rgb, 0.8)) for x in (-0.09, -0.045, 0, 0.045, 0.09)]
    handle = chain([0.007] * 3, ((-0.05, 0, 0.38), (-0.05, 0, 0.47), (0.05, 0, 0.47), (0.05, 0, 0.38)), BLACK)
    return Form(
        (body, *ribs, *handle, *(sphere(0.018, (x, y, 0.018), BLACK) for x in (-0.1, 0.1) for y in (-0.03, 0.03)))
    )


def _handbag(look: Look) -> Form:
    bag = moved(
        (prism(((-0.095, 0), (0.095, 0), (0.070, 0.120), (-0.070, 0.120)), (-0.035, 0.035), look.rgb),), turn=_UPRIGHT
    )
    handle = chain(
        [0.006] * 6,
        [(0.055 * np.cos(a), 0, 0.115 + 0.085 * np.sin(a)) for a in np.linspace(0, np.pi, 7)],
        darker(look.rgb),
    )
    flap = moved(
        (
            prism(
                ((-0.075, 0.06), (0, 0.04), (0.075, 0.06), (0.070, 0.122), (-0.070, 0.122)),
                (0.030, 0.038),
                darker(look.rgb, 0.8),
            ),
        ),
        turn=_UPRIGHT,
    )
    return Form((*bag, *handle, *flap, sphere(0.009, (0, -0.040, 0.055), (0.85, 0.7, 0.25))))


def _shoe(look: Look) -> Form:
    sole = ellipsoid((0.120, 0.040, 0.012), (0, 0, 0.012), WHITE)
    toe = ellipsoid((0.065, 0.037, 0.032), (0.052, 0, 0.028), look.rgb)
    heel = lathe(((0.038, 0.012), (0.036, 0.06), (0.033, 0.085)), look.rgb)
    tongue = ellipsoid((0.050, 0.026, 0.022), (0.005, 0, 0.055), look.rgb, turn=about("y", 0.45))
    laces = [
        box((0.004, 0.022, 0.003), (x, 0, z), WHITE, turn=about("y", 0.5))
        for x, z in ((0.012, 0.075), (0.030, 0.066), (0.048, 0.058))
    ]
    return Form(
        (
            sole,
            toe,
            *moved((heel,), (-0.066, 0, 0)),
            tongue,
            *laces,
            disc(0.026, (0.0855, 0.0865), BLACK, xy=(-0.066, 0)),
        )
    )


def _boot(look: Look) -> Form:
    shaft = moved((lathe(((0.042, 0.02), (0.038, 0.12), (0.046, 0.26)), look.rgb),), (-0.055, 0, 0))
    foot = ellipsoid((0.100, 0.043, 0.045), (0.015, 0, 0.045), look.rgb)
    return Form(
        (
            *shaft,
            foot,
            ellipsoid((0.112, 0.046, 0.012), (0.010, 0, 0.012), BLACK),
            disc(0.048, (0.245, 0.262), look.accent_rgb, xy=(-0.055, 0)),
            disc(0.040, (0.262, 0.263), BLACK, xy=(-0.055, 0)),
        )
    )


def _glasses(look: Look) -> Form:
    parts: list = []
    for s in (-1, 1):
        points = [(s * 0.036 + 0.026 * np.cos(a), -0.04, 0.028 + 0.022 * np.sin(a)) for a in np.arange(9) * np.pi / 4]
        parts += [
            *chain([0.0035] * 8, points, look.rgb),
            rod(0.003, ((s * 0.062, -0.04, 0.034), (s * 0.066, 0.070, 0.024)), look.rgb),
        ]
        parts.append(
            cylinder(0.024, ((s * 0.036, -0.041, 0.028), (s * 0.036, -0.039, 0.028)), (0.5, 0.6, 0.7)).clear(0.4)
        )
    return Form((*parts, rod(0.003, ((-0.010, -0.04, 0.034), (0.010, -0.04, 0.034)), look.rgb)))


def _watch(look: Look) -> Form:
    points = [(0.032 * np.cos(a), 0.0, 0.032 + 0.028 * np.sin(a)) for a in np.arange(11) * np.pi / 5]
    strap = [
        box(
            (0.0025, 0.012, 0.011),
            tuple(np.add(p, q) / 2),
            look.rgb,
            turn=about("y", -np.arctan2(q[2] - p[2], q[0] - p[0]) + np.pi / 2),
        )
        for p, q in pairwise(points)
    ]
    face = [disc(0.020, (0.060, 0.068), (0.85, 0.7, 0.25)), disc(0.016, (0.068, 0.0686), WHITE)]
    return Form(
        (
            *strap,
            *face,
            box((0.001, 0.006, 0.0006), (0, 0.005, 0.069), BLACK),
            box((0.005, 0.001, 0.0006), (0.004, 0, 0.069), BLACK),
        )
    )


_home = partial(ThingKind, is_handled=False, family="things of a home")
_worn = partial(ThingKind, is_handled=False, family="things to wear or carry")

KINDS = (
    _home(name="lamp", form=_lamp, synonyms=("table lamp", "bedside lamp")),
    _home(name="desk lamp", form=_desk_lamp, synonyms=("reading lamp",)),
    _home(name="vase", form=_vase, synonyms=("flower vase", "vase of flowers"), patterns=PATTERNS[:2]),
    _home(
        name="potted plant",
        form=_potted_plant,
        synonyms=("house plant", "pot plant"),
        colours=("brown", "white", "blue", "red", "beige"),
    ),
    _home(name="cactus", form=_cactus, plural="cacti", colours=("brown", "white", "blue", "red", "yellow")),
    _home(name="clock", form=_clock, synonyms=("round clock",)),
    _home(name="alarm clock", form=_alarm_clock),
    _home(
        name="picture frame",
        form=_picture,
        synonyms=("framed picture", "photo frame"),
        colours=("wooden", "black", "white", "golden", "silver"),
    ),
    _home(name="teapot", form=_teapot, synonyms=("tea pot",)),
    _home(name="frying pan", form=_frying_pan, synonyms=("pan", "skillet"), colours=("black", "silver", "red", "blue")),
    _home(
        name="cutting board", form=_cutting_board, synonyms=("chopping board",), colours=("wooden", "white", "green")
    ),
    _home(
        name="pepper mill", form=_pepper_mill, synonyms=("pepper grinder",), colours=("wooden", "black", "white", "red")
    ),
    _home(name="bucket", form=_bucket, synonyms=("pail",)),
    _home(name="watering can", form=_watering_can),
    _worn(name="umbrella", form=_umbrella, synonyms=("open umbrella",)),
    _worn(name="backpack", form=_backpack, synonyms=("rucksack",)),
    _worn(name="suitcase", form=_suitcase, synonyms=("travel case",)),
    _worn(name="handbag", form=_handbag, synonyms=("purse",)),
    _worn(name="shoe", form=_shoe, synonyms=("sneaker", "trainer")),
    _worn(name="boot", form=_boot, synonyms=("rubber boot",)),
    _worn(name="glasses", form=_glasses, synonyms=("spectacles", "pair of glasses"), plural="glasses"),
    _worn(name="watch", form=_watch, synonyms=("wristwatch",), plural="watches"),
)
