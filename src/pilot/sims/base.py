"""What every simulator of `pilot` offers; evaluation, collection and demos know no more than this."""

from typing import Any, Protocol

import numpy as np

from pilot.types import Robot


class SimEnv(Protocol):
    """A Gymnasium environment whose physics and pictures can be asked for separately: pictures cost the most.

    An observation is `{"images": {camera: uint8 [h w 3]}, "state": float32 [sd], "prompt": str}`, an action [ad],
    both in the robot's own units. `info["success"]` is always there.
    """

    robot: Robot
    max_steps: int

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Start an episode → (observation, info)."""
        ...

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """`advance`, then `observe` → (observation, reward, terminated, truncated, info)."""
        ...

    def advance(self, action: np.ndarray) -> dict[str, Any]:
        """One control step of physics, no pictures → info."""
        ...

    def observe(self) -> dict[str, Any]:
        """The observation now."""
        ...

    def annotations(self) -> list[dict[str, Any]]:
        """Ground truth of the current picture, one entry per object and receptacle; may be empty."""
        ...

    def close(self) -> None:
        """Free what the simulator holds."""
        ...
