"""What a run starts from: random weights, or those that `init_from` names; with the tokenizers and statistics beside.

| start | weights | robot, statistics | tokenizers |
|---|---|---|---|
| none | random | the run's | the shipped text model, actions fitted to the sources |
| checkpoint | the checkpoint's | the checkpoint's, and those of new robots | its own; actions fitted if it has none |
| weights | the checkpoint's | the run's | the same |
| paligemma | PaliGemma's, a random expert | the run's | PaliGemma's text model, actions fitted |
| torchvision | a ResNet's, the rest random | the run's | the shipped text model |

A checkpoint decides some things for which a run has settings too. Where the two differ, the run is refused: it would
finish, and its policy would not be what its config says.
"""

from collections.abc import Mapping
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from pilot.convert import paligemma
from pilot.data.mixture import RowSource
from pilot.data.storage.remote import fetch, fetch_checkpoint
from pilot.models.base import Model
from pilot.models.build import build_model
from pilot.models.bundle import Bundle, load_bundle, ordered_tokens
from pilot.models.pi import Pi, PiConfig
from pilot.models.registry import ModelConfig, model_kind, require_pi
from pilot.models.trained_robots import TrainedRobots
from pilot.robots import load_robot
from pilot.tokenizers import ACTION_TOKENIZERS, fit_action_tokenizer, load_action_tokenizer
from pilot.tokenizers.base import ActionTokenizer
from pilot.tokenizers.text import TEXT_MODELS, TextTokenizer
from pilot.train.checks import requested_losses
from pilot.train.config import InitFrom, TrainConfig
from pilot.train.embodiments import (
    chunks_of,
    datasets_of,
    learn_robots,
    other_chunks,
    update_description,
)
from pilot.train.robots import robot_of, robots_of
from pilot.train.warm_start import load_resnet, transfer_weights

OF_THE_RUN = ("insulate", "rtc_max_delay", "integrate_padded_dims", "replan_seconds")
"""Fields of a π0 model that change how it learns or acts, not what its weights mean: a run's own are taken."""


def first_bundle(
    config: TrainConfig, sources: Mapping[str, RowSource], *, out: Path, resumed: bool, computed: bool
) -> Bundle:
    """Return the bundle of a run in folder `out` before its first step, or its own policy's if it is `resumed`.

    `computed`: the statistics of its robots are in that folder already.

    Raises:
        FileNotFoundError: there is nothing where `init_from` says.
        ValueError: what the run starts from does not fit it.
    """
    start, generator = config.init_from, torch.Generator().manual_seed(config.seed)
    learn = partial(learn_robots, config, sources, out=out, computed=computed)
    if resumed:
        bundle = with_model_config(load_bundle(out / "policy"), config, path=out / "policy")
        return replace(bundle, robots=learn(known=bundle.robots))
    if start is not None and start.kind == "checkpoint":
        bundle = _from_checkpoint(config, start, generator=generator)
        bundle = replace(bundle, robots=learn(known=bundle.robots))
        if bundle.action_tokenizer is None and "fast" in requested_losses(config):
            bundle = replace(bundle, action_tokenizer=make_action_tokenizer(config, sources, bundle.robots))
        return bundle
    robots, text, actions = learn(known={}), choose_text_model(config.data.text_model), None
    writes_actions = isinstance(config.model, PiConfig)
    if start is None:
        model = _random_model(config.model, text, generator)
    elif start.kind == "weights":
        path = fetch_checkpoint(start.path)
        base = load_bundle(path)
        check_action_tokenizer(config, base.action_tokenizer, path=path)
        check_text_model(config, base.text, path=path)
        text, actions = base.text, base.action_tokenizer
        writes_actions = config.objective.fast_weight > 0
        model = transfer_weights(base.pi, require_pi(config.model), fresh=start.fresh, generator=generator)
    elif start.kind == "paligemma":
        if not isinstance(config.model, PiConfig):
            raise ValueError(f"a {model_kind(config.model)} starts from a checkpoint of its own, not from {start}")
        path = fetch_checkpoint(start.path)
        text, model = paligemma.find_text_tokenizer(path), paligemma.init_model(config.model, path, generator=generator)
        check_text_model(config, text, path=path)
    else:
        model = load_resnet(build_model(config.model).initialize(generator), start.path)
    if actions is None and writes_actions:
        actions = make_action_tokenizer(config, sources, robots)
    return Bundle(
        model=model, robots=robots, text=text, action_tokenizer=actions, loc_stride=config.data.loc_stride
    )  # fmt: skip


def _random_model(config: ModelConfig, text: TextTokenizer, generator: torch.Generator) -> Model:
    if isinstance(config, PiConfig):
        return Pi(config).initialize(generator, ordered_tokens=ordered_tokens(text))
    return build_model(config).initialize(generator)


def _from_checkpoint(config: TrainConfig, start: InitFrom, *, generator: torch.Generator) -> Bundle:
    path = fetch_checkpoint(start.path)
    bundle = load_bundle(path)
    check_checkpoint(config, bundle=bundle, path=path)
    for name, robot in robots_of(config).items():
        if (known := bundle.robots.get(name)) is not None:
            bundle.robots[name] = replace(known, robot=update_description(known.robot, robot))
    if not start.fresh:
        return with_model_config(bundle, config, path=path)
    model = transfer_weights(bundle.pi, require_pi(config.model), fresh=start.fresh, generator=generator)
    return replace(bundle, model=model)


