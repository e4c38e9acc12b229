"""LeRobot's policies: the weights of π0, π0.5 and π0-FAST.

The rest of a policy folder is read by `lerobot_policy.py` and written by `lerobot_export.py`; data sets of LeRobot are
in `data/formats`.

The names are openpi's (`openpi_torch.py`) behind `model.`, with these differences between files of different times:

- before Hugging Face's tree of PaliGemma changed (transformers 4.52), `paligemma.language_model.model.…` and
  `paligemma.vision_tower.…` stood for today's `paligemma.model.language_model.…` and `paligemma.model.vision_tower.…`;
- the oldest hold normalisation statistics as buffers of the model (`normalize_inputs.buffer_…`);
- the base checkpoints have no `embed_tokens`: it is the head's array. Where a file has both, π0 and π0.5 embed text
  with `embed_tokens` and never use the head, whose array is then left out; π0-FAST uses both, as one array;
- the action expert has a head that no computation uses.

LeRobot's loader requires every name of its model, unused ones too, so all of them are written.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pilot.convert import openpi_torch
from pilot.convert.keymap import KeyMap, TensorSource, export_arrays
from pilot.convert.model_loading import load_pi, require_shape, resolve_config
from pilot.convert.openpi_torch import LANGUAGE, PALIGEMMA, TIED, VISION, gemma, linear, siglip, whole_array
from pilot.convert.renamed_source import RenamedSource
from pilot.convert.tensor_files import SafetensorsSource, write_safetensors
from pilot.data.storage.files import read_json
from pilot.models.pi import Pi, PiConfig, pi0, pi0_fast, pi05
from pilot.models.registry import config_from_dict, require_pi

FAMILIES = {"pi0": pi0, "pi05": pi05, "pi0_fast": pi0_fast}
EMBEDDING, HEAD = f"{PALIGEMMA}{LANGUAGE}{TIED}", f"{PALIGEMMA}lm_head.weight"
STATS_BUFFERS = re.compile(r"(?:normalize_inputs|normalize_targets|unnormalize_outputs)\.buffer_(\w+)\.(\w+)")
PILOT_FILE = "pilot.json"
"""Written beside LeRobot's files: the model's config and the robot, which they describe only in part."""

_TREES = (
    (r"\b_orig_mod\.", ""),  # of compiled modules
    (r"^model\.", ""),
    (rf"^{re.escape(PALIGEMMA)}language_model\.lm_head\.", f"{PALIGEMMA}lm_head."),
    (rf"^{re.escape(PALIGEMMA)}language_model\.(?:model\.)?", f"{PALIGEMMA}{LANGUAGE}"),
    (rf"^{re.escape(PALIGEMMA)}(vision_tower|multi_modal_projector)\.", rf"{PALIGEMMA}model.\1."),
    (rf"^{re.escape(PALIGEMMA)}model\.vision_tower\.(?!vision_model\.)", f"{PALIGEMMA}{VISION}"),
)


def load(path: str | Path, config: PiConfig | None = None, *, dtype: torch.dtype = torch.float32) -> Pi:
    """Return the model in a policy folder of LeRobot.

    Raises:
        FileNotFoundError: config.json or the weights are missing.
        ValueError: it is another kind of policy, or the weights contradict each other, config.json or `config`.
    """
    path = Path(path)
    source = open_weights(path)
    config = resolve_policy_config(path, source, config)
    return load_pi(key_map(config, source), source, config, dtype=dtype)


def save(model: Pi, path: str | Path, *, dtype: torch.dtype = torch.bfloat16) -> Path:
    """Write `path`/model.safetensors with all names of LeRobot's model."""
    names = key_map(model.config)
    layout = {}
    for key, entry in names.layout(dtype).items():
        layout |= {f"model.{name}": entry for name in ((HEAD, EMBEDDING) if key == HEAD else (key,))}
    arrays = _named_twice(export_arrays(names, model.state_dict(), dtype=dtype))
    return write_safetensors(Path(path) / "model.safetensors", arrays, layout=layout, metadata={"format": "pt"})


