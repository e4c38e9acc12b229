"""Many steps: several things into one place, things into a drawer or a box that is closed again, all that is open."""

from collections.abc import Sequence
from contextlib import suppress

import numpy as np

from pilot.sims.rooms.language import list_words
from pilot.sims.rooms.stage import VESSELS, Stage, lid_of
from pilot.sims.rooms.tasks.kind import CLUTTER, TaskKind, close_step, clutter, move_step, put_away_steps, spill_step
from pilot.sims.rooms.tasks.skills import openings
from pilot.sims.world.scene import ImpossibleSceneError, Item
from pilot.sims.world.task import Step

Drawn = tuple[str, tuple[Step, ...]]

SORTS = {  # what people sort: how they call it, its families, and where it may go, the best first
    "dishes": (("dishes",), ("sink", "tray", "crate")),
    "rubbish": (("rubbish",), ("bin", "crate", "basket")),
    "food": (("food",), ("basket", "crate", "tray")),
    "clothes": (("clothes",), ("laundry basket", "basket", "crate")),
    "toys": (("toys", "stuffed animals"), ("toy box", "crate", "basket")),
    "books and papers": (("books and papers",), ("shelf", "crate", "tray")),
}
ROOM_SORTS = {
    "kitchen": ("dishes", "rubbish", "food"),
    "bedroom": ("clothes", "toys", "books and papers"),
    "living room": ("toys", "rubbish", "books and papers", "food"),
}
SMALL = ("cutlery", "small things", "bathroom things")  # families that go into drawers


def place_for(stage: Stage, sort: str, *, where: str | None = None) -> str:
    """Return where a sort of things goes; where the room has no such place, a container is put on a surface.

    On level 1 the place is near the surface `where`. A box for toys stands open.

    Raises:
        ImpossibleSceneError: there is no room for it.
    """
    for place in SORTS[sort][1]:
        if place == "toy box" and place in stage.lidded:
            stage.leave_open(lid_of(place))
        if place in stage.fixtures and (where is None or stage.level > 1 or place in stage.containers_near(where)):
            return place
    new = [place for place in (*SORTS[sort][1], "tray") if place in VESSELS and place not in stage.fixtures]
    for place in new[:-1]:
        with suppress(ImpossibleSceneError):
            return stage.add_vessel(place, where=where)
    return stage.add_vessel(new[-1], where=where)


def draw_all_in(stage: Stage) -> Drawn:
    """Put all things of a sort where they belong, and leave the others."""
    sort = stage.pick(ROOM_SORTS[stage.room.name])
    surface = stage.pick(stage.surfaces)
    place = place_for(stage, sort, where=surface)
    items = scatter(stage, SORTS[sort][0], count=_count(stage, 2, 4), place=place)
    stage.start_at(items[0].name)
    others = [family for family in CLUTTER[stage.room.name] if family not in SORTS[sort][0]]
    stage.add_clutter(others, int(stage.rng.integers(1, 3 + stage.level)))
    request = "all_on" if stage.room.fixtures[place].role == "surface" else "all_in"
    return stage.say(request, things=sort, place=place), tuple(move_step(stage, item, place) for item in items)


def draw_put_two(stage: Stage) -> Drawn:
    """Put two named things into a container."""
    surface = stage.pick(stage.surfaces)
    if not stage.containers_near(surface):
        stage.add_vessel("basket" if stage.rng.uniform() < 0.5 else "tray", where=surface)
    place = stage.pick(stage.containers_near(surface) if stage.level == 1 else stage.containers)
    items = scatter(stage, CLUTTER[stage.room.name], count=2, place=place)
    if len(items) < 2:
        raise ImpossibleSceneError("no room for two things")
    stage.start_at(items[0].name)
    clutter(stage, where=surface)
    words = {"thing": stage.call(items[0]), "other": stage.call(items[1]), "place": place}
    return stage.say("put_two", **words), tuple(move_step(stage, item, place) for item in items)


def draw_into_drawer(stage: Stage) -> Drawn:
    """Put small things of one kind or two into a drawer, and close it."""
    drawer = stage.pick(stage.drawers)
    families = [f for f in SMALL if f in CLUTTER[stage.room.name]]
    items = scatter(stage, families[:1], count=_count(stage, 1, 3), place=drawer, tallest=0.05)
    stage.start_at(drawer)
    clutter(stage)
    return stage.say("put_away", things=call_all(items), place=drawer), put_away_steps(
        stage, items, place=drawer, joint=drawer
    )


