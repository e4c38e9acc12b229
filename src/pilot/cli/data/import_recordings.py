"""`pilot data import SOURCE TARGET`: recordings of another format as a LeRobot data set."""

import argparse
from pathlib import Path

from pilot.cli.arguments import Verb, above_zero, folder_to_write
from pilot.cli.workers import add_parallel_arguments, open_parallel_map


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this verb."""
    parser.add_argument("source", type=Path, help="folder of the recordings; hf://, gs:// and others are fetched")
    parser.add_argument(
        "target", type=folder_to_write, help="folder of the new data set; an interrupted import is continued"
    )
    parser.add_argument("--from", dest="kind", help="lerobot_v2, rlds, hdf5 or npz (default: recognised by its files)")
    parser.add_argument("--robot", help="a name, or path/to/robot.py (default: the one that the source names)")
    parser.add_argument("--layouts", metavar="FILE", help="for rlds: a file whose DATASETS says what its features mean")
    parser.add_argument(
        "--fps", type=above_zero, help="for hdf5 and npz: frames per second (default: the robot's rate)"
    )
    parser.add_argument("--task", help="instruction for episodes without one")
    parser.add_argument(
        "--pictures", choices=["video", "image"], help="for hdf5 and rlds: store mp4, or pictures without loss"
    )
    parser.add_argument("--drop-idle", action="store_true", help="for rlds: skip steps at which training never starts")
    parser.add_argument("--skip-bad", action="store_true", help="skip recordings that cannot be read, and list them")
    add_parallel_arguments(parser, workers=1)


def run(args: argparse.Namespace) -> None:
    """Run this verb with its parsed options."""
    from pilot.data.importers.base import ImportOptions
    from pilot.data.storage.remote import fetch
    from pilot.data.tools.import_recordings import import_recordings
    from pilot.datasets import layouts_from
    from pilot.robots import load_robot

    options = ImportOptions(
        robot=load_robot(args.robot) if args.robot else None,
        fps=args.fps,
        task=args.task,
        pictures=args.pictures,
        layouts=layouts_from(args.layouts),
        drop_idle=args.drop_idle,
    )
    source = fetch(args.source)
    with open_parallel_map(args) as parallel_map:
        print(
            import_recordings(
                source, args.target, kind=args.kind, options=options, skip_bad=args.skip_bad, parallel_map=parallel_map
            )
        )


VERB = Verb(
    help="Import recordings (LeRobot v2.1, RLDS, ALOHA's HDF5, npz and mp4) into a LeRobot v3.0 data set.",
    example="pilot data import recordings/aloha data/aloha --robot aloha --task 'open the box' --skip-bad",
    add_arguments=add_arguments,
    run=run,
    when_stopped="what is written is kept, and the same command goes on from there",
)
