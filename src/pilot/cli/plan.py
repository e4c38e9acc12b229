"""`pilot plan NAME --gpus 8xH100`: memory, time and price of a run before it is started."""

import argparse
import json

from pilot.cli.arguments import Verb, above_zero, whole_number
from pilot.cli.settings import override


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this verb."""
    add = parser.add_argument
    add("name", help="a run of pilot.configs, such as nano_stage1, or of your own: path/to/file.py:my_run")
    add("--gpus", default="1xH100", help="COUNTxNAME, such as 8xH100 (default: %(default)s)")
    add("--set", action="append", default=[], metavar="FIELD=VALUE", help="change a setting of the run")
    add("--samples", type=above_zero, help="rows to train on (default: steps × batch_size of the run)")
    add("--price", type=above_zero, metavar="DOLLARS", help="price of a GPU per hour (default: that of 2025)")
    add("--tokens", type=whole_number(1), help="text tokens in a row, padding included (default: max_tokens)")
    add("--spoken", type=whole_number(0), help="how many of these the model generates (default: 44 %%)")
    add("--json", action="store_true", help="print JSON, in bytes, seconds and dollars")


def run(args: argparse.Namespace) -> None:
    """Run this verb with its parsed options."""
    from pilot import configs
    from pilot.train.plan.gpus import parse_gpus
    from pilot.train.sources import without_empty_sources

    parse_gpus(args.gpus)
    config = without_empty_sources(override(configs.get(args.name), args.set))
    from pilot.train.early_checks import check_settings

    check_settings(config)
    from pilot.train.plan.estimate import plan_run
    from pilot.train.plan.report import to_text

    samples = None if args.samples is None else int(args.samples)
    plan = plan_run(
        config, gpus=args.gpus, samples=samples, price=args.price, text=args.tokens, spoken=args.spoken
    )  # fmt: skip
    print(json.dumps(plan, indent=2) if args.json else to_text(plan))


VERB = Verb(
    help="Estimate memory, time and price of a run, and the smallest change that makes it fit.",
    example="pilot plan nano_stage1 --gpus 8xH100 --set batch_size=256 --samples 1e6",
    add_arguments=add_arguments,
    run=run,
)
