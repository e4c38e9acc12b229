"""`pilot data WORD …`: what is done with data sets besides training on them."""

import argparse
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from pilot.cli.arguments import (
    Verb,
    above_zero,
    add_verbs,
    checkpoint_at,
    file_to_write,
    folder_to_write,
    local_path,
    whole_number,
)
from pilot.names import choose

if TYPE_CHECKING:
    from pilot.data.loading.workers import Spread
    from pilot.data.stats import RobotStats
    from pilot.data.tools.annotate import Annotated
    from pilot.types import NormStats, Robot


def spread_arguments(parser: argparse.ArgumentParser, *, workers: int) -> None:
    """Who does the work; what comes out is the same."""
    parser.add_argument("--workers", type=whole_number(1), default=workers, help="processes (default: %(default)s)")
    parser.add_argument(
        "--ray",
        nargs="?",
        const="",
        metavar="ADDRESS",
        help="work on a Ray cluster instead, such as 10.0.0.1:6379 (else that of $RAY_ADDRESS, or one started here)",
    )


def spread_of(args: argparse.Namespace) -> "AbstractContextManager[Spread]":
    from pilot.data.loading.workers import in_processes, on_ray

    if args.ray is None:
        return nullcontext(in_processes(args.workers))
    if args.ray and (Path(args.ray).exists() or "/" in args.ray.removeprefix("ray://")):
        raise ValueError(f"'{args.ray}' is no address of a Ray cluster; write --ray last where the address is left out")
    return on_ray(args.ray or None)


def arguments(parser: argparse.ArgumentParser) -> None:
    words = parser.add_subparsers(dest="what", required=True, metavar="WORD")
    add_verbs(words, WORDS)


def run(args: argparse.Namespace) -> None:
    WORDS[args.what].run(args)


def stats_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "paths", type=Path, nargs="+", metavar="PATH", help="LeRobot or RLDS data sets: folders, hf://, gs:// …"
    )
    parser.add_argument(
        "--out", type=folder_to_write, help="write into OUT/<set> instead of into the set; for those elsewhere"
    )
    parser.add_argument(
        "--per", choices=["dataset", "robot", "mixture"], default="dataset", help="what shares statistics"
    )
    parser.add_argument("--robot", help="a file of pilot.robots (default: the one that each set names)")
    parser.add_argument(
        "--action-horizon", type=whole_number(1), default=10, help="actions per chunk (default: %(default)s)"
    )
    spread_arguments(parser, workers=2)
    parser.add_argument("--skip-bad", action="store_true", help="leave out, and list, episodes that cannot be used")


def run_stats(args: argparse.Namespace) -> None:
    """Each set's own `norm_stats.json` is written into its folder; of sets that lie elsewhere, into `--out`."""
    from pilot.data.formats.open import COLUMN_FILES
    from pilot.data.stats import first_dims, merged, save_norm_stats
    from pilot.data.storage.remote import fetch, is_remote
    from pilot.robots import load_robot

    if args.out is None and (remote := [str(path) for path in args.paths if is_remote(path)]):
        raise ValueError(f"{remote[0]} is no folder to write into; say where with --out FOLDER")
    targets = {fetch(path, only=COLUMN_FILES): args.out / path.name if args.out else path for path in args.paths}
    args.paths = list(targets)
    robots = {path: load_robot(args.robot or recorded_robot(path)) for path in args.paths}
    keys = {"dataset": str, "robot": lambda path: robots[path].name, "mixture": lambda path: "mixture"}
    groups: dict[str, list[Path]] = {}
    for path in args.paths:
        groups.setdefault(keys[args.per](path), []).append(path)
    for paths in groups.values():
        of_robot = {robots[path].name: [p for p in paths if robots[p] == robots[path]] for path in paths}
        with spread_of(args) as spread:
            running = [running_stats(own, robots[own[0]], args=args, spread=spread) for own in of_robot.values()]
        skipped = [message for stats in running for message in stats.skipped]
        print("".join(f"skipped: {message}\n" for message in skipped), end="")
        stats = merged(running)
        for path in paths:
            save_norm_stats(targets[path], first_dims(stats, robots[path]))
        widest = max((robots[path] for path in paths), key=lambda robot: robot.action_dim)
        rows = sum(each.state.count for each in running)
        print(f"{', '.join(map(str, paths))}: {rows:,} rows, {len(skipped)} skipped")
        for name, labels in (("state", widest.state_names), ("actions", widest.action_names)):
            print(stats_table(name, labels, stats[name]))


