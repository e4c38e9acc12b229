"""`pilot data tokenizer PATH …`: an action tokenizer fitted to data sets, and a report on it."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pilot.cli.arguments import Verb, above_zero, folder_to_write, whole_number
from pilot.cli.data.stats import recorded_robot
from pilot.names import check_name

if TYPE_CHECKING:
    import numpy as np

    from pilot.types import Robot


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this verb."""
    parser.add_argument(
        "paths", type=Path, nargs="+", metavar="PATH", help="folders of data sets; fast takes any robots"
    )
    parser.add_argument("--out", type=folder_to_write, required=True, help="folder of the tokenizer")
    parser.add_argument("--kind", default="fast", help="fast, vq or bins (default: %(default)s)")
    parser.add_argument("--robot", help="a name, or path/to/robot.py (default: the one that each data set names)")
    parser.add_argument("--layouts", metavar="FILE", help="for rlds: a file whose DATASETS says what its features mean")
    parser.add_argument(
        "--action-horizon", type=whole_number(1), default=10, help="actions per chunk (default: %(default)s)"
    )
    parser.add_argument(
        "--vocab-size", type=whole_number(2), help="number of tokens (default: 1024 for fast, 256 for vq and bins)"
    )
    parser.add_argument(
        "--scale", type=above_zero, help="for fast: a larger scale is more exact and needs more tokens (default: 10)"
    )
    parser.add_argument("--tokens", type=whole_number(1), help="for vq: tokens per chunk (default: 8)")
    parser.add_argument(
        "--norm", choices=["quantile", "zscore"], default="quantile", help="normalisation (default: %(default)s)"
    )
    parser.add_argument(
        "--budget",
        type=whole_number(1),
        default=64,
        help="most tokens for a chunk in the report (default: %(default)s)",
    )
    parser.add_argument("--seed", type=whole_number(0), default=0)


def run(args: argparse.Namespace) -> None:
    """Run this verb with its parsed options."""
    from pilot.robots import load_robot
    from pilot.tokenizers import ACTION_TOKENIZERS, fit_action_tokenizer
    from pilot.tokenizers.report import report

    check_name("action tokenizer", args.kind, ACTION_TOKENIZERS)
    options = {"fast": {"scale": args.scale}, "vq": {"tokens": args.tokens, "seed": args.seed}, "bins": {}}[args.kind]
    options = {name: value for name, value in {"vocab_size": args.vocab_size, **options}.items() if value is not None}
    paths: dict[str, list[Path]] = {}
    for path in args.paths:
        robot = load_robot(args.robot or recorded_robot(path, layouts=args.layouts))
        paths.setdefault(robot.name, []).append(path)
    if args.kind != "fast" and len(paths) > 1:
        raise ValueError(
            f"'{args.kind}' is for one robot's dims, and these sets are of {', '.join(paths)}; fit one each"
        )
    chunks = {name: robot_chunks(own, load_robot(name), args) for name, own in paths.items()}
    first, *others = (fitted for fitted, _ in chunks.values())
    tokenizer = fit_action_tokenizer(args.kind, first, **options, **({"others": others} if others else {}))
    tokenizer.save(args.out)
    count = sum(len(fitted) for fitted, _ in chunks.values())
    print(f"{args.out}: {args.kind} with {tokenizer.vocab_size} tokens, fitted to {count} chunks")
    for name, (_, held_out) in chunks.items():
        print("on held-out episodes:" if len(chunks) == 1 else f"on held-out episodes of '{name}':")
        print(report(tokenizer, held_out, budget=args.budget, names=load_robot(name).action_names))


def robot_chunks(paths: Sequence[Path], robot: "Robot", args: argparse.Namespace) -> tuple["np.ndarray", "np.ndarray"]:
    """Return chunks [n ah ad] of one robot's sets to fit to, and those of episodes that are held out."""
    from pilot.data.action_chunks import whole_chunks
    from pilot.data.formats.open_dataset import open_episodes
    from pilot.data.stats import compute_norm_stats
    from pilot.datasets import layouts_from
    from pilot.robots import load_adapter

    adapter = load_adapter(robot)
    datasets = [open_episodes(path, args.action_horizon, layouts=layouts_from(args.layouts)) for path in paths]
    stats = compute_norm_stats(datasets, robot, adapter=adapter)["actions"]
    options = {"stats": stats, "norm": args.norm, "adapter": adapter, "seed": args.seed}
    fitted, held_out = (whole_chunks(datasets, robot, part=part, **options) for part in ("fitted", "held_out"))
    return fitted, held_out


VERB = Verb(
    help="Fit an action tokenizer, and report its length and error on held-out episodes.",
    example="pilot data tokenizer data/mine --kind vq --out tokenizers/mine-vq",
    add_arguments=add_arguments,
    run=run,
)
