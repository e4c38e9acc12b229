"""LeRobot's policies: a policy folder with all its parts as a `Bundle`.

config.json                           the policy type, its inputs and outputs by name and shape, how each is normalised
policy_preprocessor.json              steps: rename, relative actions, normalise, prompt, tokenize
policy_postprocessor.json             steps: unnormalise, absolute actions
policy_*_step_N_*.safetensors         statistics, as `observation.state.mean`, `action.q01`, …
tokenizer/, action_tokenizer/         what the steps tokenize with (newer folders; older ones name a repository)

A folder tells only the names of the robot's cameras and the size of its vectors. The rest (names of dims, rate) is in
`pilot.json`, which `lerobot_export.save_bundle` adds and LeRobot ignores; without that file, the caller names a robot.
"""

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pilot.convert import lerobot_weights
from pilot.convert.lerobot_weights import PILOT_FILE, STATS_BUFFERS, read_policy_config
from pilot.convert.paligemma import PUBLISHED_TEXT
from pilot.convert.tensor_files import SafetensorsSource
from pilot.data.storage.files import read_json
from pilot.data.transforms import NormKind
from pilot.models.bundle import Bundle, empty_model
from pilot.models.trained_robots import one_robot
from pilot.tokenizers.base import ActionTokenizer
from pilot.tokenizers.fast import FastTokenizer
from pilot.tokenizers.text import TextTokenizer
from pilot.types import NormStats, Robot

IMAGES, STATE, ACTION = "observation.images.", "observation.state", "action"
PREPROCESSOR, POSTPROCESSOR = "policy_preprocessor", "policy_postprocessor"
RANGES = {"QUANTILES": ("q01", "q99"), "QUANTILE10": ("q10", "q90"), "MIN_MAX": ("min", "max")}
DEFAULT_MODES = {"pi0": "MEAN_STD", "pi05": "QUANTILES", "pi0_fast": "MEAN_STD"}
LEROBOT_HZ = 30.0
"""LeRobot's default recording rate; its policies do not store theirs."""

Stats = dict[str, dict[str, np.ndarray]]


def load_bundle(
    path: str | Path,
    *,
    robot: Robot | None = None,
    norm_stats: dict[str, NormStats] | None = None,
    text: TextTokenizer | None = None,
    action_tokenizer: ActionTokenizer | None = None,
    dtype: torch.dtype = torch.float32,
    weights: bool = True,
) -> Bundle:
    """Return a policy folder as a bundle. Arguments replace parts of the folder.

    Without `weights` the model is on the meta device, once all fits together.

    Raises:
        FileNotFoundError: config.json, weights, statistics or a tokenizer are missing.
        ValueError: parts are damaged or contradict each other, or the robot has other cameras or dims.
    """
    path = Path(path)
    policy = read_policy_config(path)
    steps = read_steps(path)
    own = read_json(path / PILOT_FILE, remedy="fetch the policy again") if (path / PILOT_FILE).is_file() else {}
    if robot is None:
        robot = Robot.from_dict(own["robot"]) if own else describe_robot(policy, steps)
    check_robot(robot, policy)
    modes = norm_modes(policy, steps)
    norm: NormKind = "zscore" if set(modes.values()) == {"MEAN_STD"} else "quantile"
    if norm_stats is None:
        norm_stats = read_norm_stats(path, steps, modes, robot=robot, norm=norm)
    elif norm == "quantile" and set(modes.values()) != {"QUANTILES"}:
        raise ValueError(f"{path} is normalised by {modes}; statistics of pilot do not have these, leave --stats out")
    if policy["type"] == "pi0_fast" and action_tokenizer is None:
        action_tokenizer = _action_tokenizer(path, policy)
    text = text or _text(path)
    if weights:
        model = lerobot_weights.load(path, dtype=dtype)
    else:
        model = empty_model(lerobot_weights.resolve_policy_config(path, lerobot_weights.open_weights(path)))
    model.config = replace(model.config, norm=norm)
    return Bundle(
        model=model, robots=one_robot(robot, norm_stats), text=text, action_tokenizer=action_tokenizer,
        loc_stride=own.get("loc_stride", 1),
    )  # fmt: skip


# --- robot -----------------------------------------------------------------------------------------------------------


