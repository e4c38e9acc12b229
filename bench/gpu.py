"""Acting on a GPU, all of it in some minutes: every fast path against the plain model, then how fast each is.

    python bench/gpu.py [--out FOLDER] [--seconds 250] [--parts ceilings right chunk …] [--commit ID]

π0.5 and π0-FAST at `2b` in bf16 with random weights, three cameras and 60 prompt tokens, 10 Euler steps. `gpu.sh` runs
this and the training beside it. First the kernels one by one (`gpu_kernels.py`), then the whole model: error against
fp32 and plain bf16, p50 and p99 as the host sees them, from pictures on the host to actions on the host too. A part
that fails prints why, and the next begins; none begins when so many seconds have gone by. All numbers land in
`gpu.json`, and in `rows.md` as rows for docs/measurements.md.
"""

# ruff: noqa: B023 (functions that are timed are called in the turn of the loop that made them)

import argparse
import gc
import json
import subprocess
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

import gpu_kernels
from engine import NOTHING, observation, random_model
from gpu_checks import CHUNK, CONFIG, DEVICE, DIMS, DTYPE, EXPERT, HEAD_DIM, HEADS, REAL, RESULTS, TOKENS
from pilot.data.layout import Kind, Observation
from pilot.data.pipeline import Row, collate
from pilot.infer.engine import graphs
from pilot.infer.engine.fused import FusedEngine
from pilot.infer.engine.fused_stack import ExtraRows, FusedStack
from pilot.infer.engine.graphs import GraphEngine, round_up
from pilot.infer.engine.plain import PlainEngine
from pilot.models.generation import Greedy
from pilot.models.pi import Pi, pi0_fast
from pilot.nn.siglip import Siglip
from pilot.tokenizers.fast import FastTokenizer
from pilot.tokenizers.grammar import ActionGrammar, TextGrammar
from pilot.tokenizers.text import TextTokenizer

STEPS, WORDS, ACTION_TOKENS = (10, 16, 60) if REAL else (1, 2, 2)
TARGETS = {
    "chunk": 15.0, "raw": 16.5, "fp8": 12.0, "12 words": 30.0, "60 tokens": 120.0, "16 robots": 7.0,
}  # fmt: skip
"""Milliseconds on an H200."""
SLOW = 80
"""Seconds that compiling may take."""
MODELS: dict[str, Any] = {}


class Asked:
    """A greedy sampler that the engine does not know, so that the host asks for each token."""

    def __init__(self, loc_range: tuple[int, int] | None) -> None:
        self.greedy = Greedy(loc_range)

    def __call__(self, logits: Tensor, allowed: Tensor | None) -> Tensor:
        return self.greedy(logits, allowed)


def pi05_model() -> Pi:
    if "pi05" not in MODELS:
        MODELS["pi05"] = random_model(CONFIG, dtype=DTYPE, device=str(DEVICE))
    return MODELS["pi05"]


def inputs(batch: int = 1) -> tuple[Observation, Tensor]:
    one = observation(CONFIG, cameras=3, words=60 if REAL else 8, device=str(DEVICE))
    seen = one.map(lambda x: x.expand(batch, *x.shape[1:]).contiguous())
    generator = torch.Generator().manual_seed(7)
    return seen, torch.randn(batch, CHUNK, DIMS, generator=generator).to(DEVICE)


def act(engine: Any, seen: Observation, noise: Tensor) -> Tensor:
    """A chunk, from an observation."""
    return engine.denoise(engine.prefill(seen), seen.state, noise=noise, num_steps=STEPS)[-1]


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
    p50, p99 = np.percentile(times, [50, 99])
    return float(p50), float(p99)


def replay_ms(engine: GraphEngine, part: str) -> float:
    """Milliseconds of a graph on the device alone."""
    found: list[Any] = [
        g.graph for b in engine.buffers_by_kind.values() for key, g in b.graphs.items() if key[0] == part
    ]
    if not REAL or not found:
        return 0.0
    times = []
    for _ in range(20):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        found[0].replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return float(np.median(times))


def worst(ours: Tensor, wanted: Tensor) -> float:
    return float((ours.float() - wanted.float()).abs().max())


def reference() -> dict[str, Tensor]:
    """The chunk of the plain model, in fp32 and in bf16."""
    if "reference" not in MODELS:
        model, (seen, noise) = pi05_model(), inputs()
        exact = act(PlainEngine(replicate(model)), seen, noise)
        gc.collect()
        torch.cuda.empty_cache()
        MODELS["reference"] = {"fp32": exact, "plain": act(PlainEngine(model), seen, noise)}
    return MODELS["reference"]


