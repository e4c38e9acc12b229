"""All that a GPU can say about the kernels of acting, in one run of some minutes: right or not, and how fast.

    python bench/gpu_kernels.py [--out folder] [--parts ceilings compile right …]

Ceilings of this very chip first (a copy, a large product); each kernel against its plain twin at the sizes of `2b`; a
table of ways to cut each kernel; then the whole chunk of π0.5, before (`GraphEngine`) and now (`FusedEngine`), and
what a profile says of its kernels. A part that fails prints why, and the next begins. All lands in `kernels.json`.

Without a GPU the script runs through at small sizes under Triton's interpreter, and its times mean nothing.
"""

# ruff: noqa: B023 (functions that are timed are called in the turn of the loop that made them)

import argparse
import json
import statistics
import time
import traceback
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from engine import NOTHING, observation, random_model
from pilot.data.layout import Observation
from pilot.infer.engine.fused import FusedEngine
from pilot.infer.engine.fused_stack import Tiles, cut_for, gelu_linear, tiles_for
from pilot.infer.engine.graphs import GraphEngine
from pilot.infer.engine.plain import PlainEngine
from pilot.models.pi import Pi, pi05
from pilot.nn.attention import rotary_angles
from pilot.nn.gemma import GemmaConfig
from pilot.nn.kernels import attention, passes, products, steps
from pilot.nn.kernels.attention import Cut, Parts
from pilot.nn.kernels.products import Stream, Tile, Workspace

REAL = torch.cuda.is_available()
DEVICE, DTYPE = torch.device("cuda" if REAL else "cpu"), torch.bfloat16 if REAL else torch.float32
SMALL = GemmaConfig(width=32, depth=2, mlp_dim=64, num_heads=2, head_dim=32)
CONFIG = pi05("2b") if REAL else replace(pi05("debug"), vlm=SMALL, action_expert=replace(SMALL, cond_width=32))
EXPERT = cast(GemmaConfig, CONFIG.action_expert)
HEADS, HEAD_DIM, LAYERS = EXPERT.num_heads, EXPERT.head_dim, EXPERT.depth
STEPS, WORDS = (10, 16) if REAL else (1, 2)
TOKENS, CHUNK = 3 * CONFIG.vision.grid**2 + 60 if REAL else 40, CONFIG.action_horizon
D, INNER, DIMS = CONFIG.vlm.width, CONFIG.vlm.mlp_dim, CONFIG.action_dim
WIDE, MLP, PATCHES = CONFIG.vision.width, CONFIG.vision.mlp_dim, 3 * CONFIG.vision.grid**2
STACKS = {"expert": (EXPERT, CHUNK), "word": (CONFIG.vlm, 1)}
"""What runs in products of few rows: a chunk of actions, a word."""

TILES = {
    "qkv": [Tile(16, 128), Tile(16, 128, stages=6), Tile(16, 256, stages=3), Tile(32, 128), Tile(32, 64, stages=6),
            Tile(16, 64, stages=8), Tile(32, 128, warps=8), Tile(64, 128, stages=3)],
    "gate_up": [Tile(32, 128), Tile(32, 128, stages=3), Tile(32, 128, stages=5), Tile(32, 64, stages=6),
                Tile(16, 128, stages=4), Tile(16, 256, stages=3), Tile(64, 64, stages=4), Tile(32, 128, warps=8)],
    "out": [Tile(64, 128, 4), Tile(64, 128, 8, stages=2), Tile(32, 128, 4), Tile(32, 128, 2), Tile(16, 128, 2),
            Tile(16, 256, 1, stages=3), Tile(32, 256, 4, stages=2), Tile(64, 64, 8), Tile(128, 64, 8)],
    "down": [Tile(64, 128, 8), Tile(64, 128, 4), Tile(32, 128, 4), Tile(32, 128, 8), Tile(64, 64, 8, stages=6),
             Tile(16, 128, 2), Tile(128, 64, 16), Tile(64, 128, 8, warps=8)],
}  # fmt: skip
CUTS = {
    "few": [Cut(64, 64, 64), Cut(64, 64, 64, warps=8), Cut(64, 32, 64, stages=3), Cut(64, 64, 64, stages=1),
            Cut(32, 64, 64), Cut(16, 64, 64), Cut(32, 64, 128), Cut(64, 64, 128), Cut(16, 64, 128, stages=3)],
    "many": [Cut(64, 64), Cut(128, 64, warps=8), Cut(128, 32, warps=8, stages=3), Cut(64, 32, stages=3),
             Cut(128, 64, warps=8, stages=1), Cut(128, 128, warps=8, stages=1)],
}  # fmt: skip
if not REAL:
    TILES = {"qkv": [Tile(16, 32)], "gate_up": [Tile(16, 32)], "out": [Tile(32, 32, 2)], "down": [Tile(32, 32, 2)]}
    CUTS = {"few": [Cut(16, 16, 16)], "many": [Cut(16, 16)]}