def running_stats(paths: Sequence[Path], robot: "Robot", *, args: argparse.Namespace, spread: "Spread") -> "RobotStats":
    """Statistics of some sets of one robot: LeRobot's files part by part, others as a whole."""
    from pilot.data.formats.open import open_episodes
    from pilot.data.stats import robot_stats, stats_of_files
    from pilot.datasets import load_layout
    from pilot.robots import load_adapter

    adapter, horizon, skip_bad = load_adapter(robot), args.action_horizon, args.skip_bad
    if all(is_lerobot(path) for path in paths):
        return stats_of_files(paths, robot, action_horizon=horizon, adapter=adapter, spread=spread, skip_bad=skip_bad)
    datasets = [open_episodes(path, horizon, layouts=load_layout, skip_bad=skip_bad, spread=spread) for path in paths]
    stats = robot_stats(datasets, robot, adapter=adapter)
    stats.skipped = [f"{d.path}: episode {s.episode}: {s.reason}" for d in datasets for s in d.skipped]
    return stats


def is_lerobot(path: Path) -> bool:
    return (path / "meta").exists() or not path.exists()


def recorded_robot(path: Path) -> str:
    """The robot that a set says it was recorded with; of RLDS sets, the one of their entry in `pilot.datasets`."""
    from pilot.data.formats import rlds
    from pilot.data.formats.open import unknown_error
    from pilot.data.storage.files import read_json
    from pilot.datasets import load_dataset

    if not is_lerobot(path):
        if not path.is_dir() or not list(path.glob("**/features.json")):
            raise unknown_error(path, "meta/info.json (LeRobot) or features.json (RLDS)")
        info = read_json(rlds.version_folder(path) / rlds.INFO, remedy="give the folder of a LeRobot or RLDS data set")
        return load_dataset(info["name"]).robot
    info = read_json(path / "meta/info.json", remedy="give the folder of a LeRobot data set")
    if not (name := info.get("robot_type")):
        raise ValueError(f"{path / 'meta/info.json'} names no robot_type; name it with --robot")
    return name


def stats_table(name: str, labels: Sequence[str], stats: "NormStats") -> str:
    width = max(map(len, labels))
    lines = [f"{name:{width + 2}} {'mean':>9} {'std':>9} {'q01':>9} {'q99':>9}"]
    for i, label in enumerate(labels):
        row = (getattr(stats, column)[i] for column in ("mean", "std", "q01", "q99"))
        lines.append(f"  {label:{width}} {' '.join(f'{value:9.4f}' for value in row)}")
    return "\n".join(lines)


def tokenizer_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", type=Path, nargs="+", metavar="PATH", help="folders of data sets of one robot")
    parser.add_argument("--out", type=folder_to_write, required=True, help="folder of the tokenizer")
    parser.add_argument("--kind", default="fast", help="fast, vq or bins (default: %(default)s)")
    parser.add_argument("--robot", default="homes", help="a file of pilot.robots (default: %(default)s)")
    parser.add_argument(
        "--action-horizon", type=whole_number(1), default=10, help="actions per chunk (default: %(default)s)"
    )
    parser.add_argument(
        "--vocab-size", type=whole_number(2), help="tokens (default: fast 1024; codes of vq and bins 256)"
    )
    parser.add_argument("--scale", type=above_zero, help="fast: larger is more exact and longer (default: 10)")
    parser.add_argument("--tokens", type=whole_number(1), help="vq: tokens per chunk (default: 8)")
    parser.add_argument("--norm", choices=["quantile", "zscore"], default="quantile", help="(default: %(default)s)")
    parser.add_argument(
        "--budget", type=whole_number(1), default=64, help="tokens left for a chunk (default: %(default)s)"
    )
    parser.add_argument("--seed", type=whole_number(0), default=0)


