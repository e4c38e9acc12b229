"""`pilot train NAME`: one run of `pilot.configs`, from its first step or from where it was stopped."""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from pilot.cli.arguments import Verb, folder_to_write, whole_number
from pilot.cli.settings import override, show

if TYPE_CHECKING:
    from pilot.train.config import TrainConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this verb."""
    parser.add_argument(
        "name", help="a run of pilot.configs, such as nano_vision, or of your own: path/to/file.py:my_run"
    )
    parser.add_argument(
        "--out", type=folder_to_write, help="folder of the run; an unfinished run is resumed (default: outputs/NAME)"
    )
    parser.add_argument(
        "--until", type=whole_number(1), metavar="STEP", help="stop at this step, with the schedule of the whole run"
    )
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="change a setting")
    parser.add_argument(
        "--show", action="store_true", help="print all settings and mark those that differ from the default"
    )
    parser.add_argument("--skip-bad", action="store_true", help="skip data that cannot be read, and list it")


def run(args: argparse.Namespace) -> None:
    """Run this verb with its parsed options."""
    from pilot import configs
    from pilot.train.sources import without_empty_sources

    changes = args.set + ["data.skip_bad=true"] * args.skip_bad
    config = without_empty_sources(override(configs.get(args.name), changes))
    if args.show:
        print(show(config))
        return
    out = args.out or Path("outputs") / config.name
    check(config, out)
    finished = (out / "checkpoints" / f"{config.steps:06d}").is_dir()
    evaluate = None
    if config.evaluation.suite is not None:
        from pilot.eval.during_training import evaluator

        evaluate = evaluator(config)
    from pilot.train.loop import train

    policy = train(config, out=out, until=args.until, evaluate=evaluate)
    if int(os.environ.get("RANK", 0)) == 0:
        done = f"all {config.steps} steps were taken before; the policy is in" if finished else "saved the policy in"
        print(f"{done} {policy}")


def check(config: "TrainConfig", out: Path) -> None:
    """Check what can be checked before torch is imported, which takes seconds.

    Raises:
        FileNotFoundError: data, or the checkpoint to start from, is not there.
        ValueError: settings that cannot work.
    """
    from pilot.eval.suites import load_suite
    from pilot.train.early_checks import check_paths, check_settings

    check_settings(config)
    if config.evaluation.suite is not None:
        load_suite(config.evaluation.suite)
    check_paths(config, resumed=(out / "checkpoints").exists())


VERB = Verb(
    help="Train one of the runs in pilot.configs, or resume it.",
    example="pilot train nano_finetune --out outputs/mine --set data.sources.new.path=data/mine "
    "--set data.sources.known.path=data/known --set data.sources.web.path=data/mine-web",
    add_arguments=add_arguments,
    run=run,
    when_stopped="the same command goes on from the last checkpoint, or from the start if there is none",
)