EARLY = (False, True) if REAL else (False,)
RESULTS: dict[str, Any] = {}


def draw(*shape: int, dtype: torch.dtype = DTYPE) -> Tensor:
    return torch.randn(shape, device=DEVICE, dtype=torch.float32).to(dtype)


def captured(function: Callable[[], Any]) -> torch.cuda.CUDAGraph:
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        function()
        function()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        function()
    return graph


def microseconds(function: Callable[[], Any], launches: int = 1, *, repeats: int = 15) -> float:
    """Of each launch, where `function` makes so many: the median of replays of a graph."""
    if not REAL:
        function()
        return 1.0
    graph, times = captured(function), []
    for _ in range(3):
        graph.replay()
    for _ in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(1e3 * start.elapsed_time(end) / launches)
    return statistics.median(times)


# --- the launches of one kernel --------------------------------------------------------------------------------------


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


Case = tuple[str, str, Any]


def all_cases() -> list[Case]:
    """Every launch that the tables below make, and those of the tiles that are taken without a table."""
    cases: list[Case] = []
    for which, (config, _) in STACKS.items():
        for kind, those in TILES.items():
            cases += [(which, kind, tile) for tile in {*those, getattr(tiles_for(config), kind)}]
    return cases + [("attention", name, cut) for name, those in CUTS.items() for cut in those]


def compile_cases(cases: list[Case]) -> None:
    """Compiled into Triton's cache on disk, by one of several processes."""
    for which, kind, how in cases:
        try:
            for early in EARLY:
                if which == "attention":
                    attend_once(kind, how, early=early)
                    continue
                places = Places(which, columns=how.columns if kind in ("out", "down") else min(64, EXPERT.width))
                weight = draw(*weight_shape(which, kind))
                launch(kind, how, places, weight, torch.zeros(len(weight), device=DEVICE), early=early)
            synchronize()
        except Exception as e:
            print(f"    {which} {kind} {how}: {type(e).__name__} {str(e)[:80]}")


def attend_once(name: str, cut: Cut, *, early: bool) -> None:
    rows, slots = attention_shape(name)
    q, (k, v) = draw(1, rows, HEAD_DIM), draw(2, 1, 1, slots, HEAD_DIM)
    parts = Parts.empty(q, slots=slots, part=cut.part) if cut.part else None
    attention.attend(q, k, v, draw(1, slots), out=torch.empty_like(q), cut=cut, parts=parts, early=early)


def attention_shape(name: str) -> tuple[int, int]:
    """Rows and slots of a denoising step or of prefill."""
    return (CHUNK * HEADS, TOKENS + CHUNK) if name == "few" else (TOKENS * HEADS, TOKENS)


def compile_all(*, workers: int = 12) -> None:
    if REAL:
        cases = all_cases()
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            list(pool.map(compile_cases, [cases[i::workers] for i in range(workers)]))


# --- parts -----------------------------------------------------------------------------------------------------------


def ceilings() -> None:
    size = 8192 if REAL else 64
    a, b = draw(size, size), draw(size, size)
    t = microseconds(lambda: torch.mm(a, b))
    big = torch.empty(2**31 if REAL else 64, dtype=torch.uint8, device=DEVICE)
    other = torch.empty_like(big)
    c = microseconds(lambda: other.copy_(big))
    RESULTS["ceilings"] = {
        "device": torch.cuda.get_device_name() if REAL else "none", "torch": torch.__version__,
        "TFLOP/s": 2 * size**3 / t / 1e6,
        "TB/s": 2 * big.numel() / c / 1e6,
    }  # fmt: skip
    print(RESULTS["ceilings"])


