"""Training π0.5 at `2b` on one GPU: samples per second, memory and where the time goes, in two and a half minutes.

    python bench/gpu_training.py [--seconds 150] [--only all-16-selective flow-32 …] [--json FILE]

Weights are random and made on the GPU. Rows have three cameras of 224², and, where words are learned, 340 text tokens
of which 140 are said; 4 tokens of padding make lengths that 8 divides. A part that fails prints its error and the rest
goes on; parts for which there is no time are named at the end. Checked first: each kernel against plain torch. A run
with a CUDA graph is also checked: its losses are those of the run before it, which has none. Rows for
`docs/measurements.md` come last, and lie beside the JSON.
"""

import os

os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")

os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", str(os.cpu_count()))

import argparse
import gc
import json
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from pilot.data.layout import Batch, Kind, Observation
from pilot.models.pi import Pi, PiConfig, pi05
from pilot.nn.configs import LoraConfig, LoraGroup, SiglipConfig
from pilot.nn.cross_entropy import cross_entropy
from pilot.nn.siglip import Siglip
from pilot.train.config import ComputeConfig, ObjectiveConfig, OptimConfig, ParallelConfig, TrainConfig
from pilot.train.distributed import connect
from pilot.train.ema import Ema
from pilot.train.fused_adamw import FusedAdamW
from pilot.train.learner import Learner
from pilot.train.master_weights import MasterWeights
from pilot.train.optim import Optimizer
from pilot.train.plan.flops import mean_flops

ALL_WORDS = [Kind.PREFIX] * 200 + [Kind.TEXT] * 20 + [Kind.FAST] * 120 + [Kind.PAD] * 4
FLOW_WORDS = [Kind.PREFIX] * 200
LORA = LoraConfig(vision=LoraGroup(rank=16, alpha=16.0))
FLOW_ONLY = ObjectiveConfig(text_weight=0.0, fast_weight=0.0)
WARM_UP = 4
"""Steps before the clock starts; a CUDA graph is captured in the third."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One run to measure: its batch, and what differs from a run of all losses and all weights."""

    batch: int
    words: list[Kind] = field(default_factory=lambda: ALL_WORDS)
    changes: dict[str, Any] = field(default_factory=dict)


def case(batch: int, *, checkpointing: str = "none", compiled: bool = True, **changes: Any) -> Case:
    compute = ComputeConfig(
        device="cuda", checkpointing=cast(Any, checkpointing), compile=compiled, cuda_graph=changes.pop("graph", False)
    )
    words = FLOW_WORDS if changes.get("objective") == FLOW_ONLY else ALL_WORDS
    return Case(batch=batch, words=words, changes={"compute": compute, **changes})


CASES: dict[str, Case] = {  # in the order of their worth; neighbours of one shape find kernels compiled
    "all-8-selective": case(8, checkpointing="selective"),
    "all-16-selective": case(16, checkpointing="selective"),
    "all-16-selective-graph": case(16, checkpointing="selective", graph=True),
    "flow-32": case(32, objective=FLOW_ONLY),
    "flow-32-graph": case(32, objective=FLOW_ONLY, graph=True),
    "lora-8-blocks": case(8, checkpointing="blocks", lora=LORA),
    "lora-8-blocks-graph": case(8, checkpointing="blocks", lora=LORA, graph=True),
    "all-32-selective": case(32, checkpointing="selective"),
    "flow-64": case(64, objective=FLOW_ONLY),
    "all-8-eager": case(8, compiled=False, checkpointing="selective"),
    "all-16": case(16),
}
SPARE = {"products", "attentions", "vision"}
"""Parts that are run only where they are asked for (`--only`): what they say is known, and they cost time."""


def batch_of(rows: int, words: list[Kind]) -> Batch:
    """Whole rows in pinned memory, with all indices known, as the loader gives them."""
    config = pi05("2b")
    torch.manual_seed(0)  # runs of one case with a graph and without see the same
    kinds = torch.tensor([int(kind) for kind in words]).expand(rows, -1).contiguous()
    cameras = ("base", "left_wrist", "right_wrist")
    actions = torch.randn(rows, config.action_horizon, config.action_dim)
    observation = Observation(
        images={camera: torch.rand(rows, 224, 224, 3) * 2 - 1 for camera in cameras},
        image_masks={camera: torch.ones(rows, dtype=torch.bool) for camera in cameras},
        state=torch.zeros(rows, config.action_dim),
        tokens=torch.randint(4, config.vocab_size, kinds.shape),
        token_kinds=kinds,
        token_loss=kinds >= Kind.TEXT,
    )
    batch = Batch(
        observation=observation, actions=actions, action_mask=torch.ones_like(actions, dtype=torch.bool),
        sources=("bench",) * rows, row_ids=tuple(range(rows)),
    )  # fmt: skip
    return batch.with_indices().map(Tensor.pin_memory)