def describe_robot(policy: Mapping[str, Any], steps: Sequence[Mapping[str, Any]]) -> Robot:
    """Return the robot as far as the folder tells: cameras by their pictures' names, dims by number or action name.

    A camera that the policy saw under another name in training keeps its own name, with the other as its slot.

    Raises:
        ValueError: the folder names no inputs: it is a base policy, which was not trained for one robot.
    """
    keys = camera_keys(policy)
    if not keys or not _dims(policy, "output_features", ACTION):
        raise ValueError("config.json names no cameras or no action: a base policy has no robot; name one (--robot)")
    warnings.warn(
        f"the folder does not say the robot's rate; {LEROBOT_HZ:g} Hz is assumed, name a robot (--robot) to change it",
        stacklevel=3,
    )
    renamed = {new: old for old, new in _settings(steps, "rename_observations_processor").get("rename_map", {}).items()}
    cameras = tuple(_camera(renamed.get(key, key)) for key in keys)
    relative = _settings(steps, "relative_actions_processor") or {
        "enabled": policy.get("use_relative_actions", False),
        "exclude_joints": policy.get("relative_exclude_joints", []),
        "action_names": policy.get("action_feature_names"),
    }
    dims = _dims(policy, "output_features", ACTION)
    names = relative.get("action_names") or policy.get("action_feature_names") or [f"action_{i}" for i in range(dims)]
    return Robot(
        name="lerobot",
        cameras=cameras,
        wrist_cameras=tuple(camera for camera in cameras if "wrist" in camera),
        slots=tuple(_camera(key) for key in keys) if renamed else (),
        state_names=tuple(f"state_{i}" for i in range(_dims(policy, "input_features", STATE))),
        action_names=tuple(names[:dims]),
        delta_mask=relative_mask(relative, dims),
        control_hz=LEROBOT_HZ,
    )


def check_robot(robot: Robot, policy: Mapping[str, Any]) -> None:
    """Check that the folder was trained for this robot, as far as it tells.

    Raises:
        ValueError: it has other cameras or dims.
    """
    for features, key, own in (
        ("input_features", STATE, robot.state_dim),
        ("output_features", ACTION, robot.action_dim),
    ):
        if (dims := _dims(policy, features, key)) not in (0, own):
            raise ValueError(f"config.json says {dims} dims of {key}, robot '{robot.name}' has {own}")
    shown = {name for camera in robot.cameras for name in (camera, robot.slot(camera))}
    if unknown := [key for key in camera_keys(policy) if _camera(key) not in shown]:
        raise ValueError(
            f"config.json has cameras {[_camera(key) for key in unknown]}, robot '{robot.name}' has {robot.cameras}, "
            f"shown as {robot.slots or robot.cameras}"
        )


def camera_keys(policy: Mapping[str, Any]) -> list[str]:
    """Return the keys of the policy's pictures in the order in which it reads them, without those always empty."""
    features = policy.get("input_features") or {}
    return [key for key, value in features.items() if value["type"] == "VISUAL" and "empty_camera" not in key]


def relative_mask(settings: Mapping[str, Any], dims: int) -> tuple[bool, ...]:
    """Return which action dims are relative, by LeRobot's rule: all whose names contain no excluded word."""
    excluded = [str(name).lower() for name in settings.get("exclude_joints") or [] if name]
    names = [str(name).lower() for name in settings.get("action_names") or []][:dims] if excluded else []
    mask = [not any(word in name for word in excluded) for name in names]
    return tuple(bool(settings.get("enabled")) and own for own in [*mask, *[True] * (dims - len(mask))])


def _camera(key: str) -> str:
    return key.removeprefix(IMAGES).removeprefix("observation.")


def _dims(policy: Mapping[str, Any], features: str, key: str) -> int:
    feature = (policy.get(features) or {}).get(key)
    return feature["shape"][0] if feature else 0


# --- statistics ------------------------------------------------------------------------------------------------------


