"""A whole room: clean the kitchen, tidy the bedroom or the living room, make the bed, clear a table. Minutes long."""

from pilot.sims.rooms.stage import Stage
from pilot.sims.rooms.tasks.kind import CLUTTER, TaskKind, blanket_step, close_step, move_step, spill_step
from pilot.sims.rooms.tasks.skills import openings
from pilot.sims.rooms.tasks.steps import ROOM_SORTS, SORTS, place_for, scatter
from pilot.sims.world.scene import ImpossibleSceneError
from pilot.sims.world.task import Step
from pilot.sims.world.things import find_kind

Drawn = tuple[str, tuple[Step, ...]]


def draw_clean_room(stage: Stage) -> Drawn:
    """Bring everything where it belongs, wipe up, and close what is open."""
    rng, steps = stage.rng, list[Step]()
    sorts = [str(s) for s in rng.permutation(ROOM_SORTS[stage.room.name])]
    for sort, low, high in zip(sorts, (2, 1, 1), (3, 2, 2), strict=False):
        place = place_for(stage, sort)
        for item in scatter(stage, SORTS[sort][0], count=int(rng.integers(low, high + 1)), place=place):
            steps.append(move_step(stage, item, place))
    if stage.room.name == "kitchen" and rng.uniform() < 0.6:
        steps.append(spill_step(stage, stage.pick(stage.firm_surfaces)))
    if rng.uniform() < 0.6:
        name = stage.pick(openings(stage))
        stage.leave_open(name)
        steps.append(close_step(name))
    if stage.room.name == "bedroom":
        steps += _bed_steps(stage)
    stage.start_at(stage.surfaces[0])
    return stage.say("clean_room", room=stage.room.name), tuple(steps)


def draw_make_bed(stage: Stage) -> Drawn:
    """Clear the bed, put the pillow at its head, and pull the blanket up."""
    steps = []
    count = int(stage.rng.integers(1, 4))
    for item in scatter(stage, ("clothes",), count=count, place="laundry basket", where="bed"):
        steps.append(move_step(stage, item, "laundry basket"))
    steps += _bed_steps(stage)
    stage.start_at("bed")
    stage.add_clutter(CLUTTER["bedroom"], int(stage.rng.integers(1, 4)))
    return stage.say("make_bed"), tuple(steps)


def _bed_steps(stage: Stage) -> list[Step]:
    """Lay the pillow where it does not belong; return the steps that make the bed."""
    where = "bed" if stage.rng.uniform() < 0.6 else "desk"
    pillow = stage.add_item(find_kind("pillow"), where=where)
    return [move_step(stage, pillow, "head of the bed"), blanket_step()]


def draw_clear_surface(stage: Stage) -> Drawn:
    """Sort everything on one surface into two or three containers."""
    surface = stage.surfaces[0] if stage.station else stage.pick(stage.surfaces[:2])
    steps = []
    sorts = [str(s) for s in stage.rng.permutation(ROOM_SORTS[stage.room.name])][:2]
    places = {sort: place_for(stage, sort, where=surface) for sort in sorts}
    if len(set(places.values())) < len(places) and not stage.station:
        raise ImpossibleSceneError("two sorts of things would go to one place")
    for sort, place in places.items():
        for item in scatter(stage, SORTS[sort][0], count=int(stage.rng.integers(1, 4)), place=place, where=surface):
            steps.append(move_step(stage, item, place))
    if len(steps) < 3:
        raise ImpossibleSceneError("too little lies on the surface")
    stage.start_at(surface)
    return stage.say("clear_surface", place=surface), tuple(steps)


TASKS = (
    TaskKind(name="clean_room", length="room", suits=lambda stage: stage.body.is_mobile, draw=draw_clean_room),
    TaskKind(
        name="make_bed",
        length="room",
        suits=lambda stage: stage.body.is_mobile,
        draw=draw_make_bed,
        rooms=("bedroom",),
    ),
    TaskKind(name="clear_surface", length="room", suits=lambda stage: True, draw=draw_clear_surface),
)
