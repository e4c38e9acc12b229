"""Weights of one model as the start of another: some parts are taken over, the others are drawn anew."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pilot.convert.paligemma import init_action_expert
from pilot.models.base import Model
from pilot.models.bundle import empty_model
from pilot.models.pi import Pi, PiConfig
from pilot.names import shorten
from pilot.train.freezing import GROUPS, parts_of


def fresh_parts(model: Model, fresh: Sequence[str]) -> set[str]:
    """Return the parts of the model that `fresh` names, by themselves or in groups; only the expert's can be fresh.

    Raises:
        ValueError: `fresh` names other parts, or parts that the model does not have.
    """
    if others := sorted(set(parts_of(model, fresh, field="fresh")) - set(GROUPS["expert"])):
        raise ValueError(
            f"fresh names {', '.join(others)}; only parts of the expert start from nothing beside a checkpoint, the "
            "others come from one, or from PaliGemma (init_from.kind=paligemma)"
        )
    return {part for name in fresh for part in (name, *GROUPS.get(name, ()))}


def transfer_weights(base: Pi, config: PiConfig, *, fresh: Sequence[str], generator: torch.Generator) -> Pi:
    """Return a model of `config` with the weights of `base`, and new random ones for parts of the expert in `fresh`.

    So the second stage of π0.5 gets a new expert, whatever stood there before. Random weights are drawn as in openpi.
    The other weights are those of `base`, not copies. A model without an expert leaves that of `base` out.

    Raises:
        ValueError: see `fresh_parts`, or weights outside of `fresh` that are missing, left over or of another shape.
    """
    model = empty_model(config)
    new_parts = fresh_parts(model, fresh) | (set(GROUPS["expert"]) if config.action_expert is None else set())

    def select_transferred(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: weight for name, weight in weights.items() if name.split(".")[0] not in new_parts}

    wanted, available = select_transferred(model.state_dict()), select_transferred(base.state_dict())
    shapes = [{(name, tuple(weight.shape)) for name, weight in weights.items()} for weights in (wanted, available)]
    if differ := {name for name, _ in shapes[0] ^ shapes[1]}:
        raise ValueError(
            f"the weights to start from do not fit the model that this run asks for: {shorten(differ)}; parts that "
            "are to start from nothing are named in `fresh`"
        )
    rest = {name: weight for name, weight in model.state_dict().items() if name not in wanted}
    # Only what is new is allocated; the rest are the tensors of `base`, of which a copy may not fit.
    drawn = {name: torch.empty(weight.shape, dtype=base.dtype) for name, weight in rest.items()}
    init_action_expert(drawn, generator)
    model.load_state_dict(available | drawn, assign=True)
    return model.eval()


def load_resnet(model: Model, file: str) -> Model:
    """Load torchvision's ResNet from `file` into the vision tower of `model`, and return the model.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the vision tower of the model is no ResNet, or the weights do not fit.
    """
    model.load_image_weights(file)
    return model
