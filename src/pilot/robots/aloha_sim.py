"""ALOHA in MuJoCo, as gym-aloha has it: the joints of `aloha`, one camera above the table.

Its gripper is normalised in the same way in state and action, and nothing was ever trained on it in π's convention:
there is no adapter.
"""

from dataclasses import replace

from pilot.robots import aloha

ROBOT = replace(
    aloha.ROBOT, name="aloha_sim", cameras=("cam_high",), wrist_cameras=(), slots=("base_0_rgb",), adapter=""
)
