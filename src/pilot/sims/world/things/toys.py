"""Toys, stuffed animals among them. Stuffed animals are stiff here, and only look soft."""

from functools import partial
from itertools import pairwise

import numpy as np

from pilot.sims.world.things.grasps import above, around
from pilot.sims.world.things.kind import Form, ThingKind
from pilot.sims.world.things.looks import BLACK, PATTERNS, TOY_PAINTS, WHITE, WOOD, Look, darker, lighter
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


def _ball(look: Look) -> Form:
    body = sphere(0.034, (0, 0, 0.034), look.rgb).rolling()
    marks = look.bands(0.0325, 0.008, 0.060) if look.pattern == "spotted" else ()
    if look.pattern == "striped":
        marks = only_seen(
            *(disc(r, (z - 0.006, z + 0.006), look.accent_rgb) for r, z in ((0.0347, 0.034), (0.026, 0.056)))
        )
    return Form((body, *marks), around(0.035, 0.034))


def _block(look: Look) -> Form:
    half = 0.028
    faces = [
        box((0.017, half + 0.0006, 0.017), (0, 0, half), look.accent_rgb),
        box((half + 0.0006, 0.017, 0.017), (0, 0, half), look.accent_rgb),
        box((0.017, 0.017, half + 0.0006), (0, 0, half), look.accent_rgb),
    ]
    body = box((half, half, half), (0, 0, half), look.rgb)
    return Form((body, *only_seen(*faces)), above((0, 0, 0.034), half, yaws=np.arange(4) * np.pi / 2))


def _duck(look: Look) -> Form:
    body = ellipsoid((0.046, 0.033, 0.028), (0, 0, 0.027), look.rgb).rolling()
    base = disc(0.024, (0, 0.010), look.rgb)
    head = sphere(0.023, (0.026, 0, 0.066), look.rgb).rolling()
    beak = box((0.010, 0.010, 0.004), (0.052, 0, 0.063), (0.95, 0.45, 0.05))
    eyes = [sphere(0.0045, (0.043, s * 0.012, 0.073), BLACK) for s in (-1, 1)]
    tail = ellipsoid((0.018, 0.014, 0.007), (-0.044, 0, 0.042), look.rgb, turn=about("y", 0.6))
    wings = [ellipsoid((0.022, 0.005, 0.013), (-0.006, s * 0.031, 0.032), darker(look.rgb, 0.85)) for s in (-1, 1)]
    grasps = above((-0.006, 0, 0.034), 0.034) + above((0.024, 0, 0.064), 0.023, part="head")
    return Form((base, body, head, *only_seen(beak, *eyes, tail, *wings)), grasps)


def _wheels(xs: tuple[float, ...], y: float, radius: float, rgb: Vec3 = BLACK) -> Pieces:
    wheels = []
    for x in xs:
        for s in (-1, 1):
            wheels.append(cylinder(radius, ((x, s * (y - 0.010), radius), (x, s * y, radius)), rgb))
            hub = cylinder(radius * 0.45, ((x, s * y, radius), (x, s * (y + 0.0008), radius)), (0.8, 0.8, 0.8))
            wheels.append(hub.only_seen())
    return tuple(wheels)


def _car(look: Look) -> Form:
    body = box((0.058, 0.027, 0.012), (0, 0, 0.022), look.rgb)
    cabin = box((0.028, 0.023, 0.012), (-0.006, 0, 0.046), look.rgb)
    glass = [
        box((0.0286, 0.018, 0.008), (-0.006, 0, 0.046), (0.55, 0.72, 0.85)),
        box((0.021, 0.0236, 0.008), (-0.006, 0, 0.046), (0.55, 0.72, 0.85)),
    ]
    lamps = [box((0.001, 0.005, 0.004), (0.058, s * 0.018, 0.024), (1.0, 0.95, 0.6)) for s in (-1, 1)]
    wheels = _wheels((-0.034, 0.034), 0.032, 0.015)
    return Form((body, cabin, *wheels, *only_seen(*glass, *lamps)), above((-0.004, 0, 0.038), 0.027))


def _train(look: Look) -> Form:
    body = box((0.052, 0.022, 0.008), (0, 0, 0.022), darker(look.rgb, 0.5))
    boiler = cylinder(0.019, ((-0.012, 0, 0.046), (0.050, 0, 0.046)), look.rgb)
    cab = box((0.018, 0.024, 0.026), (-0.034, 0, 0.054), look.accent_rgb)
    roof = box((0.022, 0.028, 0.003), (-0.034, 0, 0.083), BLACK)
    chimney = disc(0.008, (0.060, 0.086), BLACK, xy=(0.034, 0))
    windows = box((0.010, 0.0246, 0.009), (-0.034, 0, 0.063), (0.75, 0.88, 0.95)).only_seen()
    wheels = _wheels((-0.032, 0.0, 0.032), 0.026, 0.014, (0.75, 0.15, 0.10))
    return Form((body, boiler, cab, roof, chimney, windows, *wheels), above((-0.020, 0, 0.050), 0.026))


