"""A checkpoint: a folder that holds everything a policy needs, so that nothing is looked up elsewhere or guessed.

config.json          the model's kind and shape, the robots, how boxes are written, the version of the preprocessing
model.safetensors    weights, all of them float32 or all bfloat16
norm_stats.json      statistics of state and actions; of several robots robots/NAME/norm_stats.json
text.model           SentencePiece
action_tokenizer/    FAST (in its published folder format), a codebook or bins; in older checkpoints it is fast/
manifest.json        checksums of all these files, and what they were made from (`data/storage/manifest.py`)
record.safetensors   one observation and what the policy answered (`infer/record.py`); of several robots in robots/NAME

A run with LoRA also leaves a small checkpoint, which holds what was learned in place of all weights and names its base:

adapters.safetensors, adapters.json    see `nn/lora.py`
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast, overload

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch.overrides import TorchFunctionMode

from pilot.data.pipeline import Pipeline
from pilot.data.storage.files import read_json, recover_folder, replace_folder, share_file
from pilot.data.storage.manifest import check_files, made_by, write_manifest
from pilot.data.storage.remote import fetch_checkpoint
from pilot.models.base import Model
from pilot.models.build import build_model
from pilot.models.pi import Pi, PiConfig
from pilot.models.registry import FORMAT, ModelConfig, model_kind, read_model_config, require_pi
from pilot.models.trained_robots import (
    TrainedRobot,
    check_robots,
    describe_robots,
    find_robot,
    load_robots,
    require_file,
    save_stats,
)
from pilot.nn import lora
from pilot.robots import load_adapter
from pilot.tokenizers import load_action_tokenizer
from pilot.tokenizers.base import ActionTokenizer
from pilot.tokenizers.text import TextTokenizer
from pilot.types import NormStats, Robot

MODEL = "model.safetensors"
ACTION_TOKENIZER = "action_tokenizer"
POLICY_FILES = (
    "config.json", MODEL, "norm_stats.json", "text.model", "adapters.safetensors", "adapters.json",
    "action_tokenizer/**/*", "fast/**/*", "robots/*/norm_stats.json",
)  # fmt: skip
"""The files that decide how a policy acts; what else is in its folder is about it."""
PREPROCESSING_VERSION = 1
"""Raised whenever the pipeline would turn the same observation into other numbers."""


@dataclass(kw_only=True)
class Bundle:
    """The contents of a checkpoint: a model, the robots that it was trained on by their names, and the tokenizers.

    Raises:
        ValueError: parts that do not fit each other.
    """

    model: Model
    robots: dict[str, TrainedRobot]
    text: TextTokenizer
    action_tokenizer: ActionTokenizer | None
    loc_stride: int = 1  # the grid that boxes are snapped to; 1 is all 1024 bins

    def __post_init__(self) -> None:
        config, actions = self.model.config, self.action_tokenizer
        if self.text.vocab_size > config.vocab_size:
            raise ValueError(
                f"the text model {self.text.path.name} has {self.text.vocab_size} tokens, the model's vocab_size is "
                f"{config.vocab_size}; raise it, or take the text model that the weights were trained with"
            )
        needed = self.text.vocab_size + (actions.vocab_size if actions is not None else 0)
        if config.vocab_size < needed and config.fast_offset == 0:
            raise ValueError(
                f"text and action tokens need {needed} ids and the model's vocab_size is {config.vocab_size}: "
                "they would overlap"
            )
        check_robots(self.robots, self.model)

    @property
    def pi(self) -> Pi:
        """The model as one of the π0 family, for what only it can do; `ValueError` where it is of another kind."""
        require_pi(self.model.config)
        return cast(Pi, self.model)

    @property
    def robot(self) -> Robot:
        """The only robot; `ValueError` where there are several."""
        return self.find_robot().robot

    @property
    def norm_stats(self) -> dict[str, NormStats]:
        """The statistics of the only robot; `ValueError` where there are several."""
        return self.find_robot().norm_stats

    def find_robot(self, name: str | None = None) -> TrainedRobot:
        """Return the robot of this name, or the only one; a `ValueError` that lists them if that is none or several."""
        return find_robot(self.robots, name)

    def select_robot(self, name: str) -> "Bundle":
        """Return a bundle of one of the robots, with the same model."""
        return replace(self, robots={name: self.find_robot(name)})

    def pipeline(self, robot: str | None = None) -> Pipeline:
        """Return the way from a robot's observations to the model's, and back, as in training; see `find_robot`."""
        trained = self.find_robot(robot)
        return Pipeline(
            trained.robot,
            self.model.config,
            norm_stats=trained.norm_stats,
            text=self.text,
            action_tokenizer=self.action_tokenizer,
            adapter=load_adapter(trained.robot),
        )


def save_bundle(
    bundle: Bundle,
    path: str | Path,
    *,
    weights: dict[str, torch.Tensor] | None = None,
    weights_file: str = MODEL,
    finish: Callable[[Path], None] | None = None,
    origin: Mapping[str, Any] | None = None,
) -> Path:
    """Write the folder under another name, then rename it: a folder that exists is whole, and on the disk.

    `weights` replaces the model's own, for instance by their moving average. `finish` is called with the folder before
    it gets its name, to add to it (`infer/record.py`). `origin`: what the checkpoint was made from, for its manifest.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        config = {
            "format": FORMAT,
            "preprocessing_version": PREPROCESSING_VERSION,
            "loc_stride": bundle.loc_stride,
            **describe_robots(bundle.robots),
            "kind": model_kind(bundle.model.config),
            "model": asdict(bundle.model.config),
        }
        (temporary / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        tensors = weights or bundle.model.state_dict()
        save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, temporary / weights_file)
        share_file(temporary / weights_file)
        save_stats(temporary, bundle.robots)
        shutil.copyfile(bundle.text.path, temporary / "text.model")
        if bundle.action_tokenizer is not None:
            bundle.action_tokenizer.save(temporary / ACTION_TOKENIZER)
        if finish is not None:
            finish(temporary)
        files = [file for file in temporary.rglob("*") if file.is_file()]
        write_manifest(temporary, kind="checkpoint", files=files, origin=made_by() if origin is None else origin)
    except ValueError:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise OSError(f"cannot write checkpoint {path}: {error}; is the disk full or read-only?") from error
    replace_folder(temporary, path)
    return path


