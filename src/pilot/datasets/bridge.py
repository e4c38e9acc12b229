"""BridgeData V2: the release of its own site (`bridge_dataset`) and the older one in Open X-Embodiment (`bridge`).

In both the first action of an episode is all zeros and is left out, and, as Octo and OpenVLA do, an action is how far
the hand came by the next step (the commands of the two releases differ), so the last step is left out too.
"""

from dataclasses import replace

import numpy as np
from jaxtyping import Float

from pilot.data.formats.rlds import EpisodeFeatures, RldsLayout, RobotColumns
from pilot.datasets import Dataset

OPEN, CLOSED = 0.95, 0.05


def own_columns(features: EpisodeFeatures) -> RobotColumns:
    """Read Bridge's own release: the gripper's command is continuous, nearly always at one end; absent cameras are
    black."""
    absent = tuple(f"image_{i}" for i in range(4) if not features.metadata(f"has_image_{i}"))
    gripper = settle_gripper(features["action"][:, 6])
    return replace(_columns_from_states(features["observation/state"], gripper=gripper), missing=absent)


def oxe_columns(features: EpisodeFeatures) -> RobotColumns:
    """Read Bridge as it is in Open X-Embodiment: the gripper's command is already open or closed."""
    return _columns_from_states(
        features["observation/state"], gripper=features["action/open_gripper"].astype(np.float32)
    )


def settle_gripper(gripper: Float[np.ndarray, " t"]) -> Float[np.ndarray, " t"]:
    """Turn commands into 1 (open) or 0 (closed); what lies between goes with the end it is on its way to."""
    result, target = np.empty(len(gripper), np.float32), gripper[-1]
    for step in reversed(range(len(gripper))):
        if not CLOSED <= gripper[step] <= OPEN:
            target = float(gripper[step] > OPEN)
        result[step] = target
    return result


def _columns_from_states(state: np.ndarray, *, gripper: np.ndarray) -> RobotColumns:
    moved = np.diff(state[:, :6], axis=0)
    actions = np.concatenate([moved, gripper[:-1, None]], axis=1)
    return RobotColumns(state=state[1:-1], actions=actions[1:], first=1)


DATASETS = (
    Dataset(
        name="bridge_dataset",
        path="bridge_dataset",
        robot="bridge",
        reader="robot",
        objective="flow and FAST on actions",
        layout=RldsLayout(
            fps=5.0,
            cameras={f"image_{i}": f"observation/image_{i}" for i in range(4)},
            instruction=("language_instruction",),
            columns=own_columns,
        ),
    ),
    Dataset(
        name="bridge",
        path="bridge",
        robot="bridge",
        reader="robot",
        objective="flow and FAST on actions",
        layout=RldsLayout(
            fps=5.0,
            cameras={"image_0": "observation/image"},
            instruction=("observation/natural_language_instruction",),
            columns=oxe_columns,
        ),
    ),
)
