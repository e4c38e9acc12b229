"""LIBERO's four suites as RLDS, rendered again at 256 × 256 without steps that do nothing (OpenVLA's release).

Pictures are turned upright already, and the gripper's command is LIBERO's own: −1 opens, 1 closes.
"""

from pilot.data.formats.rlds import EpisodeFeatures, RldsLayout, RobotColumns
from pilot.datasets import Dataset

SUITES = ("spatial", "object", "goal", "10")


def columns(features: EpisodeFeatures) -> RobotColumns:
    """Read state and action as they stand: position, axis-angle and fingers; what the controller took."""
    return RobotColumns(state=features["observation/state"], actions=features["action"])


DATASETS = tuple(
    Dataset(
        name=f"libero_{suite}_no_noops",
        path=f"libero_{suite}_no_noops",
        robot="libero",
        reader="robot",
        objective="flow and FAST on actions",
        layout=RldsLayout(
            fps=20.0,
            cameras={"image": "observation/image", "wrist_image": "observation/wrist_image"},
            instruction=("language_instruction",),
            columns=columns,
        ),
    )
    for suite in SUITES
)
