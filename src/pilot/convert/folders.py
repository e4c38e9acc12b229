"""From a checkpoint folder of one kind to one of another: recognise the kind, find what is missing, read, write.

| kind           | recognised by                             | has, beside weights                      |
|----------------|-------------------------------------------|------------------------------------------|
| `pilot`        | config.json with `preprocessing_version`  | everything                               |
| `lerobot`      | config.json with a policy `type`          | robot in part, statistics, tokenizers    |
| `openpi-torch` | safetensors with `paligemma_with_expert.` | statistics (`assets/…/norm_stats.json`)  |
| `openpi-jax`   | an orbax folder (`params/_METADATA`)      | statistics (`assets/…/norm_stats.json`)  |
| `paligemma`    | npz, or safetensors of PaliGemma's names  | the text model, from Hugging Face        |

A checkpoint of pilot holds everything, so what a folder lacks must be supplied (`ConvertOptions`).
"""

import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pilot.convert import lerobot_export, lerobot_policy, lerobot_weights, openpi_jax, openpi_torch, paligemma
from pilot.convert.keymap import KeyMap, TensorSource
from pilot.convert.lerobot_policy import to_norm_stats
from pilot.convert.model_loading import load_pi, resolve_config
from pilot.convert.tensor_files import SafetensorsSource, find_safetensors, read_header
from pilot.data.stats import load_norm_stats, select_dims
from pilot.data.storage.files import list_names, read_json, replace_folder, write_json
from pilot.data.transforms import NormKind
from pilot.models.bundle import Bundle, empty_model, load_bundle
from pilot.models.pi import Pi, PiConfig, pi0, pi0_fast, pi05
from pilot.models.trained_robots import one_robot, same_dims
from pilot.names import shorten, suggest_names
from pilot.tokenizers.base import ActionTokenizer
from pilot.tokenizers.text import TextTokenizer
from pilot.types import NormStats, Robot

MODELS = {"pi0": pi0, "pi05": pi05, "pi0_fast": pi0_fast}


@dataclass(frozen=True, kw_only=True)
class ConvertOptions:
    """Parts that are supplied beside a folder, because it lacks them or to replace its own.

    `model` is the kind of model to start from PaliGemma. `change_config` is applied to the model's config, for what
    weights do not tell. `seed` draws the weights that PaliGemma does not have.
    """

    robot: Robot | None = None
    norm_stats: Path | None = None
    text: TextTokenizer | None = None
    action_tokenizer: ActionTokenizer | None = None
    model: str = "pi05"
    change_config: Callable[[PiConfig], PiConfig] = lambda config: config
    seed: int = 0


# --- recognising ------------------------------------------------------------------------------------------------


