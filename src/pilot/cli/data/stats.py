"""`pilot data stats PATH …`: normalisation statistics of data sets, written beside them."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pilot.cli.arguments import Verb, folder_to_write, whole_number
from pilot.cli.workers import add_parallel_arguments, open_parallel_map

if TYPE_CHECKING:
    from pilot.data.loading.parallel import ParallelMap
    from pilot.data.stats import RobotStats
    from pilot.types import NormStats, Robot


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this verb."""
    parser.add_argument(
        "paths", type=Path, nargs="+", metavar="PATH", help="LeRobot or RLDS data sets: folders, hf://, gs:// …"
    )
    parser.add_argument(
        "--out", type=folder_to_write, help="write into OUT/<name> instead of into the data set; needed for remote ones"
    )
    parser.add_argument(
        "--per",
        choices=["dataset", "robot", "mixture"],
        default="dataset",
        help="what shares statistics (default: %(default)s)",
    )
    parser.add_argument("--robot", help="a name, or path/to/robot.py (default: the one that each data set names)")
    parser.add_argument("--layouts", metavar="FILE", help="for rlds: a file whose DATASETS says what its features mean")
    parser.add_argument(
        "--action-horizon", type=whole_number(1), default=10, help="actions per chunk (default: %(default)s)"
    )
    add_parallel_arguments(parser, workers=2)
    parser.add_argument("--skip-bad", action="store_true", help="skip episodes that cannot be used, and list them")


def run(args: argparse.Namespace) -> None:
    """Compute statistics, write them as `norm_stats.json` into each data set or into `--out`, and print them."""
    from pilot.data.formats.open_dataset import COLUMN_FILES
    from pilot.data.stats import merge_stats, save_norm_stats, select_dims
    from pilot.data.storage.remote import fetch, is_remote
    from pilot.robots import load_robot

    if args.out is None and (remote := [str(path) for path in args.paths if is_remote(path)]):
        raise ValueError(f"{remote[0]} is remote and cannot be written to; choose a folder with --out FOLDER")
    targets = {fetch(path, only=COLUMN_FILES): args.out / path.name if args.out else path for path in args.paths}
    args.paths = list(targets)
    robots = {path: load_robot(args.robot or recorded_robot(path, layouts=args.layouts)) for path in args.paths}
    keys = {"dataset": str, "robot": lambda path: robots[path].name, "mixture": lambda path: "mixture"}
    groups: dict[str, list[Path]] = {}
    for path in args.paths:
        groups.setdefault(keys[args.per](path), []).append(path)
    for paths in groups.values():
        of_robot = {robots[path].name: [p for p in paths if robots[p] == robots[path]] for path in paths}
        with open_parallel_map(args) as parallel_map:
            running = [
                compute_stats(own, robots[own[0]], args=args, parallel_map=parallel_map) for own in of_robot.values()
            ]
        skipped = [message for stats in running for message in stats.skipped]
        print("".join(f"skipped: {message}\n" for message in skipped), end="")
        stats = merge_stats(running)
        for path in paths:
            save_norm_stats(targets[path], select_dims(stats, robots[path]))
        widest = max((robots[path] for path in paths), key=lambda robot: robot.action_dim)
        rows = sum(each.state.count for each in running)
        print(f"{', '.join(map(str, paths))}: {rows:,} rows, {len(skipped)} skipped")
        for name, labels in (("state", widest.state_names), ("actions", widest.action_names)):
            print(stats_table(name, labels, stats[name]))


def compute_stats(
    paths: Sequence[Path], robot: "Robot", *, args: argparse.Namespace, parallel_map: "ParallelMap"
) -> "RobotStats":
    """Compute statistics of data sets of one robot: of LeRobot's file by file, of others as a whole."""
    from pilot.data.formats.open_dataset import open_episodes
    from pilot.data.stats import compute_file_stats, compute_robot_stats
    from pilot.datasets import layouts_from
    from pilot.robots import load_adapter

    adapter, horizon, skip_bad = load_adapter(robot), args.action_horizon, args.skip_bad
    if all(is_lerobot(path) for path in paths):
        return compute_file_stats(
            paths, robot, action_horizon=horizon, adapter=adapter, parallel_map=parallel_map, skip_bad=skip_bad
        )
    datasets = [
        open_episodes(path, horizon, layouts=layouts_from(args.layouts), skip_bad=skip_bad, parallel_map=parallel_map)
        for path in paths
    ]
    stats = compute_robot_stats(datasets, robot, adapter=adapter)
    stats.skipped = [f"{d.path}: episode {s.episode}: {s.reason}" for d in datasets for s in d.skipped]
    return stats


def is_lerobot(path: Path) -> bool:
    """Return whether a data set is LeRobot's; so is one that is missing, for the error that this gives."""
    return (path / "meta").exists() or not path.exists()


def recorded_robot(path: Path, *, layouts: str | None = None) -> str:
    """Return the name of the robot that a data set was recorded with.

    A LeRobot set says it itself, an RLDS set has an entry in `pilot.datasets`.

    Raises:
        FileNotFoundError: it is no data set.
        ValueError: it names no robot.
    """
    from pilot.data.formats import rlds
    from pilot.data.formats.open_dataset import unknown_error
    from pilot.data.storage.files import read_json
    from pilot.datasets import load_dataset

    if not is_lerobot(path):
        if not path.is_dir() or not list(path.glob("**/features.json")):
            raise unknown_error(path, "meta/info.json (LeRobot) or features.json (RLDS)")
        info = read_json(rlds.version_folder(path) / rlds.INFO, remedy="give the folder of a LeRobot or RLDS data set")
        return load_dataset(info["name"], file=layouts).robot
    info = read_json(path / "meta/info.json", remedy="give the folder of a LeRobot data set")
    if not (name := info.get("robot_type")):
        raise ValueError(f"{path / 'meta/info.json'} names no robot_type; name one with --robot")
    return name


def stats_table(name: str, labels: Sequence[str], stats: "NormStats") -> str:
    """Return statistics as a table for people, one line per dim."""
    width = max(map(len, labels))
    lines = [f"{name:{width + 2}} {'mean':>9} {'std':>9} {'q01':>9} {'q99':>9}"]
    for i, label in enumerate(labels):
        row = (getattr(stats, column)[i] for column in ("mean", "std", "q01", "q99"))
        lines.append(f"  {label:{width}} {' '.join(f'{value:9.4f}' for value in row)}")
    return "\n".join(lines)


VERB = Verb(
    help="Compute norm_stats.json, with exact quantiles, and warn about unusual dims.",
    example="pilot data stats data/mine --per robot --action-horizon 10",
    add_arguments=add_arguments,
    run=run,
    when_stopped="data sets whose numbers were printed have them, the others are as they were",
)
