"""One move: put a thing into a container, or onto another surface."""

from pilot.sims.rooms.stage import VESSELS, Stage
from pilot.sims.rooms.tasks.kind import CLUTTER, TaskKind, clutter, move_step
from pilot.sims.world.scene import ImpossibleSceneError, Item
from pilot.sims.world.task import Step

Drawn = tuple[str, tuple[Step, ...]]


def draw_put_in(stage: Stage) -> Drawn:
    """Put a thing into an open container; on level 1 into one close by."""
    surface = stage.pick(stage.surfaces)
    if not stage.containers_near(surface) or stage.rng.uniform() < 0.5:
        stage.add_vessel(stage.pick(name for name in VESSELS if name != "box"), where=surface)
    near = stage.containers_near(surface)
    place = stage.pick(near if stage.level == 1 and near else stage.containers)
    item = stage.add_item(stage.draw_kind(CLUTTER[stage.room.name], place=place), where=surface)
    return _finish(stage, item, place, surface, request="put_in")


def draw_put_on(stage: Stage) -> Drawn:
    """Carry a thing to another surface."""
    surface = stage.pick(stage.surfaces)
    place = stage.pick(name for name in stage.surfaces if name != surface)
    item = stage.add_item(stage.draw_kind(CLUTTER[stage.room.name]), where=surface)
    return _finish(stage, item, place, surface, request="put_on")


def draw_follow(stage: Stage) -> Drawn:
    """Put the one of several things that is named, two of them often alike, into a container."""
    surface = stage.surfaces[0]
    for name in ("basket", "tray") if stage.rng.uniform() < 0.5 else ("tray", "crate"):
        near = stage.containers_near(surface)
        if name not in near and len(near) < (1 if stage.body.name == "arm" else 2):
            stage.add_vessel(name, where=surface)
    place = stage.pick(stage.containers_near(surface))
    item = stage.add_item(stage.draw_kind(CLUTTER[stage.room.name], place=place, largest=0.08), where=surface)
    stage.start_at(item.name)
    stage.add_like(item, where=surface)
    stage.add_clutter(CLUTTER[stage.room.name], 3, where=surface)
    if len(stage.items) < 3:
        raise ImpossibleSceneError(f"no room for several things on the {surface}")
    return stage.say("put_in", thing=stage.call(item), place=place), (move_step(stage, item, place),)


def _finish(stage: Stage, item: Item, place: str, surface: str, *, request: str) -> Drawn:
    stage.start_at(item.name)
    if stage.level > 1:
        stage.add_like(item, where=surface)
    clutter(stage, where=surface)
    return stage.say(request, thing=stage.call(item), place=place), (move_step(stage, item, place),)


TASKS = (
    TaskKind(name="put_in", length="move", suits=lambda stage: True, draw=draw_put_in),
    TaskKind(name="follow", length="move", suits=lambda stage: True, draw=draw_follow, on_request=True),
    TaskKind(
        name="put_on",
        length="move",
        suits=lambda stage: len(stage.surfaces) > 1 and stage.level > 1,
        draw=draw_put_on,
    ),
)