def run_tokenizer(args: argparse.Namespace) -> None:
    from pilot.data.action_chunks import whole_chunks
    from pilot.data.formats.open import open_episodes
    from pilot.data.stats import compute_norm_stats
    from pilot.datasets import load_layout
    from pilot.robots import load_adapter, load_robot
    from pilot.tokenizers import KINDS, fit_action_tokenizer
    from pilot.tokenizers.report import report

    choose("action tokenizer", args.kind, KINDS)
    options = {"fast": {"scale": args.scale}, "vq": {"tokens": args.tokens, "seed": args.seed}, "bins": {}}[args.kind]
    options = {name: value for name, value in {"vocab_size": args.vocab_size, **options}.items() if value is not None}
    robot = load_robot(args.robot)
    adapter = load_adapter(robot)
    datasets = [open_episodes(path, args.action_horizon, layouts=load_layout) for path in args.paths]
    stats = compute_norm_stats(datasets, robot, adapter=adapter)["actions"]
    fitted, held_out = (
        whole_chunks(datasets, robot, stats=stats, norm=args.norm, adapter=adapter, part=part, seed=args.seed)
        for part in ("fitted", "held_out")
    )
    tokenizer = fit_action_tokenizer(args.kind, fitted, **options)
    tokenizer.save(args.out)
    print(
        f"{args.out}: {args.kind} of {tokenizer.vocab_size} tokens, fitted to {len(fitted)} chunks. Held-out episodes:"
    )
    print(report(tokenizer, held_out, budget=args.budget, names=robot.action_names))


def inspect_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", type=Path, help="a LeRobot (v2.1, v3.0) or RLDS data set: a folder, hf://, gs:// …")
    parser.add_argument("--out", type=file_to_write, help="the page (default: inspect.html in the folder)")
    parser.add_argument("--robot", help="a file of pilot.robots (default: the one that the set names)")
    parser.add_argument("--checkpoint", type=Path, help="show what this policy sees (default: what π0.5 would)")
    parser.add_argument(
        "--action-horizon", type=whole_number(1), default=10, help="actions per chunk (default: %(default)s)"
    )
    parser.add_argument(
        "--episodes", type=whole_number(1), default=3, help="episodes shown whole (default: %(default)s)"
    )


def run_inspect(args: argparse.Namespace) -> None:
    from pilot.data.storage.remote import is_remote
    from pilot.robots import load_robot

    robot = load_robot(args.robot) if args.robot else None
    checkpoint = checkpoint_at(args.checkpoint) if args.checkpoint else None
    path = local_path(args.path, "give the folder of a data set, or its address: hf://owner/repo, gs://…")
    from pilot.eval.report.inspect import inspect

    found = inspect(
        path,
        out=args.out or (Path(f"{args.path.name}.html") if is_remote(args.path) else None),
        robot=robot,
        checkpoint=checkpoint,
        action_horizon=args.action_horizon,
        episodes=args.episodes,
    )
    for suspicion in found.suspicions:
        print(f"{suspicion.check}: {suspicion.what}\n    {suspicion.remedy}")
    print(f"{found.episodes} episodes, {len(found.suspicions)} suspicious things: {found.page}")


def annotate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", type=Path, help="folder of a LeRobot data set")
    who = parser.add_mutually_exclusive_group(required=True)
    who.add_argument("--csv", type=Path, help="a table: episode, start (seconds) or frame, subtask")
    who.add_argument("--vlm", metavar="URL", help="an OpenAI-compatible endpoint, such as http://localhost:8000/v1")
    who.add_argument("--by-hand", action="store_true", help="in this terminal")
    parser.add_argument("--model", help="with --vlm: the model's name; its key comes from $OPENAI_API_KEY")
    parser.add_argument("--per-minute", type=above_zero, default=60, help="requests to --vlm (default: %(default)s)")
    parser.add_argument(
        "--frames", type=whole_number(1), default=16, help="pictures in a question to --vlm (default: %(default)s)"
    )
    parser.add_argument("--camera", help="the camera to look through (default: the first)")
    parser.add_argument("--subtasks", nargs="+", default=[], help="the only words that --vlm may choose from")
    parser.add_argument("--episodes", type=whole_number(0), nargs="+", help="only these")
    parser.add_argument("--overwrite", action="store_true", help="replace subtasks that are there")
    spread_arguments(parser, workers=1)


def run_annotate(args: argparse.Namespace) -> None:
    if args.by_hand and (args.workers > 1 or args.ray is not None):
        raise ValueError("--by-hand asks one person in this terminal; leave --workers and --ray out")
    with spread_of(args) as spread:
        print(annotated(args, spread))