def _boat(look: Look) -> Form:
    outline = ((-0.055, -0.026), (0.020, -0.028), (0.062, 0), (0.020, 0.028), (-0.055, 0.026))
    hull = prism(outline, (0, 0.028), look.rgb)
    deck = prism([(x * 0.9, y * 0.86) for x, y in outline], (0.028, 0.030), WOOD).only_seen()
    cabin = box((0.020, 0.016, 0.012), (-0.022, 0, 0.042), WHITE)
    funnel = disc(0.008, (0.054, 0.076), look.accent_rgb, xy=(-0.022, 0))
    windows = [box((0.004, 0.0166, 0.004), (x, 0, 0.044), (0.3, 0.5, 0.7)) for x in (-0.034, -0.022, -0.010)]
    return Form((hull, deck, cabin, funnel, *only_seen(*windows)), above((-0.006, 0, 0.024), 0.028))


def _rocket(look: Look) -> Form:
    body = disc(0.024, (0.012, 0.090), look.rgb)
    nose = lathe(((0.024, 0.090), (0.017, 0.110), (0.003, 0.128)), look.accent_rgb, sides=10)
    fins = [
        box((0.016, 0.003, 0.018), (0.030 * np.cos(a), 0.030 * np.sin(a), 0.018), look.accent_rgb, turn=about("z", a))
        for a in np.arange(4) * np.pi / 2
    ]
    port = [sphere(0.010, (0.018 * np.cos(a), 0.018 * np.sin(a), 0.068), (0.65, 0.82, 0.95)) for a in (0.785, 3.927)]
    band = disc(0.0246, (0.038, 0.046), WHITE)
    return Form(
        (body, nose, *fins, *only_seen(*port, band)), above((0, 0, 0.080), 0.024, yaws=np.arange(8) * np.pi / 4)
    )


def _ring_toy(look: Look) -> Form:
    points = [(0.043 * np.cos(a), 0.043 * np.sin(a), 0.013) for a in np.arange(13) * np.pi / 6]
    tube = [rod(0.013, (a, b), look.side(k)) for k, (a, b) in enumerate(pairwise(points))]
    grasps = []
    for k in range(12):
        a = k * np.pi / 6
        grasps += above(
            (0.043 * np.cos(a), 0.043 * np.sin(a), 0.0205), 0.013, yaws=(a + np.pi / 2, a - np.pi / 2), part="rim"
        )
    return Form(tuple(tube), tuple(grasps))


def _dinosaur(look: Look) -> Form:
    rgb = look.rgb
    body = ellipsoid((0.046, 0.026, 0.026), (0, 0, 0.046), rgb).rolling()
    legs = [disc(0.010, (0, 0.040), darker(rgb, 0.85), xy=(x, s * 0.014)) for x in (-0.024, 0.024) for s in (-1, 1)]
    neck = chain((0.012, 0.011), ((0.034, 0, 0.056), (0.052, 0, 0.085), (0.058, 0, 0.108)), rgb)
    head = ellipsoid((0.022, 0.013, 0.012), (0.068, 0, 0.116), rgb).rolling()
    tail = chain((0.011, 0.006), ((-0.036, 0, 0.044), (-0.066, 0, 0.034), (-0.094, 0, 0.030)), rgb)
    plates = [prism(((-0.010, 0), (0.010, 0), (0, 0.016)), (-0.002, 0.002), look.accent_rgb) for _ in range(4)]
    spikes = [
        moved((p,), (x, 0, z), turn=about("x", np.pi / 2))[0]
        for p, x, z in zip(plates, (-0.034, -0.013, 0.010, 0.030), (0.060, 0.070, 0.071, 0.066), strict=True)
    ]
    eyes = [sphere(0.004, (0.074, s * 0.011, 0.121), BLACK) for s in (-1, 1)]
    return Form((body, *legs, *neck, head, *tail, *only_seen(*spikes, *eyes)), above((0, 0, 0.048), 0.026))


def _stacking_cup(look: Look) -> Form:
    cup = lathe(((0.034, 0), (0.026, 0.050)), look.rgb).rolling()
    rim = lathe(((0.037, 0), (0.0365, 0.008)), darker(look.rgb, 0.85)).rolling()
    dot = disc(0.015, (0.050, 0.0508), look.accent_rgb).only_seen()
    return Form((cup, rim, dot), around(0.032, 0.030))


def _dice(look: Look) -> Form:
    half, dots = 0.026, []
    for turn in (about("x", 0), about("x", np.pi / 2), about("y", np.pi / 2)):
        for side, xys in ((1, ((-1, -1), (1, 1), (0, 0))), (-1, ((-1, 0), (1, 0)))):
            dots += moved(
                [
                    disc(0.0055, (half - 0.001, half + 0.0006), look.accent_rgb, xy=(x * 0.014, y * 0.014))
                    for x, y in xys
                ],
                (0, 0, half),
                turn=turn if side > 0 else turn @ about("x", np.pi),
            )
    return Form(
        (box((half, half, half), (0, 0, half), look.rgb), *only_seen(*dots)),
        above((0, 0, 0.032), half, yaws=np.arange(4) * np.pi / 2),
    )


