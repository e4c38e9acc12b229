"""From a checkpoint on disk to a model, beside reading the file: `2b` shapes, weights of no meaning.

    python bench/loading.py [--size 2b] [--dtype bfloat16] [--folder /tmp]

The file (6.7 GB in bf16, 13.4 GB in fp32) is written first, one tensor in memory at a time, and removed at the end.
Loading maps it into memory and initialises nothing, so its pages come from the disk when they are first touched: the
time of loading and then touching every page is what compares with reading the file from end to end. Each is timed
with the file out of the page cache, as far as the system lets it be dropped, and with the file in it. Target: within
1.5 times.
"""

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from pilot.convert.tensor_files import write_safetensors
from pilot.models.bundle import empty_model, load_weights
from pilot.models.pi import Pi, PiConfig, pi05

PAGE = 4096
BLOCK = 1 << 24


def write(config: PiConfig, file: Path, dtype: torch.dtype) -> None:
    """A checkpoint's weights: one block of numbers again and again."""
    names = {name: (tuple(t.shape), dtype) for name, t in empty_model(config).state_dict().items()}
    block = torch.randn(BLOCK, generator=torch.Generator().manual_seed(0)).mul_(0.02).to(dtype)

    def arrays() -> Iterator[tuple[str, Tensor]]:
        for name, (shape, _) in names.items():
            count = torch.Size(shape).numel()
            yield name, block.repeat(-(-count // BLOCK))[:count].view(shape)

    write_safetensors(file, arrays(), layout=names)


def read(file: Path) -> None:
    """The whole file into one buffer, piece by piece."""
    buffer = bytearray(BLOCK)
    with file.open("rb", buffering=0) as stream:
        while stream.readinto(buffer):
            pass


def touch(model: Pi) -> None:
    """One byte of every page of every weight."""
    for weight in model.state_dict().values():
        weight.view(-1).view(torch.uint8)[::PAGE].sum()


def drop(file: Path) -> None:
    """Ask the system to forget the file's pages."""
    descriptor = os.open(file, os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds of the wall and of the processor."""
    wall, own = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - own


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=("debug", "nano", "2b"), default="2b")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    args = parser.parse_args()
    config = pi05(args.size)
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        file = Path(folder) / "model.safetensors"
        write(config, file, getattr(torch, args.dtype))
        print(f"π0.5 {args.size}, {args.dtype}: {file.stat().st_size / 1e9:.2f} GB, load {os.getloadavg()[0]:.1f}")
        ways: dict[str, Callable[[], object]] = {
            "read the file": lambda: read(file),
            "load the model": lambda: load_weights(config, file),
            "load and touch": lambda: touch(load_weights(config, file)),
        }
        for state in ("cold", "warm"):
            seconds: dict[str, float] = {}
            for name, work in ways.items():
                if state == "cold":
                    drop(file)
                seconds[name], own = timed(work)
                ratio = seconds[name] / seconds["read the file"]
                print(f"{state}, {name}: {seconds[name]:7.3f} s of wall, {own:6.3f} s of processor ({ratio:.2f})")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(f"peak resident memory {peak:.2f} GB, the mapped file included")


if __name__ == "__main__":
    main()
