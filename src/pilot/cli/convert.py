"""`pilot convert SOURCE TARGET`: checkpoints of other projects in and out."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from pilot.cli.arguments import Verb, folder_to_write, local_path, whole_number
from pilot.cli.settings import override

if TYPE_CHECKING:
    import torch

    from pilot.convert.folders import Given
    from pilot.types import Robot

SOURCES = ("auto", "pilot", "openpi-torch", "openpi-jax", "lerobot", "paligemma")
TARGETS = ("pilot", "openpi-torch", "openpi-jax", "lerobot")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    remote = "folder, or hf://owner/repo[@revision][/folder], gs://…"
    parser.add_argument("source", help=remote)
    parser.add_argument(
        "target", type=folder_to_write, nargs="?", help="folder to write; new or empty (not needed to --dry-run)"
    )
    parser.add_argument("--from", dest="kind", choices=SOURCES, default="auto", help="(default: by what lies there)")
    parser.add_argument("--to", choices=TARGETS, default="pilot", help="(default: %(default)s)")
    parser.add_argument("--robot", help="a file of pilot.robots; where the source does not say it, or says too little")
    parser.add_argument("--tokenizer", metavar="FILE", help="the SentencePiece model, where the source has none")
    parser.add_argument("--action-tokenizer", metavar="FOLDER", help="for π0-FAST, where the source has none")
    parser.add_argument("--stats", metavar="FILE", help="norm_stats.json, where the source has none or several")
    parser.add_argument(
        "--dtype", choices=["float32", "bfloat16"], help="of the written weights (default: as they are)"
    )
    parser.add_argument("--model", choices=["pi0", "pi05", "pi0_fast"], default="pi05", help="to start from PaliGemma")
    parser.add_argument(
        "--seed", type=whole_number(0), default=0, help="of what PaliGemma does not have (default: %(default)s)"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="of the model's config, such as action_horizon=16",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="check everything, print which key goes where, write nothing"
    )


def run(args: argparse.Namespace) -> None:
    from pilot.data.storage.remote import CHECKPOINT_FILES
    from pilot.robots import load_robot

    robot = load_robot(args.robot) if args.robot else None
    source = local_path(args.source, "give a folder, or an address: hf://owner/repo, gs://…", only=CHECKPOINT_FILES)
    for part in ("tokenizer", "action_tokenizer", "stats"):
        if address := getattr(args, part):
            remedy = "give a file or a folder, or an address: hf://owner/repo/file, gs://…"
            setattr(args, part, local_path(address, remedy))
    from pilot.convert import folders

    kind = folders.detect(source) if args.kind == "auto" else args.kind
    parts = ("set", "tokenizer", "action_tokenizer", "stats")
    if kind == "pilot" and (unused := [f"--{part.replace('_', '-')}" for part in parts if getattr(args, part)]):
        raise ValueError(f"a checkpoint of pilot carries everything; leave {', '.join(unused)} out")
    if args.dry_run:
        return dry_run(args, source, kind)
    if args.target is None:
        raise ValueError(f"where to? pilot convert {args.source} FOLDER")
    folders.refuse_used(args.target)
    print(f"{args.source} ({kind}) -> {args.target} ({args.to})")
    bundle = folders.load(source, kind, given(args, robot), dtype=dtype(args))
    if args.to == "pilot":
        from pilot.infer.policy import export

        export(bundle, args.target)
    else:
        folders.save(bundle, args.target, args.to)
    count = sum(weight.numel() for weight in bundle.model.parameters())
    print(f"{count:,} parameters, robot '{bundle.robot.name}': {args.target}")


def given(args: argparse.Namespace, robot: "Robot | None") -> "Given":
    """What the command line says of a source that does not say it itself."""
    from pilot.convert.folders import Given
    from pilot.tokenizers import load_action_tokenizer
    from pilot.tokenizers.text import TextTokenizer

    return Given(
        robot=robot,
        norm_stats=args.stats,
        text=TextTokenizer(args.tokenizer) if args.tokenizer else None,
        action_tokenizer=load_action_tokenizer(args.action_tokenizer) if args.action_tokenizer else None,
        model=args.model,
        change=lambda config: override(config, args.set),
        seed=args.seed,
    )


def dry_run(args: argparse.Namespace, source: Path, kind: str) -> None:
    """Check the weights against their table and print it, and the table of what would be written."""
    from pilot.convert import folders
    from pilot.data.storage.files import read_json
    from pilot.models.registry import config_from_dict, require_pi

    if kind == "pilot":
        stored = read_json(source / "config.json", remedy="fetch the checkpoint again")
        config = require_pi(config_from_dict(stored["model"], kind=stored.get("kind", "pi")))
        if args.to == "pilot":
            raise ValueError(f"{source} is a checkpoint of pilot already; convert it --to another kind")
    else:
        start = override(folders.MODELS[args.model](), args.set) if kind == "paligemma" else None
        _, config, table = folders.open_checkpoint(source, kind, config=start)
        print(f"{args.source} ({kind}): every key is used, none is missing\n", *folders.key_lines(table), sep="\n")
    if args.to != "pilot":
        print(f"\nas {args.to}:\n", *folders.key_lines(folders.table_of(args.to, config)), sep="\n")


def dtype(args: argparse.Namespace) -> "torch.dtype | None":
    import torch

    return getattr(torch, args.dtype) if args.dtype else None


VERB = Verb(
    help="Checkpoints of openpi, LeRobot and PaliGemma in, those of openpi and LeRobot out.",
    example="pilot convert gs://openpi-assets/checkpoints/pi05_libero checkpoints/pi05_libero --robot libero "
    "--tokenizer gs://big_vision/paligemma_tokenizer.model --set action_horizon=10 --set state_input=none "
    "--set prompt=pi0",
    add_arguments=add_arguments,
    run=run,
)
