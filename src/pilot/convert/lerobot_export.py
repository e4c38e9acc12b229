"""LeRobot's policies: a `Bundle` as a policy folder that LeRobot loads, with weights, config.json and processors.

What LeRobot cannot do is refused, and what it does otherwise than pilot is warned about (`check_for_lerobot`). A model
of another size than the published ones, or with another tokenizer than LeRobot's own, is written with such a warning:
LeRobot cannot use it, but pilot can read it back.
"""

import warnings
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from shutil import copyfile
from typing import Any

import torch
from safetensors.torch import save_file

from pilot.convert import lerobot_weights
from pilot.convert.lerobot_policy import ACTION, IMAGES, POSTPROCESSOR, PREPROCESSOR, STATE, relative_mask
from pilot.convert.lerobot_weights import PILOT_FILE, variant_name
from pilot.data.storage.files import share_file, write_json
from pilot.models.bundle import Bundle
from pilot.models.pi import PiConfig, pi05
from pilot.tokenizers.fast import FastTokenizer
from pilot.types import NormStats, Robot

PROMPT_STEPS = {
    "pi0": "pi0_new_line_processor",
    "pi05": "pi05_prepare_state_tokenizer_processor_step",
    "pi0_fast": "pi0_fast_prepare_state_tokenizer_processor_step",
}
LEROBOT_TEXT, LEROBOT_FAST = "google/paligemma-3b-pt-224", "lerobot/fast-action-tokenizer"
ACTION_TOKENS = 256


def save_bundle(bundle: Bundle, path: str | Path, *, dtype: torch.dtype = torch.bfloat16) -> Path:
    """Write the policy folder `path`, which must be new or empty.

    Raises:
        ValueError: LeRobot has no such policy.
    """
    path = Path(path)
    kind = policy_type(bundle)
    path.mkdir(parents=True, exist_ok=True)
    lerobot_weights.save(bundle.pi, path, dtype=dtype)
    write_json(path / "config.json", policy_config(bundle, kind, dtype))
    (path / "tokenizer").mkdir(exist_ok=True)
    copyfile(bundle.text.path, path / "tokenizer" / "tokenizer.model")
    if bundle.action_tokenizer is not None:
        bundle.action_tokenizer.save(path / "action_tokenizer")
    for name, steps in ((PREPROCESSOR, input_steps(bundle, kind)), (POSTPROCESSOR, output_steps(bundle))):
        _write_processor(path, name, steps, bundle.norm_stats)
    own = {"model": asdict(bundle.model.config), "robot": bundle.robot.to_dict(), "loc_stride": bundle.loc_stride}
    write_json(path / PILOT_FILE, own)
    return path


def policy_type(bundle: Bundle) -> str:
    """Return LeRobot's name for this kind of policy.

    Raises:
        ValueError: LeRobot has no such policy; the message says why.
    """
    config = bundle.model.config
    lerobot_weights.key_map(config)
    if config.wrist_image_size is not None and bundle.robot.wrist_cameras:
        raise ValueError("LeRobot has one picture size for all cameras; this model has another for wrist cameras")
    if config.action_expert is None:
        return "pi0_fast"
    form = (config.state_input, config.time_conditioning)
    kinds = {("text", "adarms"): "pi05", ("token", "concat"): "pi0"}
    if form not in kinds:
        raise ValueError(f"LeRobot has no policy with state_input '{form[0]}' and time_conditioning '{form[1]}'")
    return kinds[form]


