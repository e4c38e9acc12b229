"""LeRobot's π0, π0.5 and π0-FAST: their weights. What surrounds them in a policy folder is `lerobot_policy.py`.

The names are openpi's (`openpi_torch.py`) behind `model.`, with these differences between files of different times:

- before Hugging Face's tree of PaliGemma changed (transformers 4.52), `paligemma.language_model.model.…` and
  `paligemma.vision_tower.…` stood for today's `paligemma.model.language_model.…` and `paligemma.model.vision_tower.…`;
- the oldest hold normalisation statistics as buffers of the model (`normalize_inputs.buffer_…`);
- `embed_tokens` is missing from the base checkpoints: it is the head's array. Where a file has both, π0 and π0.5 read
  words with `embed_tokens` and never use the head, whose array is then left aside; π0-FAST uses both, as one array;
- the action expert has a head that no computation uses.

LeRobot's loader wants every name of its model to be there, dead ones too, so all of them are written.
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
from pilot.convert.keymap import Table, TensorSource, export
from pilot.convert.load import load_pi, settle, shape_of
from pilot.convert.openpi_torch import LANGUAGE, PALIGEMMA, TIED, VISION, gemma, linear, one, siglip
from pilot.convert.renaming import Renamed
from pilot.convert.tensor_files import SafetensorsSource, write_safetensors
from pilot.models.pi import Pi, PiConfig, pi0, pi0_fast, pi05
from pilot.models.registry import config_from_dict, require_pi

FAMILIES = {"pi0": pi0, "pi05": pi05, "pi0_fast": pi0_fast}
EMBEDDING, HEAD = f"{PALIGEMMA}{LANGUAGE}{TIED}", f"{PALIGEMMA}lm_head.weight"
BUFFERS = re.compile(r"(?:normalize_inputs|normalize_targets|unnormalize_outputs)\.buffer_(\w+)\.(\w+)")
OWN_FILE = "pilot.json"
"""Written beside LeRobot's files, which ignore it: the model's config and the robot, of which they tell only a part."""

_TREES = (
    (r"\b_orig_mod\.", ""),  # of compiled modules
    (r"^model\.", ""),
    (rf"^{re.escape(PALIGEMMA)}language_model\.lm_head\.", f"{PALIGEMMA}lm_head."),
    (rf"^{re.escape(PALIGEMMA)}language_model\.(?:model\.)?", f"{PALIGEMMA}{LANGUAGE}"),
    (rf"^{re.escape(PALIGEMMA)}(vision_tower|multi_modal_projector)\.", rf"{PALIGEMMA}model.\1."),
    (rf"^{re.escape(PALIGEMMA)}model\.vision_tower\.(?!vision_model\.)", f"{PALIGEMMA}{VISION}"),
)


def load(path: str | Path, config: PiConfig | None = None, *, dtype: torch.dtype = torch.float32) -> Pi:
    """The model in a policy folder of LeRobot.

    Raises:
        FileNotFoundError: config.json or the weights are missing.
        ValueError: another policy, or weights that do not fit each other, config.json or `config`.
    """
    path = Path(path)
    source = open_weights(path)
    config = settle_config(path, source, config)
    return load_pi(table(config, source), source, config, dtype=dtype)


def save(model: Pi, path: str | Path, *, dtype: torch.dtype = torch.bfloat16) -> Path:
    """Write `path`/model.safetensors with all the names that LeRobot's model has."""
    names = table(model.config)
    layout = {}
    for key, entry in names.layout(dtype).items():
        layout |= {f"model.{name}": entry for name in ((HEAD, EMBEDDING) if key == HEAD else (key,))}
    arrays = _named_twice(export(names, model.state_dict(), dtype=dtype))
    return write_safetensors(Path(path) / "model.safetensors", arrays, layout=layout, metadata={"format": "pt"})