def replicate(model: Pi) -> Pi:
    """The same weights in fp32."""
    with torch.device("meta"):
        exact = Pi(model.config).eval()
    exact = exact.to_empty(device=DEVICE)
    with torch.no_grad():
        for ours, theirs in zip(exact.parameters(), model.parameters(), strict=True):
            ours.copy_(theirs)
    return exact


# --- parts -----------------------------------------------------------------------------------------------------------


@contextmanager
def lengths_in_steps_of(step: int) -> Iterator[None]:
    before, graphs.STEP = graphs.STEP, step
    try:
        yield
    finally:
        graphs.STEP = before


def tuned(model: Pi) -> FusedEngine:
    """With as many rows in the products of prefill as the table of `rows` says."""
    engine = FusedEngine(model)
    stack = cast(FusedStack, engine.vlm)
    stack.extra = ExtraRows(**gpu_kernels.best_extra(round_up(TOKENS, graphs.STEP)))
    print(f"    {stack.extra}")
    return engine


def chunk() -> None:
    """The engines beside each other; `same again` is bit for bit."""
    model, (seen, noise), table = pi05_model(), inputs(), {}
    wanted = reference()
    makes: dict[str, tuple[int, Callable[[], Any]]] = {
        "plain": (graphs.STEP, lambda: PlainEngine(model)),
        "graphs": (graphs.STEP, lambda: GraphEngine(model)),
        "fused": (graphs.STEP, lambda: FusedEngine(model)),
        "fused, one after the other": (graphs.STEP, lambda: FusedEngine(model, early=False)),
        "fused, rows as measured": (graphs.STEP, lambda: tuned(model)),
        "fused, lengths in steps of 8": (8, lambda: FusedEngine(model)),
    }
    for name, (step, make) in makes.items():
        with lengths_in_steps_of(step):
            try:
                table[name] = row = measure(make(), seen, noise, wanted, plain=name == "plain")
                print(f"  {name:36} {shown(row)}", flush=True)
            except Exception:
                traceback.print_exc()
    RESULTS["chunk"] = table


def measure(engine: Any, seen: Observation, noise: Tensor, wanted: dict[str, Tensor], *, plain: bool) -> dict[str, Any]:
    state = engine.prefill(seen)
    first = engine.denoise(state, seen.state, noise=noise, num_steps=STEPS)[-1]
    row: dict[str, Any] = {
        "off plain": worst(first, wanted["plain"]), "off fp32": worst(first, wanted["fp32"]),
        "same again": all(torch.equal(first, act(engine, seen, noise)) for _ in range(4)),
        "read": host_times(lambda: engine.prefill(seen), calls=30 if not plain else 8),
        "chunk": host_times(lambda: act(engine, seen, noise), calls=60 if not plain else 8),
    }  # fmt: skip
    if not plain:
        on_host, start = seen.map(lambda x: x.cpu()), noise.cpu()
        row["chunk from the host"] = host_times(lambda: act(engine, on_host, start), calls=60)
        row["read on the device"], row["act on the device"] = replay_ms(engine, "prefill"), replay_ms(engine, "denoise")
    return row


def raw() -> None:
    """From pictures as bytes on the host to actions on the host, with and without Python's garbage collector."""
    model, (seen, noise) = pi05_model(), inputs()
    engine, size, draws = FusedEngine(model), CONFIG.image_size(wrist=False), np.random.default_rng(0)
    kinds = [int(k) for k in seen.token_kinds[0].tolist() if k]
    row = Row(
        images={f"camera {i}": draws.integers(0, 256, (size, size, 3), np.uint8) for i in range(3)},
        tokens=seen.tokens[0, : len(kinds)].tolist(), token_kinds=kinds, token_loss=[False] * len(kinds),
        state=seen.state[0].float().cpu().numpy(), actions=np.zeros((CHUNK, DIMS), np.float32),
        action_mask=np.ones((CHUNK, DIMS), bool), source="",
    )  # fmt: skip
    start = noise.cpu()

    def once() -> Tensor:
        read = collate([row]).observation
        return act(engine, read, start).cpu()

    table: dict[str, Any] = {"as it is": host_times(once, calls=100)}
    gc.collect()
    gc.freeze()
    table["objects frozen"] = host_times(once, calls=100)
    gc.disable()
    table["collector off"] = host_times(once, calls=100)
    gc.enable()
    gc.unfreeze()
    table["on the device"] = replay_ms(engine, "prefill") + replay_ms(engine, "denoise")
    table["collate alone"] = host_times(lambda: collate([row]), calls=50)
    RESULTS["raw"] = table
    print(f"  {shown(table)}")


