"""Each kernel for acting on a GPU against its plain twin, in bf16 and at the sizes of `2b`; a part of `gpu.py`."""

from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from pilot.infer.engine.fp8 import FP8, quantize, scaled_mm
from pilot.infer.engine.fused_stack import choose_cut, gelu_linear, tiles_for
from pilot.models.pi import pi05
from pilot.nn.attention import rotary_angles
from pilot.nn.configs import GemmaConfig
from pilot.nn.kernels import attention, passes, products, steps
from pilot.nn.kernels.attention import Parts
from pilot.nn.kernels.products import Stream, Tile, Workspace

REAL = torch.cuda.is_available()
DEVICE, DTYPE = torch.device("cuda" if REAL else "cpu"), torch.bfloat16 if REAL else torch.float32
SMALL = GemmaConfig(width=32, depth=2, mlp_dim=64, num_heads=2, head_dim=32)
CONFIG = pi05("2b") if REAL else replace(pi05("debug"), vlm=SMALL, action_expert=replace(SMALL, cond_width=32))
EXPERT = cast(GemmaConfig, CONFIG.action_expert)
HEADS, HEAD_DIM, LAYERS = EXPERT.num_heads, EXPERT.head_dim, EXPERT.depth
TOKENS, CHUNK = 3 * CONFIG.vision.grid**2 + 60 if REAL else 40, CONFIG.action_horizon
D, INNER, DIMS = CONFIG.vlm.width, CONFIG.vlm.mlp_dim, CONFIG.action_dim
WIDE, MLP, PATCHES = CONFIG.vision.width, CONFIG.vision.mlp_dim, 3 * CONFIG.vision.grid**2
STACKS = {"expert": (EXPERT, CHUNK), "word": (CONFIG.vlm, 1)}
"""What runs in products of few rows: a chunk of actions, a word."""
KINDS = ("qkv", "gate_up", "out", "down")
EARLY = (False, True) if REAL else (False,)
RESULTS: dict[str, Any] = {}


def draw(*shape: int, dtype: torch.dtype = DTYPE) -> Tensor:
    return torch.randn(shape, device=DEVICE, dtype=torch.float32).to(dtype)


class Places:
    """What the kernels of a stack read and write beside the weights."""

    def __init__(self, which: str, *, columns: int = min(64, EXPERT.width), slots: int = TOKENS + CHUNK) -> None:
        config, rows = STACKS[which]
        width, inner = config.width, config.mlp_dim
        self.stream = Stream.empty(draw(rows, width), columns=columns)
        self.factor, self.gate = 1 + draw(width, dtype=torch.float32) / 10, draw(width) / 10
        self.queries = draw(1, rows * HEADS, HEAD_DIM)
        self.attended = torch.empty_like(self.queries)
        self.cache = draw(2, 1, 1, slots, HEAD_DIM)
        self.keys, self.values = self.cache[:, :, :, :slots]
        self.new_keys, self.new_values = self.cache[:, :, :, slots - rows :]
        cos, sin = rotary_angles(torch.arange(rows, device=DEVICE)[None], HEAD_DIM)
        self.cos, self.sin = cos.transpose(1, 2), sin.transpose(1, 2).chunk(2, dim=-1)[1]
        self.bias = torch.zeros(1, slots, device=DEVICE, dtype=DTYPE)
        self.gated = draw(rows, inner)
        self.workspace = Workspace.empty(floats=16 * 128 * width, device=DEVICE)
        products.plain_begin(self.stream, self.factor)


def weight_shape(which: str, kind: str) -> tuple[int, int]:
    width, inner = STACKS[which][0].width, STACKS[which][0].mlp_dim
    heads = HEADS * HEAD_DIM
    return {"qkv": ((HEADS + 2) * HEAD_DIM, width), "out": (width, heads), "gate_up": (2 * inner, width),
            "down": (width, inner)}[kind]  # fmt: skip


def product(kind: str, tile: Tile | None, places: Places, weight: Tensor, *, early: bool = False) -> None:
    """A launch; without a tile the plain twin."""
    p = places
    how: dict[str, Any] = {} if tile is None else {"tile": tile, "early": early}
    shifted = draw(len(weight), dtype=torch.float32) * 0 + 0.1 if kind in ("qkv", "gate_up") else None
    if kind == "qkv":
        function = products.project_heads if tile else products.plain_project_heads
        function(p.stream, weight, shifted, cos=p.cos, sin=p.sin, queries=p.queries.view(len(p.stream.x), -1),
                 keys=p.new_keys, values=p.new_values, **how)  # fmt: skip
    elif kind == "gate_up":
        (products.gated_product if tile else products.plain_gated_product)(
            p.stream, weight, shifted, out=p.gated, **how
        )
    else:
        a = p.queries.view(len(p.stream.x), -1) if kind == "out" else p.gated
        fixed: dict[str, Any] = {"stream": p.stream, "factor": p.factor}
        if tile:
            products.add_product(a, weight, p.gate, workspace=p.workspace, **fixed, **how)
        else:
            products.plain_add_product(a, weight, p.gate, **fixed)


