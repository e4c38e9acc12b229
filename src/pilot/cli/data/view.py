"""`pilot data view PATH`: episodes of a data set or of an evaluation in rerun, a viewer for robots' logs."""

import argparse
from pathlib import Path

from pilot.cli.arguments import Verb, folder_to_write, local_path, whole_number


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this verb."""
    parser.add_argument(
        "path", type=Path, help="a LeRobot (v2.1, v3.0) or RLDS data set (a folder, hf://, gs:// …), or what `pilot "
        "eval --out FOLDER` wrote"
    )  # fmt: skip
    parser.add_argument(
        "--episodes", type=whole_number(0), nargs="+", help="which (default: the first); of an evaluation its scenes "
        "(default: a success and a failure of each suite)"
    )  # fmt: skip
    parser.add_argument("--out", type=folder_to_write, help="write .rrd files there, instead of opening the viewer")
    parser.add_argument("--robot", help="a name, or path/to/robot.py (default: the one that the data set names)")
    parser.add_argument("--layouts", metavar="FILE", help="for rlds: a file whose DATASETS says what its features mean")


def run(args: argparse.Namespace) -> None:
    """Run this verb with its parsed options."""
    from pilot.datasets import layouts_from
    from pilot.robots import load_robot, robot_names

    robot = load_robot(args.robot) if args.robot else None
    path = local_path(args.path, "give the folder of a data set, or its address: hf://datasets/owner/name, gs://…")
    if any(path.glob("episodes*.jsonl")):
        view_rollouts(path, args)
        return
    from pilot.data.formats.open_dataset import open_episodes
    from pilot.data.tools.rerun_log import import_rerun, show_recordings, write_recordings

    import_rerun()
    data = open_episodes(path, 1, layouts=layouts_from(args.layouts))
    named = data.metadata().get("robot_type")
    if robot is None and named in robot_names():
        robot = load_robot(named)
    episodes = [data.episodes[0].index] if args.episodes is None else args.episodes
    if args.out is None:
        shown = show_recordings(data, episodes=episodes, robot=robot)
        print(f"the viewer has {len(shown)} episodes of {path}")
        return
    files = write_recordings(data, args.out, episodes=episodes, robot=robot)
    print(f"wrote {len(files)} files to {args.out}; look at them with: rerun {files[0]}")


def view_rollouts(path: Path, args: argparse.Namespace) -> None:
    """Write rollouts of an evaluation; they are always files, because repeating them takes a while."""
    if args.out is None:
        raise ValueError("rollouts of an evaluation are written to files: give --out FOLDER")
    from pilot.eval.rollout_log import write_rollouts

    files = write_rollouts(path, args.out, scenes=args.episodes)
    print(f"wrote {len(files)} files to {args.out}; look at them with: rerun {files[0]}")


VERB = Verb(
    help="Look at episodes in rerun, a viewer for robots' logs: pictures, curves, words and boxes on one clock.",
    example="pilot data view data/mine --episodes 0 3 --out outputs/mine-rerun",
    add_arguments=add_arguments,
    run=run,
)
