"""`pilot plan NAME --gpus 8xH100`: memory, time and price of a run before it is started."""

import argparse
import json

from pilot.cli.arguments import Verb, above_zero, whole_number
from pilot.cli.settings import override


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this verb."""
    parser.add_argument(
        "name", help="a run of pilot.configs, such as nano_stage1, or of your own: path/to/file.py:my_run"
    )
    parser.add_argument("--gpus", default="1xH100", help="COUNTxNAME, such as 8xH100 (default: %(default)s)")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="change a setting of the run")
    parser.add_argument("--samples", type=above_zero, help="rows to train on (default: steps × batch_size of the run)")
    parser.add_argument(
        "--price", type=above_zero, metavar="DOLLARS", help="price of a GPU per hour (default: that of 2025)"
    )
    parser.add_argument(
        "--tokens", type=whole_number(1), help="text tokens in a row, padding included (default: max_tokens)"
    )
    parser.add_argument("--spoken", type=whole_number(0), help="how many of these the model generates (default: 44 %%)")
    parser.add_argument("--json", action="store_true", help="print JSON, in bytes, seconds and dollars")


def run(args: argparse.Namespace) -> None:
    """Run this verb with its parsed options."""
    from pilot import configs
    from pilot.train.plan.gpus import parse_gpus

    parse_gpus(args.gpus)
    config = override(configs.get(args.name), args.set)
    from pilot.train.early_checks import check_settings

    check_settings(config)
    from pilot.train.plan.estimate import RunPlan
    from pilot.train.plan.report import to_text

    estimate = RunPlan(
        config,
        gpus=args.gpus,
        samples=None if args.samples is None else int(args.samples),
        price=args.price,
        text=args.tokens,
        spoken=args.spoken,
    )
    print(json.dumps(estimate.to_json(), indent=2) if args.json else to_text(estimate))


VERB = Verb(
    help="Estimate memory, time and price of a run, and the smallest change that makes it fit.",
    example="pilot plan nano_stage1 --gpus 8xH100 --set batch_size=256 --samples 1e6",
    add_arguments=add_arguments,
    run=run,
)
