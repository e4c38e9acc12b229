"""`pilot data annotate PATH`: subtasks for a data set that has none."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from pilot.cli.arguments import Verb, above_zero, whole_number
from pilot.cli.workers import add_parallel_arguments, open_parallel_map

if TYPE_CHECKING:
    from pilot.data.loading.parallel import ParallelMap
    from pilot.data.tools.annotate import AnnotationReport


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this verb."""
    parser.add_argument("path", type=Path, help="folder of a LeRobot data set")
    who = parser.add_mutually_exclusive_group(required=True)
    who.add_argument("--csv", type=Path, help="from a table: episode, start (seconds) or frame, subtask")
    who.add_argument(
        "--vlm", metavar="URL", help="by a model at an OpenAI-compatible endpoint, such as http://localhost:8000/v1"
    )
    who.add_argument("--by-hand", action="store_true", help="by a person in this terminal")
    parser.add_argument("--model", help="for --vlm: the model's name; the API key is in $OPENAI_API_KEY")
    parser.add_argument(
        "--per-minute", type=above_zero, default=60, help="for --vlm: requests per minute (default: %(default)s)"
    )
    parser.add_argument(
        "--frames", type=whole_number(1), default=16, help="for --vlm: pictures in a request (default: %(default)s)"
    )
    parser.add_argument("--camera", help="camera to show (default: the first)")
    parser.add_argument("--subtasks", nargs="+", default=[], help="for --vlm: the only subtasks to choose from")
    parser.add_argument("--episodes", type=whole_number(0), nargs="+", help="annotate these episodes only")
    parser.add_argument("--overwrite", action="store_true", help="replace existing subtasks")
    add_parallel_arguments(parser, workers=1)


def run(args: argparse.Namespace) -> None:
    """Run this verb with its parsed options."""
    if args.by_hand and (args.workers > 1 or args.ray is not None):
        raise ValueError("--by-hand works with one person in this terminal; leave --workers and --ray out")
    with open_parallel_map(args) as parallel_map:
        print(label_episodes(args, parallel_map))


def label_episodes(args: argparse.Namespace, parallel_map: "ParallelMap") -> "AnnotationReport":
    """Annotate the data set with the labeller that the command line chooses."""
    from pilot.data.tools.annotate import CsvLabeller, annotate
    from pilot.data.tools.annotate_by_hand import HandLabeller
    from pilot.data.tools.annotate_with_vlm import VlmEndpoint, VlmLabeller

    episodes = args.episodes
    if args.csv:
        label = CsvLabeller(args.csv)
        episodes = label.episodes if episodes is None else episodes
    elif args.vlm:
        if not args.model:
            raise ValueError("--vlm needs --model, the name of a model at that endpoint")
        endpoint = VlmEndpoint(url=args.vlm, model=args.model, per_minute=args.per_minute / parallel_map.processes)
        label = VlmLabeller(endpoint=endpoint, frames=args.frames, camera=args.camera, subtasks=args.subtasks)
    else:
        label = HandLabeller(camera=args.camera)
    options = {
        "episodes": episodes,
        "overwrite": args.overwrite,
        "progress": not args.by_hand,
        "parallel_map": parallel_map,
    }
    return annotate(args.path, label, by=label.by, **options)


VERB = Verb(
    help="Write subtasks into a LeRobot data set: from a CSV file, from a vision-language model, or by hand.",
    example="pilot data annotate data/mine --vlm http://localhost:8000/v1 --model Qwen/Qwen3-VL-8B-Instruct",
    add_arguments=add_arguments,
    run=run,
    when_stopped="the answers so far are kept, and the same command goes on after them",
)
