"""From a config to everything a run needs: data, statistics, tokenizers, model. Whatever cannot work fails here."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from pilot.data.files import write_json
from pilot.data.frames import cache_frames
from pilot.data.lerobot import LeRobotDataset
from pilot.data.loader import Loader, RobotRows
from pilot.data.mixture import Mixture, Rows
from pilot.data.stats import compute_norm_stats
from pilot.data.transforms import normalize, to_delta
from pilot.data.web import WebRows
from pilot.models.bundle import Bundle, load_bundle, ordered_tokens
from pilot.models.pi import Pi
from pilot.robots import load_robot
from pilot.tokenizers.fast import FastTokenizer
from pilot.tokenizers.text import TextTokenizer
from pilot.train import checkpoint
from pilot.train.config import Source, TrainConfig
from pilot.types import NormStats, Robot

FIT_CHUNKS = 20_000


@dataclass(kw_only=True)
class Setup:
    """A run before its first step."""

    bundle: Bundle
    loader: Loader
    resume_from: Path | None


def prepare(config: TrainConfig, out: Path, *, resume: bool, progress: bool = True) -> Setup:
    """Open the sources, make or load statistics, tokenizers and weights, and find the checkpoint to go on from.

    Raises:
        FileNotFoundError: a source or `init_from` is not there.
        ValueError: the folder holds another run, or sources, robot and model do not fit together.
    """
    last = _claim(config, out, resume=resume)
    robot = load_robot(config.robot)
    names = [_name(source.path) for source in config.sources]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"sources {twice} have the same folder name; rename one, losses are logged by it")
    sources = {_name(source.path): _open(source, config, progress) for source in config.sources}
    datasets = [rows.dataset for rows in sources.values() if isinstance(rows, RobotRows)]
    bundle = _start(config, robot, datasets, out / "policy" if last is not None else None)
    weights = [(_name(source.path), source.weight) for source in config.sources if source.weight is not None]
    if weights and len(weights) < len(config.sources):
        raise ValueError("give a weight to every source or to none (then rows count to the power 0.43)")
    mixture = Mixture(sources, seed=config.seed, weights=dict(weights) or None)
    loader = Loader(mixture, bundle.pipeline, batch_size=config.batch_size, say_actions=config.fast_weight > 0)
    return Setup(bundle=bundle, loader=loader, resume_from=last)


def _claim(config: TrainConfig, out: Path, *, resume: bool) -> Path | None:
    """Write the config into a fresh folder, or check that a used one belongs to the same run; its last checkpoint."""
    file, mine = out / "config.json", json.loads(json.dumps(asdict(config)))
    last = checkpoint.last_checkpoint(out)
    if file.exists() and last is not None:
        if not resume:
            raise ValueError(f"{out} holds a run at {last.name}; resume it, or choose another folder")
        theirs = json.loads(file.read_text())
        free = {"threads", "log_every", "save_every"}
        if changed := [name for name in mine if name not in free and theirs.get(name) != mine[name]]:
            raise ValueError(
                f"{out} holds a run with other {', '.join(changed)}; choose another folder or the same config"
            )
    write_json(file, mine)
    return last


def _name(path: str) -> str:
    return Path(path).name


def _open(source: Source, config: TrainConfig, progress: bool) -> Rows:
    name = _name(source.path)
    if source.kind == "web":
        return WebRows(source.path, loc_stride=config.loc_stride, source=name, question=source.question)
    dataset = LeRobotDataset(source.path, config.model.action_horizon)
    if config.frame_cache:
        cache_frames(dataset, progress=progress)
    return RobotRows(name, dataset, loc_stride=config.loc_stride, box_jitter=config.box_jitter)


def _start(config: TrainConfig, robot: Robot, datasets: list[LeRobotDataset], resumed: Path | None) -> Bundle:
    """The bundle that a run starts from: its own when resumed, that of `init_from`, or a fresh one."""
    if (path := resumed or config.init_from) is not None:
        bundle = load_bundle(path)
        if (got := bundle.robot.name) != robot.name:
            raise ValueError(f"{path} was trained for robot '{got}', this run is for '{robot.name}'")
        if replace(bundle.model.config, insulate=config.model.insulate) != config.model:
            raise ValueError(f"{path} holds a model of another shape than the config '{config.name}' asks for")
        bundle.model.config = config.model
        return bundle
    if not datasets:
        raise ValueError(f"run '{config.name}' has no robot source: statistics of actions come from one")
    text = TextTokenizer()
    stats = compute_norm_stats(datasets, robot)
    fast = fit_fast(datasets, robot, stats=stats["actions"], config=config)
    model = Pi(config.model).initialize(torch.Generator().manual_seed(config.seed), ordered_tokens=ordered_tokens(text))
    return Bundle(
        model=model, robot=robot, norm_stats=stats, text=text, action_tokenizer=fast, loc_stride=config.loc_stride
    )


def fit_fast(datasets: list[LeRobotDataset], robot: Robot, *, stats: NormStats, config: TrainConfig) -> FastTokenizer:
    """FAST fitted on whole chunks of the data, as the model learns them: relative and normalised."""
    rng = np.random.default_rng(config.seed)
    chunks = []
    for dataset in datasets:
        rows = rng.permutation(len(dataset))[: FIT_CHUNKS // len(datasets)]
        actions, is_pad = dataset.windows(rows)
        whole = ~is_pad.any(1)
        chunks.append(to_delta(actions[whole], dataset.state[rows][whole], robot.delta_mask))
    values = normalize(np.concatenate(chunks), stats)
    vocab_size = config.model.fast_vocab_size
    return FastTokenizer.fit(values, vocab_size=vocab_size, scale=config.fast_scale)