def annotated(args: argparse.Namespace, spread: "Spread") -> "Annotated":
    from pilot.data.tools.annotate import CsvLabeller, annotate
    from pilot.data.tools.annotate_by_hand import HandLabeller
    from pilot.data.tools.annotate_with_vlm import Endpoint, VlmLabeller

    episodes = args.episodes
    if args.csv:
        label, by = CsvLabeller(args.csv), str(args.csv)
        episodes = label.episodes if episodes is None else episodes
    elif args.vlm:
        if not args.model:
            raise ValueError("--vlm needs --model, the name under which the endpoint knows it")
        endpoint = Endpoint(url=args.vlm, model=args.model, per_minute=args.per_minute / spread.processes)
        label, by = (
            VlmLabeller(endpoint=endpoint, frames=args.frames, camera=args.camera, subtasks=args.subtasks),
            args.model,
        )
    else:
        label, by = HandLabeller(camera=args.camera), "hand"
    options = {"episodes": episodes, "overwrite": args.overwrite, "progress": not args.by_hand, "spread": spread}
    return annotate(args.path, label, by=by, **options)


def convert_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path, help="folder of the recordings; hf://, gs:// and the like are fetched")
    parser.add_argument("target", type=folder_to_write, help="folder of the new set; an interrupted conversion goes on")
    parser.add_argument("--from", dest="kind", help="lerobot_v2, rlds, hdf5 or npz (default: told by what is there)")
    parser.add_argument("--robot", help="a file of pilot.robots (default: what the source says of its robot)")
    parser.add_argument("--fps", type=above_zero, help="hdf5 and npz: the rate (default: the robot's)")
    parser.add_argument("--task", help="the instruction of episodes that have none")
    parser.add_argument("--pictures", choices=["video", "image"], help="mp4, or pictures without loss (hdf5 and rlds)")
    parser.add_argument(
        "--drop-idle", action="store_true", help="rlds: leave out the steps that training never starts at"
    )
    parser.add_argument("--skip-bad", action="store_true", help="leave out, and list, what cannot be read")
    spread_arguments(parser, workers=1)


def run_convert(args: argparse.Namespace) -> None:
    from pilot.data.importers.base import Options
    from pilot.data.storage.remote import fetch
    from pilot.data.tools.import_recordings import convert
    from pilot.datasets import load_layout
    from pilot.robots import load_robot

    options = Options(
        robot=load_robot(args.robot) if args.robot else None,
        fps=args.fps,
        task=args.task,
        pictures=args.pictures,
        layouts=load_layout,
        drop_idle=args.drop_idle,
    )
    source = fetch(args.source)
    with spread_of(args) as spread:
        print(convert(source, args.target, kind=args.kind, options=options, skip_bad=args.skip_bad, spread=spread))


WORDS = {
    "stats": Verb(
        help="Write norm_stats.json, from the columns alone: true quantiles, odd dims named.",
        example="pilot data stats data/mine --per robot --action-horizon 10",
        arguments=stats_arguments,
        run=run_stats,
    ),
    "tokenizer": Verb(
        help="Fit an action tokenizer, and report on held-out episodes what it costs and loses.",
        example="pilot data tokenizer data/mine --kind vq --out tokenizers/mine-vq",
        arguments=tokenizer_arguments,
        run=run_tokenizer,
    ),
    "inspect": Verb(
        help="Write one HTML page about a data set: what looks wrong, what is in it, what the model will see.",
        example="pilot data inspect data/mine --checkpoint checkpoints/nano",
        arguments=inspect_arguments,
        run=run_inspect,
    ),
    "annotate": Verb(
        help="Write subtasks into a LeRobot set: from a CSV file, from a vision-language model, or by hand.",
        example="pilot data annotate data/mine --vlm http://localhost:8000/v1 --model Qwen/Qwen3-VL-8B-Instruct",
        arguments=annotate_arguments,
        run=run_annotate,
    ),
    "convert": Verb(
        help="Write recordings of another format (LeRobot v2.1, RLDS, ALOHA's HDF5, npz and mp4) as LeRobot v3.0.",
        example="pilot data convert recordings/aloha data/aloha --robot aloha --task 'open the box' --skip-bad",
        arguments=convert_arguments,
        run=run_convert,
    ),
}
