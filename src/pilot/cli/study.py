"""`pilot study NAME`: one of the experiments of `eval/studies`, as far as the budget goes; without a name, the list."""

import argparse
import re
from pathlib import Path
from typing import Any

from pilot.cli.arguments import Verb, chosen_options, folder_to_write, list_rows, whole_number
from pilot.cli.settings import override

UNITS = {"h": 3600.0, "m": 60.0, "min": 60.0, "s": 1.0}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this verb."""
    parser.add_argument("name", nargs="?", help="a study, or a file of yours that defines STUDY (default: list them)")
    parser.add_argument("--plan", action="store_true", help="say what it would do, how long, and what that can show")
    parser.add_argument("--budget", type=seconds, metavar="TIME", help="stop before a part that would go over this, "
                        "such as 3h or 40m; the same command goes on (default: no end)")  # fmt: skip
    parser.add_argument(
        "--seeds", type=whole_number(1), default=1, help="trainings of each condition (default: %(default)s)"
    )
    parser.add_argument("--episodes", type=whole_number(1), help="episodes of each trial (default: as the study says)")
    parser.add_argument("--only", nargs="+", metavar="CONDITION", help="only these conditions, and the baseline")
    parser.add_argument("--vlm", metavar="URL", help="an OpenAI-compatible endpoint, for conditions that ask one")
    parser.add_argument("--vlm-model", metavar="NAME", help="its model; the API key is in $OPENAI_API_KEY")
    parser.add_argument("--workers", type=whole_number(1), default=2, help="processes (default: %(default)s)")
    parser.add_argument(
        "--out",
        type=folder_to_write,
        default=Path("outputs/studies"),
        help="folder of all studies, which share their parts (default: %(default)s)",
    )
    parser.add_argument(
        "--records",
        type=Path,
        metavar="FOLDER",
        help="read recorded evaluations from this folder instead of running them again, and record new ones in it "
        "(pilot's own: docs/study_records)",
    )
    parser.add_argument("--json", action="store_true", help="print the list as JSON, for programs")


def seconds(text: str) -> float:
    """Parse a time such as 3h, 40m, 1.5h."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(h|m|min|s)", text)
    if match is None or float(match[1]) <= 0:
        raise argparse.ArgumentTypeError(f"must be a time such as 3h, 40m or 90s, got '{text}'")
    return float(match[1]) * UNITS[match[2]]


def run(args: argparse.Namespace) -> None:
    """Run this verb with its parsed options."""
    from pilot.eval.studies import STUDIES, load_study

    if args.name is None:
        if others := [option for name, option in chosen_options(args).items() if name != "json"]:
            raise ValueError(f"{', '.join(others)}: of which study? Without a name, pilot study lists them")
        rows = [{"study": name, "question": load_study(name).question} for name in STUDIES.names()]
        list_rows(rows, as_json=args.json)
        return
    if args.json:
        raise ValueError(
            "--json is for the list of studies; a study leaves its numbers in results.json beside its page"
        )
    study = choose(load_study(args.name), only=args.only, episodes=args.episodes)
    if (args.vlm is None) != (args.vlm_model is None):
        raise ValueError("an endpoint has an address and a model: --vlm URL --vlm-model NAME")
    from pilot.eval.study.engine import run_study
    from pilot.eval.study.plan import StudyPlan
    from pilot.eval.study.recorded import record_evaluations, restore_evaluations

    plan = StudyPlan(
        study,
        configure,
        root=args.out / "parts",
        seeds=args.seeds,
        endpoint=(args.vlm, args.vlm_model) if args.vlm else None,
    )
    if args.records and (restored := restore_evaluations(plan, args.records)):
        print(f"{restored} evaluations are taken from {args.records}")
    print(plan.describe(args.budget), flush=True)
    if args.plan:
        return
    page = run_study(plan, budget=args.budget, workers=args.workers, out=args.out / Path(args.name).stem)
    if args.records and (written := record_evaluations(plan, args.records)):
        print(f"recorded {written} evaluations in {args.records}")
    print(f"wrote {page}, and the same as markdown beside it")


def choose(study: Any, *, only: list[str] | None, episodes: int | None) -> Any:
    """Return a study with fewer conditions, or other numbers of episodes.

    Raises:
        ValueError: an unknown condition (the nearest is suggested).
    """
    from dataclasses import replace

    from pilot.names import check_name

    for name in only or ():
        check_name("condition", name, [condition.name for condition in study.conditions])
    if only is not None:
        wanted = {study.baseline.name, *only}
        study = replace(study, conditions=tuple(c for c in study.conditions if c.name in wanted))
    if episodes is not None:
        study = replace(study, trials=tuple(replace(trial, episodes=episodes) for trial in study.trials))
    return study


def configure(training: Any) -> Any:
    """Return the config of a training: a named run with changes."""
    from pilot import configs

    return override(configs.get(training.run), training.changes)


VERB = Verb(
    help="Run an experiment of the papers: does it generalise, and what is each ingredient worth?",
    example="pilot study high_level --budget 40m --episodes 40",
    add_arguments=add_arguments,
    run=run,
)
