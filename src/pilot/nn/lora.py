"""Low-rank adapters (LoRA, arXiv 2106.09685): a frozen matrix and a narrow detour beside it that learns.

    y = x Wᵀ + scale · (x Aᵀ) Bᵀ        A: [r in], B: [out r], B zero at the start: step 0 is the base model

A fused matrix holds several (the heads of queries, keys and values; gate and up), and each of them has a detour of its
own, as each is a matrix of its own in openpi, whose ranks and scales are the defaults here. Adapters are put into a
model from outside (`inject`) and the matrices keep their names, so base weights load as before. `merge` folds them in.

Axes: `p` matrices in one, `r` rank, `o` outputs of one of them, `i` inputs.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

WEIGHTS, DESCRIPTION = "adapters.safetensors", "adapters.json"
ATTENTION, MLP = ("qkv", "out", "memory_q", "memory_kv", "memory_out"), ("gate_up", "up", "down")
TIME = ("time_mlp_in", "time_mlp_out")


@dataclass(frozen=True, kw_only=True)
class Adapters:
    """The detours of one group of weights: how wide, and scaled by `alpha / rank`. Rank 0 is none: all of it learns."""

    rank: int
    alpha: float

    def __post_init__(self) -> None:
        if self.rank < 0 or (self.rank and self.alpha <= 0):
            raise ValueError(
                f"adapters have a rank of 0 or more and an alpha above 0, got {self.rank} and {self.alpha}"
            )


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """What learns through adapters: everything else in a group that has them is frozen, but for the parts in `whole`.

    Ranks and alphas are those of openpi's `gemma_2b_lora` and `gemma_300m_lora`, which leave the vision tower without.
    `targets` are layers by the last part of their names. `rank_stabilized` scales by `alpha / √rank` (2312.03732).
    """

    language: Adapters = Adapters(rank=16, alpha=16.0)
    expert: Adapters = Adapters(rank=32, alpha=32.0)
    vision: Adapters = Adapters(rank=0, alpha=16.0)
    targets: tuple[str, ...] = field(default=ATTENTION + MLP + TIME)
    whole: tuple[str, ...] = ("action_in", "action_out", "state_in")
    rank_stabilized: bool = False

    def scale(self, adapters: Adapters) -> float:
        return adapters.alpha / (adapters.rank**0.5 if self.rank_stabilized else adapters.rank)


class LoraLinear(nn.Linear):
    """A linear layer, its own weights frozen, with detours. `parts`: how many matrices of one size stand in it."""

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
        if device.type != "meta":
            drawn = torch.randn(self.lora_a.shape, generator=generator) * (3 * self.in_features) ** -0.5
            self.lora_a.data.copy_(drawn)

    def forward(self, x: Float[Tensor, "*b i"]) -> Float[Tensor, "*b o"]:
        y = F.linear(x, self.weight, self.bias)
        narrow = F.linear(x, self.lora_a.to(x.dtype))
        if self.parts == 1:
            return y + self.scale * F.linear(narrow, self.lora_b.to(x.dtype))
        b = self.lora_b.to(x.dtype).unflatten(0, (self.parts, -1))
        wide = torch.einsum("...pr,por->...po", narrow.unflatten(-1, (self.parts, -1)), b)
        return y + self.scale * wide.flatten(-2)

    def delta(self, a: Float[Tensor, "pr i"], b: Float[Tensor, "po r"]) -> Float[Tensor, "po i"]:
        """What detours with these weights add to the matrix, in fp32."""
        a, b = (x.float().unflatten(0, (self.parts, -1)) for x in (a, b))
        return self.scale * (b @ a).flatten(0, 1)


def inject(
    model: nn.Module,
    config: LoraConfig,
    *,
    groups: Mapping[str, Sequence[str]],
    frozen: Iterable[str] = (),
    generator: torch.Generator | None = None,
) -> nn.Module:
    """Freeze what `config` adapts and put adapters there; parts in `frozen` get none, and stay as they are.

    `groups`: the model's parts by "vision", "language" and "expert".

    Raises:
        ValueError: no layer of the model is a target.
    """
    left_out = {*config.whole, *frozen}
    for group, parts in groups.items():
        adapters: Adapters = getattr(config, group)
        for part in parts if adapters.rank else ():
            if part in left_out or not hasattr(model, part):
                continue
            model.get_submodule(part).requires_grad_(False)
            for name in _targets(model, part, config.targets):
                owner, last = _owner(model, name)
                base = getattr(owner, last)
                options = {"rank": adapters.rank, "scale": config.scale(adapters), "generator": generator}
                setattr(owner, last, LoraLinear(base, parts=matrices_in(owner, last), **options))
    if not adapted(model):
        raise ValueError(f"no layer of this model is among the LoRA targets {', '.join(config.targets)}")
    return model


def _targets(model: nn.Module, part: str, targets: Sequence[str]) -> list[str]:
    within = [(name, m) for name, m in model.named_modules() if name == part or name.startswith(f"{part}.")]
    return [name for name, m in within if isinstance(m, nn.Linear) and name.rpartition(".")[2] in targets]


def _owner(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    owner, _, last = name.rpartition(".")
    return model.get_submodule(owner), last


def matrices_in(block: nn.Module, name: str) -> int:
    """How many matrices stand in the layer `name` of a block: one per head, gate and up, or it is a single one."""
    layer = block.get_submodule(name)
    assert isinstance(layer, nn.Linear)
    if name == "gate_up":
        return 2
    if name not in ("qkv", "memory_q", "memory_kv"):
        return 1
    heads = getattr(block, "num_heads", None)  # of a vision block; a Gemma block keeps them in its config
    config: Any = getattr(block, "config", None)
    head_dim = layer.out_features // (3 * heads) if heads is not None else config.head_dim
    return layer.out_features // head_dim


def adapted(model: nn.Module) -> dict[str, LoraLinear]:
    """The layers that have adapters, by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLinear)}


