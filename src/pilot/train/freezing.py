"""Which weights learn: all of them, those outside frozen parts, or adapters beside frozen weights.

Parts of a model are its direct children (`vision`, `vlm`, `action_expert`, …); three groups of them have names too:

| group | parts |
|---|---|
| `vision` | the vision tower |
| `language` | embedding and backbone, and π0-small's text encoder |
| `expert` | action expert, its way in and out, and its time MLP |
"""

from collections.abc import Collection, Iterable
from typing import TypeVar

import torch
from torch import nn

from pilot.names import suggest_names
from pilot.nn.configs import LoraConfig
from pilot.nn.lora import inject_adapters

Model = TypeVar("Model", bound=nn.Module)

GROUPS: dict[str, tuple[str, ...]] = {
    "vision": ("vision",),
    "language": ("embedding", "text_encoder", "text_out", "vlm"),
    "expert": ("action_expert", "action_in", "action_out", "state_in", "time_mlp_in", "time_mlp_out"),
}


def parts_of(model: nn.Module, names: Iterable[str], *, field: str = "freeze") -> list[str]:
    """Return the parts of a model that the given names of parts and groups stand for.

    `field` is the setting that holds the names, for the error message.

    Raises:
        ValueError: a name that is neither; the nearest is suggested.
    """
    own = [name for name, _ in model.named_children()]
    groups = {group: [part for part in members if part in own] for group, members in GROUPS.items()}
    known = {name: [name] for name in own} | {group: members for group, members in groups.items() if members}
    parts: dict[str, None] = {}
    for name in names:
        if name not in known:
            hint = suggest_names(name, known, listed="it has")
            raise ValueError(f"{field} names '{name}', which the model has not; {hint}")
        parts |= dict.fromkeys(known[name])
    return list(parts)


def choose_learning(
    model: Model, *, freeze: Iterable[str] = (), lora: LoraConfig | None = None, seed: int = 0
) -> Model:
    """Freeze the parts of a model that are not to learn, and with `lora` add adapters drawn from `seed`.

    Raises:
        ValueError: an unknown part, no layer to adapt, or nothing left that learns.
    """
    frozen = parts_of(model, freeze)
    if lora is not None:
        inject_adapters(model, lora, groups=GROUPS, frozen=frozen, generator=torch.Generator().manual_seed(seed))
    for part in frozen:
        model.get_submodule(part).requires_grad_(False)
    if not any(weight.requires_grad for weight in model.parameters()):
        raise ValueError(f"nothing is left to learn: freeze={tuple(freeze)} is all of the model")
    return model


def freeze_unreached(model: nn.Module, losses: Collection[str]) -> list[str]:
    """Freeze the parts that no loss reaches, and return their names.

    That is the backbone of an insulated model under the flow loss alone. Training would not change it, and frozen it
    takes no memory for gradients, optimizer or average.
    """
    config = getattr(model, "config", None)
    if set(losses) != {"flow"} or not getattr(config, "insulate", False):
        return []
    parts = parts_of(model, ["vision", "language"])
    for part in parts:
        model.get_submodule(part).requires_grad_(False)
    return parts


def halve_frozen(model: nn.Module) -> None:
    """Convert weights that do not learn to bf16, as openpi does: blocks that compute in bf16 need no more."""
    for weight in model.parameters():
        if not weight.requires_grad:
            weight.data = weight.data.bfloat16()
