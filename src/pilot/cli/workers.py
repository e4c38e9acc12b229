"""`--workers N` and `--ray [ADDRESS]`: where a verb computes; the result is the same everywhere."""

import argparse
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from pilot.cli.arguments import whole_number

if TYPE_CHECKING:
    from pilot.data.loading.parallel import ParallelMap


def add_parallel_arguments(parser: argparse.ArgumentParser, *, workers: int) -> None:
    """Add the options that choose where to compute; the result is the same everywhere."""
    parser.add_argument("--workers", type=whole_number(1), default=workers, help="processes (default: %(default)s)")
    parser.add_argument(
        "--ray",
        nargs="?",
        const="",
        metavar="ADDRESS",
        help="use a Ray cluster, such as 10.0.0.1:6379 (without ADDRESS: that of $RAY_ADDRESS, or a new one here)",
    )


def open_parallel_map(args: argparse.Namespace) -> "AbstractContextManager[ParallelMap]":
    """Return the map that the options choose: over processes of this machine, or over a Ray cluster.

    Raises:
        ValueError: the address looks like a path: the word after --ray was meant for something else.
    """
    from pilot.data.loading.parallel import map_in_processes, map_on_ray

    if args.ray is None:
        return nullcontext(map_in_processes(args.workers))
    if args.ray and (Path(args.ray).exists() or "/" in args.ray.removeprefix("ray://")):
        raise ValueError(f"'{args.ray}' is not the address of a Ray cluster; without an address, write --ray last")
    return map_on_ray(args.ray or None)