def launch(kind: str, tile: Tile, places: Places, weight: Tensor, shifted: Tensor, *, early: bool) -> None:
    """A launch that makes no tensor of its own."""
    p = places
    rows = len(p.stream.x)
    if kind == "qkv":
        products.project_heads(
            p.stream, weight, shifted, cos=p.cos, sin=p.sin, queries=p.queries.view(rows, -1), keys=p.new_keys,
            values=p.new_values, tile=tile, early=early,
        )  # fmt: skip
    elif kind == "gate_up":
        products.gated_product(p.stream, weight, shifted, out=p.gated, tile=tile, early=early)
    else:
        a = p.queries.view(rows, -1) if kind == "out" else p.gated
        products.add_product(
            a, weight, p.gate, stream=p.stream, factor=p.factor, workspace=p.workspace, tile=tile, early=early
        )


def error(ours: Any, theirs: Any) -> float:
    """The largest relative error of the tensors of two results."""
    pairs = zip(ours, theirs, strict=True) if isinstance(ours, tuple | list) else [(ours, theirs)]
    return max(float((a.float() - b.float()).norm() / b.float().norm().clamp(min=1e-9)) for a, b in pairs)


def right() -> None:
    """Each kernel against its twin, bf16, at the sizes of `2b`."""
    found: dict[str, float] = {}
    for which, (config, _) in STACKS.items():
        tiles = tiles_for(config)
        for kind in KINDS:
            weight = draw(*weight_shape(which, kind)) / weight_shape(which, kind)[1] ** 0.5
            for early in EARLY:
                torch.manual_seed(1)
                ours = Places(which, columns=tiles.out.columns)
                torch.manual_seed(1)
                theirs = Places(which, columns=tiles.out.columns)
                product(kind, getattr(tiles, kind), ours, weight, early=early)
                product(kind, None, theirs, weight)
                results = [(p.queries, p.cache, p.gated, *p.stream) for p in (ours, theirs)]
                found[f"{which} {kind} {'early' if early else ''}"] = error(*results)
    for name, rows, slots in (
        ("few", CHUNK * HEADS, TOKENS + CHUNK),
        ("many", TOKENS * HEADS, TOKENS),
        ("word", 8, 900),
    ):
        q, (k, v) = draw(1, rows, HEAD_DIM), draw(2, 1, 1, slots, HEAD_DIM)
        bias = torch.zeros(1, slots, device=DEVICE, dtype=DTYPE)
        bias[:, 20:30] = -2.3819763e38
        cut = choose_cut(rows, slots, batch=1)
        ours, theirs = torch.empty_like(q), torch.empty_like(q)
        parts = Parts.empty(q, slots=slots, part=cut.part) if cut.part else None
        attention.attend(q, k, v, bias, out=ours, cut=cut, parts=parts)
        attention.plain_attend(q, k, v, bias, out=theirs)
        found[f"attention {name} {tuple(cut)}"] = error(ours, theirs)
    found |= right_passes() | right_steps() | right_slot()
    if REAL and torch.cuda.get_device_capability() >= (8, 9):
        found |= right_fp8()
    RESULTS["right"] = found
    for name, value in found.items():
        print(f"  {name:40} {value:9.2e}  {'' if value < 1e-2 else '<-- WRONG'}")


