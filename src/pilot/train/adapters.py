"""The small checkpoint of a run with LoRA: a policy folder with what was learned in place of all weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from pilot.models.bundle import Bundle, save_bundle
from pilot.nn.lora import WEIGHTS, AdapterDescription, adapter_scales, trainable_names
from pilot.train.config import TrainConfig
from pilot.train.warm_start import fresh_parts


def save_adapters(
    bundle: Bundle, path: Path, *, average: Mapping[str, Tensor], config: TrainConfig, origin: Mapping[str, Any]
) -> Path:
    """Write those weights of the moving average that the base lacks: what learned, and parts that the run drew anew.

    `load_bundle` reads the folder as long as it finds `config.init_from` where it was. A run that did not start from a
    checkpoint has no base, and the folder is good for looking at only.
    """
    model, start = bundle.model, config.init_from
    own = {*trainable_names(model)}
    if start is not None:
        anew = fresh_parts(model, start.fresh)
        own |= {name for name in average if name.split(".")[0] in anew}
    base = start.path if start is not None and start.kind in ("checkpoint", "weights") else ""
    return save_bundle(
        bundle,
        path,
        weights={name: average[name] for name in sorted(own)},
        weights_file=WEIGHTS,
        finish=AdapterDescription(base=base, scales=adapter_scales(model)).save,
        origin=origin,
    )
