"""Put a roll of paper towels onto its holder, a rod on a foot."""

from dataclasses import dataclass

import numpy as np

from pilot.sims.lab.motions import put_exactly
from pilot.sims.lab.task import LabTask
from pilot.sims.lab.workbench import Area, Workbench, paint
from pilot.sims.world.goals import Goal
from pilot.sims.world.motions import UP, Motion, about
from pilot.sims.world.phrases import Phrasings
from pilot.sims.world.physics import Physics, add_geom
from pilot.sims.world.planner import Planner
from pilot.sims.world.scene import Scene, held_items
from pilot.sims.world.skills import pick
from pilot.sims.world.task import Step
from pilot.sims.world.things import Look, ThingKind
from pilot.sims.world.things.grasps import around
from pilot.sims.world.things.kind import Form
from pilot.sims.world.things.pieces import disc, ring

ROLL, HOLDER = "paper towel roll", "roll holder"
FOOT, ROD = 0.012, 0.13  # heights of the foot and of the rod's end above the table [m]

PHRASINGS = Phrasings.of(
    (
        "put the {paper roll|paper towel roll|paper towels|roll} {on|onto} {the|its} holder",
        "{replace|refill} the paper towels",
        "{hang|slide} the {paper roll|roll} {on|over} the {rod|holder}",
    ),
    held_out=(
        "the paper towels are out, put up the new roll",
        "load the kitchen roll {dispenser|stand}",
        "the roll belongs on the rod",
    ),
)


def _form(look: Look) -> Form:
    paper = ring(0.029, (0, 0.15), lambda _: look.rgb, sides=10, thick=0.007)
    print_ = disc(0.0362, (0.06, 0.064), look.accent_rgb).only_seen()
    return Form((*paper, print_.clear(0.4)), around(0.115, 0.037))


KIND = ThingKind(name=ROLL, family="household", form=_form, mass=0.12, colours=("white",), scales=(0.98, 1.02))


@dataclass(frozen=True)
class OnHolder(Goal):
    """The roll is around the rod and stands on the foot, and nobody holds it."""

    item: str = ROLL
    fixture: str = HOLDER

    def holds(self, world: Physics, scene: Scene) -> bool:
        offset = world.pos(scene.items[self.item].body) - world.pos(HOLDER)
        is_down = np.linalg.norm(offset[:2]) < 0.02 and offset[2] < FOOT + 0.02
        return bool(is_down) and self.item not in held_items(world, scene)


def lay_out(bench: Workbench, level: int) -> list[Step]:
    """Put the holder on one side and the roll on the other."""
    rng = bench.rng
    side = 1 if rng.random() < 0.5 else -1
    spread = 0.5 * level
    middle = Area((0.34 - 0.04 * spread, 0.34 + 0.04 * spread), (0.10 - 0.06 * spread, 0.10 + 0.06 * spread))
    xy = middle.draw(rng) * [1, side]
    holder = bench.fixed(HOLDER, xy)
    rgb = paint(rng, (0.42, 0.30, 0.20), spread=0.15)
    add_geom(holder, "cylinder", size=(0.06, FOOT / 2), pos=(0, 0, FOOT / 2), rgb=rgb)
    half = (ROD - FOOT) / 2 - 0.005
    add_geom(holder, "capsule", size=(0.010, half), pos=(0, 0, FOOT + half), rgb=rgb)
    bench.region(HOLDER, holder, centre=(0, 0, 0.08), half=(0.05, 0.05, 0.08))
    bench.take(xy, 0.07)
    look = KIND.draw_look(rng)
    spot = bench.find_spot(Area((0.30, 0.40), (-0.30, -0.08) if side > 0 else (0.08, 0.30)), 0.05, height=0.15)
    bench.place(KIND, look, spot, yaw=float(rng.uniform(-np.pi, np.pi)))
    words = (f"pick up the {ROLL}", f"put the {ROLL} on the {HOLDER}")
    return [Step(goal=OnHolder(), subtasks=words, skill="roll")]


def put_roll(planner: Planner, step: Step, rng: np.random.Generator) -> Motion:
    """Pick the roll up, unless it is held, bring it over the rod and lower it."""
    item = planner.scene.items[ROLL]
    foot = planner.world.pos(HOLDER) + FOOT * UP
    if planner.holder(ROLL) is None:
        yield from pick(planner, item, rng=rng, to=planner.scene.fixtures[HOLDER])
    now = planner.world.rot(item.body)
    yaw = float(np.arctan2(now[1, 0], now[0, 0]))
    turns = [about(UP, yaw + turn) for turn in np.radians([0, 30, -30, 60, -60, 90, -90, 150, -150])]
    poses = [(foot + 0.006 * UP, turn) for turn in turns]
    yield from put_exactly(planner, item, poses, rng=rng, over=ROD - FOOT + 0.03, spread=0.018, leave=0.12)


TASK = LabTask(phrasings=PHRASINGS, lay_out=lay_out, skills={"roll": put_roll}, seconds=25)