def fp8() -> None:
    model, (seen, noise) = pi05_model(), inputs()
    if not REAL:
        return
    engine = FusedEngine(model)
    engine.quantize([seen])
    row = measure(engine, seen, noise, reference(), plain=False)
    wanted = reference()
    row["plain bf16 off fp32"] = worst(wanted["plain"], wanted["fp32"])
    row["mean |a|"] = float(wanted["fp32"].abs().mean())
    RESULTS["fp8"] = row
    print(f"  {shown(row)}")


def words() -> None:
    """Prefill and some tokens: on the device, asked for one by one, and by the plain model."""
    model, (seen, _), table = pi05_model(), inputs(), {}
    grammar = TextGrammar(TextTokenizer(), vocab_size=CONFIG.vocab_size, end=1, boxes="first")
    asked = Asked(CONFIG.loc_token_range(Kind.TEXT))
    late = FusedEngine(model)
    cast(FusedStack, late.vlm).early = False
    engines: dict[str, tuple[Any, dict[str, Any]]] = {
        "plain": (PlainEngine(model), {"allowed": grammar}),
        "graphs, one by one": (GraphEngine(model), {"allowed": grammar, "sampler": asked}),
        "fused, one by one": (FusedEngine(model), {"allowed": grammar, "sampler": asked}),
        "fused": (FusedEngine(model), {"allowed": grammar}),
        "fused, one after the other": (late, {"allowed": grammar}),
        "fused, no grammar": (FusedEngine(model), {}),
    }
    for name, (engine, options) in engines.items():

        def talk(count: int) -> Any:
            prefilled = engine.prefill(seen, max_new_tokens=WORDS)
            return engine.generate(prefilled, eos=NOTHING, max_new_tokens=count, **options)[0]

        try:
            calls = 4 if name == "plain" else 20
            one, twelve, many = (host_times(lambda: talk(n), calls=calls)[0] for n in (1, min(12, WORDS), WORDS))
            table[name] = {
                "12 words": twelve, "16 words": many, "a word": (many - one) / (WORDS - 1),
                "said": talk(WORDS)[0].tolist(),
            }  # fmt: skip
            print(f"  {name:28} {twelve:.2f} ms for 12, {many:.2f} for 16, {table[name]['a word']:.2f} a word")
        except Exception:
            traceback.print_exc()
    said = {name: row["said"] for name, row in table.items() if name != "fused, no grammar"}
    same = {name: row == said.get("fused, one by one") for name, row in said.items()}
    print(f"  same words: {same}")
    RESULTS["words"] = table | {"same": same}


def action_tokens() -> None:
    """π0-FAST: prefill and so many action tokens."""
    config = pi0_fast("2b") if REAL else replace(CONFIG, action_expert=None, insulate=False)
    model = random_model(config, dtype=DTYPE, device=str(DEVICE))
    (seen, _), table = inputs(), {}
    fast = FastTokenizer.fit(np.random.default_rng(0).uniform(-1, 1, (64, 50, 14)), vocab_size=1024)
    grammar = ActionGrammar(TextTokenizer(), fast, horizon=50, dim=14, vocab_size=config.vocab_size)
    asked = Asked(config.loc_token_range(Kind.FAST))
    engines: dict[str, tuple[Any, dict[str, Any]]] = {
        "fused, one by one": (FusedEngine(model), {"sampler": asked}),
        "fused": (FusedEngine(model), {}),
    }
    for name, (engine, options) in engines.items():

        def write() -> Any:
            prefilled = engine.prefill(seen, max_new_tokens=ACTION_TOKENS)
            return engine.generate(
                prefilled, eos=NOTHING, max_new_tokens=ACTION_TOKENS, kind=Kind.FAST, allowed=grammar, **options
            )[0]

        table[name] = {"ms": host_times(write, calls=6), "said": write()[0].tolist()}
        print(f"  {name:28} {table[name]['ms'][0]:.1f} ms for {ACTION_TOKENS} tokens")
    print(f"  same tokens: {table['fused']['said'] == table['fused, one by one']['said']}")
    RESULTS["action tokens"] = table