def detect_kind(path: str | Path) -> str:
    """Return the kind of checkpoint at `path`.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: it is of no kind that pilot knows, or of several; the message lists the files.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; give a folder, or hf://owner/repo, gs://…")
    kinds = sorted(set(_possible_kinds(path)))
    if len(kinds) == 1:
        return kinds[0]
    what = f"may be {' or '.join(kinds)}; choose with --from" if kinds else "is not a checkpoint that pilot knows"
    raise ValueError(f"{path} {what}: it has {list_names(path)}")


def _possible_kinds(path: Path) -> Iterator[str]:
    """Yield every kind that `path` looks like."""
    if path.suffix == ".npz" or any(path.glob("*.npz")):
        yield "paligemma"
    if any((folder / "_METADATA").is_file() for folder in (path, path / "params")):
        yield "openpi-jax"
    file = path / "config.json"
    config = read_json(file, remedy="fetch the checkpoint again") if file.is_file() else {}
    if "preprocessing_version" in config:
        yield "pilot"
    elif ("type" in config and "input_features" in config) or config.get("type") in lerobot_weights.FAMILIES:
        yield "lerobot"
    elif keys := _safetensors_keys(path):
        prefixes = {"paligemma_with_expert.": "openpi-torch", "model.paligemma_with_expert.": "lerobot"}
        known = [kind for prefix, kind in prefixes.items() if any(key.startswith(prefix) for key in keys)]
        yield from known or (["paligemma"] if any("language_model." in key for key in keys) else [])


def _safetensors_keys(path: Path) -> list[str]:
    try:
        file = find_safetensors(path)
    except FileNotFoundError:
        return []
    if file.name.endswith(".index.json"):
        return list(read_json(file, remedy="fetch the checkpoint again").get("weight_map", {}))
    return list(read_header(file)) if file.suffix == ".safetensors" else []


# --- reading ---------------------------------------------------------------------------------------------------------


def open_checkpoint(path: Path, kind: str, *, config: PiConfig | None = None) -> tuple[TensorSource, PiConfig, KeyMap]:
    """Return weights, the model's config, and the key map between them; all fit together, and no array is read yet.

    Raises:
        FileNotFoundError: weights are missing.
        ValueError: a file is damaged, or weights and config contradict each other.
    """
    if kind == "lerobot":
        source: TensorSource = lerobot_weights.open_weights(path)
        config = lerobot_weights.resolve_policy_config(path, source, config)
        return source, config, lerobot_weights.key_map(config, source)
    if kind == "paligemma":
        config = config or pi05()
        source, key_map, _ = paligemma.open_weights(path, config)
        return source, config, key_map
    module = {"openpi-torch": openpi_torch, "openpi-jax": openpi_jax}[kind]
    source = SafetensorsSource(path) if kind == "openpi-torch" else openpi_jax.open_weights(path)
    config = resolve_config(source, config, read_config=module.read_config, key_map=module.key_map)
    return source, config, module.key_map(config)


def most_common_dtype(source: TensorSource) -> torch.dtype:
    """Return bfloat16 if most of the weights have it, else float32."""
    sizes = {key: torch.Size(source.shape(key)).numel() for key in source.keys()}  # noqa: SIM118
    half = sum(size for key, size in sizes.items() if source.dtype(key) == torch.bfloat16)
    return torch.bfloat16 if 2 * half > sum(sizes.values()) else torch.float32


def load_checkpoint(
    path: Path, kind: str, options: ConvertOptions, *, dtype: torch.dtype | None = None, weights: bool = True
) -> Bundle:
    """Return the checkpoint at `path` with all its parts; weights in `dtype`, by default their own.

    Without `weights` the model is on the meta device, and everything is checked but their values.

    Raises:
        FileNotFoundError: there is nothing at `path`.
        ValueError: parts are missing both in the folder and in `options`, are damaged, or contradict each other.
    """
    if kind == "pilot":
        bundle = load_bundle(path, weights=weights)
        bundle.model.to(dtype or bundle.model.dtype)
        return bundle if options.robot is None else _with_robot(bundle, options.robot, options)
    if kind == "lerobot":
        bundle = lerobot_policy.load_bundle(
            path,
            robot=options.robot,
            norm_stats=_supplied_stats(options, "quantile"),
            text=options.text,
            action_tokenizer=options.action_tokenizer,
            dtype=dtype or most_common_dtype(lerobot_weights.open_weights(path)),
            weights=weights,
        )
        bundle.model.config = change_model_config(bundle.pi, options.change_config)
        return bundle
    check_complete(path, kind, options)
    return _with_parts(_model(path, kind, options, dtype, weights=weights), path, kind, options)


def _with_robot(bundle: Bundle, robot: Robot, options: ConvertOptions) -> Bundle:
    """Return a checkpoint of pilot with `robot` in it: added with the statistics that are supplied, or described anew.

    Without statistics it takes the place of the robot of its name, or of the only one.

    Raises:
        ValueError: it is new and there are no statistics of it, or it has other dims than the one whose place it takes.
    """
    stats = _supplied_stats(options, bundle.model.config.norm)
    only = next(iter(bundle.robots)) if len(bundle.robots) == 1 and stats is None else ""
    known = bundle.robots.get(robot.name, bundle.robots.get(only))
    if known is not None and not same_dims(known.robot, robot):
        raise ValueError(
            f"robot '{robot.name}' has {robot.state_dim} state and {robot.action_dim} action dims, and the checkpoint "
            f"knows '{known.robot.name}' with {known.robot.state_dim} and {known.robot.action_dim}; a robot of another "
            "name is added with its statistics: --stats FILE (pilot data stats DATASET)"
        )
    if stats is not None:
        return replace(bundle, robots=bundle.robots | one_robot(robot, stats))
    if known is None:
        raise ValueError(
            f"the checkpoint has no statistics of robot '{robot.name}'; "
            f"{suggest_names(robot.name, bundle.robots, listed='it knows')}. Compute them "
            f"(pilot data stats DATASET --robot {robot.name}) and give them: --stats FILE"
        )
    kept = {name: trained for name, trained in bundle.robots.items() if trained is not known}
    return replace(bundle, robots=kept | one_robot(robot, known.norm_stats))


def check_complete(path: Path, kind: str, options: ConvertOptions) -> None:
    """Check that the folder and `options` together have all parts, before gigabytes are read.

    Raises:
        ValueError: parts are missing; all of them are named.
    """
    config = MODELS[options.model]() if kind == "paligemma" else open_checkpoint(path, kind)[1]
    lacks = []
    if options.robot is None:
        lacks.append("the robot (--robot NAME)")
    if options.text is None and kind != "paligemma":
        lacks.append(f"PaliGemma's text model (--tokenizer {paligemma.PUBLISHED_TEXT})")
    if config.action_expert is None and options.action_tokenizer is None:
        lacks.append("the action tokenizer of π0-FAST (--action-tokenizer hf://physical-intelligence/fast)")
    if options.norm_stats is None and len(files := find_norm_stats(path)) != 1:
        those = f"one of {', '.join(map(str, files))}" if files else "those of your data: pilot data stats DATASET"
        lacks.append(f"normalisation statistics (--stats FILE; {those})")
    if lacks:
        raise ValueError(f"{path} ({kind}) lacks {', '.join(lacks)}")


def _model(path: Path, kind: str, options: ConvertOptions, dtype: torch.dtype | None, *, weights: bool) -> Pi:
    if kind == "paligemma":
        config = options.change_config(MODELS[options.model]())
        if not weights:
            return empty_model(open_checkpoint(path, kind, config=config)[1])
        generator = torch.Generator().manual_seed(options.seed)
        return paligemma.init_model(config, path, generator=generator, dtype=dtype or torch.float32)
    source, config, key_map = open_checkpoint(path, kind)
    if weights:
        model = load_pi(key_map, source, config, dtype=dtype or most_common_dtype(source))
    else:
        model = empty_model(config)
    flows = config.action_expert is not None  # openpi trains it with a loss on padded dims too
    model.config = replace(model.config, prompt=family_name(config), integrate_padded_dims=flows)
    model.config = change_model_config(model, options.change_config)
    return model


def family_name(config: PiConfig) -> str:
    """Return the name of the model's family in openpi and LeRobot."""
    if config.action_expert is None:
        return "pi0_fast"
    return "pi05" if config.time_conditioning == "adarms" else "pi0"