def _teddy(look: Look) -> Form:
    rgb, pale = look.rgb, lighter(look.rgb, 0.45)
    body = ellipsoid((0.036, 0.038, 0.044), (0, 0, 0.044), rgb)
    base = box((0.034, 0.030, 0.006), (0.010, 0, 0.006), rgb)
    head = sphere(0.034, (0.004, 0, 0.112), rgb)
    legs = [rod(0.015, ((0.014, s * 0.024, 0.016), (0.056, s * 0.034, 0.016)), rgb) for s in (-1, 1)]
    arms = [rod(0.011, ((0.004, s * 0.036, 0.070), (0.030, s * 0.046, 0.044)), rgb) for s in (-1, 1)]
    ears = [sphere(0.013, (0, s * 0.027, 0.140), darker(rgb, 0.8)) for s in (-1, 1)]
    muzzle = [sphere(0.015, (0.030, 0, 0.104), pale), sphere(0.006, (0.045, 0, 0.108), BLACK)]
    eyes = [sphere(0.0045, (0.031, s * 0.013, 0.121), BLACK) for s in (-1, 1)]
    belly = ellipsoid((0.012, 0.024, 0.028), (0.028, 0, 0.046), pale)
    soles = [sphere(0.010, (0.063, s * 0.034, 0.018), pale) for s in (-1, 1)]
    seen = only_seen(*ears, *muzzle, *eyes, belly, *soles, *arms)
    return Form((base, body, head, *legs, *seen), above((0.004, 0, 0.112), 0.034, part="head"))


def _rabbit(look: Look) -> Form:
    rgb, pale = look.rgb, lighter(look.rgb, 0.6)
    body = ellipsoid((0.034, 0.034, 0.040), (0, 0, 0.039), rgb)
    base = box((0.032, 0.028, 0.006), (0.006, 0, 0.006), rgb)
    head = sphere(0.028, (0.006, 0, 0.094), rgb).rolling()
    ears = [rod(0.009, ((0, s * 0.013, 0.116), (-0.006, s * 0.020, 0.162)), rgb) for s in (-1, 1)]
    inner = [rod(0.005, ((0.006, s * 0.014, 0.120), (0, s * 0.020, 0.160)), (0.95, 0.70, 0.74)) for s in (-1, 1)]
    feet = [ellipsoid((0.024, 0.012, 0.010), (0.034, s * 0.020, 0.010), pale) for s in (-1, 1)]
    eyes = [sphere(0.0045, (0.029, s * 0.012, 0.100), BLACK) for s in (-1, 1)]
    nose = [sphere(0.005, (0.034, 0, 0.090), (0.9, 0.45, 0.5)), sphere(0.013, (-0.036, 0, 0.026), WHITE)]
    return Form(
        (base, body, head, *ears, *feet, *only_seen(*inner, *eyes, *nose)), above((0.006, 0, 0.092), 0.028, part="head")
    )


_toy = partial(ThingKind, family="toys", colours=TOY_PAINTS)
_animal = partial(ThingKind, family="stuffed animals", scales=(0.90, 1.02))

KINDS = (
    _toy(name="ball", form=_ball, synonyms=("toy ball", "rubber ball"), mass=0.08, patterns=PATTERNS),
    _toy(name="block", form=_block, synonyms=("toy block", "building block", "cube"), mass=0.1),
    _toy(
        name="rubber duck",
        form=_duck,
        synonyms=("duck", "toy duck"),
        mass=0.06,
        colours=("yellow", "blue", "green", "purple", "pink"),
    ),
    _toy(name="toy car", form=_car, synonyms=("car",), mass=0.12),
    _toy(name="toy train", form=_train, synonyms=("train", "locomotive"), mass=0.15, is_held_out=True),
    _toy(name="toy boat", form=_boat, synonyms=("boat", "ship"), mass=0.12),
    _toy(name="toy rocket", form=_rocket, synonyms=("rocket", "spaceship"), mass=0.1),
    _toy(name="toy ring", form=_ring_toy, synonyms=("ring", "stacking ring"), mass=0.08, patterns=PATTERNS[:2]),
    _toy(name="dinosaur", form=_dinosaur, synonyms=("toy dinosaur", "dino"), mass=0.12),
    _toy(name="stacking cup", form=_stacking_cup, synonyms=("toy cup",), mass=0.05),
    _toy(
        name="dice", form=_dice, synonyms=("die",), plural="dice", mass=0.06, colours=("white", "red", "blue", "green")
    ),
    _animal(
        name="teddy bear",
        form=_teddy,
        synonyms=("teddy", "stuffed bear"),
        mass=0.15,
        colours=("brown", "beige", "white", "pink"),
    ),
    _animal(
        name="stuffed rabbit",
        form=_rabbit,
        synonyms=("bunny", "plush rabbit"),
        mass=0.12,
        colours=("white", "grey", "beige", "pink"),
    ),
)
