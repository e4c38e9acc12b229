"""Weights of one model as the start of another: some parts taken over, the others drawn anew."""

from collections.abc import Sequence

import torch

from pilot.convert.paligemma import init_action_expert
from pilot.models.base import Model
from pilot.models.bundle import empty_model
from pilot.models.pi import Pi, PiConfig
from pilot.names import shorten
from pilot.train.freezing import GROUPS, parts_of


def fresh_parts(model: Model, fresh: Sequence[str]) -> set[str]:
    """The parts of the model that start from nothing: those of the expert, which there is a way to draw.

    Raises:
        ValueError: `fresh` names others, or what the model has not.
    """
    if others := sorted(set(parts_of(model, fresh, field="fresh")) - set(GROUPS["expert"])):
        raise ValueError(
            f"fresh names {', '.join(others)}; only parts of the expert start from nothing beside a checkpoint, the "
            "others come from one, or from PaliGemma (init_from=paligemma:PATH)"
        )
    return {part for name in fresh for part in (name, *GROUPS.get(name, ()))}


def restarted(base: Pi, config: PiConfig, *, fresh: Sequence[str], generator: torch.Generator) -> Pi:
    """A model of `config` with the weights of `base`; parts of the expert in `fresh` are drawn anew, as by openpi.

    So π0.5's second stage gets an expert from nothing, whatever stood there before. The other weights are those of
    `base`, not copies.

    Raises:
        ValueError: see `fresh_parts`, or weights outside of `fresh` that are missing, left over or of another shape.
    """
    model = empty_model(config)
    anew = fresh_parts(model, fresh)
    wanted, held = ({n: w for n, w in m.state_dict().items() if n.split(".")[0] not in anew} for m in (model, base))
    shapes = [{(name, tuple(weight.shape)) for name, weight in weights.items()} for weights in (wanted, held)]
    if differ := {name for name, _ in shapes[0] ^ shapes[1]}:
        raise ValueError(
            f"the weights to start from do not fit the model that this run asks for: {shorten(differ)}; parts that "
            "are to start from nothing are named in `fresh`"
        )
    rest = {name: weight for name, weight in model.state_dict().items() if name not in wanted}
    drawn = {name: torch.empty(weight.shape, dtype=base.dtype) for name, weight in rest.items()}
    init_action_expert(drawn, generator)
    model.load_state_dict(held | drawn, assign=True)
    return model.eval()


def looking_with(model: Model, file: str) -> Model:
    """The model with the weights of torchvision's ResNet in `file`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the model looks with something else, or the weights do not fit.
    """
    model.load_image_weights(file)
    return model