def error(ours: Any, theirs: Any) -> float:
    """The largest relative error of the tensors of two results."""
    pairs = zip(ours, theirs, strict=True) if isinstance(ours, tuple | list) else [(ours, theirs)]
    return max(float((a.float() - b.float()).norm() / b.float().norm().clamp(min=1e-9)) for a, b in pairs)


def right() -> None:
    """Each kernel against its twin, bf16, at the sizes of `2b`."""
    found: dict[str, float] = {}
    for which, (config, _) in STACKS.items():
        tiles = tiles_for(config)
        for kind in TILES:
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
        cut = cut_for(rows, slots, batch=1)
        ours, theirs = torch.empty_like(q), torch.empty_like(q)
        parts = Parts.empty(q, slots=slots, part=cut.part) if cut.part else None
        attention.attend(q, k, v, bias, out=ours, cut=cut, parts=parts)
        attention.plain_attend(q, k, v, bias, out=theirs)
        found[f"attention {name} {tuple(cut)}"] = error(ours, theirs)
    found |= right_passes() | right_steps()
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


def tiles() -> None:
    """Microseconds of each way to cut a product, weights of 18 layers in turn, so that they come from memory."""
    table: dict[str, Any] = defaultdict(list)
    for which in STACKS:
        for kind, those in TILES.items():
            shape = weight_shape(which, kind)
            weights = [draw(*shape) for _ in range(LAYERS)]
            shifted, floor = (
                torch.zeros(shape[0], device=DEVICE),
                2 * shape[0] * shape[1] / RESULTS["ceilings"]["TB/s"] / 1e6,
            )
            for tile in those:
                places = Places(which, columns=tile.columns if kind in ("out", "down") else min(64, EXPERT.width))
                times = []
                for early in EARLY:

                    def all_layers(early: bool = early, tile: Tile = tile, places: Places = places) -> None:
                        for weight in weights:
                            launch(kind, tile, places, weight, shifted, early=early)

                    try:
                        times.append(microseconds(all_layers, LAYERS))
                    except Exception as e:
                        print(f"    {which} {kind} {tuple(tile)}: {type(e).__name__} {str(e)[:100]}")
                        times.append(float("inf"))
                table[f"{which} {kind}"].append((tuple(tile), *times))
            best = sorted(table[f"{which} {kind}"], key=lambda row: min(row[1:]))
            rows = "; ".join(f"{t} {shown_times(those)}" for t, *those in best)
            print(f"  {which} {kind}: floor {floor:.2f} µs; {rows}", flush=True)
    RESULTS["tiles"] = table


def shown_times(times: list[float]) -> str:
    """Launched one after the other, and early."""
    return " / ".join(f"{t:.2f}" for t in times)


def attention_cuts() -> None:
    table: dict[str, Any] = {}
    for name in CUTS:
        rows, slots = attention_shape(name)
        q, out = draw(1, rows, HEAD_DIM), draw(1, rows, HEAD_DIM)
        caches = draw(LAYERS, 2, 1, 1, slots, HEAD_DIM)
        bias = torch.zeros(1, slots, device=DEVICE, dtype=DTYPE)
        times: dict[str, float] = {}
        for cut in CUTS[name]:
            parts = Parts.empty(q, slots=slots, part=cut.part) if cut.part else None
            for early in EARLY:

                def all_layers(cut: Cut = cut, parts: Any = parts, early: bool = early) -> None:
                    for k, v in caches:
                        attention.attend(q, k, v, bias, out=out, cut=cut, parts=parts, early=early)

                try:
                    times[f"{tuple(cut)}{' early' if early else ''}"] = microseconds(all_layers, LAYERS)
                except Exception as e:
                    print(f"    {name} {tuple(cut)}: {type(e).__name__} {str(e)[:100]}")
        queries = q.view(1, -1, HEADS, HEAD_DIM).transpose(1, 2)
        times |= sdpa_times(queries, [(k.expand(-1, HEADS, -1, -1), v.expand(-1, HEADS, -1, -1)) for k, v in caches])
        table[name] = times
        print(f"  {name}: {'; '.join(f'{k} {t:.1f}' for k, t in sorted(times.items(), key=lambda item: item[1]))}")
    qkv = draw(3, PATCHES // 3, 3, CONFIG.vision.num_heads, WIDE // CONFIG.vision.num_heads).transpose(1, 3)
    table["siglip"] = sdpa_times(qkv[:, :, 0], [(qkv[:, :, 1], qkv[:, :, 2])])
    print(f"  siglip: {table['siglip']}")
    RESULTS["attention"] = table


def sdpa_times(q: Tensor, caches: list[tuple[Tensor, Tensor]]) -> dict[str, float]:
    times = {}
    for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION):
        try:
            with sdpa_kernel(backend):
                times[backend.name] = microseconds(
                    lambda: [F.scaled_dot_product_attention(q, k, v) for k, v in caches], len(caches)
                )
        except Exception as e:
            print(f"    {backend.name}: {str(e)[:80]}")
    return times