def draw_into_box(stage: Stage) -> Drawn:
    """Put things into a box with a lid, and close it."""
    place = stage.pick(stage.lidded) if stage.lidded else stage.add_vessel("box")
    families = ("toys", "stuffed animals") if place == "toy box" else CLUTTER[stage.room.name]
    # What stands above the rim, or lies on something else, keeps a lid from closing.
    most, tallest, largest = (2, VESSELS[place][1] - 0.025, 0.06) if place in VESSELS else (3, 0.15, 0.09)
    items = scatter(stage, families, count=_count(stage, 1, most), place=place, tallest=tallest, largest=largest)
    stage.start_at(items[0].name)
    steps = put_away_steps(stage, items, place=place, joint=lid_of(place))
    clutter(stage)
    return stage.say("put_away", things=call_all(items), place=place), steps


def draw_close_all(stage: Stage) -> Drawn:
    """Close the drawers and doors that stand open, two or three of them."""
    names = _apart(stage, openings(stage), 2 + int(stage.rng.integers(2)))
    for name in names:
        stage.leave_open(name)
    stage.start_at(names[0])
    clutter(stage)
    return stage.say("close_all"), tuple(close_step(name) for name in names)


def draw_wipe_and_tidy(stage: Stage) -> Drawn:
    """Clear a thing away, wipe up the spill beside it, and put the sponge away."""
    surface = stage.pick(stage.firm_surfaces)
    place = stage.pick(stage.containers_near(surface) or [stage.add_vessel("tray", where=surface)])
    wipe = spill_step(stage, surface)
    assert wipe.goal.item is not None
    sponge = stage.items[wipe.goal.item]
    stage.start_at(sponge.name)
    clutter(stage, where=surface)
    after = move_step(stage, sponge, place, needs=(0,))
    words = {"place": surface, "thing": sponge.name, "into": place}
    return stage.say("wipe_and_put", **words), (wipe, after)


def scatter(
    stage: Stage,
    families: Sequence[str],
    *,
    count: int,
    place: str | None = None,
    tallest: float = np.inf,
    largest: float = 0.115,
    where: str | None = None,
) -> list[Item]:
    """Lay up to `count` things of these families about, none of them where it belongs.

    Raises:
        ImpossibleSceneError: there is room for none.
    """
    items: list[Item] = []
    surfaces = [where] if where else [name for name in stage.surfaces if name != place]
    if stage.level == 1 and where is None:
        surfaces = [stage.pick(surfaces)]
    first = int(stage.rng.integers(len(surfaces)))
    for i in range(count):
        kind = stage.draw_kind(families, place=place, tallest=tallest, largest=largest)
        try:
            items.append(stage.add_item(kind, where=surfaces[(first + i) % len(surfaces)], or_else=surfaces))
        except ImpossibleSceneError:
            if i == count - 1 and not items:
                raise
    return items


def call_all(items: Sequence[Item]) -> str:
    """Return the things in words, without "the": "spoons", "red block and blue ball"."""
    kinds = list(dict.fromkeys(item.kind.name for item in items))
    if len(kinds) == 1 and len(items) > 1:
        return items[0].kind.many()
    return list_words([item.name for item in items]).replace(", ", ", the ").replace(" and ", " and the ")


def _count(stage: Stage, low: int, high: int) -> int:
    return int(stage.rng.integers(low, max(low, high - (stage.level == 1)) + 1))


def _apart(stage: Stage, names: Sequence[str], count: int) -> list[str]:
    """Draw openings that do not hit each other: one drawer of a stack at most.

    Raises:
        ImpossibleSceneError: there are fewer than two.
    """
    chosen: list[str] = []
    for name in (str(n) for n in stage.rng.permutation(sorted(names))):
        x, y, _ = stage.room.fixtures[name].front or (0, 0, 0)
        fronts = [stage.room.fixtures[other].front or (0, 0, 0) for other in chosen]
        if all(abs(x - a) + abs(y - b) > 0.3 for a, b, _ in fronts):
            chosen.append(name)
    if len(chosen) < 2:
        raise ImpossibleSceneError("fewer than two things here open")
    return chosen[:count]


def has_drawer(stage: Stage) -> bool:
    """Whether the room has a drawer that this robot can pull."""
    return bool(stage.drawers)


TASKS = (
    TaskKind(name="all_in", length="steps", suits=lambda stage: True, draw=draw_all_in),
    TaskKind(name="put_two", length="steps", suits=lambda stage: True, draw=draw_put_two),
    TaskKind(name="into_drawer", length="steps", suits=has_drawer, draw=draw_into_drawer),
    TaskKind(name="into_box", length="steps", suits=lambda stage: True, draw=draw_into_box),
    TaskKind(name="close_all", length="steps", suits=lambda stage: stage.body.is_mobile, draw=draw_close_all),
    TaskKind(
        name="wipe_and_tidy", length="steps", suits=lambda stage: bool(stage.firm_surfaces), draw=draw_wipe_and_tidy
    ),
)
