"""`--workers N` and `--ray [ADDRESS]`: who does the work of a verb on data; the result is the same."""

import argparse
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from pilot.cli.arguments import whole_number

if TYPE_CHECKING:
    from pilot.data.loading.workers import Spread


def spread_arguments(parser: argparse.ArgumentParser, *, workers: int) -> None:
    """Who does the work; what comes out is the same."""
    parser.add_argument("--workers", type=whole_number(1), default=workers, help="processes (default: %(default)s)")
    parser.add_argument(
        "--ray",
        nargs="?",
        const="",
        metavar="ADDRESS",
        help="work on a Ray cluster instead, such as 10.0.0.1:6379 (else that of $RAY_ADDRESS, or one started here)",
    )


def spread_of(args: argparse.Namespace) -> "AbstractContextManager[Spread]":
    from pilot.data.loading.workers import in_processes, on_ray

    if args.ray is None:
        return nullcontext(in_processes(args.workers))
    if args.ray and (Path(args.ray).exists() or "/" in args.ray.removeprefix("ray://")):
        raise ValueError(f"'{args.ray}' is no address of a Ray cluster; write --ray last where the address is left out")
    return on_ray(args.ray or None)
