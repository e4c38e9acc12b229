"""Pictures from inside a policy: where it looks while it writes its subtask, and how noise becomes actions.

Attention is recorded from outside: within `RecordAttention` every call of torch's attention is repeated by hand to get
its weights, so the model carries no code for it and is exactly the one that acts.

Axes: `gh gw` grid of patches, `s` Euler steps, `ah` action horizon, `ad` the robot's action dims.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from pilot.data.layout import Observation
from pilot.data.pipeline import Pipeline
from pilot.infer.high_level import SUBTASK_TOKENS
from pilot.infer.policy import Policy
from pilot.models.pi import Prefix
from pilot.types import Robot


class RecordAttention(TorchFunctionMode):
    """Within it, the weights [b n t s] of every scaled dot product attention are appended to `weights`."""

    def __init__(self) -> None:
        super().__init__()
        self.weights: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func is F.scaled_dot_product_attention:
            q, k = args[0], args[1]
            scores, mask = q @ k.mT * q.shape[-1] ** -0.5, (kwargs or {}).get("attn_mask")
            self.weights.append(torch.softmax(scores if mask is None else scores + mask, dim=-1))
        return func(*args, **(kwargs or {}))


@dataclass(frozen=True, kw_only=True)
class AttentionMap:
    """A picture, the subtask that the policy wrote, and how much attention each patch got meanwhile."""

    picture: UInt8[np.ndarray, "h w 3"]
    weights: Float[np.ndarray, "gh gw"]
    subtask: str


@torch.inference_mode()
def attention_picture(
    policy: Policy, observation: dict[str, Any], *, robot: str | None = None, camera: str | None = None
) -> AttentionMap:
    """Return the attention on the patches of one camera's picture (the first) while the policy writes its subtask.

    It is that of the pointing head (`models/pointing.py`) where the model has one, else the mean over layers and heads.
    Raises ValueError for a camera that the robot has not, or a model without an action expert.
    """
    own = policy.bundle.find_robot(robot).robot
    camera = own.cameras[0] if camera is None else camera
    with RecordAttention() as recorded:
        read, _, subtask = think(policy, observation, robot=robot, recorder=recorded)
    columns = patch_columns(policy, own, list(read.images), camera=camera)
    calls = place_attention(policy, recorded.weights)
    onto_picture = torch.stack([weights[0].mean((0, 1))[columns] for weights in calls]).mean(0)
    grid = round((columns.stop - columns.start) ** 0.5)
    weights = onto_picture.reshape(grid, grid).float().cpu().numpy()
    return AttentionMap(picture=observation["images"][camera], weights=weights, subtask=subtask)


def place_attention(policy: Policy, calls: Sequence[Tensor]) -> list[Tensor]:
    """Return the calls of attention for the first three tokens of the box, `y0 x0 y1`.

    `calls` are all calls while text was written, token by token and layer by layer.
    """
    config = policy.model.config
    assert len(calls) % config.vlm.depth == 0, (len(calls), config.vlm.depth)
    first = list(calls[: 3 * config.vlm.depth])
    return (
        first if config.point_layer is None else [call[:, :1] for call in first[config.point_layer :: config.vlm.depth]]
    )


@torch.inference_mode()
def flow_trajectory(
    policy: Policy, observation: dict[str, Any], *, robot: str | None = None, num_steps: int = 10
) -> Float[np.ndarray, "s ah ad"]:
    """Return the chunk at every Euler step from noise to actions, in the robot's own units."""
    read, context, _ = think(policy, observation, robot=robot)
    own = policy.bundle.find_robot(robot).robot.name
    steps = {"noise": noise(policy), "num_steps": num_steps, "padded_dims": policy.padded_dims([own])}
    points = policy.bundle.pi.denoise(context, read.state, **steps)[:, 0].cpu().numpy()
    state = np.asarray(observation["state"], np.float32)
    return np.stack([policy.pipelines[own].decode_actions(point, state) for point in points])


def think(
    policy: Policy,
    observation: dict[str, Any],
    *,
    robot: str | None = None,
    recorder: RecordAttention | None = None,
) -> tuple[Observation, Prefix, str]:
    """Let the policy read and write its subtask; return the observation, the prefix with the subtask, and its words.

    A `recorder` forgets what it recorded while the policy was reading.
    """
    if policy.bundle.pi.config.action_expert is None:
        raise ValueError("this policy has no action expert (π0-FAST): nothing flows from noise to actions in it")
    read = policy.make_observation(policy.make_sample(observation, robot=robot), robot=robot)
    context = policy.bundle.pi.prefill(read)
    if recorder is not None:
        recorder.weights.clear()
    codec = policy.subtask_codec
    assert codec is not None, "whoever asks has seen that the policy writes subtasks"
    said, context = policy.bundle.pi.generate(
        context,
        read,
        eos=codec.end,
        max_new_tokens=SUBTASK_TOKENS,
        allowed=codec.grammar(),
    )
    words, _ = Pipeline.split_subtask(policy.bundle.text.decode(said[0].tolist()).split(";\n")[0])
    return read, context, words


def noise(policy: Policy) -> Tensor:
    """Return the noise that a new session of the policy starts from."""
    return policy.noise(torch.Generator().manual_seed(policy.seed))


def patch_columns(policy: Policy, robot: Robot, cameras: list[str], *, camera: str) -> slice:
    """Return which keys of the backbone are the patches of `camera`; cameras are in the order of the observation."""
    if camera not in cameras:
        raise ValueError(f"robot '{robot.name}' has cameras {cameras}, not {camera!r}")
    config, wrist = policy.model.config, robot.wrist_cameras
    counts = [(config.image_size(wrist=name in wrist) // config.vision.patch_size) ** 2 for name in cameras]
    before = sum(counts[: cameras.index(camera)])
    return slice(before, before + counts[cameras.index(camera)])
