"""What GPUs can do and cost: data sheets, and prices per hour that are assumptions.

Peaks are dense bf16 with fp32 accumulation, as makers state them (without sparsity). Memory is what a program sees of
the card. Links are between the GPUs of one node, in one direction. Prices are of the order of what clouds asked for on
demand in 2025; they differ by a factor of two between clouds: give your own with `--price`.
"""

import re
from typing import NamedTuple

from pilot.names import suggest_names

GIB = 2**30
GPUS_PER_NODE = 8
NETWORK = 50e9  # bytes/s of one GPU to other nodes: a port of 400 Gbit/s each


class Gpu(NamedTuple):
    """The numbers of one GPU that a plan needs."""

    peak_flops: float  # per second
    memory: float  # bytes
    bandwidth: float  # bytes per second
    link: float  # bytes per second
    price: float  # dollars per hour


GPUS = {
    "B200": Gpu(2250e12, 179 * GIB, 8.0e12, 900e9, 5.50),
    "H200": Gpu(989e12, 140 * GIB, 4.8e12, 450e9, 3.50),
    "H100": Gpu(989e12, 79.6 * GIB, 3.35e12, 450e9, 2.50),
    "A100-80": Gpu(312e12, 79.2 * GIB, 2.04e12, 300e9, 1.60),
    "A100-40": Gpu(312e12, 39.6 * GIB, 1.56e12, 300e9, 1.20),
    "L40S": Gpu(362e12, 44.4 * GIB, 0.86e12, 25e9, 1.00),
    "RTX5090": Gpu(209e12, 31.8 * GIB, 1.79e12, 25e9, 0.70),
    "RTX4090": Gpu(165e12, 23.6 * GIB, 1.01e12, 12e9, 0.40),
}


def find_gpu(name: str) -> str | None:
    """Return the table's name of a GPU such as `NVIDIA H100 80GB HBM3`, `a100-40gb` or `4090`; None if it has none."""
    plain = re.sub(r"[^A-Z0-9]", "", name.upper())
    if "A100" in plain:
        return "A100-40" if "A10040" in plain or "40GB" in plain else "A100-80"
    return next((known for known in GPUS if known.removeprefix("RTX") in plain), None)


def parse_gpus(text: str) -> tuple[int, str]:
    """Parse `8xH100` into (8, "H100"); a name alone is one GPU.

    Raises:
        ValueError: not of that form, or a GPU that the table has not; the nearest is suggested.
    """
    match = re.fullmatch(r"(?:(\d+)\s*[xX×*])?\s*([A-Za-z0-9 -]+)", text.strip())
    if not match or match[1] == "0":
        raise ValueError(f"--gpus takes COUNTxNAME such as 8xH100, got '{text}'")
    name = find_gpu(match[2])
    if name is None:
        raise ValueError(f"unknown GPU '{match[2]}'; {suggest_names(match[2].upper(), GPUS)}")
    return int(match[1] or 1), name
