"""From a checkpoint folder of one kind to one of another: what lies in a folder, what is missing from it, who reads it.

| kind           | told by                                   | has, beside weights                      |
|----------------|-------------------------------------------|------------------------------------------|
| `pilot`        | config.json with `preprocessing_version`  | everything                               |
| `lerobot`      | config.json with a policy `type`          | robot in part, statistics, tokenizers    |
| `openpi-torch` | safetensors with `paligemma_with_expert.` | statistics (`assets/…/norm_stats.json`)  |
| `openpi-jax`   | an orbax folder (`params/_METADATA`)      | statistics (`assets/…/norm_stats.json`)  |
| `paligemma`    | npz, or safetensors of PaliGemma's names  | the text model, from Hugging Face        |

A checkpoint of pilot carries everything, so what a folder lacks has to be given (`Given`).
"""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pilot.convert import lerobot, lerobot_export, lerobot_policy, openpi_jax, openpi_torch, paligemma
from pilot.convert.keymap import Table, TensorSource
from pilot.convert.lerobot_policy import to_norm_stats
from pilot.convert.load import load_pi, settle
from pilot.convert.tensor_files import SafetensorsSource, find_safetensors, read_header
from pilot.data.storage.files import names_in, read_json, write_json
from pilot.data.transforms import NormKind
from pilot.models.bundle import Bundle, empty_model, load_bundle, replace_folder
from pilot.models.pi import Pi, PiConfig, pi0, pi0_fast, pi05
from pilot.names import shorten
from pilot.tokenizers.base import ActionTokenizer
from pilot.tokenizers.text import TextTokenizer
from pilot.types import NormStats, Robot

MODELS = {"pi0": pi0, "pi05": pi05, "pi0_fast": pi0_fast}


@dataclass(frozen=True, kw_only=True)
class Given:
    """What the folder lacks, or what is to be taken instead of its own.

    `model` is the kind of model to start from PaliGemma. `change` is applied to the model's config, for what weights do
    not tell.
    """

    robot: Robot | None = None
    norm_stats: Path | None = None
    text: TextTokenizer | None = None
    action_tokenizer: ActionTokenizer | None = None
    model: str = "pi05"
    change: Callable[[PiConfig], PiConfig] = lambda config: config
    seed: int = 0


# --- what lies in a folder -------------------------------------------------------------------------------------------


