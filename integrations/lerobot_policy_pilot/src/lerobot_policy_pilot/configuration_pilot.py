"""The options of `--policy.type=pilot`."""

from dataclasses import dataclass, field
from typing import Any

from lerobot.configs import PreTrainedConfig


@PreTrainedConfig.register_subclass("pilot")
@dataclass
class PilotConfig(PreTrainedConfig):
    """A checkpoint of pilot, and how it acts; see the README for each option."""

    checkpoint: str = ""
    robot: str | None = None
    cameras: dict[str, str] = field(default_factory=dict)
    replan_steps: int | None = None
    push_to_hub: bool = False

    def validate_features(self) -> None:
        """Check what can be checked without the checkpoint.

        Raises:
            ValueError: no checkpoint is named.
        """
        if not self.checkpoint:
            raise ValueError("name a checkpoint of pilot: --policy.checkpoint=FOLDER")

    def get_optimizer_preset(self) -> Any:
        """Refuse: pilot trains its policies itself."""
        raise NotImplementedError("train with `pilot train`; LeRobot only runs the result")

    def get_scheduler_preset(self) -> None:
        """Return nothing: pilot trains its policies itself."""
        return None

    @property
    def observation_delta_indices(self) -> None:
        """One observation at a time."""
        return None

    @property
    def action_delta_indices(self) -> None:
        """No chunk is loaded for training."""
        return None

    @property
    def reward_delta_indices(self) -> None:
        """No rewards."""
        return None
