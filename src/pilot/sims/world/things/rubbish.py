"""Rubbish: what belongs in the bin."""

from functools import partial

import numpy as np

from pilot.sims.world.things.grasps import above, around
from pilot.sims.world.things.kind import Form, ThingKind
from pilot.sims.world.things.looks import BLACK, WHITE, Look, darker, lighter
from pilot.sims.world.things.pieces import about, box, cylinder, disc, ellipsoid, lathe, lump, moved, only_seen, rod

_CARDBOARD = (0.72, 0.55, 0.36)


def _crumpled_paper(look: Look) -> Form:
    ball = lump(0.034, look.rgb, look.rng(), roughness=0.07)
    middle = ball.reach(np.array([0, 0, -1.0]))
    ball = moved((ball,), (0, 0, middle))[0]
    rng, creases = look.rng(), []
    for angle in rng.uniform(0, 2 * np.pi, 5):
        start, end = 0.032 * np.array([np.cos(angle), np.sin(angle), 0.4]), np.array([0.0, 0.012, 0.033])
        creases.append(
            rod(0.0015, (tuple(start + (0, 0, middle)), tuple(end + (0, 0, middle))), darker(look.rgb, 0.75))
        )
    return Form((ball.rolling(), *only_seen(*creases)), around(0.030, 0.035))


def _crushed_can(look: Look) -> Form:
    """A drink can that is bent in the middle; it lies."""
    tin, bend = (0.80, 0.81, 0.83), 0.22
    halves, ends = [], []
    for sign in (-1, 1):
        outer = (sign * 0.052, -0.052 * np.tan(bend), 0.026)
        halves.append(cylinder(0.026, ((0, 0, 0.026), outer), look.rgb).rolling())
        further = tuple(np.array(outer) + 0.006 * np.array([sign, -np.tan(bend), 0]))
        ends.append(cylinder(0.021, (outer, further), tin).only_seen())
    dent = [
        box((0.006, 0.022, 0.002), (x, 0.002, 0.051), darker(look.rgb, 0.5), turn=about("z", 0.4))
        for x in (-0.012, 0.010)
    ]
    return Form((*halves, *ends, *only_seen(*dent)), above((0, 0, 0.027), 0.028))


def _wrapper(look: Look) -> Form:
    body = rod(0.014, ((-0.018, 0, 0.014), (0.018, 0, 0.014)), look.rgb)
    base = box((0.026, 0.012, 0.004), (0, 0, 0.004), look.rgb)
    twists = []
    for turn in (0, np.pi):
        cone = lathe(((0.004, 0.028), (0.018, 0.058)), look.accent_rgb, sides=8)
        twists += moved((cone,), (0, 0, 0.018), turn=about("z", turn) @ about("y", np.pi / 2))
    stripe = [cylinder(0.0146, ((x, 0, 0.014), (x + 0.006, 0, 0.014)), look.accent_rgb) for x in (-0.014, 0.008)]
    return Form((body, base, *twists, *only_seen(*stripe)), above((0, 0, 0.0205), 0.014))


def _empty_bottle(look: Look) -> Form:
    """A plastic bottle that lies on its side, pressed flat enough not to roll."""
    tint = lighter(look.rgb, 0.45)
    profile = ((0.026, -0.085), (0.029, -0.07), (0.025, -0.02), (0.029, 0.03), (0.012, 0.065), (0.011, 0.08))
    body = moved((lathe(profile, tint, sides=10),), (0, 0, 0.0285), turn=about("y", np.pi / 2))[0].clear(0.6)
    flat = box((0.060, 0.016, 0.004), (-0.025, 0, 0.004), tint).clear(0.6)
    cap = cylinder(0.014, ((0.080, 0, 0.0285), (0.094, 0, 0.0285)), look.rgb)
    label = cylinder(0.0285, ((-0.035, 0, 0.0285), (0.0, 0, 0.0285)), look.rgb).only_seen()
    return Form((body, flat, cap, label), above((-0.015, 0, 0.030), 0.028))