def _named_twice(arrays: Iterator[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    for key, array in arrays:
        yield f"model.{key}", array
        if key == HEAD:
            yield f"model.{EMBEDDING}", array


def open_weights(path: Path) -> Renamed:
    """The weights of a policy folder under today's names, without `model.`.

    Raises:
        FileNotFoundError: there are none.
        ValueError: damaged, or an adapter without its base.
    """
    if (path / "adapter_config.json").is_file():
        raise ValueError(f"{path} is a PEFT adapter, not a model; merge it into its base with peft, then convert that")
    return Renamed(SafetensorsSource(path), today)


def today(key: str) -> str | None:
    """An array's name in today's tree, without `model.`; None for statistics among the weights."""
    if BUFFERS.fullmatch(key):
        return None
    for pattern, new in _TREES:
        key = re.sub(pattern, new, key)
    return key


def table(config: PiConfig, source: TensorSource | None = None) -> Table:
    """Every tensor under today's names; `source` decides which of the two names of the embedding counts.

    Raises:
        ValueError: LeRobot has no such model.
    """
    if config.text_encoder is not None or config.vision_towers or config.expert_reads != "layers":
        raise ValueError("LeRobot has no π0-small")
    if config.action_expert is None:
        return backbone_table(config)
    names = openpi_torch.table(config)
    if source is None or EMBEDDING not in source.keys():  # noqa: SIM118
        return names
    shape = (config.vocab_size, config.vlm.width)
    slots = [one(s.name, EMBEDDING, shape) if s.name == "embedding.weight" else s for s in names.slots]
    return Table(slots=tuple(slots), dead={**names.dead, HEAD: shape})


def backbone_table(config: PiConfig) -> Table:
    """Vision tower and backbone: all of π0-FAST, and of PaliGemma."""
    projector = (config.vlm.width, config.vision.width)
    slots = [
        *siglip(config.vision, PALIGEMMA + VISION),
        *linear("vision.head", f"{PALIGEMMA}model.multi_modal_projector.linear", projector),
        one("embedding.weight", HEAD, (config.vocab_size, config.vlm.width)),
        *gemma("vlm", config.vlm, PALIGEMMA + LANGUAGE),
    ]
    return Table(slots=tuple(slots), aliases={EMBEDDING: HEAD})


# --- the model's shape -----------------------------------------------------------------------------------------------


def settle_config(path: Path, source: TensorSource, config: PiConfig | None = None) -> PiConfig:
    """The model's config: `config` or that of `pilot.json`, else read off config.json and the weights.

    Raises:
        ValueError: another policy; or the weights contradict what is said of them. All contradictions are named.
    """
    policy = read_policy_config(path)
    given = config or _own_config(path)
    shape = read_shape(source, given)
    _check_claims(policy, shape, source.where)
    if given is None:
        given = _told_by_policy(policy, shape)
    return settle(source, given, read_config=read_shape, table=lambda settled: table(settled, source))


def read_policy_config(path: Path) -> dict[str, Any]:
    """config.json of a π policy.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged, of another policy, or of one that uses what pilot does not have.
    """
    file = path / "config.json"
    if not file.is_file():
        raise FileNotFoundError(f"{path} is no policy folder of LeRobot: it has no config.json")
    try:
        policy = json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(f"{file} is not JSON ({error}); fetch the policy again") from error
    if (kind := policy.get("type")) not in FAMILIES:
        raise ValueError(f"{file} is of policy type '{kind}'; pilot reads {', '.join(FAMILIES)}")
    foreign = {"use_visual_memory": False, "use_proprioceptive_memory": False, "adapt_to_pi_aloha": False,
               "min_period": 4e-3, "max_period": 4.0}  # fmt: skip
    if other := {name: policy[name] for name, usual in foreign.items() if policy.get(name, usual) != usual}:
        raise ValueError(f"{file} sets {other}, which changes the model in a way that pilot does not have")
    return policy


def _own_config(path: Path) -> PiConfig | None:
    file = path / OWN_FILE
    return require_pi(config_from_dict(json.loads(file.read_text())["model"])) if file.is_file() else None


def read_shape(source: TensorSource, base: PiConfig | None) -> PiConfig:
    """What the weights tell; as `openpi_torch.read_config`, and of a model without action expert too."""
    if any(key.startswith(openpi_torch.EXPERT) for key in source.keys()):  # noqa: SIM118
        return openpi_torch.read_config(source, base)
    held = EMBEDDING if EMBEDDING in source.keys() else HEAD  # noqa: SIM118
    return replace(
        base or pi0_fast(),
        vision=openpi_torch.read_siglip(source, PALIGEMMA + VISION, base),
        vlm=openpi_torch.read_gemma(source, PALIGEMMA + LANGUAGE),
        vocab_size=shape_of(source, held)[0],
        action_expert=None,
    )


def _told_by_policy(policy: Mapping[str, Any], shape: PiConfig) -> PiConfig:
    """`shape` with what only config.json tells."""
    says = replace(
        shape,
        prompt=policy["type"],
        integrate_padded_dims=shape.action_expert is not None,
        action_horizon=policy.get("chunk_size", 50),
        max_tokens=policy.get("tokenizer_max_length", shape.max_tokens),
    )
    if policy["type"] != "pi0_fast":
        return says
    return replace(
        says,
        action_dim=policy.get("max_action_dim", 32),
        fast_offset=policy.get("fast_skip_tokens", 128),
        max_tokens=says.max_tokens + policy.get("max_action_tokens", 256),
    )


def _check_claims(policy: Mapping[str, Any], shape: PiConfig, where: str) -> None:
    """Compare config.json with the weights."""
    expert = shape.action_expert
    kind = "pi0_fast" if expert is None else "pi05" if shape.time_conditioning == "adarms" else "pi0"
    found: dict[str, Any] = {
        "type": kind,
        "image_resolution": [shape.vision.image_size] * 2,
        "paligemma_variant": variant(shape.vlm.width),
    }
    if expert is not None:
        found |= {"action_expert_variant": variant(expert.width), "max_action_dim": shape.action_dim}
    if shape.state_input == "token":
        found["max_state_dim"] = shape.action_dim
    claims = [f"{n} is {policy[n]}, the weights say {v}" for n, v in found.items() if policy.get(n, v) not in (v, None)]
    if claims:
        raise ValueError(f"config.json contradicts {where}: {'; '.join(claims)}")


def variant(width: int) -> str:
    """LeRobot's name for a language stack of this width; it builds no others than the first two."""
    return {2048: "gemma_2b", 1024: "gemma_300m"}.get(width, f"width_{width}")