def batches() -> None:
    """Many robots at once; of four, whose prompts differ in length, against the plain model."""
    model, table = pi05_model(), {}
    seen, noise = inputs(4)
    kinds = seen.token_kinds.clone()
    for row in range(1, 4):
        kinds[row, (60 if REAL else 8) - 2 * row :] = 0
    mixed = replace(seen, token_kinds=kinds)
    off = worst(act(FusedEngine(model), mixed, noise), act(PlainEngine(model), mixed, noise))
    print(f"  four of different lengths: off plain {off:.4f}")
    table["off plain"] = off
    for batch in (4, 16, 64) if REAL else (2,):
        seen, noise = inputs(batch)
        makes: dict[str, Callable[[], Any]] = {"fused": lambda: FusedEngine(model)}
        if batch < 64:
            makes["graphs"] = lambda: GraphEngine(model)
        if batch == 16 and REAL:
            makes["fused, fp8"] = lambda: quantized(model, inputs()[0])
        for name, make in makes.items():
            try:
                engine = make()
                p50, p99 = host_times(lambda: act(engine, seen, noise), calls=5 if batch == 64 else 12)
                parts = {part: replay_ms(engine, part) for part in ("prefill", "denoise")}
                table[f"{batch} robots, {name}"] = {"ms": (p50, p99), "each": p50 / batch, **parts}
                print(
                    f"  {batch} robots, {name}: {p50:.1f} ({p99:.1f}) ms, {p50 / batch:.2f} each; {parts}", flush=True
                )
            except Exception:
                traceback.print_exc()
            gc.collect()
            torch.cuda.empty_cache()
    RESULTS["batches"] = table


def quantized(model: Pi, seen: Observation) -> FusedEngine:
    engine = FusedEngine(model)
    engine.quantize([seen])
    return engine


def profile() -> None:
    """The kernels of prefill, of a chunk, of a word and of 16 robots."""
    model, result = pi05_model(), {}
    engine, many = FusedEngine(model), FusedEngine(model)
    (seen, noise), (crowd, noises) = inputs(), inputs(16 if REAL else 2)

    def talk() -> Any:
        return engine.generate(engine.prefill(seen, max_new_tokens=8), eos=NOTHING, max_new_tokens=8)

    calls: dict[str, Callable[[], Any]] = {
        "read": lambda: engine.prefill(seen), "chunk": lambda: act(engine, seen, noise), "8 words": talk,
        "16 robots": lambda: act(many, crowd, noises),
    }  # fmt: skip
    for part, call in calls.items():
        call()
        synchronize()
        activity = getattr(torch.profiler.ProfilerActivity, "CUDA" if REAL else "CPU")
        with torch.profiler.profile(activities=[activity]) as profiler:
            call()
            synchronize()
        kernels: dict[str, list[float]] = defaultdict(lambda: [0, 0.0])
        for event in profiler.events() or []:
            if event.device_type == torch.autograd.DeviceType.CUDA:
                kernels[event.name][0] += 1
                kernels[event.name][1] += event.time_range.elapsed_us()
        found = sorted(((n, c, t) for n, (c, t) in kernels.items()), key=lambda row: -row[2])
        print(
            f"  {part}: {sum(c for _, c, _ in found):.0f} launches, {sum(t for *_, t in found) / 1e3:.2f} ms in kernels"
        )
        for name, count, total in found[:16]:
            rate = f"{moved(name) / (total / count) / 1e6:5.2f} TB/s" if part == "chunk" and moved(name) else ""
            print(f"    {total:9.0f} µs {count:5.0f} × {total / count:7.2f}  {name[:90]} {rate}")
        result[part] = found
    RESULTS["profile"] = result


def moved(kernel: str) -> float:
    """Bytes of weights or cache that a launch of the expert's kernels has to read."""
    width, inner, heads = EXPERT.width, EXPERT.mlp_dim, HEADS * HEAD_DIM
    weights = {
        "_heads_kernel": (heads + 2 * HEAD_DIM) * width, "_gated_kernel": 2 * inner * width,
        "_add_kernel": (heads + inner) * width / 2, "_attend_kernel": 2 * (TOKENS + CHUNK) * HEAD_DIM,
    }  # fmt: skip
    return 2 * weights.get(kernel, 0)


