"""A chunk of actions from random weights: plain model, engine, and engine in CUDA graphs, and how far from the chip.

    python bench/engine.py [--size 2b] [--device cuda] [--dtype bfloat16] [--cameras 3] [--words 60] [--gpu H200]

One robot (batch 1), pictures already on the device. "chunk" is reading and acting, the time from an observation to its
actions; "high level" reads, then says `--say` words. The roofline is what the chip allows: for reading and for each
evaluation of the expert the longer of its operations and of moving its weights and cache, at the data sheet's peaks.
Without a GPU the same runs at `nano` on one core, where graphs are only the same calls at fixed places: it counts the
operations that are launched, which is what graphs save. Targets on an H200 at `2b`: p50 of a chunk at most 25 ms, then
15 and 12; with what kernels reach of the peaks in practice, 8 to 9 are possible.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pilot.data.layout import Kind, Observation
from pilot.infer.engine.fast import FastEngine
from pilot.infer.engine.graphs import GraphEngine
from pilot.infer.engine.plain import PlainEngine
from pilot.models.pi import Pi, PiConfig, pi05
from pilot.models.pi_config import Size
from pilot.train.plan import flops
from pilot.train.plan.gpus import GPUS, Gpu

NOTHING = -1  # no token: nobody stops early


class Launches(TorchDispatchMode):
    """Counts operations that do something: those that only look at a tensor in another way are free."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not func.is_view
        return func(*args, **(kwargs or {}))


def random_model(config: PiConfig, *, dtype: torch.dtype, device: str) -> Pi:
    """Drawn where it is used: at `2b` there are 3.4 billion weights."""
    with torch.device("meta"):
        model = Pi(config).to(dtype).eval()
    model = model.to_empty(device=device)
    generator = torch.Generator(device).manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.02, generator=generator)
    return model


def observation(config: PiConfig, *, cameras: int, words: int, device: str) -> Observation:
    generator = torch.Generator().manual_seed(0)
    size = config.image_size(wrist=False)
    tokens = torch.randint(4, config.vocab_size, (1, config.max_tokens), generator=generator)
    kinds = (torch.arange(config.max_tokens) < words).long()[None] * int(Kind.PREFIX)
    names = [f"camera {i}" for i in range(cameras)]
    return Observation(
        images={name: torch.rand(1, size, size, 3, generator=generator) * 2 - 1 for name in names},
        image_masks={name: torch.ones(1, dtype=torch.bool) for name in names},
        state=torch.randn(1, config.action_dim, generator=generator),
        tokens=tokens,
        token_kinds=kinds,
        token_loss=torch.zeros_like(kinds, dtype=torch.bool),
    ).map(lambda x: x.to(device))


def timed(function: Callable[[], Any], *, calls: int, cuda: bool) -> np.ndarray:
    """Milliseconds of each call, the device waited for."""
    for _ in range(3):
        function()
    times = []
    for _ in range(calls):
        if cuda:
            torch.cuda.synchronize()
        start = time.perf_counter()
        function()
        if cuda:
            torch.cuda.synchronize()
        times.append(1e3 * (time.perf_counter() - start))
    return np.array(times)


