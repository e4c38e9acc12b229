"""Kernels for acting on a GPU, one by one: right or not, how fast, and how they are best cut.

`gpu.py` runs these parts before the whole model. Ceilings of this very GPU first (a copy, a large product); each kernel
against its plain twin at the sizes of `2b`; attention and few-row products in each of some ways to cut them; the large
products of prefill for each number of rows near that of three cameras and a prompt. Without a GPU all runs through at
small sizes under Triton's interpreter, and times mean nothing.
"""

# ruff: noqa: B023 (functions that are timed are called in the turn of the loop that made them)

import random
import statistics
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

import gpu_checks as checks
from gpu_checks import (
    CHUNK,
    CONFIG,
    DEVICE,
    DTYPE,
    EARLY,
    EXPERT,
    HEAD_DIM,
    HEADS,
    INNER,
    LAYERS,
    MLP,
    PATCHES,
    REAL,
    RESULTS,
    STACKS,
    TOKENS,
    WIDE,
    D,
    Places,
    draw,
    launch,
    weight_shape,
)
from pilot.infer.engine.fp8 import FP8, quantize, scaled_mm
from pilot.infer.engine.fused_stack import gelu_linear, tiles_for
from pilot.nn.attention import rotary_angles
from pilot.nn.kernels import attention, passes
from pilot.nn.kernels.attention import Cut, Parts
from pilot.nn.kernels.products import Tile

TILES = {
    "qkv": [Tile(16, 128, stages=6), Tile(16, 64, stages=8), Tile(32, 128), Tile(32, 64, stages=6)],
    "gate_up": [Tile(16, 128), Tile(32, 128), Tile(32, 128, stages=5), Tile(32, 64, stages=6)],
    "out": [Tile(16, 128, 2), Tile(32, 128, 2), Tile(32, 128, 4), Tile(64, 128, 4)],
    "down": [Tile(16, 128, 2), Tile(32, 128, 4), Tile(64, 128, 4), Tile(64, 128, 8)],
}
"""The fastest of an H100: another GPU may want another of them."""
CUTS = {
    "few": [Cut(32, 64, 128), Cut(64, 64, 64), Cut(64, 64, 128), Cut(32, 64, 192)],
    "many": [Cut(64, 64), Cut(64, 32, stages=3), Cut(128, 64, warps=8)],
}
if not REAL:
    TILES = {"qkv": [Tile(16, 32)], "gate_up": [Tile(16, 32)], "out": [Tile(32, 32, 2)], "down": [Tile(32, 32, 2)]}
    CUTS = {"few": [Cut(16, 16, 16)], "many": [Cut(16, 16)]}


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
    for k, n in [(WIDE, 3 * WIDE), (WIDE, WIDE), (WIDE, MLP), (MLP, WIDE)]:
        a, ws, c = draw(PATCHES, k), [draw(n, k) for _ in range(4)], draw(PATCHES, n)
        t = microseconds(lambda: [torch.mm(a, w.T, out=c) for w in ws], 4)
        times[f"mm {PATCHES}×{k}×{n}"] = (t, f"{2 * PATCHES * k * n / t / 1e6:.0f} TFLOP/s")
    up = torch.nn.Linear(WIDE, MLP, device=DEVICE, dtype=DTYPE).requires_grad_(False)
    times["gelu linear"] = (microseconds(lambda: gelu_linear(y, up)), f"{2 * PATCHES * WIDE * MLP} FLOP")
    times["linear, gelu"] = (microseconds(lambda: F.gelu(up(y), approximate="tanh")), "")
    RESULTS["passes"] = times
    for name, (t, rate) in times.items():
        print(f"  {name:24} {t:8.2f} µs  {rate}")


def synchronize() -> None:
    if REAL:
        torch.cuda.synchronize()


BACKBONE = {
    "qkv": (D, (HEADS + 2) * HEAD_DIM),
    "out": (HEADS * HEAD_DIM, D),
    "gate_up": (D, 2 * INNER),
    "down": (INNER, D),
}
"""Inputs and outputs of the backbone's products."""
ROWS = [*range(TOKENS - 4, TOKENS + 33, 4), 896, 960, 1024] if REAL else [TOKENS, TOKENS + 8]


def rows() -> None:
    """Microseconds of the backbone's products for each number of rows, in turns, since a warm GPU is slower."""
    table: dict[str, Any] = {}
    ways = ["cublas", "fp8"] if REAL else ["cublas"]
    for kind, (k, n) in BACKBONE.items():
        weights = [draw(n, k) for _ in range(4)]
        graphs: dict[tuple[str, int], Any] = {}
        functions = []  # a graph does not keep the tensors alive that its function holds
        for way in ways:
            for m in ROWS if way == "cublas" else (TOKENS, TOKENS + 4, 896):
                try:
                    functions.append(of_rows(way, m, weights))
                    graphs[way, m] = captured(functions[-1]) if REAL else functions[-1]
                except Exception as e:
                    print(f"    {kind} {way} {m}: {type(e).__name__} {str(e)[:100]}")
        times = in_turns(graphs)
        table[kind] = {f"{way} {m}": t / 4 for (way, m), t in times.items()}
        shown = "; ".join(f"{way} {m}: {t / 4:.1f} ({8 * m * k * n / t / 1e6:.0f})" for (way, m), t in times.items())
        print(f"  {kind} [µs (TFLOP/s)]: {shown}", flush=True)
        del graphs
    RESULTS["rows"] = table


def of_rows(way: str, m: int, weights: list[Tensor]) -> Callable[[], Any]:
    """Products of `m` rows with each of the weights."""
    n, k = weights[0].shape
    a, out = draw(m, k), draw(m, n)
    if way == "fp8":
        a8, quantized = a.to(FP8), [quantize(w) for w in weights]
        one = torch.ones((), device=DEVICE)
        return lambda: [scaled_mm(a8, w, x_scale=one, weight_scale=scale, out=out) for w, scale in quantized]

    return lambda: [torch.mm(a, w.T, out=out) for w in weights]


def in_turns(graphs: dict[tuple[str, int], Any], *, rounds: int = 9) -> dict[tuple[str, int], float]:
    """The median microseconds of each, all of them once in every round."""
    times: dict[tuple[str, int], list[float]] = {key: [] for key in graphs}
    order, draws = list(graphs), random.Random(0)
    for _ in range(rounds if REAL else 1):
        draws.shuffle(order)
        for key in order:
            if not REAL:
                times[key].append(1.0)
                continue
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            graphs[key].replay()
            end.record()
            end.synchronize()
            times[key].append(1e3 * start.elapsed_time(end))
    return {key: statistics.median(those) for key, those in times.items()}


def best_extra(tokens: int) -> dict[str, int]:
    """How many rows more than `tokens` make each product fastest, by the table of `rows`."""
    best = {}
    for kind, times in RESULTS.get("rows", {}).items():
        those = {int(m): t for way, m in map(str.split, times) if way == "cublas" for t in [times[f"{way} {m}"]]}
        there = {m: t for m, t in those.items() if m >= tokens}
        m = min(there, key=there.__getitem__)
        near = there.get(tokens, float("inf"))
        best[kind] = m - tokens if there[m] < 0.97 * near else 0
    return best


PARTS: dict[str, Callable[[], None]] = {
    "ceilings": ceilings, "compile": compile_all, "right": checks.right, "rows": rows, "attention": attention_cuts,
    "passes": passes_and_products, "tiles": tiles,
}  # fmt: skip