def _named_twice(arrays: Iterator[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    for key, array in arrays:
        yield f"model.{key}", array
        if key == HEAD:
            yield f"model.{EMBEDDING}", array


def open_weights(path: Path) -> RenamedSource:
    """Open the weights of a policy folder, under the present names without `model.`.

    Raises:
        FileNotFoundError: there are none.
        ValueError: they are damaged, or an adapter without its base.
    """
    if (path / "adapter_config.json").is_file():
        raise ValueError(f"{path} is a PEFT adapter, not a model; merge it into its base with peft, then convert that")
    return RenamedSource(SafetensorsSource(path), modern_key)


def modern_key(key: str) -> str | None:
    """Return an array's name in the present tree, without `model.`; None for statistics among the weights."""
    if STATS_BUFFERS.fullmatch(key):
        return None
    for pattern, new in _TREES:
        key = re.sub(pattern, new, key)
    return key


def key_map(config: PiConfig, source: TensorSource | None = None) -> KeyMap:
    """Return the key map of the present names; `source` decides which of the embedding's two names counts.

    Raises:
        ValueError: LeRobot has no such model.
    """
    if config.text_encoder is not None or config.vision_towers or config.expert_reads != "layers":
        raise ValueError("LeRobot has no π0-small")
    if config.action_expert is None:
        return backbone_key_map(config)
    names = openpi_torch.key_map(config)
    if source is None or EMBEDDING not in source.keys():  # noqa: SIM118
        return names
    shape = (config.vocab_size, config.vlm.width)
    entries = [whole_array(s.name, EMBEDDING, shape) if s.name == "embedding.weight" else s for s in names.entries]
    return KeyMap(entries=tuple(entries), unused={**names.unused, HEAD: shape})


def backbone_key_map(config: PiConfig) -> KeyMap:
    """Return the key map of vision tower and backbone: all of π0-FAST, and all of PaliGemma."""
    projector = (config.vlm.width, config.vision.width)
    entries = [
        *siglip(config.vision, PALIGEMMA + VISION),
        *linear("vision.head", f"{PALIGEMMA}model.multi_modal_projector.linear", projector),
        whole_array("embedding.weight", HEAD, (config.vocab_size, config.vlm.width)),
        *gemma("vlm", config.vlm, PALIGEMMA + LANGUAGE),
    ]
    return KeyMap(entries=tuple(entries), aliases={EMBEDDING: HEAD})


# --- the model's shape -----------------------------------------------------------------------------------------------


def resolve_policy_config(path: Path, source: TensorSource, config: PiConfig | None = None) -> PiConfig:
    """Return the model's config: `config`, else that in `pilot.json`, else that of config.json and the weights.

    Raises:
        ValueError: it is another kind of policy, or the weights contradict it; all contradictions are named.
    """
    policy = read_policy_config(path)
    base = config or _read_pilot_file(path)
    in_weights = read_config(source, base)
    _check_policy_config(policy, in_weights, source.location)
    if base is None:
        base = _apply_policy_config(policy, in_weights)
    return resolve_config(source, base, read_config=read_config, key_map=lambda config: key_map(config, source))


def read_policy_config(path: Path) -> dict[str, Any]:
    """Read config.json of a policy of the π0 family.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged, of another kind of policy, or has settings that pilot's models do not have.
    """
    file = path / "config.json"
    if not file.is_file():
        raise FileNotFoundError(f"{path} is not a policy folder of LeRobot: it has no config.json")
    policy = read_json(file, remedy="fetch the policy again")
    if not isinstance(policy, dict):
        raise ValueError(f"{file} holds a {type(policy).__name__}, no settings; fetch the policy again")
    if (kind := policy.get("type")) not in FAMILIES:
        raise ValueError(f"{file} is of policy type '{kind}'; pilot reads {', '.join(FAMILIES)}")
    foreign = {"use_visual_memory": False, "use_proprioceptive_memory": False, "adapt_to_pi_aloha": False,
               "min_period": 4e-3, "max_period": 4.0}  # fmt: skip
    if other := {name: policy[name] for name, usual in foreign.items() if policy.get(name, usual) != usual}:
        raise ValueError(f"{file} sets {other}, which changes the model in a way that pilot does not have")
    return policy


def _read_pilot_file(path: Path) -> PiConfig | None:
    file = path / PILOT_FILE
    return require_pi(config_from_dict(json.loads(file.read_text())["model"])) if file.is_file() else None


def read_config(source: TensorSource, base: PiConfig | None) -> PiConfig:
    """Read the model's config from the weights, as `openpi_torch.read_config`, also without an action expert."""
    if any(key.startswith(openpi_torch.EXPERT) for key in source.keys()):  # noqa: SIM118
        return openpi_torch.read_config(source, base)
    held = EMBEDDING if EMBEDDING in source.keys() else HEAD  # noqa: SIM118
    return replace(
        base or pi0_fast(),
        vision=openpi_torch.read_siglip(source, PALIGEMMA + VISION, base),
        vlm=openpi_torch.read_gemma(source, PALIGEMMA + LANGUAGE),
        vocab_size=require_shape(source, held)[0],
        action_expert=None,
    )


def _apply_policy_config(policy: Mapping[str, Any], shape: PiConfig) -> PiConfig:
    """Return `shape` with what only config.json tells."""
    config = replace(
        shape,
        prompt=policy["type"],
        integrate_padded_dims=shape.action_expert is not None,
        action_horizon=policy.get("chunk_size", 50),
        max_tokens=policy.get("tokenizer_max_length", shape.max_tokens),
    )
    if policy["type"] != "pi0_fast":
        return config
    return replace(
        config,
        action_dim=policy.get("max_action_dim", 32),
        fast_offset=policy.get("fast_skip_tokens", 128),
        max_tokens=config.max_tokens + policy.get("max_action_tokens", 256),
    )


def _check_policy_config(policy: Mapping[str, Any], shape: PiConfig, location: str) -> None:
    """Compare config.json with the weights."""
    expert = shape.action_expert
    kind = "pi0_fast" if expert is None else "pi05" if shape.time_conditioning == "adarms" else "pi0"
    in_weights: dict[str, Any] = {
        "type": kind,
        "image_resolution": [shape.vision.image_size] * 2,
        "paligemma_variant": variant_name(shape.vlm.width),
    }
    if expert is not None:
        in_weights |= {"action_expert_variant": variant_name(expert.width), "max_action_dim": shape.action_dim}
    if shape.has_state_token:
        in_weights["max_state_dim"] = shape.action_dim
    differ = {name: value for name, value in in_weights.items() if policy.get(name, value) not in (value, None)}
    if differ:
        lines = [f"{name} is {policy[name]}, the weights say {value}" for name, value in differ.items()]
        raise ValueError(f"config.json contradicts {location}: {'; '.join(lines)}")


def variant_name(width: int) -> str:
    """Return LeRobot's name for a language stack of this width; it builds no others than the first two."""
    return {2048: "gemma_2b", 1024: "gemma_300m"}.get(width, f"width_{width}")
