"""PushT: a disc on a plane that pushes a T, at 10 Hz. State and action: where the disc is and shall be, in pixels of a
512 × 512 plane."""

from pilot.types import MotionLimits, Robot, make_bool_mask

ROBOT = Robot(
    name="pusht",
    cameras=("image",),
    slots=("base_0_rgb",),
    state_names=("x", "y"),
    action_names=("x", "y"),
    state_units=("px", "px"),
    action_units=("px", "px"),
    delta_mask=make_bool_mask(2),
    control_hz=10.0,
    # Places on the plane; the simulator's disc follows them as fast as it can.
    limits=MotionLimits(low=(0.0,) * 2, high=(512.0,) * 2, speed=(5120.0,) * 2, acceleration=(None,) * 2),
)