def load_bundle(
    path: str | Path, *, device: str | torch.device = "cpu", weights: bool = True, check_all: bool = False
) -> Bundle:
    """Read a checkpoint folder, strictly. Adapters are merged into their base, which is read too.

    Without `weights` the model is on the meta device, which is enough for everything around it. Files are compared with
    the manifest: with `check_all` the content of all, else of all but large weights (`READ_AT_ONCE`).

    Raises:
        FileNotFoundError: no checkpoint there, or a part of it is missing.
        ValueError: weights missing, left over, of another shape, NaN or infinite; another preprocessing version; a
            damaged file, or one that is not as it was written.
    """
    path = Path(path)
    recover_folder(path)
    has_adapters = (path / lora.DESCRIPTION).is_file()
    for name in ("config.json", lora.WEIGHTS if has_adapters else MODEL, "text.model"):
        require_file(path, name)
    check_files(path, everything=check_all)
    config = _read_config(path / "config.json")
    shape = read_model_config(config, where=path / "config.json")
    if not weights:
        model = empty_model(shape)
    elif has_adapters:
        model = _with_adapters(shape, path, device)
    else:
        model = load_weights(shape, path / MODEL, device=device)
    actions = next((path / name for name in (ACTION_TOKENIZER, "fast") if (path / name).exists()), None)
    return Bundle(
        model=model,
        robots=load_robots(path, config),
        text=TextTokenizer(path / "text.model"),
        action_tokenizer=load_action_tokenizer(actions) if actions is not None else None,
        loc_stride=config["loc_stride"],
    )


def _read_config(file: Path) -> dict[str, Any]:
    config = read_json(file, remedy="the checkpoint is damaged, fetch or train it again")
    version = config.get("preprocessing_version") if isinstance(config, dict) else None
    if version != PREPROCESSING_VERSION:
        raise ValueError(
            f"{file} was made for preprocessing version {version}, this pilot has {PREPROCESSING_VERSION}: its inputs "
            "would not be what the model was trained on"
        )
    needed = {"model", "loc_stride", "robots" if "robots" in config else "robot"}
    if missing := needed - set(config):
        raise ValueError(f"{file} has no {', '.join(sorted(missing))}; the checkpoint is damaged, fetch it again")
    return config


