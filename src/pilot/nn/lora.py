"""Low-rank adapters (LoRA, arXiv 2106.09685): a frozen matrix and a narrow detour beside it that learns.

    y = x Wᵀ + scale · (x Aᵀ) Bᵀ        A: [r in], B: [out r], B zero at the start: step 0 is the base model

A fused matrix holds several (the heads of queries, keys and values; gate and up), and each of them has its own detour,
as each is a matrix of its own in openpi, whose ranks and scales are the defaults here. Adapters are put into a model
from outside (`inject_adapters`) and the matrices keep their names, so base weights load as before. `merge_adapters`
folds them in.

Axes: `p` matrices in one, `r` rank, `o` outputs of one of them, `i` inputs.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from pilot.nn.configs import LoraConfig, LoraGroup

WEIGHTS, DESCRIPTION = "adapters.safetensors", "adapters.json"


class LoraLinear(nn.Linear):
    """A frozen linear layer with detours that learn; `parts` matrices of one size stand in it."""

    def __init__(
        self, base: nn.Linear, *, rank: int, scale: float, parts: int = 1, generator: torch.Generator | None = None
    ) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = base.in_features, base.out_features
        assert self.out_features % parts == 0, (self.out_features, parts)
        self.weight, self.bias = base.weight.requires_grad_(False), base.bias
        if self.bias is not None:
            self.bias.requires_grad_(False)
        self.rank, self.scale, self.parts = rank, scale, parts
        device = base.weight.device
        self.lora_a = nn.Parameter(torch.empty(parts * rank, self.in_features, device=device))
        self.lora_b = nn.Parameter(torch.zeros(self.out_features, rank, device=device))
        # The variance of PyTorch's own start of a linear layer. B is 0, so nothing changes before the first step.
        if device.type != "meta":
            drawn = torch.randn(self.lora_a.shape, generator=generator) * (3 * self.in_features) ** -0.5
            self.lora_a.data.copy_(drawn)

    def forward(self, x: Float[Tensor, "*b i"]) -> Float[Tensor, "*b o"]:
        """Return the frozen layer's output plus the scaled detours."""
        y = F.linear(x, self.weight, self.bias)
        # Adapters learn in fp32 beside a frozen matrix in bf16.
        narrow = F.linear(x, self.lora_a.to(x.dtype))
        if self.parts == 1:
            return y + self.scale * F.linear(narrow, self.lora_b.to(x.dtype))
        b = self.lora_b.to(x.dtype).unflatten(0, (self.parts, -1))
        wide = torch.einsum("...pr,por->...po", narrow.unflatten(-1, (self.parts, -1)), b)
        return y + self.scale * wide.flatten(-2)


def inject_adapters(
    model: nn.Module,
    config: LoraConfig,
    *,
    groups: Mapping[str, Sequence[str]],
    frozen: Iterable[str] = (),
    generator: torch.Generator | None = None,
) -> nn.Module:
    """Freeze what `config` adapts and put adapters there. Parts in `frozen` get none and stay as they are.

    `groups` are the model's parts by "vision", "language" and "expert".

    Raises:
        ValueError: no layer of the model is a target.
    """
    # What learns whole needs no detour, and what is frozen on purpose gets none.
    left_out = {*config.whole, *frozen}
    for group, parts in groups.items():
        adapters: LoraGroup = getattr(config, group)
        for part in parts if adapters.rank else ():
            if part in left_out or not hasattr(model, part):
                continue
            model.get_submodule(part).requires_grad_(False)
            for name in _targets(model, part, config.targets):
                owner, last = _owner(model, name)
                base = getattr(owner, last)
                options = {"rank": adapters.rank, "scale": config.scale(adapters), "generator": generator}
                setattr(owner, last, LoraLinear(base, parts=matrices_in(owner, last), **options))
    if not adapted_layers(model):
        raise ValueError(f"no layer of this model is among the LoRA targets {', '.join(config.targets)}")
    return model


def _targets(model: nn.Module, part: str, targets: Sequence[str]) -> list[str]:
    within = [(name, m) for name, m in model.named_modules() if name == part or name.startswith(f"{part}.")]
    return [name for name, m in within if isinstance(m, nn.Linear) and name.rpartition(".")[2] in targets]