def norm_modes(policy: Mapping[str, Any], steps: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return how state and action are normalised: by the step, else config.json, else the policy type's default.

    Raises:
        ValueError: LeRobot has no such normalisation.
    """
    chosen = _settings(steps, "normalizer_processor").get("norm_map") or policy.get("normalization_mapping") or {}
    modes = {
        key: chosen.get(kind, DEFAULT_MODES[policy["type"]]) for key, kind in ((STATE, "STATE"), (ACTION, "ACTION"))
    }
    if unknown := set(modes.values()) - {"MEAN_STD", "IDENTITY", *RANGES}:
        raise ValueError(
            f"unknown normalization {sorted(unknown)}; pilot knows MEAN_STD, IDENTITY, {', '.join(RANGES)}"
        )
    return modes


def read_norm_stats(
    path: Path, steps: Sequence[Mapping[str, Any]], modes: Mapping[str, str], *, robot: Robot, norm: NormKind
) -> dict[str, NormStats]:
    """Read statistics of state and action from the normaliser's file or, in old folders, from among the weights.

    Raises:
        FileNotFoundError: the folder has none.
        ValueError: statistics that a mode needs are missing or have other dims than the robot, or the two normalisers
            differ.
    """
    stats = _step_stats(path, steps) or _buffered_stats(path)
    if missing := [key for key in (STATE, ACTION) if modes[key] != "IDENTITY" and key not in stats]:
        raise FileNotFoundError(
            f"{path} has no statistics of {' and '.join(missing)}: a base policy has none; give those of your data "
            "(--stats)"
        )
    parts = (("state", STATE, robot.state_dim), ("actions", ACTION, robot.action_dim))
    return {
        name: to_norm_stats(stats.get(key, {}), modes[key], dims=dims, norm=norm, location=f"{path}: {key}")
        for name, key, dims in parts
    }


def to_norm_stats(stats: Mapping[str, np.ndarray], mode: str, *, dims: int, norm: NormKind, location: str) -> NormStats:
    """Return LeRobot's statistics of one vector, such that pilot's formula of kind `norm` gives LeRobot's numbers.

    With "quantile", `q01` and `q99` hold the range by which the policy is normalised, whatever it is: for z-scores, one
    standard deviation around the mean.

    Raises:
        ValueError: `mode` needs statistics that are missing, or they have other dims.
    """
    needed = {"MEAN_STD": ("mean", "std"), "IDENTITY": (), **RANGES}[mode]
    if missing := [name for name in needed if name not in stats]:
        raise ValueError(
            f"{location} is normalised by {mode}, but has no {' and '.join(missing)}; it has {sorted(stats)}"
        )
    values = {name: np.asarray(value, np.float64).reshape(-1) for name, value in stats.items()}
    if wrong := {name: len(value) for name, value in values.items() if name != "count" and len(value) != dims}:
        raise ValueError(f"{location}: statistics of other dims than the robot's {dims}: {wrong}")
    low, high = -np.ones(dims), np.ones(dims)
    if mode == "MEAN_STD":
        low, high = values["mean"] - values["std"], values["mean"] + values["std"]
    elif mode in RANGES:
        low, high = (values[name] for name in RANGES[mode])
    mean, std = values.get("mean", (low + high) / 2), values.get("std", (high - low) / 2)
    if norm == "zscore":
        low, high = values.get("q01", low), values.get("q99", high)
    return NormStats(mean=mean, std=std, q01=low, q99=high)


def _step_stats(path: Path, steps: Sequence[Mapping[str, Any]]) -> Stats:
    stats: Stats = {}
    for step in steps:
        if "normalizer" not in step["name"] or not step.get("state_file"):
            continue
        if not (path / step["state_file"]).is_file():
            raise FileNotFoundError(f"{path} has no {step['state_file']}, the statistics that its processor names")
        source = SafetensorsSource(path / step["state_file"])
        for key in source.keys():  # noqa: SIM118 (a source is not a dict)
            feature, _, statistic = key.rpartition(".")
            value, earlier = source.read(key).double().numpy(), stats.get(feature, {}).get(statistic)
            if earlier is not None and not np.array_equal(earlier, value):
                raise ValueError(f"{path}: pre- and postprocessor disagree on {key}; which of them was trained with?")
            stats.setdefault(feature, {})[statistic] = value
    return stats


def _buffered_stats(path: Path) -> Stats:
    source, stats = SafetensorsSource(path), {}
    names = {STATE.replace(".", "_"): STATE, ACTION: ACTION}
    for key in source.keys():  # noqa: SIM118
        if (match := STATS_BUFFERS.fullmatch(key)) and match[1] in names:
            stats.setdefault(names[match[1]], {})[match[2]] = source.read(key).double().numpy()
    return stats


# --- steps and tokenizers --------------------------------------------------------------------------------------------


def read_steps(path: Path) -> list[dict[str, Any]]:
    """Read the steps of both processors with their registered names; [] where there are no processor files.

    Raises:
        ValueError: a file is damaged or lists no steps.
    """
    steps = []
    for name in (PREPROCESSOR, POSTPROCESSOR):
        file = path / f"{name}.json"
        if not file.is_file():
            continue
        try:
            steps += [{"name": step.get("registry_name", ""), **step} for step in json.loads(file.read_text())["steps"]]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"{file} lists no steps ({error!r}); fetch the policy again") from error
    return steps


def _settings(steps: Sequence[Mapping[str, Any]], name: str) -> Mapping[str, Any]:
    return next((step.get("config") or {} for step in steps if step["name"] == name), {})


def _text(path: Path) -> TextTokenizer:
    for file in (path / "tokenizer" / "tokenizer.model", path / "tokenizer.model"):
        if file.is_file():
            return TextTokenizer(file)
    raise FileNotFoundError(
        f"{path} has no tokenizer.model; give PaliGemma's SentencePiece model (--tokenizer): {PUBLISHED_TEXT}, or "
        "tokenizer.model of hf://google/paligemma-3b-pt-224"
    )


def _action_tokenizer(path: Path, policy: Mapping[str, Any]) -> ActionTokenizer:
    folder = path / "action_tokenizer"
    if not folder.is_dir():
        named = policy.get("action_tokenizer_name", "lerobot/fast-action-tokenizer")
        raise FileNotFoundError(
            f"{path} has no action_tokenizer/; its config names hf://{named}; give that with --action-tokenizer"
        )
    return FastTokenizer.load(folder)
