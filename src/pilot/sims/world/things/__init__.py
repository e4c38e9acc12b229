"""Things: what lies about in a home or a laboratory, and where a gripper can hold it.

`KINDS` has every kind by name. A kind draws looks (`kind.draw_look(rng)`), names them ("red mug") and knows its grasps;
`things.build.add_thing` puts it into a model. Only that module needs MuJoCo.
"""

from pilot.sims.world.things.catalogue import (
    FAMILIES,
    HELD_OUT_KINDS,
    KINDS,
    draw_things,
    find_kind,
    handled_kinds,
    looked_at_kinds,
)
from pilot.sims.world.things.grasps import Grasp
from pilot.sims.world.things.kind import ThingKind
from pilot.sims.world.things.looks import HELD_OUT_COLOURS, Look

__all__ = [
    "FAMILIES",
    "HELD_OUT_COLOURS",
    "HELD_OUT_KINDS",
    "KINDS",
    "Grasp",
    "Look",
    "ThingKind",
    "draw_things",
    "find_kind",
    "handled_kinds",
    "looked_at_kinds",
]
