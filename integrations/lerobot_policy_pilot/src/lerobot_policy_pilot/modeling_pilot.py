"""`PilotPolicy`: LeRobot's calls in, pilot's sessions behind them. Each environment of a batch is one robot.

Axes: `b` environments, `ah` action horizon, `ad` action dims.
"""

from collections import deque
from typing import Any

import numpy as np
import torch
from lerobot.policies import PreTrainedPolicy

import pilot
from lerobot_policy_pilot.configuration_pilot import PilotConfig

IMAGES, IMAGE, STATE = "observation.images.", "observation.image", "observation.state"


class PilotPolicy(PreTrainedPolicy):
    """A checkpoint of pilot that acts for a batch of environments, open loop for `replan_steps` actions."""

    config_class = PilotConfig
    name = "pilot"

    def __init__(self, config: PilotConfig, **unused: Any) -> None:
        super().__init__(config)
        config.validate_features()
        self.policy = pilot.load_policy(config.checkpoint, device=config.device or "auto")
        self.steps = config.replan_steps or self.policy.replan_steps_of(config.robot)
        self.model = self.policy.model  # a module, so that `.to` and `.eval` find it
        self.reset()

    def reset(self) -> None:
        """Begin an episode in every environment."""
        self.sessions: list[Any] = []
        self._action_queue: deque[torch.Tensor] = deque()

    @torch.no_grad()
    def select_action(self, batch: dict[str, Any], **unused: Any) -> torch.Tensor:
        """Return the next action of each environment [b ad], in the robot's own units."""
        if not self._action_queue:
            chunk = self.predict_action_chunk(batch)[:, : self.steps]
            self._action_queue.extend(chunk.unbind(dim=1))
        return self._action_queue.popleft()

    @torch.no_grad()
    def predict_action_chunk(self, batch: dict[str, Any], **unused: Any) -> torch.Tensor:
        """Return a chunk for each environment [b ah ad]."""
        observations = read_batch(batch, cameras=self.config.cameras)
        if len(self.sessions) != len(observations):
            options = {"robot": self.config.robot, "replan_steps": self.steps}
            self.sessions = [self.policy.session(**options) for _ in observations]
        answers = self.policy.infer_many(self.sessions, observations)
        return torch.from_numpy(np.stack([answer["actions"] for answer in answers])).float()

    def forward(self, batch: dict[str, Any], **unused: Any) -> Any:
        """Refuse: pilot trains its policies itself."""
        raise NotImplementedError("train with `pilot train`; LeRobot only runs the result")

    def get_optim_params(self) -> dict[str, Any]:
        """Refuse: pilot trains its policies itself."""
        raise NotImplementedError("train with `pilot train`; LeRobot only runs the result")


def read_batch(batch: dict[str, Any], *, cameras: dict[str, str]) -> list[dict[str, Any]]:
    """Return a batch of LeRobot as one raw observation of pilot per environment.

    `cameras` gives pilot's name for each camera of LeRobot that is called otherwise. Pictures are [b 3 h w] in 0 to 1.

    Raises:
        ValueError: there is no state, or no instruction.
    """
    if STATE not in batch or not batch.get("task"):
        raise ValueError(f"pilot needs '{STATE}' and 'task', the instruction; the batch has {sorted(batch)}")
    names = {key: "image" if key == IMAGE else key.removeprefix(IMAGES) for key in batch if key.startswith(IMAGE)}
    pictures = {cameras.get(name, name): to_uint8(batch[key]) for key, name in names.items()}
    states = batch[STATE].float().cpu().numpy()
    tasks = [batch["task"]] * len(states) if isinstance(batch["task"], str) else list(batch["task"])
    return [
        {"images": {name: rows[i] for name, rows in pictures.items()}, "state": states[i], "prompt": tasks[i]}
        for i in range(len(states))
    ]


def to_uint8(pictures: torch.Tensor) -> np.ndarray:
    """Return pictures [b 3 h w] in 0 to 1 as uint8 [b h w 3]."""
    return (pictures.float() * 255).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()
