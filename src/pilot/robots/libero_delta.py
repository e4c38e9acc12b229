"""LIBERO's arm as openpi's recipes for π0 and π0-FAST learn it: each command once more relative to the hand's state.

The commands are relative already, so this takes a position in metres from a share of 5 cm. Weights that were trained so
need it; new training does without (`libero`), as openpi's recipe for π0.5 does.
"""

from dataclasses import replace

from pilot.robots import libero
from pilot.types import make_bool_mask

ROBOT = replace(
    libero.ROBOT,
    name="libero_delta",
    action_names=(*libero.ROBOT.state_names[:6], "gripper"),  # what each command is taken relative to
    delta_mask=make_bool_mask(6, -1),
)
from_openpi = libero.from_openpi
