"""One skill: pick a thing up, open, close, wipe, pull the blanket up."""

from pilot.sims.rooms import language
from pilot.sims.rooms.stage import Stage
from pilot.sims.rooms.tasks.kind import (
    CLUTTER,
    TaskKind,
    blanket_step,
    close_step,
    clutter,
    noun,
    open_step,
    spill_step,
)
from pilot.sims.world.goals import Holding
from pilot.sims.world.task import Step

Drawn = tuple[str, tuple[Step, ...]]


def openings(stage: Stage) -> list[str]:
    """Return the drawers, doors and lids that this robot can use and that are closed."""
    names = (name for name, fixture in stage.fixtures.items() if fixture.joint and name != "blanket")
    return [name for name in names if name not in stage.opened]


def draw_pick(stage: Stage) -> Drawn:
    """Pick up one of several things."""
    surface = stage.pick(stage.surfaces)
    kind = stage.draw_kind(CLUTTER[stage.room.name])
    item = stage.add_item(kind, where=surface)
    stage.start_at(item.name)
    stage.add_like(item, where=surface)
    clutter(stage, where=surface)
    step = Step(goal=Holding(item=item.name), subtasks=(language.pick_subtask(item.name),), skill="pick")
    return stage.say("pick", thing=stage.call(item)), (step,)


def draw_open(stage: Stage) -> Drawn:
    """Open a drawer, a door or a lid."""
    fixture = stage.pick(openings(stage) or [f"{stage.add_vessel('box')} lid"])
    stage.start_at(fixture)
    clutter(stage)
    return stage.say("open", place=noun(fixture)), (open_step(fixture),)


def draw_close(stage: Stage) -> Drawn:
    """Close what stands open."""
    fixture = stage.pick(openings(stage) or [f"{stage.add_vessel('box')} lid"])
    stage.leave_open(fixture)
    stage.start_at(fixture)
    clutter(stage)
    return stage.say("close", place=noun(fixture)), (close_step(fixture),)


def draw_wipe(stage: Stage) -> Drawn:
    """Wipe up a spill with a sponge."""
    surface = stage.pick(stage.firm_surfaces)
    step = spill_step(stage, surface)
    stage.start_at(step.goal.item or surface)
    clutter(stage, where=surface)
    return stage.say("wipe", place=surface), (step,)


def draw_pull_blanket(stage: Stage) -> Drawn:
    """Pull the blanket up to the pillow."""
    stage.start_at("blanket")
    clutter(stage)
    return stage.say("pull_blanket"), (blanket_step(),)


TASKS = (
    TaskKind(name="pick", length="skill", suits=lambda stage: True, draw=draw_pick),
    TaskKind(name="grasp", length="skill", suits=lambda stage: True, draw=draw_pick, on_request=True, seconds=9.0),
    TaskKind(name="open", length="skill", suits=lambda stage: True, draw=draw_open),
    TaskKind(name="close", length="skill", suits=lambda stage: True, draw=draw_close),
    TaskKind(name="wipe", length="skill", suits=lambda stage: bool(stage.firm_surfaces), draw=draw_wipe),
    TaskKind(
        name="pull_blanket",
        length="skill",
        suits=lambda stage: stage.body.is_mobile,
        draw=draw_pull_blanket,
        rooms=("bedroom",),
    ),
)
