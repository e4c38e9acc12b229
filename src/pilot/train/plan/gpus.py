"""What GPUs can do and cost: data sheets, and prices per hour that are assumptions.

Peaks are dense bf16 with fp32 accumulation, as makers state them (without sparsity). Memory is what a program sees of
the card. Links are between the GPUs of one node, in one direction. Prices are of the order of what clouds asked for on
demand in 2025; they differ by a factor of two between clouds: give your own with `--price`.
"""

import re
from dataclasses import dataclass

from pilot.names import suggest_names

GIB = 2**30
GPUS_PER_NODE = 8
NETWORK = 50e9
"""Bytes/s of one GPU to other nodes: a port of 400 Gbit/s each."""


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """`peak_flops` per second, `memory` in bytes, `bandwidth` and `link` in bytes per second, `price` in $ per hour."""

    peak_flops: float
    memory: float
    bandwidth: float
    link: float
    price: float


GPUS = {
    "B200": Gpu(peak_flops=2250e12, memory=179 * GIB, bandwidth=8.0e12, link=900e9, price=5.50),
    "H200": Gpu(peak_flops=989e12, memory=140 * GIB, bandwidth=4.8e12, link=450e9, price=3.50),
    "H100": Gpu(peak_flops=989e12, memory=79.6 * GIB, bandwidth=3.35e12, link=450e9, price=2.50),
    "A100-80": Gpu(peak_flops=312e12, memory=79.2 * GIB, bandwidth=2.04e12, link=300e9, price=1.60),
    "A100-40": Gpu(peak_flops=312e12, memory=39.6 * GIB, bandwidth=1.56e12, link=300e9, price=1.20),
    "L40S": Gpu(peak_flops=362e12, memory=44.4 * GIB, bandwidth=0.86e12, link=25e9, price=1.00),
    "RTX5090": Gpu(peak_flops=209e12, memory=31.8 * GIB, bandwidth=1.79e12, link=25e9, price=0.70),
    "RTX4090": Gpu(peak_flops=165e12, memory=23.6 * GIB, bandwidth=1.01e12, link=12e9, price=0.40),
}


def find_gpu(name: str) -> str | None:
    """Return the table's name of a device such as `NVIDIA H100 80GB HBM3`, or None."""
    plain = re.sub(r"[^A-Z0-9]", "", name.upper())
    if "A100" in plain:
        return "A100-40" if "40GB" in plain else "A100-80"
    return next((known for known in GPUS if known in plain), None)


def parse_gpus(text: str) -> tuple[int, str]:
    """Parse `8xH100` into (8, "H100"); a name alone is one GPU.

    Raises:
        ValueError: not of that form, or a GPU that the table has not; the nearest is suggested.
    """
    match = re.fullmatch(r"(?:(\d+)\s*[xX×*])?\s*([A-Za-z0-9 -]+)", text.strip())
    if not match or match[1] == "0":
        raise ValueError(f"--gpus takes COUNTxNAME such as 8xH100, got '{text}'")
    typed = match[2].upper().replace(" ", "")
    plain = {known.replace("-", ""): known for known in GPUS}
    aliases = plain | {known.removeprefix("RTX"): known for known in GPUS} | {"A100": "A100-80"}
    name = aliases.get(typed.replace("-", "").removesuffix("GB"))
    if name is None:
        raise ValueError(f"unknown GPU '{match[2]}'; {suggest_names(typed, GPUS)}")
    return int(match[1] or 1), name
