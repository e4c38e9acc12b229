"""All kinds of things: those that robots handle, those that are only looked at, and those that training never sees."""

from collections.abc import Sequence

import numpy as np

from pilot.names import check_name
from pilot.sims.world.things import (
    clothes,
    dishes,
    food,
    household,
    rubbish,
    seen_food,
    seen_home,
    seen_leisure,
    seen_machines,
    toys,
)
from pilot.sims.world.things.kind import ThingKind
from pilot.sims.world.things.looks import Look

_MODULES = (dishes, food, rubbish, toys, clothes, household, seen_food, seen_home, seen_leisure, seen_machines)

KINDS: dict[str, ThingKind] = {kind.name: kind for module in _MODULES for kind in module.KINDS}
FAMILIES: tuple[str, ...] = tuple(dict.fromkeys(kind.family for kind in KINDS.values()))
HELD_OUT_KINDS: tuple[str, ...] = tuple(name for name, kind in KINDS.items() if kind.is_held_out)


def find_kind(name: str) -> ThingKind:
    """Return the kind of that name.

    Raises:
        ValueError: there is none; the message has the nearest.
    """
    return KINDS[check_name("thing", name, KINDS)]


def handled_kinds(*, families: Sequence[str] | None = None, held_out: bool = False) -> tuple[ThingKind, ...]:
    """Return the kinds that a robot can grasp: those of training, or with `held_out` those that only tests have.

    Raises:
        ValueError: an unknown family.
    """
    chosen = [check_name("family of things", family, FAMILIES) for family in families or FAMILIES]
    return tuple(
        kind for kind in KINDS.values() if kind.is_handled and kind.is_held_out == held_out and kind.family in chosen
    )


def looked_at_kinds() -> tuple[ThingKind, ...]:
    """Return the kinds that no robot handles: they appear in pictures with questions only."""
    return tuple(kind for kind in KINDS.values() if not kind.is_handled)


def draw_things(
    rng: np.random.Generator,
    count: int,
    *,
    kinds: Sequence[ThingKind],
    colours: Sequence[str] | None = None,
) -> list[tuple[ThingKind, Look]]:
    """Draw things that can be told apart: no name or synonym of one fits another.

    `colours` are those that they may have, where their kind comes in them; else those of training.

    Raises:
        ValueError: there are not so many different things of these kinds.
    """
    drawn: list[tuple[ThingKind, Look]] = []
    taken: set[str] = set()
    for _ in range(40 * count):
        if len(drawn) == count:
            return drawn
        kind = kinds[int(rng.integers(len(kinds)))]
        known = colours if colours is None or set(colours) & set(kind.colours) else None
        look = kind.draw_look(rng, colours=known)
        if not taken & set(kind.names(look)):
            taken |= set(kind.names(look))
            drawn.append((kind, look))
    if len(drawn) < count:
        names = ", ".join(kind.name for kind in kinds[:4])
        raise ValueError(f"could not draw {count} things with different names of {len(kinds)} kinds ({names}…)")
    return drawn