def right_passes() -> dict[str, float]:
    found = {}
    for name, rows, width in (("norm", TOKENS, CONFIG.vlm.width), ("norm expert", 4 * CHUNK, EXPERT.width)):
        x, branch, gate, shift = draw(rows, width), draw(rows, width), draw(width), draw(width, dtype=torch.float32)
        factor = draw(width, dtype=torch.float32) * width**0.5
        ours, theirs = (x.clone(), torch.empty_like(x)), (x.clone(), torch.empty_like(x))
        passes.add_norm(ours[0], branch, gate, factor, shift, out=ours[1])
        passes.plain_add_norm(theirs[0], branch, gate, factor, shift, out=theirs[1])
        found[name] = error(ours, theirs)
    norm = torch.nn.LayerNorm(WIDE, eps=1e-6, device=DEVICE, dtype=DTYPE).requires_grad_(False)
    x, branch, bias = draw(PATCHES, WIDE), draw(PATCHES, WIDE), draw(WIDE)
    ours, theirs = (x.clone(), torch.empty_like(x)), (x.clone(), torch.empty_like(x))
    passes.add_layer_norm(ours[0], branch, bias, norm, out=ours[1])
    passes.plain_add_layer_norm(theirs[0], branch, bias, norm, out=theirs[1])
    found["layer norm"] = error(ours, theirs)
    gate_up = draw(TOKENS, 2 * INNER)
    ours, theirs = (torch.empty(TOKENS, INNER, device=DEVICE, dtype=DTYPE) for _ in range(2))
    passes.gelu_product(gate_up, out=ours)
    passes.plain_gelu_product(gate_up, out=theirs)
    found["gelu product"] = error(ours, theirs)
    layer = torch.nn.Linear(WIDE, MLP, device=DEVICE, dtype=DTYPE).requires_grad_(False)
    found["gelu linear"] = error(gelu_linear(x, layer), F.gelu(layer(x).float(), approximate="tanh"))
    cos, sin = rotary_angles(torch.arange(TOKENS, device=DEVICE)[None], HEAD_DIM)
    qkv, results = draw(TOKENS, (HEADS + 2) * HEAD_DIM), []
    for function in (passes.rotate_into, passes.plain_rotate_into):
        queries, cache = (
            draw(TOKENS, HEADS * HEAD_DIM),
            torch.zeros(2, 1, 1, TOKENS + 50, HEAD_DIM, device=DEVICE, dtype=DTYPE),
        )
        keys, values = cache[:, :, :, :TOKENS]
        function(qkv, cos=cos.transpose(1, 2), sin=sin.transpose(1, 2).chunk(2, dim=-1)[1], queries=queries, keys=keys,
                 values=values)  # fmt: skip
        results.append((queries, cache))
    found["rotation"] = error(*results)
    return found


def right_slot() -> dict[str, float]:
    """Keys of a word at a slot that only the device knows."""
    results = []
    ours: dict[str, Any] = {"tile": tiles_for(CONFIG.vlm).qkv}
    for function, how in ((products.project_heads, ours), (products.plain_project_heads, {})):
        torch.manual_seed(2)
        p, weight = Places("word"), draw(*weight_shape("word", "qkv")) / D**0.5
        slot = torch.tensor([p.keys.shape[2] - 3], device=DEVICE)
        function(p.stream, weight, None, cos=p.cos, sin=p.sin, queries=p.queries.view(1, -1), keys=p.keys,
                 values=p.values, slot=slot, **how)  # fmt: skip
        results.append((p.queries, p.cache))
    return {"keys at a slot": error(*results)}


def right_fp8() -> dict[str, float]:
    """Passes that end in FP8 against their twins, and a product against bf16 (which differs by what FP8 rounds)."""
    x, branch, factor = draw(TOKENS, D), draw(TOKENS, D), 20 * torch.ones(D, device=DEVICE)
    ours, theirs = (torch.empty(TOKENS, D, device=DEVICE, dtype=FP8) for _ in range(2))
    passes.add_norm(x.clone(), branch, None, factor, None, out=ours)
    passes.plain_add_norm(x.clone(), branch, None, factor, None, out=theirs)
    found = {"norm to fp8": error(ours, theirs)}
    gate_up = draw(TOKENS, 2 * INNER)
    gated, twin = (torch.empty(TOKENS, INNER, device=DEVICE, dtype=FP8) for _ in range(2))
    passes.gelu_product(gate_up, out=gated, scale=40.0)
    passes.plain_gelu_product(gate_up, out=twin, scale=40.0)
    found["gelu product to fp8"] = error(gated, twin)
    weight, out = draw(D, INNER) / INNER**0.5, draw(TOKENS, D)
    in_fp8, scale = quantize(weight)
    scaled_mm(gated, in_fp8, x_scale=torch.tensor(1 / 40, device=DEVICE), weight_scale=scale, out=out)
    exact = (gated.float() / 40) @ (in_fp8.float() * scale).T
    return found | {"fp8 product": error(out, exact)}


def right_steps() -> dict[str, float]:
    found, start = {}, draw(CHUNK, DIMS, dtype=torch.float32)
    embed, out = (
        torch.nn.Linear(*s, device=DEVICE, dtype=DTYPE).requires_grad_(False)
        for s in ((DIMS, EXPERT.width), (EXPERT.width, DIMS))
    )
    ours, theirs = Places("expert"), Places("expert")
    steps.embed_actions(start, embed, stream=ours.stream, factor=ours.factor)
    steps.plain_embed_actions(start, embed, stream=theirs.stream, factor=ours.factor)
    found["embed actions"] = error(tuple(ours.stream), tuple(theirs.stream))
    ends, shifted = (torch.empty_like(start), torch.empty_like(start)), draw(DIMS, dtype=torch.float32)
    steps.step_along(ours.stream, out, shifted, start=start, by=-0.1, end=ends[0])
    steps.plain_step_along(ours.stream, out, shifted, start=start, by=-0.1, end=ends[1])
    found["step along"] = error(ends[0], ends[1])
    return found