def detect(path: str | Path) -> str:
    """The kind of checkpoint at `path`.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: none that pilot knows, or more than one; the message lists what was found.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; give a folder, or hf://owner/repo, gs://…")
    kinds = sorted(set(_kinds(path)))
    if len(kinds) == 1:
        return kinds[0]
    what = f"may be {' or '.join(kinds)}; say which" if kinds else "is no checkpoint that pilot knows"
    raise ValueError(f"{path} {what}: it has {names_in(path)}")


def _kinds(path: Path) -> Iterator[str]:
    """Every kind that `path` looks like."""
    if path.suffix == ".npz" or any(path.glob("*.npz")):
        yield "paligemma"
    if any((folder / "_METADATA").is_file() for folder in (path, path / "params")):
        yield "openpi-jax"
    file = path / "config.json"
    config = read_json(file, remedy="fetch the checkpoint again") if file.is_file() else {}
    if "preprocessing_version" in config:
        yield "pilot"
    elif ("type" in config and "input_features" in config) or config.get("type") in lerobot.FAMILIES:
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


def open_checkpoint(path: Path, kind: str, *, config: PiConfig | None = None) -> tuple[TensorSource, PiConfig, Table]:
    """Weights, the model's config and the table that maps one to the other; everything fits, nothing is read yet.

    Raises:
        FileNotFoundError: weights are missing.
        ValueError: a file is damaged, or weights and config do not fit each other.
    """
    if kind == "lerobot":
        source: TensorSource = lerobot.open_weights(path)
        config = lerobot.settle_config(path, source, config)
        return source, config, lerobot.table(config, source)
    if kind == "paligemma":
        config = config or pi05()
        source, table, _ = paligemma.open_weights(path, config)
        return source, config, table
    module = {"openpi-torch": openpi_torch, "openpi-jax": openpi_jax}[kind]
    source = SafetensorsSource(path) if kind == "openpi-torch" else openpi_jax.open_weights(path)
    config = settle(source, config, read_config=module.read_config, table=module.table)
    return source, config, module.table(config)


def prevailing_dtype(source: TensorSource) -> torch.dtype:
    """bfloat16 if most of the weights are, else float32."""
    sizes = {key: torch.Size(source.shape(key)).numel() for key in source.keys()}  # noqa: SIM118
    half = sum(size for key, size in sizes.items() if source.dtype(key) == torch.bfloat16)
    return torch.bfloat16 if 2 * half > sum(sizes.values()) else torch.float32


def load(path: Path, kind: str, given: Given, *, dtype: torch.dtype | None = None) -> Bundle:
    """The checkpoint at `path` with everything that belongs to it; its weights in `dtype`, by default their own.

    Raises:
        FileNotFoundError: nothing at `path`.
        ValueError: parts are missing, in the folder and in `given`, or damaged, or contradict each other.
    """
    if kind == "pilot":
        bundle = load_bundle(path)
        bundle.model.to(dtype or bundle.model.dtype)
        return replace(bundle, robot=given.robot or bundle.robot)
    if kind == "lerobot":
        bundle = lerobot_policy.load_bundle(
            path,
            robot=given.robot,
            norm_stats=_given_stats(given, "quantile"),
            text=given.text,
            action_tokenizer=given.action_tokenizer,
            dtype=dtype or prevailing_dtype(lerobot.open_weights(path)),
        )
        bundle.model.config = changed(bundle.pi, given.change)
        return bundle
    refuse_incomplete(path, kind, given)
    return _with_parts(_model(path, kind, given, dtype), path, kind, given)


def refuse_incomplete(path: Path, kind: str, given: Given) -> None:
    """Raises `ValueError` for what neither the folder nor `given` says: all of it, before gigabytes are read."""
    config = MODELS[given.model]() if kind == "paligemma" else open_checkpoint(path, kind)[1]
    lacks = []
    if given.robot is None:
        lacks.append("which robot it is for (--robot NAME)")
    if given.text is None and kind != "paligemma":
        lacks.append(f"PaliGemma's text model (--tokenizer {paligemma.PUBLISHED_TEXT})")
    if config.action_expert is None and given.action_tokenizer is None:
        lacks.append("the action tokenizer of π0-FAST (--action-tokenizer hf://physical-intelligence/fast)")
    if given.norm_stats is None and len(found := stats_files(path)) != 1:
        those = f"one of {', '.join(map(str, found))}" if found else "of your data: pilot data stats DATASET"
        lacks.append(f"whose statistics to take (--stats FILE; {those})")
    if lacks:
        raise ValueError(f"{path} ({kind}) does not say {', '.join(lacks)}")


def _model(path: Path, kind: str, given: Given, dtype: torch.dtype | None) -> Pi:
    if kind == "paligemma":
        config = given.change(MODELS[given.model]())
        generator = torch.Generator().manual_seed(given.seed)
        return paligemma.start(config, path, generator=generator, dtype=dtype or torch.float32)
    source, config, table = open_checkpoint(path, kind)
    model = load_pi(table, source, config, dtype=dtype or prevailing_dtype(source))
    flows = config.action_expert is not None  # and was trained with a loss on padded dims too
    model.config = replace(model.config, prompt=family(config), integrate_padded_dims=flows)
    model.config = changed(model, given.change)
    return model


def family(config: PiConfig) -> str:
    """The member of the π0 family, by its name in openpi and LeRobot."""
    if config.action_expert is None:
        return "pi0_fast"
    return "pi05" if config.time_conditioning == "adarms" else "pi0"


def changed(model: Pi, change: Callable[[PiConfig], PiConfig]) -> PiConfig:
    """The model's config with a change that its weights allow.

    Raises:
        ValueError: they do not.
    """
    config = change(model.config)
    wanted = {name: tuple(weight.shape) for name, weight in empty_model(config).state_dict().items()}
    held = {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
    if differ := [name for name in wanted.keys() | held.keys() if wanted.get(name) != held.get(name)]:
        raise ValueError(f"the weights do not fit the changed config: {shorten(differ)}")
    return config


def _with_parts(model: Pi, path: Path, kind: str, given: Given) -> Bundle:
    """A model whose folder has neither robot nor tokenizers; `given` has them."""
    assert given.robot is not None, "refuse_incomplete comes first"
    norm = model.config.norm
    stats = _given_stats(given, norm) or read_norm_stats(stats_files(path)[0], given.robot, norm=norm)
    text = given.text or paligemma.find_text(path)
    return Bundle(model=model, robot=given.robot, norm_stats=stats, text=text, action_tokenizer=given.action_tokenizer)


def _given_stats(given: Given, norm: NormKind) -> dict[str, NormStats] | None:
    if given.norm_stats is None:
        return None
    if given.robot is None:
        raise ValueError("statistics alone do not say which robot they are of; name it too (--robot)")
    return read_norm_stats(given.norm_stats, given.robot, norm=norm)


def stats_files(path: Path) -> list[Path]:
    """openpi's statistics: `assets/<robot>/norm_stats.json` of a checkpoint."""
    folders = [path, path.parent] if path.name == "params" else [path]
    return sorted(file for folder in folders for file in (folder / "assets").rglob("norm_stats.json"))