def roofline(model: Pi, gpu: Gpu, *, cameras: int, words: int, steps: int) -> dict[str, float]:
    """Milliseconds that the chip needs at least: to read, to act, and for each word."""
    config = model.config
    work = flops.Workload(pictures=(config.image_size(wrist=False),) * cameras, text=words, spoken=0, draws=1)
    operations = {part: sum(counts) for part, counts in flops.forward(model, work).items()}
    size = {name: sum(p.numel() * p.element_size() for p in part.parameters()) for name, part in model.named_children()}
    patches = cameras * config.vision.grid**2
    cache = 2 * config.vlm.depth * config.vlm.num_kv_heads * config.vlm.head_dim * (patches + words) * 2
    rest = size["vlm"] + size["embedding"]

    def least(operations: float, moved: float) -> float:
        return 1e3 * max(operations / gpu.peak_flops, moved / gpu.bandwidth)

    return {
        "read": least(operations["vision"] + operations["vlm"], size["vision"] + size["vlm"]),
        "act": steps * least(operations["action_expert"], size["action_expert"] + cache),
        "word": least(2 * rest / 2, rest + cache),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cuda = torch.cuda.is_available()
    parser.add_argument("--size", choices=get_args(Size), default="2b" if cuda else "nano")
    parser.add_argument("--device", default="cuda" if cuda else "cpu")
    parser.add_argument("--dtype", default="bfloat16" if cuda else "float32")
    parser.add_argument("--cameras", type=int, default=3)
    parser.add_argument("--words", type=int, default=60, help="tokens of the prompt")
    parser.add_argument("--say", type=int, default=16, help="tokens that the high level says")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--calls", type=int, default=100 if cuda else 20)
    parser.add_argument("--gpu", choices=sorted(GPUS), help="the chip of the roofline")
    args = parser.parse_args()
    if not cuda:
        torch.set_num_threads(1)
    model = random_model(pi05(args.size), dtype=getattr(torch, args.dtype), device=args.device)
    config = model.config
    seen = observation(config, cameras=args.cameras, words=args.words, device=args.device)
    noise = torch.randn(1, config.action_horizon, config.action_dim, device=args.device)
    chip = torch.cuda.get_device_name() if cuda else "one core"
    print(f"pi05 {args.size}, {args.dtype}, {args.cameras} cameras, {args.words} words, {args.steps} steps; {chip}")
    print(f"{'':12}{'read':>8}{'act':>8}{'chunk p50':>11}{'p99':>8}{'high level':>12}{'ms/word':>9}{'launches':>10}")
    for name, engine in (("plain", PlainEngine(model)), ("engine", FastEngine(model)), ("graphs", GraphEngine(model))):
        prefilled: Any = engine.prefill(seen)

        def prefill(engine: Any = engine) -> Any:
            return engine.prefill(seen)

        def denoise(engine: Any = engine, prefilled: Any = prefilled) -> Any:
            return engine.denoise(prefilled, seen.state, noise=noise, num_steps=args.steps)

        def chunk(engine: Any = engine) -> Any:
            return engine.denoise(engine.prefill(seen), seen.state, noise=noise, num_steps=args.steps)

        def talk(words: int, engine: Any = engine) -> Any:
            return engine.generate(engine.prefill(seen, max_new_tokens=args.say), eos=NOTHING, max_new_tokens=words)

        times = {f.__name__: timed(f, calls=args.calls, cuda=cuda) for f in (prefill, denoise, chunk)}
        one, all_words = (np.median(timed(lambda n=n: talk(n), calls=args.calls, cuda=cuda)) for n in (1, args.say))
        with Launches() as launches:
            chunk()
        graphs = [g.graph for a in getattr(engine, "buffers_by_kind", {}).values() for g in a.graphs.values()]
        count = f"{launches.count:10,}" if not (graphs and graphs[0]) else f"{'in graphs':>10}"
        p50, p99 = np.percentile(times["chunk"], [50, 99])
        print(
            f"{name:12}{np.median(times['prefill']):8.2f}{np.median(times['denoise']):8.2f}{p50:11.2f}{p99:8.2f}"
            f"{all_words:12.2f}{(all_words - one) / (args.say - 1):9.2f}{count}"
        )
    if args.gpu:
        least = roofline(model, GPUS[args.gpu], cameras=args.cameras, words=args.words, steps=args.steps)
        chunk_least = least["read"] + least["act"]
        print(
            f"{args.gpu + ' allows':12}{least['read']:8.2f}{least['act']:8.2f}{chunk_least:11.2f}{'':8}"
            f"{least['read'] + args.say * least['word']:12.2f}{least['word']:9.2f}"
        )


if __name__ == "__main__":
    main()