@torch.no_grad()
def merge(weights: Mapping[str, Tensor], layers: Mapping[str, LoraLinear]) -> dict[str, Tensor]:
    """The weights of the model without adapters that does the same, in fp32: `W + scale · B A`.

    `weights` are whole tensors by name, for instance a moving average of the model that `layers` are `adapted` of.
    """
    merged = {}
    for name, weight in weights.items():
        layer, _, last = name.rpartition(".")
        if layer in layers and last in ("lora_a", "lora_b"):
            continue
        merged[name] = weight.float()
        if layer in layers and last == "weight":
            delta = layers[layer].delta(weights[f"{layer}.lora_a"], weights[f"{layer}.lora_b"])
            merged[name] = merged[name] + delta.to(weight.device)
    return merged


# --- on disk ---------------------------------------------------------------------------------------------------------


def learned(model: nn.Module) -> list[str]:
    """The names of the weights that learn: adapters, and parts that learn whole."""
    return [name for name, weight in model.named_parameters() if weight.requires_grad]


def save_adapters(folder: Path, weights: Mapping[str, Tensor], *, config: LoraConfig, base: str) -> Path:
    """Write what was learned (`weights`) and what it belongs to; `base` is where the other weights come from."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: t.detach().cpu().contiguous() for name, t in weights.items()}, folder / WEIGHTS)
    (folder / DESCRIPTION).write_text(json.dumps({"base": base, "lora": asdict(config)}, indent=2) + "\n")
    return folder


def read_description(folder: Path) -> tuple[LoraConfig, str]:
    """The adapters' config and the base that they belong to.

    Raises:
        FileNotFoundError: no adapters there.
        ValueError: the file is damaged, or of another version.
    """
    file = folder / DESCRIPTION
    if not file.is_file():
        raise FileNotFoundError(
            f"{folder} has no {DESCRIPTION}; a run with `lora` writes them into its folder adapters/"
        )
    try:
        content = json.loads(file.read_text())
        values = {name: tuple(v) if isinstance(v, list) else v for name, v in content["lora"].items()}
        groups = {name: Adapters(**v) for name, v in values.items() if isinstance(v, dict)}
        return LoraConfig(**(values | groups)), content["base"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} does not describe adapters of this version of pilot: {error!r}") from error


@torch.no_grad()
def load_adapters(model: nn.Module, folder: Path) -> None:
    """Fill the weights that learn from `folder`.

    Raises:
        FileNotFoundError: no adapters there.
        ValueError: the file is damaged, or its weights are not those that learn in `model`; they are named.
    """
    file = folder / WEIGHTS
    if not file.is_file():
        raise FileNotFoundError(f"{folder} has no {WEIGHTS}; a run with `lora` writes it into its folder adapters/")
    try:
        stored = load_file(file)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{file} cannot be read ({error}); it is truncated or damaged") from error
    own = {name: p for name, p in model.named_parameters() if p.requires_grad}
    shapes = [{name: tuple(t.shape) for name, t in tensors.items()} for tensors in (own, stored)]
    if differ := sorted({name for name, _ in shapes[0].items() ^ shapes[1].items()}):
        raise ValueError(f"{file} does not fit this model: {len(differ)} weights differ, such as {differ[:4]}")
    for name, weight in stored.items():
        own[name].copy_(weight)
