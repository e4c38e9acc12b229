"""`pilot data inspect PATH`: one page about a data set."""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

from pilot.cli.arguments import Verb, checkpoint_at, file_to_write, local_path, whole_number

if TYPE_CHECKING:
    from pilot.eval.report.inspect import Inspection


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this verb."""
    parser.add_argument(
        "path",
        type=Path,
        help="a LeRobot (v2.1, v3.0) or RLDS data set, or pictures with questions: a folder, hf://, …",
    )
    parser.add_argument("--out", type=file_to_write, help="file of the page (default: inspect.html in the folder)")
    parser.add_argument("--robot", help="a name, or path/to/robot.py (default: the one that the data set names)")
    parser.add_argument("--layouts", metavar="FILE", help="for rlds: a file whose DATASETS says what its features mean")
    parser.add_argument("--checkpoint", type=Path, help="show what this policy sees (default: what π0.5 would see)")
    parser.add_argument(
        "--action-horizon", type=whole_number(1), default=10, help="actions per chunk (default: %(default)s)"
    )
    parser.add_argument(
        "--episodes", type=whole_number(1), default=3, help="episodes shown in full (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


def run(args: argparse.Namespace) -> None:
    """Run this verb with its parsed options."""
    from pilot.data.formats.open_dataset import check_episodes, is_image_text
    from pilot.data.storage.remote import is_remote
    from pilot.datasets import layouts_from
    from pilot.robots import load_robot

    robot = load_robot(args.robot) if args.robot else None
    checkpoint = checkpoint_at(args.checkpoint) if args.checkpoint else None
    path = local_path(args.path, "give the folder of a data set, or its address: hf://owner/repo, gs://…")
    if not is_remote(args.path) and is_image_text(path):
        from pilot.eval.report.inspect_web import inspect_web

        return print_findings(inspect_web(path, out=args.out), rows="rows", as_json=args.json)
    if not is_remote(args.path):
        check_episodes(path)
    from pilot.eval.report.inspect import inspect

    report = inspect(
        path,
        out=args.out or (Path(f"{args.path.name}.html") if is_remote(args.path) else None),
        robot=robot,
        checkpoint=checkpoint,
        action_horizon=args.action_horizon,
        episodes=args.episodes,
        layouts=layouts_from(args.layouts),
    )
    print_findings(report, rows="episodes", as_json=args.json)


def print_findings(report: "Inspection", *, rows: str, as_json: bool) -> None:
    """Print what looks wrong in a set of so many `rows`, and where the page is."""
    if as_json:
        print(json.dumps(dataclasses.asdict(report) | {"page": str(report.page)}, indent=2))
        return
    for issue in report.issues:
        print(f"{issue.check}: {issue.what}\n    {issue.remedy}")
    print(f"{report.episodes} {rows}, {len(report.issues)} suspicious things: {report.page}")


VERB = Verb(
    help="Write an HTML page about a data set: possible mistakes, its content, and what a model will see.",
    example="pilot data inspect data/mine --checkpoint checkpoints/nano",
    add_arguments=add_arguments,
    run=run,
)