@overload
def empty_model(config: PiConfig) -> Pi: ...
@overload
def empty_model(config: ModelConfig) -> Model: ...
def empty_model(config: ModelConfig) -> Model:
    """Build a model on the meta device: names and shapes, without memory or random numbers."""
    with torch.device("meta"), _Uninitialized():
        return build_model(config)


class _Uninitialized(TorchFunctionMode):
    """Modules made in this context leave their weights as they are.

    On the meta device there is nothing to initialise, but torch would import its compiler for it, which takes seconds.
    """

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


@overload
def load_weights(config: PiConfig, file: Path, *, device: str | torch.device = "cpu") -> Pi: ...
@overload
def load_weights(config: ModelConfig, file: Path, *, device: str | torch.device = "cpu") -> Model: ...
def load_weights(config: ModelConfig, file: Path, *, device: str | torch.device = "cpu") -> Model:
    """Build the model with the weights of a safetensors file, which on a CPU are mapped from it and not copied.

    Raises:
        ValueError: the file is damaged or does not fit.
    """
    weights = _read_weights(file, device)
    if (dtypes := {str(t.dtype).removeprefix("torch.") for t in weights.values()}) not in ({"float32"}, {"bfloat16"}):
        raise ValueError(
            f"{file} holds {' and '.join(sorted(dtypes))}; weights are all float32 or all bfloat16, convert them first"
        )
    return _fill_model(config, weights, where=file)


def _with_adapters(config: ModelConfig, folder: Path, device: str | torch.device) -> Model:
    """Build the model of a checkpoint with adapters: the weights of its base, and what was learned."""
    description = lora.AdapterDescription.load(folder)
    base = load_bundle(fetch_checkpoint(description.base), device=device).model.state_dict()
    stored = _read_weights(folder / lora.WEIGHTS, device)
    return _fill_model(
        config, lora.apply_adapters(base, stored, scales=description.scales), where=folder / lora.WEIGHTS
    )


def _read_weights(file: Path, device: str | torch.device) -> dict[str, torch.Tensor]:
    try:
        return load_file(file, device=str(device))
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{file} cannot be read ({error}); it is truncated or damaged") from error


def _fill_model(config: ModelConfig, weights: dict[str, torch.Tensor], *, where: Path) -> Model:
    """Build the model with `weights`, which are not copied."""
    model = empty_model(config)
    expected = {name: tuple(t.shape) for name, t in model.state_dict().items()}
    got = {name: tuple(t.shape) for name, t in weights.items()}
    if expected != got:
        raise ValueError(f"{where} does not fit its config: {_differences(expected, got)}")
    for name, weight in weights.items():
        if not torch.isfinite(weight).all():
            raise ValueError(f"{where} holds NaN or infinity in '{name}'; fetch or train the checkpoint again")
    model.load_state_dict(weights, assign=True)
    return model.eval()


def _differences(expected: dict[str, tuple[int, ...]], got: dict[str, tuple[int, ...]]) -> str:
    """List what is missing, left over and of another shape, a few names of each."""
    both = sorted(expected.keys() & got.keys())
    differences = {
        "missing": sorted(expected.keys() - got.keys()),
        "left over": sorted(got.keys() - expected.keys()),
        "other shapes": [f"{n} {got[n]} for {expected[n]}" for n in both if got[n] != expected[n]],
    }
    few = 6
    more = {kind: f" and {len(names) - few} more" if len(names) > few else "" for kind, names in differences.items()}
    return ", ".join(f"{kind} {names[:few]}{more[kind]}" for kind, names in differences.items() if names)


def ordered_tokens(text: TextTokenizer, *, bins: int = 256) -> tuple[list[int], ...]:
    """Return the ids of the `<loc>` tokens and of the numbers of a state, each in order, for `Pi.initialize`."""
    return [text.loc_id(n) for n in range(1024)], [text.token_id(f"▁{n}") for n in range(bins)]