def policy_config(bundle: Bundle, kind: str, dtype: torch.dtype) -> dict[str, Any]:
    """Return the content of config.json; LeRobot has defaults for the rest."""
    config, mode = bundle.model.config, _mode(bundle.model.config)
    values = {
        "type": kind,
        "n_obs_steps": 1,
        "input_features": input_features(bundle),
        "output_features": _vector(ACTION, "ACTION", bundle.robot.action_dim),
        "device": None,
        "push_to_hub": False,
        "dtype": str(dtype).removeprefix("torch."),
        "paligemma_variant": variant_name(config.vlm.width),
        "chunk_size": config.action_horizon,
        "n_action_steps": config.action_horizon,
        "max_state_dim": config.action_dim,
        "max_action_dim": config.action_dim,
        "image_resolution": [config.vision.image_size] * 2,
        "normalization_mapping": {"VISUAL": "IDENTITY", "STATE": mode, "ACTION": mode},
        "tokenizer_max_length": config.max_tokens,
    }
    if config.action_expert is not None:
        return {**values, "action_expert_variant": variant_name(config.action_expert.width), **_relative(bundle.robot)}
    length = max(config.max_tokens - ACTION_TOKENS, 1)
    fast = {"tokenizer_max_length": length, "max_action_tokens": ACTION_TOKENS, "fast_skip_tokens": config.fast_offset}
    return {**values, **fast, **_relative(bundle.robot)}


def input_features(bundle: Bundle) -> dict[str, Any]:
    """Return the policy's inputs: pictures in the robot's order, then the state."""
    size = bundle.model.config.vision.image_size
    shown = list(bundle.robot.shown_cameras)
    pictures = {f"{IMAGES}{camera}": {"type": "VISUAL", "shape": [3, size, size]} for camera in shown}
    return {**pictures, **_vector(STATE, "STATE", bundle.robot.state_dim)}


def input_steps(bundle: Bundle, kind: str) -> list[dict[str, Any]]:
    """Return the steps of the preprocessor, in the order of LeRobot's own policy of this type."""
    config, robot = bundle.model.config, bundle.robot
    features = {**input_features(bundle), **_vector(ACTION, "ACTION", robot.action_dim)}
    text = {
        "max_length": policy_config(bundle, kind, torch.float32)["tokenizer_max_length"],
        "task_key": "task", "padding_side": "right", "padding": "max_length", "truncation": True,
        "tokenizer_name": LEROBOT_TEXT,
    }  # fmt: skip
    first = [_step("rename_observations_processor", rename_map={}), _step("to_batch_processor")]
    relative = [_step("relative_actions_processor", **_relative_step(robot))] if any(robot.delta_mask) else []
    normalise = [*relative, _normaliser("normalizer_processor", features, config)]
    prompt = [_step(PROMPT_STEPS[kind]), _step("tokenizer_processor", **text)]
    device = _step("device_processor", device="cpu", float_dtype=None)
    if kind == "pi0":
        return [*first, *prompt, device, *normalise]
    if kind == "pi0_fast":
        prompt.append(_step("action_tokenizer_processor", **_fast_step(config)))
    return [*first, *normalise, *prompt, device]


def output_steps(bundle: Bundle) -> list[dict[str, Any]]:
    """Return the steps of the postprocessor."""
    features = _vector(ACTION, "ACTION", bundle.robot.action_dim)
    absolute = [_step("absolute_actions_processor", enabled=True)] if any(bundle.robot.delta_mask) else []
    device = _step("device_processor", device="cpu", float_dtype=None)
    return [_normaliser("unnormalizer_processor", features, bundle.model.config), *absolute, device]


def _step(name: str, **config: object) -> dict[str, Any]:
    return {"registry_name": name, "config": config}


def _normaliser(name: str, features: Mapping[str, Any], config: PiConfig) -> dict[str, Any]:
    mode = _mode(config)
    return _step(name, eps=1e-8, features=features, norm_map={"VISUAL": "IDENTITY", "STATE": mode, "ACTION": mode})


def _fast_step(config: PiConfig) -> dict[str, Any]:
    return {
        "trust_remote_code": True, "max_action_tokens": ACTION_TOKENS, "fast_skip_tokens": config.fast_offset,
        "paligemma_tokenizer_name": LEROBOT_TEXT, "action_tokenizer_name": LEROBOT_FAST, "allow_truncation": True,
    }  # fmt: skip