def compiled() -> None:
    """The plain model with blocks compiled by torch.compile, without and (if it can be captured) in one CUDA graph."""
    model, (seen, noise) = pi05_model(), inputs()
    if not REAL:
        return
    for gemma in (model.vlm, model.action_expert):
        for block in gemma.blocks:
            block.compile(dynamic=False)
    for block in cast(Siglip, model.vision).blocks:
        block.compile(dynamic=False)
    start, plain, seen = time.perf_counter(), PlainEngine(model), seen.map(lambda x: x.cpu()).with_indices()
    seen = seen.map(lambda x: x.to(DEVICE))
    act(plain, seen, noise)
    RESULTS["compiled"] = {
        "seconds": time.perf_counter() - start,
        "chunk": host_times(lambda: act(plain, seen, noise), 10),
    }
    print(f"  {shown(RESULTS['compiled'])}", flush=True)
    graph = gpu_kernels.captured(lambda: act(plain, seen, noise))
    RESULTS["compiled"]["in a graph"] = host_times(graph.replay, 20)
    print(f"  {shown(RESULTS['compiled'])}")


def shown(row: dict[str, Any]) -> str:
    def value(v: Any) -> str:
        return f"{v[0]:.2f} ({v[1]:.2f})" if isinstance(v, tuple) else f"{v:.4g}" if isinstance(v, float) else str(v)

    return ", ".join(f"{name} {value(v)}" for name, v in row.items())


def rows_for_docs(command: str, commit: str) -> str:
    """What was measured as a table, for docs/measurements.md."""
    r = RESULTS
    best = min((v["chunk"][0] for k, v in r.get("chunk", {}).items() if k.startswith("fused")), default=None)
    found = {
        "chunk": ("π0.5 chunk, 3 cameras", best),
        "raw": ("the same from bytes on the host to actions on the host", r.get("raw", {}).get("as it is", [None])[0]),
        "fp8": ("the same, FP8 MLP", r.get("fp8", {}).get("chunk", [None])[0]),
        "12 words": ("high level: prefill and 12 words", r.get("words", {}).get("fused", {}).get("12 words")),
        "60 tokens": ("π0-FAST, 60 tokens", r.get("action tokens", {}).get("fused", {}).get("ms", [None])[0]),
        "16 robots": ("16 robots, per chunk", r.get("batches", {}).get("16 robots, fused", {}).get("each")),
    }
    beside = {"plain model": ("chunk", "plain"), "CUDA graphs of PyTorch": ("chunk", "graphs")}
    lines = [
        f"{r.get('ceilings', {}).get('device')}, commit {commit}: `{command}`",
        "",
        "| work | ms | target |",
        "|---|---|---|",
    ]
    lines += [f"| {n} | {ms:.1f} | ≤ {TARGETS[k]:g} |" for k, (n, ms) in found.items() if ms is not None]
    for name, (part, key) in beside.items():
        if key in r.get(part, {}):
            lines.append(f"| beside it: {name}, chunk | {r[part][key]['chunk'][0]:.1f} | |")
    if "compiled" in r:
        lines.append(f"| beside it: plain model, blocks compiled, chunk | {r['compiled']['chunk'][0]:.1f} | |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts: dict[str, Callable[[], None]] = gpu_kernels.PARTS | {
        "chunk": chunk, "profile": profile, "words": words, "fp8": fp8, "raw": raw, "action tokens": action_tokens,
        "batches": batches, "compiled": compiled,
    }  # fmt: skip
    git = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    parser.add_argument("--out", type=Path, default=Path("outputs/gpu"))
    parser.add_argument("--seconds", type=float, default=250.0)
    parser.add_argument("--parts", nargs="*", default=list(parts), choices=list(parts))
    parser.add_argument("--commit", default=git or "unknown")
    args = parser.parse_args()
    began = time.perf_counter()
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.parts:
        gone = time.perf_counter() - began
        if gone + (SLOW if name == "compiled" else 0) > args.seconds:
            print(f"{name}: no time left")
            continue
        print(f"{name} ({gone:.0f} s)", flush=True)
        try:
            with torch.inference_mode():
                parts[name]()
        except Exception:
            traceback.print_exc()
        gc.collect()
        torch.cuda.empty_cache()
        (args.out / "gpu.json").write_text(json.dumps(RESULTS, indent=1, default=str))
        (args.out / "rows.md").write_text(rows_for_docs("bench/gpu.sh", args.commit))
    print((args.out / "rows.md").read_text())
    print(f"done in {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