def measure(config: TrainConfig, case: Case, *, steps: int) -> dict[str, Any]:
    """Steps of the trainer's own learner on one batch."""
    torch.cuda.reset_peak_memory_stats()
    began = time.perf_counter()
    with connect(config) as ranks:
        with torch.device(ranks.device):
            model = Pi(cast(PiConfig, config.model))
        model.initialize(torch.Generator(ranks.device).manual_seed(0))
        learner = Learner(model, config, ranks=ranks)
        batch = [batch_of(case.batch, case.words)]
        losses = [learner.train_step(batch).loss.item() for _ in range(WARM_UP)]
        torch.cuda.synchronize()
        ready = time.perf_counter()
        outcomes = [learner.train_step(batch) for _ in range(steps)]
        torch.cuda.synchronize()
        step = (time.perf_counter() - ready) / steps
        start = time.perf_counter()
        learner.train_step(batch)
        host = time.perf_counter() - start  # where a step is over a thousand launches, with waiting for the queue
        torch.cuda.synchronize()
        flops = mean_flops(model, config, batch)
        found = {
            "samples_per_s": case.batch / step, "step_ms": step * 1e3, "host_ms": host * 1e3,
            "tflops": flops * case.batch / step / 1e12, "peak_gb": torch.cuda.max_memory_allocated() / 1e9,
            "reserved_gb": torch.cuda.max_memory_reserved() / 1e9, "before_first_step_s": ready - began,
            "losses": losses + [outcome.loss.item() for outcome in outcomes],
        }  # fmt: skip
        return found | {"kernels": tried(lambda: kernels_of(lambda: learner.train_step(batch)))}


def kernels_of(step: Callable[[], Any], *, top: int = 28) -> dict[str, Any]:
    """Launches and kernel time of one step, and the kernels that take most of it."""
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profiler:
        step()
        torch.cuda.synchronize()
    events = [e for e in profiler.key_averages() if e.self_device_time_total]
    events.sort(key=lambda e: -e.self_device_time_total)
    table = [(e.key[:110], e.count, e.self_device_time_total / 1e3) for e in events]
    found = {"launches": sum(n for _, n, _ in table), "ms": sum(ms for *_, ms in table), "top": table[:top]}
    print(f"    {found['launches']} launches, {found['ms']:.1f} ms of kernels")
    for name, count, ms in found["top"]:
        print(f"    {ms:9.2f} ms {count:6d} ×  {name}")
    return found


def clocked(work: Callable[[], Any], *, repeats: int = 10) -> float:
    """Milliseconds of `work`, by the device's own clock."""
    for _ in range(3):
        work()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(repeats):
        work()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / repeats


# --- parts -----------------------------------------------------------------------------------------------------------


def ceilings() -> dict[str, float]:
    """What this chip does at its best: bytes copied and operations of a large product."""
    x, a = torch.empty(2**30, dtype=torch.bfloat16, device="cuda"), torch.randn(8192, 8192, device="cuda").bfloat16()
    y = torch.empty_like(x)
    copy, product = clocked(lambda: y.copy_(x)), clocked(lambda: a @ a)
    return {"copy_tb_per_s": 2 * x.nbytes / copy / 1e9, "product_tflops": 2 * 8192**3 / product / 1e9}


def products() -> dict[str, str]:
    """The products of one backbone block for 8 rows, forward and both backward ones."""
    found, tokens = {}, 8 * 1112
    for name, (i, o) in {
        "qkv": (2048, 2560),
        "out": (2048, 2048),
        "gate_up": (2048, 32768),
        "down": (16384, 2048),
    }.items():
        x, w, g = (torch.randn(shape, device="cuda").bfloat16() for shape in ((tokens, i), (o, i), (tokens, o)))
        ways = {
            "forward": lambda x=x, w=w: x @ w.T,
            "input": lambda g=g, w=w: g @ w,
            "weight": lambda g=g, x=x: g.T @ x,
        }
        times = {way: clocked(work) for way, work in ways.items()}
        rates = {way: 2 * tokens * i * o / ms / 1e9 for way, ms in times.items()}
        found[name] = ", ".join(f"{way} {times[way]:.3f} ms {rates[way]:.0f} TFLOP/s" for way in ways)
    return found