def read_norm_stats(path: Path, robot: Robot, *, norm: NormKind) -> dict[str, NormStats]:
    """pilot's or openpi's norm_stats.json, of which the robot's own dims count: openpi pads some of its vectors.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is damaged, or lacks what `norm` needs.
    """
    file = path / "norm_stats.json" if path.is_dir() else path
    content = read_json(file, remedy="make it with: pilot data stats DATASET")
    made = {}
    for name, dims in (("state", robot.state_dim), ("actions", robot.action_dim)):
        try:
            vectors = content["norm_stats"][name]
            values = {key: np.asarray(value, float)[:dims] for key, value in vectors.items() if value is not None}
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise ValueError(f"{file} is not a norm stats file: no usable '{name}' ({error!r})") from error
        mode = "MEAN_STD" if norm == "zscore" else "QUANTILES"
        made[name] = to_norm_stats(values, mode, dims=dims, norm=norm, where=f"{file}: {name}")
    return made


# --- writing ---------------------------------------------------------------------------------------------------------


def save(bundle: Bundle, path: Path, kind: str, *, dtype: torch.dtype | None = None) -> Path:
    """Write a checkpoint for another project, under another name first: a folder that exists is whole.

    Raises:
        FileExistsError: `path` holds something.
        ValueError: that project has no such model.
    """
    refuse_used(path)
    refuse_unpublished(bundle.pi.config, kind)
    dtype = dtype or bundle.model.dtype
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        if kind == "lerobot":
            lerobot_export.save_bundle(bundle, temporary, dtype=dtype)
        else:
            {"openpi-torch": openpi_torch, "openpi-jax": openpi_jax}[kind].save(bundle.pi, temporary, dtype=dtype)
            write_json(temporary / "assets" / bundle.robot.name / "norm_stats.json", _openpi_stats(bundle.norm_stats))
        replace_folder(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return path


def _openpi_stats(norm_stats: dict[str, NormStats]) -> dict[str, Any]:
    columns = ("mean", "std", "q01", "q99")
    vectors = {n: {column: getattr(stats, column).tolist() for column in columns} for n, stats in norm_stats.items()}
    return {"norm_stats": vectors}


def refuse_used(path: Path) -> None:
    """Raises `FileExistsError` where something would be replaced."""
    if path.exists() and (path.is_file() or any(path.iterdir())):
        raise FileExistsError(f"{path} is not empty; choose another folder, or remove it first")


# --- telling ---------------------------------------------------------------------------------------------------------


def table_of(kind: str, config: PiConfig) -> Table:
    """How `kind` names the tensors of a model of this config.

    Raises:
        ValueError: it has no such model.
    """
    refuse_unpublished(config, kind)
    return {"openpi-torch": openpi_torch, "openpi-jax": openpi_jax, "lerobot": lerobot}[kind].table(config)


def refuse_unpublished(config: PiConfig, kind: str) -> None:
    """Raises `ValueError` for what only pilot builds, such as the small models that start from nothing."""
    parts = {
        "convolutions in front of its patches (stem)": config.vision.stem,
        "several vision towers": config.vision_towers,
        "a text encoder": config.text_encoder is not None,
        "an expert that reads one layer": config.expert_reads != "layers",
    }
    if own := [part for part, there in parts.items() if there]:
        raise ValueError(f"this model has {' and '.join(own)}, for which '{kind}' has no place; only pilot reads it")


def key_lines(table: Table) -> Iterator[str]:
    """The table for people: each tensor of pilot and the arrays that stand in it, then the arrays that nothing uses."""
    for slot in table.slots:
        parts = [f"{piece.key}{list(piece.index) if piece.index else ''} {list(piece.shape)}" for piece in slot.pieces]
        yield f"{slot.name}  <-  {' + '.join(parts)}"
    for alias, name in table.aliases.items():
        yield f"{alias}  is another name of  {name}"
    for key, shape in table.dead.items():
        yield f"{key} {list(shape)}  is used by nothing"