def change_model_config(model: Pi, change: Callable[[PiConfig], PiConfig]) -> PiConfig:
    """Return the model's config with a change that its weights allow.

    Raises:
        ValueError: the changed config needs other weights.
    """
    config = change(model.config)
    wanted = {name: tuple(weight.shape) for name, weight in empty_model(config).state_dict().items()}
    own = {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
    if differ := [name for name in wanted.keys() | own.keys() if wanted.get(name) != own.get(name)]:
        raise ValueError(f"the weights do not fit the changed config: {shorten(differ)}")
    return config


def _with_parts(model: Pi, path: Path, kind: str, options: ConvertOptions) -> Bundle:
    """Return a bundle of a model whose folder has neither robot nor tokenizers; `options` supplies them."""
    assert options.robot is not None, "check_complete comes first"
    norm = model.config.norm
    stats = _supplied_stats(options, norm) or read_norm_stats(find_norm_stats(path)[0], options.robot, norm=norm)
    text = options.text or paligemma.find_text_tokenizer(path)
    return Bundle(
        model=model, robots=one_robot(options.robot, stats), text=text, action_tokenizer=options.action_tokenizer
    )


def _supplied_stats(options: ConvertOptions, norm: NormKind) -> dict[str, NormStats] | None:
    if options.norm_stats is None:
        return None
    if options.robot is None:
        raise ValueError("statistics do not say which robot they belong to; name it (--robot)")
    return read_norm_stats(options.norm_stats, options.robot, norm=norm)


def find_norm_stats(path: Path) -> list[Path]:
    """Return the files of openpi's statistics in a checkpoint: `assets/<robot>/norm_stats.json`."""
    folders = [path, path.parent] if path.name == "params" else [path]
    return sorted(file for folder in folders for file in (folder / "assets").rglob("norm_stats.json"))


def read_norm_stats(path: Path, robot: Robot, *, norm: NormKind) -> dict[str, NormStats]:
    """Read pilot's or openpi's norm_stats.json, cut to the robot's own dims: openpi pads some of its vectors.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, lacks what `norm` needs, or has fewer dims.
    """
    file = path / "norm_stats.json" if path.is_dir() else path
    content = read_json(file, remedy="make it with: pilot data stats DATASET")
    if isinstance(content, dict) and "format" in content:  # pilot's own has more than openpi's
        return _own_norm_stats(file, robot)
    norm_stats = {}
    for name, dims in (("state", robot.state_dim), ("actions", robot.action_dim)):
        try:
            vectors = content["norm_stats"][name]
            values = {key: np.asarray(value, float)[:dims] for key, value in vectors.items() if value is not None}
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise ValueError(f"{file} is not a norm stats file: no usable '{name}' ({error!r})") from error
        mode = "MEAN_STD" if norm == "zscore" else "QUANTILES"
        norm_stats[name] = to_norm_stats(values, mode, dims=dims, norm=norm, location=f"{file}: {name}")
    return norm_stats


def _own_norm_stats(file: Path, robot: Robot) -> dict[str, NormStats]:
    stats = load_norm_stats(file)
    for name, dims in (("state", robot.state_dim), ("actions", robot.action_dim)):
        if name not in stats:
            raise ValueError(f"{file} is not a norm stats file: no '{name}'")
        if (got := len(stats[name].mean)) < dims:
            raise ValueError(f"{file}: {name} of {got} dims, the robot '{robot.name}' has {dims}")
    return select_dims(stats, robot)


# --- writing ---------------------------------------------------------------------------------------------------------


def save_checkpoint(bundle: Bundle, path: Path, kind: str, *, dtype: torch.dtype | None = None) -> Path:
    """Write a checkpoint for another project. The folder appears when it is complete, or not at all.

    Raises:
        FileExistsError: `path` is not empty.
        ValueError: that project has no such model.
    """
    require_empty(path)
    check_export(bundle, kind)
    dtype = dtype or bundle.model.dtype
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        if kind == "lerobot":
            lerobot_export.save_bundle(bundle, temporary, dtype=dtype)
        else:
            {"openpi-torch": openpi_torch, "openpi-jax": openpi_jax}[kind].save(bundle.pi, temporary, dtype=dtype)
            for name, trained in bundle.robots.items():
                write_json(temporary / "assets" / name / "norm_stats.json", _openpi_stats(trained.norm_stats))
        replace_folder(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return path


def check_export(bundle: Bundle, kind: str) -> None:
    """Check that another project has all that a checkpoint needs, and warn where it would act otherwise.

    Raises:
        ValueError: it has not.
    """
    key_map_for(kind, bundle.pi.config)
    if kind == "lerobot" and len(bundle.robots) > 1:
        raise ValueError(
            f"a policy of LeRobot is for one robot, this checkpoint is for {', '.join(bundle.robots)}; "
            f"choose one: --robot {next(iter(bundle.robots))}"
        )
    if kind == "lerobot":
        lerobot_export.check_for_lerobot(bundle)
    for name, trained in bundle.robots.items():
        if trained.norm_stats["actions"].step_std is not None:
            raise ValueError(
                f"robot '{name}' has a scale for each step of a chunk (data.scale_steps), which '{kind}' has not: its "
                "actions would be wrong there; only pilot can read this checkpoint"
            )
    if any(stats.clip is not None for trained in bundle.robots.values() for stats in trained.norm_stats.values()):
        warnings.warn(f"'{kind}' does not clip dims that hardly moved in the data", stacklevel=2)


def _openpi_stats(norm_stats: dict[str, NormStats]) -> dict[str, Any]:
    columns = ("mean", "std", "q01", "q99")
    vectors = {n: {column: getattr(stats, column).tolist() for column in columns} for n, stats in norm_stats.items()}
    return {"norm_stats": vectors}


def require_empty(path: Path) -> None:
    """Check that `path` is a new or empty folder.

    Raises:
        FileExistsError: something would be replaced.
    """
    if path.exists() and (path.is_file() or any(path.iterdir())):
        raise FileExistsError(f"{path} is not empty; choose another folder, or remove it first")


# --- describing ------------------------------------------------------------------------------------------------------


def key_map_for(kind: str, config: PiConfig) -> KeyMap:
    """Return the key map of a model of this config in the format `kind`.

    Raises:
        ValueError: that project has no such model.
    """
    check_published(config, kind)
    return {"openpi-torch": openpi_torch, "openpi-jax": openpi_jax, "lerobot": lerobot_weights}[kind].key_map(config)


def check_published(config: PiConfig, kind: str) -> None:
    """Check that a model has only parts that other projects have.

    Raises:
        ValueError: it has parts that only pilot builds, such as the small models that are trained from nothing.
    """
    parts = {
        "convolutions in front of its patches (stem)": config.vision.stem,
        "commands between its actions (action_stride)": config.action_stride > 1,
        "several vision towers": config.vision_towers,
        "a text encoder": config.text_encoder is not None,
        "an expert that reads one layer": config.expert_reads != "layers",
        "the state both in the prompt and as a token": config.state_input == "both",
    }
    if unpublished := [part for part, present in parts.items() if present]:
        raise ValueError(f"this model has {' and '.join(unpublished)}, which '{kind}' has not; only pilot can read it")


def format_key_map(key_map: KeyMap) -> Iterator[str]:
    """Yield a key map as lines: each tensor of pilot with the arrays that fill it, then aliases and unused arrays."""
    for entry in key_map.entries:
        parts = [f"{part.key}{list(part.index) if part.index else ''} {list(part.shape)}" for part in entry.slices]
        yield f"{entry.name}  <-  {' + '.join(parts)}"
    for alias, name in key_map.aliases.items():
        yield f"{alias}  is another name of  {name}"
    for key, shape in key_map.unused.items():
        yield f"{key} {list(shape)}  is used by nothing"