def passes_and_products() -> None:
    """What is around the large products of prefill, and these."""
    times: dict[str, tuple[float, str]] = {}

    def memory(name: str, function: Callable[[], Any], count: int) -> None:
        t = microseconds(lambda: [function() for _ in range(8)], 8)
        times[name] = (t, f"{count / t / 1e6:.2f} TB/s")

    x, branch, out = (draw(TOKENS, D) for _ in range(3))
    factor = draw(D, dtype=torch.float32)
    memory("add norm", lambda: passes.add_norm(x, branch, None, factor, None, out=out), 8 * x.numel())
    gate_up, gated = draw(TOKENS, 2 * INNER), draw(TOKENS, INNER)
    memory("gelu product", lambda: passes.gelu_product(gate_up, out=gated), 2 * (gate_up.numel() + gated.numel()))
    norm = torch.nn.LayerNorm(WIDE, eps=1e-6, device=DEVICE, dtype=DTYPE).requires_grad_(False)
    y, other, bias = draw(PATCHES, WIDE), draw(PATCHES, WIDE), draw(WIDE)
    memory("add layer norm", lambda: passes.add_layer_norm(y, other, bias, norm, out=y), 8 * y.numel())
    cos, sin = rotary_angles(torch.arange(TOKENS, device=DEVICE)[None], HEAD_DIM)
    cos, sin = cos.transpose(1, 2), sin.transpose(1, 2).chunk(2, dim=-1)[1]
    qkv, queries, cache = (
        draw(TOKENS, (HEADS + 2) * HEAD_DIM),
        draw(TOKENS, HEADS * HEAD_DIM),
        draw(2, 1, 1, TOKENS, HEAD_DIM),
    )
    memory("rotation", lambda: passes.rotate_into(
        qkv, cos=cos, sin=sin, queries=queries, keys=cache[0], values=cache[1]), 4 * qkv.numel())  # fmt: skip
    of_backbone = [(D, (HEADS + 2) * HEAD_DIM), (HEADS * HEAD_DIM, D), (D, 2 * INNER), (INNER, D)]
    of_vision = [(WIDE, 3 * WIDE), (WIDE, WIDE), (WIDE, MLP), (MLP, WIDE)]
    sizes = [(m, k, n) for m in (TOKENS, TOKENS // 32 * 32 + 32) for k, n in of_backbone]
    for m, k, n in sizes + [(PATCHES, k, n) for k, n in of_vision]:
        a, ws, c = draw(m, k), [draw(n, k) for _ in range(4)], draw(m, n)
        t = microseconds(lambda: [torch.mm(a, w.T, out=c) for w in ws], 4)
        times[f"mm {m}×{k}×{n}"] = (t, f"{2 * m * k * n / t / 1e6:.0f} TFLOP/s")
    up = torch.nn.Linear(WIDE, MLP, device=DEVICE, dtype=DTYPE).requires_grad_(False)
    times["gelu linear"] = (microseconds(lambda: gelu_linear(y, up)), f"{2 * PATCHES * WIDE * MLP} FLOP")
    times["linear, gelu"] = (microseconds(lambda: F.gelu(up(y), approximate="tanh")), "")
    RESULTS["passes"] = times
    for name, (t, rate) in times.items():
        print(f"  {name:24} {t:8.2f} µs  {rate}")


def synchronize() -> None:
    if REAL:
        torch.cuda.synchronize()


def host_times(function: Callable[[], Any], calls: int = 60) -> tuple[float, float]:
    """Milliseconds, p50 and p99, the device waited for at each."""
    for _ in range(3 if REAL else 0):
        function()
    times = []
    for _ in range(calls if REAL else 1):
        synchronize()
        start = time.perf_counter()
        function()
        synchronize()
        times.append(1e3 * (time.perf_counter() - start))
    return tuple(np.percentile(times, [50, 99]))


def best_tiles() -> Tiles | None:
    """The fastest of the table, where out and down have columns in common."""
    if "tiles" not in RESULTS:
        return None
    table = {k: {row[0]: min(row[1:]) for row in RESULTS["tiles"][f"expert {k}"]} for k in TILES}
    pairs = [(o, d) for o in table["out"] for d in table["down"] if o[0] == d[0]]
    out, down = min(pairs, key=lambda pair: table["out"][pair[0]] + table["down"][pair[1]])
    qkv, gate_up = (min(table[k], key=table[k].get) for k in ("qkv", "gate_up"))
    return Tiles(*(Tile(*t) for t in (qkv, out, gate_up, down)))


def engines(model: Pi) -> dict[str, Callable[[], GraphEngine]]:
    made: dict[str, Callable[[], GraphEngine]] = {
        "graphs": lambda: GraphEngine(model),
        "fused": lambda: FusedEngine(model),
    }
    if REAL:
        made["early"] = lambda: FusedEngine(model, early=True)
        made["early, ahead"] = lambda: FusedEngine(model, early=True, ahead=True)
    if (best := best_tiles()) is not None:
        print(f"  best: {best}")
        early: dict[str, Any] = {"best early": {"early": True}, "best early ahead": {"early": True, "ahead": True}}
        for name, options in ({"best": {}} | (early if REAL else {})).items():

            def with_best(options: Any = options) -> FusedEngine:
                engine = FusedEngine(model, **options)
                engine.expert.tiles = best
                engine.expert.workspace = Workspace.empty(floats=16 * 128 * EXPERT.width, device=DEVICE)
                return engine

            made[name] = with_best
    return made


def whole(engine: Any, seen: Observation, noise: Tensor) -> Tensor:
    """A chunk, from an observation."""
    return engine.denoise(engine.prefill(seen), seen.state, noise=noise, num_steps=STEPS)[-1]


def chunk(model: Pi) -> None:
    config = model.config
    seen = observation(config, cameras=3, words=60, device=str(DEVICE))
    noise = torch.randn(1, config.action_horizon, config.action_dim, device=DEVICE)
    plain = PlainEngine(model)
    wanted = whole(plain, seen, noise)
    size, table = float(wanted.abs().mean()), {}
    for name, make in engines(model).items():
        try:
            engine = make()
            state = engine.prefill(seen)
            first = engine.denoise(state, seen.state, noise=noise, num_steps=STEPS)[-1]
            again = [whole(engine, seen, noise) for _ in range(STEPS)]
            row = {
                "off": float((first - wanted).abs().max()), "same again": all(torch.equal(first, a) for a in again),
                "read": host_times(lambda: engine.prefill(seen), calls=30),
                "act": host_times(lambda: engine.denoise(state, seen.state, noise=noise, num_steps=STEPS), calls=30),
                "chunk": host_times(lambda: whole(engine, seen, noise)),
            }  # fmt: skip
            for part in ("read", "act"):
                graphs = [g.graph for a in engine.arenas.values() for key, g in a.graphs.items() if part in key]
                row[f"{part} on the device"] = replay_time(graphs[0]) if REAL else 1.0
            table[name] = row
            print(f"  {name:18} (mean |a| {size:.3f}) {shown(row)}")
        except Exception:
            traceback.print_exc()
    RESULTS["chunk"] = table


def replay_time(graph: Any) -> float:
    times = []
    for _ in range(20):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times)


def shown(row: dict[str, Any]) -> str:
    def value(v: Any) -> str:
        return f"{v[0]:.2f} ({v[1]:.2f})" if isinstance(v, tuple) else f"{v:.4g}" if isinstance(v, float) else str(v)

    return ", ".join(f"{name} {value(v)}" for name, v in row.items())


def fastest(model: Pi) -> FusedEngine:
    """The engine of the best chunk so far."""
    table = {k: v["chunk"][0] for k, v in RESULTS.get("chunk", {}).items() if k != "graphs" and v["same again"]}
    name = min(table, key=table.get) if table else "fused"
    print(f"  with {name}")
    return engines(model)[name]()


def batches(model: Pi) -> None:
    table = {}
    for batch in (4, 16) if REAL else (2,):
        one = observation(model.config, cameras=3, words=60, device=str(DEVICE))
        seen = one.map(lambda x, b=batch: x.expand(b, *x.shape[1:]).contiguous())
        noise = torch.randn(batch, model.config.action_horizon, model.config.action_dim, device=DEVICE)
        for name, engine in (("graphs", GraphEngine(model)), ("fused", FusedEngine(model))):
            p50, p99 = host_times(lambda e=engine: whole(e, seen, noise), calls=15)
            table[f"{name} {batch}"] = (p50, p99)
            print(f"  {batch} robots, {name}: {p50:.2f} ({p99:.2f}) ms, {p50 / batch:.2f} each")
    RESULTS["batches"] = table


def words(model: Pi) -> None:
    seen, table = observation(model.config, cameras=3, words=60, device=str(DEVICE)), {}
    for name, engine in (("graphs", GraphEngine(model)), ("fused", fastest(model))):

        def talk(count: int, engine: Any = engine) -> Any:
            return engine.generate(engine.prefill(seen, max_new_tokens=WORDS), eos=NOTHING, max_new_tokens=count)

        one, many = (host_times(lambda n=n: talk(n), calls=20)[0] for n in (1, WORDS))
        table[name] = {
            "prefill and 16 words": many,
            "ms/word": (many - one) / (WORDS - 1),
            "said": talk(WORDS)[0].tolist(),
        }
        print(f"  {name}: {many:.2f} ms, {(many - one) / (WORDS - 1):.2f} ms a word")
    print(f"  same words: {table['graphs']['said'] == table['fused']['said']}")
    RESULTS["words"] = table


def profile(model: Pi) -> None:
    seen = observation(model.config, cameras=3, words=60, device=str(DEVICE))
    noise = torch.randn(1, model.config.action_horizon, model.config.action_dim, device=DEVICE)
    engine = fastest(model)
    state, result = engine.prefill(seen), {}
    engine.denoise(state, seen.state, noise=noise, num_steps=STEPS)
    calls: dict[str, Callable[[], Any]] = {
        "read": lambda: engine.prefill(seen),
        "act": lambda: engine.denoise(state, seen.state, noise=noise, num_steps=STEPS),
    }  # fmt: skip
    for part, call in calls.items():
        with torch.profiler.profile(
            activities=[getattr(torch.profiler.ProfilerActivity, "CUDA" if REAL else "CPU")]
        ) as profiler:
            call()
            synchronize()
        kernels: dict[str, list[float]] = defaultdict(lambda: [0, 0.0])
        for event in profiler.events():
            if event.device_type == torch.autograd.DeviceType.CUDA:
                kernels[event.name][0] += 1
                kernels[event.name][1] += event.time_range.elapsed_us()
        rows = sorted(((n, c, t) for n, (c, t) in kernels.items()), key=lambda row: -row[2])
        print(f"  {part}: {sum(c for _, c, _ in rows)} launches, {sum(t for *_, t in rows) / 1e3:.2f} ms in kernels")
        for name, count, total in rows[:22]:
            print(f"    {total:9.0f} µs {count:5} × {total / count:7.2f}  {name[:110]}")
        result[part] = rows
    RESULTS["profile"] = result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts: dict[str, Callable[..., None]] = {
        "ceilings": ceilings, "compile": compile_all, "right": right, "attention": attention_cuts,
        "passes": passes_and_products,
        "tiles": tiles, "chunk": chunk, "profile": profile, "words": words, "batches": batches,
    }  # fmt: skip
    parser.add_argument("--out", type=Path, default=Path("."))
    parser.add_argument("--parts", nargs="*", default=list(parts), choices=list(parts))
    args = parser.parse_args()
    began, model = time.perf_counter(), None
    for name in args.parts:
        print(f"{name} ({time.perf_counter() - began:.0f} s)", flush=True)
        try:
            with torch.inference_mode():
                if name in ("chunk", "profile", "words", "batches"):
                    model = model or random_model(CONFIG, dtype=DTYPE, device=str(DEVICE))
                    parts[name](model)
                else:
                    parts[name]()
        except Exception:
            traceback.print_exc()
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "kernels.json").write_text(json.dumps(RESULTS, indent=1, default=str))
    print(f"done in {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