def _owner(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    owner, _, last = name.rpartition(".")
    return model.get_submodule(owner), last


def matrices_in(block: nn.Module, name: str) -> int:
    """Return how many matrices stand in the layer `name` of a block: one per head, gate and up, or just one."""
    layer = block.get_submodule(name)
    assert isinstance(layer, nn.Linear)
    if name == "gate_up":
        return 2
    # openpi gives each head a matrix and an adapter of its own; here heads lie in one matrix.
    if name not in ("qkv", "memory_q", "memory_kv"):
        return 1
    heads = getattr(block, "num_heads", None)  # of a vision block; a Gemma block keeps them in its config
    config: Any = getattr(block, "config", None)
    head_dim = layer.out_features // (3 * heads) if heads is not None else config.head_dim
    return layer.out_features // head_dim


def adapted_layers(model: nn.Module) -> dict[str, LoraLinear]:
    """Return the layers that have adapters, by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLinear)}


def adapter_scales(model: nn.Module) -> dict[str, float]:
    """Return what each adapted layer's detour is scaled by, which is all that `merge_adapters` must know of a model."""
    return {name: layer.scale for name, layer in adapted_layers(model).items()}


def trainable_names(model: nn.Module) -> list[str]:
    """Return the names of the weights that learn: adapters, and parts that learn whole."""
    return [name for name, weight in model.named_parameters() if weight.requires_grad]


@torch.no_grad()
def merge_adapters(weights: Mapping[str, Tensor], scales: Mapping[str, float]) -> dict[str, Tensor]:
    """Return the weights of the model without adapters that computes the same, in fp32: `W + scale · B A`.

    `weights` are whole tensors by name, for instance a moving average.
    """
    merged = {}
    for name, weight in weights.items():
        layer, _, last = name.rpartition(".")
        if layer in scales and last in ("lora_a", "lora_b"):
            continue
        merged[name] = weight.float()
        if layer in scales and last == "weight":
            added = delta(weights[f"{layer}.lora_a"], weights[f"{layer}.lora_b"]) * scales[layer]
            merged[name] = merged[name] + added.to(weight.device)
    return merged


def delta(a: Float[Tensor, "pr i"], b: Float[Tensor, "po r"]) -> Float[Tensor, "po i"]:
    """Return `B A` of each of the matrices that stand in one, in fp32."""
    rank = b.shape[1]
    a, b = a.float().unflatten(0, (-1, rank)), b.float().unflatten(0, (len(a) // rank, -1))
    return (b @ a).flatten(0, 1)


# --- on disk ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class AdapterDescription:
    """The base and the scales of adapters on disk."""

    base: str  # the checkpoint that they were trained on
    scales: dict[str, float]  # by layer

    def save(self, folder: Path) -> None:
        """Write the description into a folder."""
        (folder / DESCRIPTION).write_text(json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path) -> "AdapterDescription":
        """Read what `save` wrote.

        Raises:
            ValueError: the file is damaged, or its adapters belong to no checkpoint.
        """
        file = folder / DESCRIPTION
        try:
            description = cls(**json.loads(file.read_text()))
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(f"{file} is damaged ({error}); fetch it again") from error
        if not description.base:
            raise ValueError(f"{folder} has adapters whose base was never a checkpoint; use the run's folder policy/")
        return description


def apply_adapters(
    base: Mapping[str, Tensor], stored: Mapping[str, Tensor], *, scales: Mapping[str, float]
) -> dict[str, Tensor]:
    """Return the weights of `base` with what was learned: adapters merged, other weights in place of its own.

    Raises:
        ValueError: adapters for a layer that the base does not have, or of another shape.
    """
    for layer in scales:
        try:
            shape = tuple(delta(stored[f"{layer}.lora_a"], stored[f"{layer}.lora_b"]).shape)
            own = tuple(base[f"{layer}.weight"].shape)
        except KeyError as error:
            raise ValueError(f"the adapters of {layer} do not fit their base: {error} is missing") from error
        if shape != own:
            raise ValueError(f"the adapters of {layer} add up to {shape}, the weight of their base is {own}")
    return merge_adapters({**base, **stored}, scales)