def attentions() -> dict[str, str]:
    """Attention of one backbone layer for 8 rows, forward and backward, by whoever can do it."""
    b, n, t, h = 8, 8, 1112, 256
    q = torch.randn(b, n, t, h, device="cuda").bfloat16().requires_grad_()
    k, v = (torch.randn(b, 1, t, h, device="cuda").bfloat16().requires_grad_() for _ in range(2))
    prefix, end = 768 + 200, 768 + 340
    order = torch.arange(t, device="cuda")
    sees = ((order[None, :] < prefix) | (order[:, None] >= order[None, :])) & (order[None, :] < end)
    bias = torch.zeros(b, 1, t, t, device="cuda", dtype=torch.bfloat16).masked_fill_(~sees, -1e30)
    gradient = torch.randn(b, n, t, h, device="cuda").bfloat16()

    def both(attend: Callable[[Tensor, Tensor, Tensor], Tensor]) -> str:
        def run() -> None:
            torch.autograd.grad(attend(q, k, v), (q, k, v), gradient)

        return f"forward {clocked(lambda: attend(q, k, v)):.3f} ms, both {clocked(run):.3f} ms"

    def sdpa(backend: SDPBackend, mask: Tensor | None, **options: Any) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            with sdpa_kernel(backend):
                k, v = (x if options.get("enable_gqa") else x.expand(-1, n, -1, -1) for x in (k, v))
                return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, **options)

        return attend

    ways = {
        "efficient, mask": lambda: sdpa(SDPBackend.EFFICIENT_ATTENTION, bias.expand(-1, n, -1, -1)),
        "cudnn, mask": lambda: sdpa(SDPBackend.CUDNN_ATTENTION, bias.expand(-1, n, -1, -1)),
        "flash, no mask": lambda: sdpa(SDPBackend.FLASH_ATTENTION, None),
        "flash, no mask, shared heads": lambda: sdpa(SDPBackend.FLASH_ATTENTION, None, enable_gqa=True),
        "cudnn, no mask": lambda: sdpa(SDPBackend.CUDNN_ATTENTION, None),
        "flex": lambda: flex(prefix, end, t),
    }
    return {name: tried(lambda make=make: both(make())) for name, make in ways.items()}