def _write_processor(path: Path, name: str, steps: list[dict[str, Any]], norm_stats: Mapping[str, NormStats]) -> None:
    for i, step in enumerate(steps):
        if "normalizer" in step["registry_name"]:
            step["state_file"] = f"{name}_step_{i}_{step['registry_name']}.safetensors"
            save_file(_flat_stats(norm_stats), path / step["state_file"])
            share_file(path / step["state_file"])
    write_json(path / f"{name}.json", {"name": name, "steps": steps})


def _flat_stats(norm_stats: Mapping[str, NormStats]) -> dict[str, torch.Tensor]:
    return {
        f"{key}.{statistic}": torch.tensor(getattr(norm_stats[name], statistic), dtype=torch.float32)
        for name, key in (("state", STATE), ("actions", ACTION))
        for statistic in ("mean", "std", "q01", "q99")
    }


def _vector(key: str, kind: str, dims: int) -> dict[str, Any]:
    return {key: {"type": kind, "shape": [dims]}}


def _mode(config: PiConfig) -> str:
    return "MEAN_STD" if config.norm == "zscore" else "QUANTILES"


def _relative(robot: Robot) -> dict[str, Any]:
    """Return the settings of a policy with relative actions; {} for others, since older versions do not know them."""
    if not any(robot.delta_mask):
        return {}
    step = _relative_step(robot)
    return {
        "use_relative_actions": True,
        "relative_exclude_joints": step["exclude_joints"],
        "action_feature_names": step["action_names"],
    }


def _relative_step(robot: Robot) -> dict[str, Any]:
    """Return settings by which LeRobot's rule finds exactly the dims that are not relative.

    The rule looks for words inside names, so the robot's names are numbered if one contains another.
    """
    numbered = [f"{i:02d}:{name}" for i, name in enumerate(robot.action_names)]
    for names in (list(robot.action_names), numbered):
        excluded = [name for name, relative in zip(names, robot.delta_mask) if not relative]
        settings = {"enabled": True, "exclude_joints": excluded, "action_names": names}
        if relative_mask(settings, robot.action_dim) == robot.delta_mask:
            return settings
    raise AssertionError(f"numbered names do not overlap: {numbered}")


def check_for_lerobot(bundle: Bundle) -> None:
    """Warn about everything that LeRobot would not do with this policy as pilot does.

    Raises:
        ValueError: LeRobot has no policy of this kind.
    """
    kind, config, published = policy_type(bundle), bundle.model.config, pi05()
    same = config.vision == published.vision and config.vlm == published.vlm
    if not same or config.vocab_size != published.vocab_size:
        warnings.warn(
            "LeRobot builds models of the published size only: pilot can read this folder, LeRobot cannot", stacklevel=3
        )
    if kind == "pi0_fast" and isinstance(bundle.action_tokenizer, FastTokenizer):
        warnings.warn(
            f"LeRobot decodes actions with hf://{LEROBOT_FAST}, whatever is in action_tokenizer/", stacklevel=3
        )
    if bundle.robot.adapter:
        warnings.warn(
            f"LeRobot does not apply the adapter '{bundle.robot.adapter}' of '{bundle.robot.name}'", stacklevel=3
        )
    if config.prompt != kind:
        warnings.warn(
            f"LeRobot writes prompts of '{kind}', this model has learned those of '{config.prompt}'", stacklevel=3
        )
    if (
        config.action_expert is not None
        and not config.integrate_padded_dims
        and bundle.robot.action_dim < config.action_dim
    ):
        warnings.warn(
            f"LeRobot lets the model move the padded dims of its actions ({bundle.robot.action_dim} of "
            f"{config.action_dim} are the robot's), which this one has not learned to",
            stacklevel=3,
        )
    slots = list(bundle.robot.shown_cameras.values())
    if list(dict.fromkeys((*config.always_shown, *slots))) != slots:
        warnings.warn(
            f"LeRobot shows the pictures that '{bundle.robot.name}' has, this model has learned with "
            f"{', '.join(config.always_shown)} in that order, black where there is none (always_shown)",
            stacklevel=3,
        )