def _paper_cup(look: Look) -> Form:
    height = 0.100 * look.stretch
    cup = lathe(((0.026, 0), (0.035, height)), WHITE).rolling()
    low, high = height * 0.3, height * 0.75
    sleeve = lathe(((0.0275 + 0.009 * 0.3, low), (0.0275 + 0.009 * 0.75, high)), look.rgb).only_seen()
    lid = (disc(0.037, (height, height + 0.007), BLACK).rolling(), disc(0.031, (height + 0.007, height + 0.013), BLACK))
    return Form((cup, sleeve, *lid), around(height - 0.020, 0.034))


def _apple_core(look: Look) -> Form:
    flesh = (0.93, 0.88, 0.68)
    ends = [ellipsoid((0.013, 0.022, 0.019), (s * 0.027, 0, 0.019), look.rgb).rolling() for s in (-1, 1)]
    middle = cylinder(0.012, ((-0.025, 0, 0.018), (0.025, 0, 0.018)), flesh)
    rims = [cylinder(0.0175, ((s * 0.016, 0, 0.0185), (s * 0.020, 0, 0.0185)), flesh) for s in (-1, 1)]
    stalk = rod(0.002, ((0.038, 0, 0.019), (0.056, 0.004, 0.021)), (0.32, 0.22, 0.10))
    return Form((*ends, middle, *only_seen(*rims, stalk)), above((0, 0, 0.0205), 0.018))


def _small_box(look: Look) -> Form:
    half_x, half_z = 0.052 * look.stretch, 0.026
    body = box((half_x, 0.036, half_z), (0, 0, half_z), _CARDBOARD)
    tape = box((half_x + 0.0006, 0.008, half_z + 0.0006), (0, 0, half_z), look.rgb).only_seen()
    label = box((0.016, 0.010, 0.0006), (-0.026, 0.020, 2 * half_z), WHITE).only_seen()
    return Form((body, tape, label), above((0, 0, 0.034), 0.036))


def _egg_shell(look: Look) -> Form:
    shell = lathe(((0.010, 0), (0.021, 0.010), (0.025, 0.026)), look.rgb, sides=10)
    inside = disc(0.021, (0.026, 0.0268), (0.98, 0.97, 0.93))
    spikes = [
        box((0.006, 0.0015, 0.005), (0.022 * np.cos(a), 0.022 * np.sin(a), 0.027), look.rgb, turn=about("z", a + 1.57))
        for a in np.arange(5) * 1.257
    ]
    return Form((shell, *only_seen(inside, *spikes)), around(0.0205, 0.023))


_rubbish = partial(ThingKind, family="rubbish")
_PRINT = ("red", "green", "blue", "yellow", "purple", "orange", "turquoise", "pink")

KINDS = (
    _rubbish(
        name="crumpled paper",
        form=_crumpled_paper,
        synonyms=("paper ball", "ball of paper"),
        plural="crumpled papers",
        mass=0.02,
        colours=("white", "yellow", "grey"),
    ),
    _rubbish(name="crushed can", form=_crushed_can, synonyms=("empty can", "squashed can"), mass=0.03, colours=_PRINT),
    _rubbish(name="wrapper", form=_wrapper, synonyms=("candy wrapper", "sweet wrapper"), mass=0.02, colours=_PRINT),
    _rubbish(
        name="empty bottle",
        form=_empty_bottle,
        synonyms=("plastic bottle", "squashed bottle"),
        mass=0.04,
        colours=("blue", "green", "red"),
    ),
    _rubbish(
        name="paper cup",
        form=_paper_cup,
        synonyms=("takeaway cup", "disposable cup"),
        mass=0.04,
        colours=("brown", "red", "green", "blue"),
    ),
    _rubbish(name="apple core", form=_apple_core, synonyms=("eaten apple",), mass=0.04, colours=("red", "green")),
    _rubbish(
        name="cardboard box",
        form=_small_box,
        synonyms=("small box", "empty box"),
        plural="cardboard boxes",
        mass=0.06,
        colours=("brown", "blue", "red"),
    ),
    _rubbish(
        name="egg shell",
        form=_egg_shell,
        synonyms=("broken egg",),
        mass=0.02,
        colours=("white", "beige"),
        is_held_out=True,
    ),
)
