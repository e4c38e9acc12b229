"""Checkpoints of pilot as a policy type of LeRobot, by its plug-in convention."""

try:
    import lerobot  # noqa: F401
except ImportError as error:
    raise ImportError("lerobot_policy_pilot is a plug-in of LeRobot: pip install lerobot") from error

from lerobot_policy_pilot.configuration_pilot import PilotConfig
from lerobot_policy_pilot.modeling_pilot import PilotPolicy
from lerobot_policy_pilot.processor_pilot import make_pilot_pre_post_processors

__all__ = ["PilotConfig", "PilotPolicy", "make_pilot_pre_post_processors"]
