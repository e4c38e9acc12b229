"""`--workers N` and `--ray [ADDRESS]`: who does the work of a verb on data; the result is the same."""

import argparse
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from pilot.cli.arguments import whole_number

if TYPE_CHECKING:
    from pilot.data.loading.parallel import ParallelMap


def add_parallel_arguments(parser: argparse.ArgumentParser, *, workers: int) -> None:
    """Who does the work; what comes out is the same."""
    parser.add_argument("--workers", type=whole_number(1), default=workers, help="processes (default: %(default)s)")
    parser.add_argument(
        "--ray",
        nargs="?",
        const="",
        metavar="ADDRESS",
        help="work on a Ray cluster instead, such as 10.0.0.1:6379 (else that of $RAY_ADDRESS, or one started here)",
    )


def open_parallel_map(args: argparse.Namespace) -> "AbstractContextManager[ParallelMap]":
    from pilot.data.loading.parallel import map_in_processes, map_on_ray

    if args.ray is None:
        return nullcontext(map_in_processes(args.workers))
    if args.ray and (Path(args.ray).exists() or "/" in args.ray.removeprefix("ray://")):
        raise ValueError(f"'{args.ray}' is no address of a Ray cluster; write --ray last where the address is left out")
    return map_on_ray(args.ray or None)