def with_model_config(bundle: Bundle, config: TrainConfig, *, path: Path) -> Bundle:
    """Give the model of a checkpoint the run's own settings for how it learns and acts (`OF_THE_RUN`).

    Raises:
        ValueError: the run asks for another model.
    """
    have, want = bundle.model.config, config.model
    if isinstance(have, PiConfig) and isinstance(want, PiConfig):
        # Compare the rest: these may differ, for instance insulation of a new expert.
        have = replace(have, **{name: getattr(want, name) for name in OF_THE_RUN})
    if have != want:
        raise ValueError(
            f"{path} holds a model of another shape than the config '{config.name}' asks for{_differing(have, want)}"
        )
    bundle.model.config = want
    return bundle


def _differing(have: ModelConfig, want: ModelConfig) -> str:
    if type(have) is not type(want):
        return f": it is a {model_kind(have)}, not a {model_kind(want)}"
    pairs = [(f.name, getattr(have, f.name), getattr(want, f.name)) for f in fields(have)]
    return ": " + "; ".join(f"model.{name} is {old}, not {new}" for name, old, new in pairs if old != new)


# --- what a checkpoint decides, and a run has settings for ------------------------------------------------------------


def check_checkpoint(config: TrainConfig, *, bundle: Bundle, path: Path) -> None:
    """Raise `ValueError` for settings of a run that starting from this checkpoint would override."""
    if bundle.loc_stride != config.data.loc_stride:
        raise ValueError(
            f"boxes of {path} snap to every {bundle.loc_stride}th <loc> token, those of this run to every "
            f"{config.data.loc_stride}th; set data.loc_stride={bundle.loc_stride}"
        )
    recorded = [robot_of(source, config).name for source in config.data.sources]
    all_known, per = set(recorded) <= set(bundle.robots), config.data.stats_per
    if all_known and (per == "mixture" or (per == "dataset" and len(set(recorded)) == len(recorded))):
        raise ValueError(
            f"data.stats_per={per} has no effect: statistics are those of {path}; leave it out, or compute them anew "
            "with init_from.kind=weights"
        )
    check_action_tokenizer(config, bundle.action_tokenizer, path=path)
    check_text_model(config, bundle.text, path=path)


def choose_text_model(name: str | None) -> TextTokenizer:
    """Return the text model that a run from nothing asks for: one that ships, by name, or a file."""
    name = name or "nano"
    return TextTokenizer(TEXT_MODELS.get(name, name))


def check_text_model(config: TrainConfig, text: TextTokenizer, *, path: Path) -> None:
    """Raise `ValueError` if the text model of what the run starts from is not the one that it asks for."""
    name = config.data.text_model
    if name is not None and choose_text_model(name).path.read_bytes() != text.path.read_bytes():
        raise ValueError(f"{path} has a text model of its own, which is not '{name}'; leave data.text_model out")


def check_action_tokenizer(config: TrainConfig, tokenizer: ActionTokenizer | None, *, path: Path) -> None:
    """Raise `ValueError` if the tokenizer of a checkpoint is not the one that the run asks for.

    A checkpoint without one leaves the run its choice.
    """
    wanted = config.data.action_tokenizer
    if tokenizer is None:
        return
    kinds = {kind: name for name, (_, kind) in ACTION_TOKENIZERS.items()}
    got = kinds[type(tokenizer)]
    if wanted not in ACTION_TOKENIZERS:
        # By what they write, for a folder's name says nothing of what is in it.
        if _files_of(load_action_tokenizer(fetch(wanted))) != _files_of(tokenizer):
            raise ValueError(
                f"{path} has an action tokenizer of its own ({got}), which is not the one in {wanted}; take it with "
                f"data.action_tokenizer={got}, or start from other weights"
            )
    elif wanted != got:
        raise ValueError(
            f"the actions of {path} are written by '{got}', this run asks for '{wanted}'; "
            f"set data.action_tokenizer={got}"
        )
    # Only FAST has a scale; for others the run's own is taken as agreed.
    scale = getattr(tokenizer, "scale", config.data.fast_scale)
    if scale != config.data.fast_scale:
        raise ValueError(
            f"the FAST tokenizer of {path} has scale {scale:g}, this run asks for {config.data.fast_scale:g}; set "
            f"data.fast_scale={scale:g}"
        )


def _files_of(tokenizer: ActionTokenizer) -> dict[str, bytes]:
    """Return what a tokenizer is on disk: two that write the same files are the same."""
    with TemporaryDirectory() as folder:
        tokenizer.save(folder)
        return {file.name: file.read_bytes() for file in Path(folder).iterdir()}


# --- an action tokenizer from the data --------------------------------------------------------------------------------


def make_action_tokenizer(
    config: TrainConfig, sources: Mapping[str, RowSource], robots: TrainedRobots
) -> ActionTokenizer:
    """Fit a tokenizer of the kind `data.action_tokenizer` to whole chunks of the data, or read it from a folder.

    FAST is fitted to the chunks of all robots of the run; codebooks and bins, which are of certain dims, to the run's
    own.
    """
    kind = config.data.action_tokenizer
    if kind not in ACTION_TOKENIZERS:
        return load_action_tokenizer(fetch(kind))
    own = robots[load_robot(config.robot).name]
    datasets = datasets_of(own.robot.name, config, sources)
    chunks = chunks_of(own.robot, datasets, stats=own.norm_stats, config=config)
    size = require_pi(config.model).fast_vocab_size
    options: dict[str, Any] = {
        "fast": {"vocab_size": size, "scale": config.data.fast_scale},
        "vq": {"seed": config.seed},
    }
    if kind == "fast":
        options["fast"]["others"] = other_chunks(config, sources, robots=robots)
    return fit_action_tokenizer(kind, chunks, **{"vocab_size": min(size, 256), **options.get(kind, {})})