def flex(prefix: int, end: int, tokens: int) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """FlexAttention by the layout's rule, compiled; blocks that nobody sees cost nothing."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    def rule(_b: Tensor, _h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return ((key < prefix) | (query >= key)) & (key < end)

    blocks = create_block_mask(rule, None, None, tokens, tokens, device="cuda")
    compiled = torch.compile(flex_attention, dynamic=False)
    return lambda q, k, v: compiled(q, k, v, block_mask=blocks, enable_gqa=True)


def vision() -> dict[str, float]:
    """The vision tower for 8 rows of three cameras, forward and backward, camera by camera and all at once."""
    with torch.device("cuda"):
        tower, images = Siglip(SiglipConfig(), 2048).bfloat16(), torch.rand(24, 224, 224, 3).bfloat16()
    each = clocked(lambda: torch.stack([tower(part).sum() for part in images.split(8)]).sum().backward(), repeats=3)
    return {"each_ms": each, "together_ms": clocked(lambda: tower(images).sum().backward(), repeats=3)}


def checks() -> dict[str, str]:
    """Kernels against plain torch, on this GPU."""
    return {"adamw": tried(check_adamw), "cross-entropy": tried(check_cross_entropy)}


def check_adamw() -> str:
    """Three steps of a small model by the kernel and by torch: the largest differences."""
    sides = []
    for _ in range(2):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(672, 1000), nn.LayerNorm(1000), nn.Linear(1000, 48)).cuda()
        masters = MasterWeights(model)
        optimizer = Optimizer(model, OptimConfig(peak_lr=1e-2), steps=10, masters=masters.weights)
        sides.append((model, masters, optimizer, Ema(model, decay=0.9, masters=masters.weights)))
    (ours, masters, optimizer, ema), (theirs, other, adamw, average) = sides
    fused, norms = FusedAdamW(optimizer, ema, masters), []
    for step in range(3):
        for model in (ours, theirs):
            x = torch.randn(64, 672, device="cuda", generator=torch.Generator("cuda").manual_seed(step)).bfloat16()
            model(x).float().square().mean().backward()
        for name, gradient in other.gradients().items():
            other.weights[name].grad = gradient.float()
        other.clear_gradients()
        norms.append((fused.step(step)[1] - adamw.step(step)[1]).abs().item())
        average.update()
        other.refresh()
    weights = max((masters.weights[n] - other.weights[n]).abs().max().item() for n in other.weights)
    averages = max((ema.weights[n] - average.weights[n]).abs().max().item() for n in other.weights)
    same = all(torch.equal(masters.copies[n], masters.weights[n].bfloat16()) for n in other.weights)
    apart = f"weights differ by {weights:.1e}, averages by {averages:.1e}, norms by {max(norms):.1e}"
    return f"{apart}; copies are rounded weights: {same}"


def check_cross_entropy() -> str:
    """Loss and gradients in chunks against those of all scores at once in fp32."""
    words, width, tokens = 257_152, 2048, 700
    h = torch.randn(tokens, width, device="cuda").bfloat16().requires_grad_()
    w = (torch.randn(words, width, device="cuda") * width**-0.5).bfloat16().requires_grad_()
    targets = torch.randint(words, (tokens,), device="cuda")
    ours = cross_entropy(h, w, targets)
    theirs = F.cross_entropy((h @ w.T).float(), targets, reduction="none")
    found = [torch.autograd.grad(nll.mean(), (h, w)) for nll in (ours, theirs)]
    apart = [((a - b).float().norm() / b.float().norm()).item() for a, b in zip(*found, strict=True)]
    ms = clocked(lambda: torch.autograd.grad(cross_entropy(h, w, targets).mean(), (h, w)), repeats=3)
    losses = (ours - theirs).abs().max().item()
    return f"losses differ by {losses:.1e}, gradients by {apart[0]:.1e} and {apart[1]:.1e}; {ms:.1f} ms"


def tried(work: Callable[[], Any]) -> Any:
    """What `work` returns, or in a line why it does not."""
    try:
        return work()
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0][:160]}"


def settings(case: Case) -> TrainConfig:
    return TrainConfig(
        name="bench", model=pi05("2b", max_tokens=len(case.words)), robot="aloha", steps=1000, batch_size=case.batch,
        parallel=ParallelConfig(threads=1), **case.changes,
    )  # fmt: skip


def compare_graph(results: dict[str, Any], name: str) -> None:
    """Say how far the losses of a run with a CUDA graph are from those of the run without."""
    mine, other = results[name], results.get(name.removesuffix("-graph"))
    if isinstance(mine, dict) and isinstance(other, dict) and other is not mine:
        apart = [abs(a - b) / abs(b) for a, b in zip(mine["losses"], other["losses"], strict=True)]
        mine["graph_differs_by"] = max(apart)
        print(f"    losses of the graph differ by {max(apart):.1e} at most: {[f'{x:.0e}' for x in apart]}")


def rows(results: dict[str, Any]) -> list[str]:
    """Return rows of a table for `docs/measurements.md`."""
    table = ["| training π0.5 at `2b` | samples/s | ms a step | kernels, launches | memory |", "|---|---|---|---|---|"]
    for name, found in results.items():
        if isinstance(found, dict) and "samples_per_s" in found:
            kernels = found["kernels"]
            device = f"{kernels['ms']:.0f} ms, {kernels['launches']}" if isinstance(kernels, dict) else "–"
            speed = f"**{found['samples_per_s']:.1f}** | {found['step_ms']:.0f}"
            table.append(f"| {name} | {speed} | {device} | {found['peak_gb']:.1f} GB |")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=150.0, help="no part begins when so many have gone by")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--only", nargs="+", help="parts by name")
    parser.add_argument("--json", type=Path, default=Path(os.environ.get("OUT", ".")) / "gpu_training.json")
    args = parser.parse_args()
    began, left_out = time.perf_counter(), []
    results: dict[str, Any] = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__}
    print(f"{results['gpu']}, torch {results['torch']}", flush=True)
    runs = {name: lambda c=c: measure(settings(c), c, steps=args.steps) for name, c in CASES.items()}
    spare = {"products": products, "attentions": attentions, "vision": vision}
    parts = {"ceilings": ceilings, "checks": checks, **runs, **spare}
    for name, work in parts.items():
        if name not in (args.only or parts.keys() - SPARE):
            continue
        if time.perf_counter() - began > args.seconds:
            left_out.append(name)
            continue
        start = time.perf_counter()
        try:
            results[name] = work()
        except Exception as error:
            traceback.print_exc(limit=-6)
            results[name] = f"{type(error).__name__}: {str(error)[:300]}"
        compare_graph(results, name)
        gc.collect()
        torch.cuda.empty_cache()
        torch._dynamo.reset()  # what is compiled is found again on disk
        shown = results[name]
        if isinstance(shown, dict):
            shown = {k: round(v, 3) if isinstance(v, float) else v for k, v in shown.items() if k != "kernels"}
        print(f"{name} [{time.perf_counter() - start:.0f} s]: {shown}", flush=True)
        args.json.write_text(json.dumps(results, indent=1))  # after each part, for a run that is cut off
        args.json.with_suffix(".md").write_text("\n".join(rows(results)) + "\n")
    print(f"{time.perf_counter() - began:.0f} s; left out: {left_out}", *rows(results), sep="\n")


if __name__ == "__main__":
    main()
