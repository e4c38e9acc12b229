"""Every Triton kernel of acting, compiled for GPUs that are not here: registers, spills, shared memory.

    python bench/kernels_ahead.py [--size 2b] [--capability 90 80]

The launches are those of a prefill and of one evaluation of the expert, on tensors without memory; their number is
printed too. Spills cost time; more than 227 KB (sm_90) or 163 KB (sm_80) of shared memory does not run.
"""

import argparse
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

from pilot.infer.engine.fused_stack import FusedSiglip, FusedStack
from pilot.infer.engine.stack import AngleTable, Cache
from pilot.models.pi import pi05
from pilot.models.pi_config import Size
from pilot.nn.gemma import Gemma
from pilot.nn.norms import Modulation
from pilot.nn.siglip import Siglip

TYPES = {torch.bfloat16: "*bf16", torch.float32: "*fp32", torch.int32: "*i32", torch.int64: "*i64"}
OPTIONS = ("num_warps", "num_stages", "launch_pdl")


class Launch(NamedTuple):
    """A kernel with the types of its arguments, as Triton would specialize it."""

    kernel: JITFunction
    signature: tuple[tuple[str, str], ...]
    constants: tuple[tuple[str, Any], ...]
    aligned: tuple[str, ...]
    options: tuple[tuple[str, Any], ...]


@contextmanager
def recorded() -> Iterator[Counter[Launch]]:
    """Launches are counted and not made."""
    launches: Counter[Launch] = Counter()

    def record(kernel: JITFunction, *args: Any, grid: Any, warmup: bool, **named: Any) -> None:
        given = dict(zip(kernel.arg_names, args)) | named
        options = tuple((name, given.pop(name)) for name in OPTIONS if name in given)
        signature, constants, aligned = {}, {}, []
        for param in kernel.params:
            value = given[param.name]
            if param.is_constexpr or value is None or (isinstance(value, int) and value == 1):
                constants[param.name], signature[param.name] = value, "constexpr"
            elif isinstance(value, Tensor):
                signature[param.name] = TYPES[value.dtype]
                aligned.append(param.name)
            else:
                signature[param.name] = "fp32" if isinstance(value, float) else "i32"
                if isinstance(value, int) and value % 16 == 0:
                    aligned.append(param.name)
        parts = (tuple(sorted(signature.items())), tuple(sorted(constants.items())), tuple(aligned), options)
        launches[Launch(kernel, *parts)] += 1

    run, JITFunction.run = JITFunction.run, cast(Any, record)
    try:
        yield launches
    finally:
        JITFunction.run = run


def compiled(launch: Launch, capability: int) -> Any:
    kernel = launch.kernel
    types = dict(launch.signature)
    attrs = {(kernel.arg_names.index(name),): [["tt.divisibility", 16]] for name in launch.aligned}
    source = ASTSource(
        fn=kernel,
        signature={name: types[name] for name in kernel.arg_names},
        constexprs=dict(launch.constants),
        attrs=attrs,
    )
    options = dict(launch.options)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


def resources(made: Any) -> tuple[int, int]:
    """Registers of a thread, and bytes that were spilled from them to memory."""
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(made.asm["cubin"])
        file.flush()
        said = subprocess.run([tool, "--dump-resource-usage", file.name], capture_output=True, text=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+)", said)
    return (int(found[1]), int(found[2])) if found else (-1, -1)


def launches_of(size: str, *, early: bool) -> dict[str, Counter[Launch]]:
    """Those of SigLIP, of the backbone (828 tokens, stopped at keys and values) and of one evaluation of the expert."""
    config = pi05(cast(Size, size))
    made = {}
    with torch.device("meta"):
        tower = Siglip(config.vision, config.vlm.width).bfloat16()
        stacks = [Gemma(c).bfloat16() for c in (config.vlm, config.action_expert) if c is not None]
    like = torch.empty(0, dtype=torch.bfloat16, device="meta")
    angles = AngleTable(config.vlm.head_dim, torch.device("meta"))
    tokens, actions = 3 * config.vision.grid**2 + 60, config.action_horizon
    cache = Cache.empty(config.vlm, batch=1, slots=tokens + actions, like=like)
    with torch.inference_mode(), torch.device("meta"):
        with recorded() as made["vision"]:
            FusedSiglip(tower)(like.new_empty(3, config.vision.image_size, config.vision.image_size, 3))
        vlm, expert = (FusedStack(stack, early=early) for stack in stacks)
        for name, stack, count, first in (("prefill", vlm, tokens, 0), ("expert", expert, actions, tokens),
                                          ("word", vlm, 1, tokens)):  # fmt: skip
            at = angles.at(torch.zeros(1, count, dtype=torch.long), limit=1)
            bias = like.new_empty(1, 1, 1, first + count)
            span = stack.span(cache, first, angles=at, bias=bias)
            norms = stack.norms
            if stack is expert:
                width, e = stack.config.width, (1, 1, stack.config.width)
                modulation: Modulation = (torch.empty(e), torch.empty(e), torch.empty(e))
                norms = stack.adaptive([modulation] * (2 * stack.config.depth + 1))[0]
                assert width == norms[0].factor.numel()
            with recorded() as made[name]:
                stack.run(like.new_empty(count, stack.config.width), span, norms=norms, stop=name == "prefill")
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="2b")
    parser.add_argument("--capability", type=int, nargs="*", default=[90, 80])
    parser.add_argument("--early", action="store_true", help="with programmatic launches (sm_90)")
    args = parser.parse_args()
    for part, launches in launches_of(args.size, early=args.early).items():
        print(f"{part}: {sum(launches.values())} launches of Triton kernels")
        for launch, count in launches.items():
            for capability in args.capability:
                made = compiled(launch, capability)
                registers, spilled = resources(made)
                how = ", ".join(f"{name}={value}" for name, value in launch.constants if "BLOCK" in name)
                print(
                    f"  {count:4} × {launch.kernel.__name__:20} sm_{capability} {registers:4} registers {spilled:5} B "
                    f"spilled {made.metadata.shared / 1024:6.1f} KB shared  {how}"
                )


if __name__ == "__main__":
    main()
