"""`pilot demo`: the whole recipe in a few minutes, and a report of it."""

import argparse
from pathlib import Path

from pilot.cli.arguments import Verb, checkpoint_at, folder_to_write, whole_number


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this verb."""
    parser.add_argument(
        "--out",
        type=folder_to_write,
        help="folder of the report (default: outputs/demo; with --quick outputs/demo-quick)",
    )
    parser.add_argument(
        "--quick", action="store_true", help="two minutes: act, and look inside; learning is not measured"
    )
    parser.add_argument("--checkpoint", type=Path, help="folder of the policy (default: the shipped checkpoints/nano)")
    parser.add_argument("--seed", type=whole_number(0), default=0)


def run(args: argparse.Namespace) -> None:
    """Run this verb with its parsed options."""
    checkpoint = checkpoint_at(args.checkpoint) if args.checkpoint else None
    from pilot import configs
    from pilot.eval.demo import demo

    out = args.out or Path("outputs/demo-quick" if args.quick else "outputs/demo")
    demo(out, config=configs.get("nano_finetune"), quick=args.quick, checkpoint=checkpoint, seed=args.seed)


VERB = Verb(
    help="Watch the whole recipe: act in new scenes, learn something new, write an HTML report.",
    example="pilot demo --quick",
    add_arguments=add_arguments,
    run=run,
    when_stopped="finished parts are kept, and the same command goes on from there",
)
