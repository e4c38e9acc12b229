"""`pilot convert SOURCE TARGET`: weights of other projects in and out (`pilot/convert`)."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from pilot.cli.arguments import (
    Verb,
    checkpoint_at,
    folder_to_write,
    local_path,
    replay_record,
    verify_argument,
    whole_number,
)
from pilot.cli.settings import override

if TYPE_CHECKING:
    import torch

    from pilot.convert.folders import ConvertOptions
    from pilot.models.bundle import Bundle
    from pilot.types import Robot

SOURCES = ("auto", "pilot", "openpi-torch", "openpi-jax", "lerobot", "paligemma")
TARGETS = ("pilot", "openpi-torch", "openpi-jax", "lerobot")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this verb."""
    remote = "folder, or hf://owner/repo[@revision][/folder], gs://…"
    parser.add_argument("source", help=remote)
    parser.add_argument(
        "target", type=folder_to_write, nargs="?", help="folder to write, new or empty (not needed with --dry-run)"
    )
    parser.add_argument(
        "--from",
        dest="kind",
        choices=SOURCES,
        default="auto",
        help="format of the source (default: recognised by its files)",
    )
    parser.add_argument("--to", choices=TARGETS, default="pilot", help="format to write (default: %(default)s)")
    parser.add_argument(
        "--robot",
        help="a robot's name or file, for a source that does not describe its robot; of a checkpoint of pilot, the one "
        "to describe anew, to add (with --stats), or to write --to lerobot",
    )
    parser.add_argument("--tokenizer", metavar="FILE", help="the SentencePiece model, for a source without one")
    parser.add_argument("--action-tokenizer", metavar="FOLDER", help="for a source of π0-FAST without one")
    parser.add_argument("--stats", metavar="FILE", help="norm_stats.json, for a source with none or several")
    parser.add_argument(
        "--dtype", choices=["float32", "bfloat16"], help="type of the written weights (default: as in the source)"
    )
    parser.add_argument(
        "--model",
        choices=["pi0", "pi05", "pi0_fast"],
        help="for a source of PaliGemma: the model to start (default: pi05)",
    )
    parser.add_argument(
        "--seed",
        type=whole_number(0),
        help="for the weights that PaliGemma does not have (default: 0)",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="change the model's config, such as action_horizon=16",
    )
    verify_argument(parser)
    parser.add_argument(
        "--dry-run", action="store_true", help="check everything and print which key goes where; write nothing"
    )


def run(args: argparse.Namespace) -> None:
    """Run this verb with its parsed options."""
    from pilot.locks import lock_beside
    from pilot.robots import load_robot

    robot = load_robot(args.robot) if args.robot else None
    source = checkpoint_at(args.source, "give a folder, or an address: hf://owner/repo, gs://…")
    for part in ("tokenizer", "action_tokenizer", "stats"):
        if address := getattr(args, part):
            remedy = "give a file or a folder, or an address: hf://owner/repo/file, gs://…"
            setattr(args, part, local_path(address, remedy))
    from pilot.convert import folders

    kind = folders.detect_kind(source) if args.kind == "auto" else args.kind
    parts = ("set", "tokenizer", "action_tokenizer", *([] if robot else ["stats"]))
    if kind == "pilot" and (unused := [f"--{part.replace('_', '-')}" for part in parts if getattr(args, part)]):
        raise ValueError(f"a checkpoint of pilot needs no {', '.join(unused)}; leave them out")
    if kind != "paligemma" and (
        unused := [f"--{part}" for part in ("model", "seed") if getattr(args, part) is not None]
    ):
        raise ValueError(f"{', '.join(unused)} is for a source of PaliGemma, and this one is {kind}; leave it out")
    if args.verify:
        if kind != "pilot":
            raise ValueError(f"--verify replays a record, which checkpoints of pilot have; this one is {kind}")
        replay_record(source)
    if args.dry_run:
        return dry_run(args, source, kind=kind, robot=robot)
    if args.target is None:
        raise ValueError(f"name the folder to write: pilot convert {args.source} FOLDER")
    with lock_beside(args.target):
        folders.require_empty(args.target)
        print(f"{args.source} ({kind}) -> {args.target} ({args.to})")
        write_converted(args, source, kind=kind, robot=robot)


def write_converted(args: argparse.Namespace, source: Path, *, kind: str, robot: "Robot | None") -> None:
    """Read the source and write the target, and print what it holds."""
    from pilot.convert import folders
    from pilot.data.storage.manifest import made_by, parent

    bundle = read_bundle(args, source, kind=kind, options=read_options(args, robot))
    if args.to == "pilot":
        from pilot.infer.policy import export

        origin = made_by({"converted_from": kind}, parents=[parent(args.source, role="weights")])
        export(bundle, args.target, origin=origin)
    else:
        folders.save_checkpoint(bundle, args.target, args.to)
    count = sum(weight.numel() for weight in bundle.model.parameters())
    robots = " and ".join(f"'{name}'" for name in bundle.robots)
    print(f"{count:,} parameters, robot{'s' * (len(bundle.robots) > 1)} {robots}: {args.target}")


def read_bundle(
    args: argparse.Namespace, source: Path, *, kind: str, options: "ConvertOptions", weights: bool = True
) -> "Bundle":
    """Return what is to be written; without `weights`, as `folders.load_checkpoint` does."""
    from pilot.convert import folders

    bundle = folders.load_checkpoint(source, kind, options, dtype=parse_dtype(args), weights=weights)
    if options.robot is not None and args.to == "lerobot":  # which is for one
        bundle = bundle.select_robot(options.robot.name)
    return bundle


def read_options(args: argparse.Namespace, robot: "Robot | None") -> "ConvertOptions":
    """Return what the command line says about a source that does not say it itself."""
    from pilot.convert.folders import ConvertOptions
    from pilot.tokenizers import load_action_tokenizer
    from pilot.tokenizers.text import TextTokenizer

    return ConvertOptions(
        robot=robot,
        norm_stats=args.stats,
        text=TextTokenizer(args.tokenizer) if args.tokenizer else None,
        action_tokenizer=load_action_tokenizer(args.action_tokenizer) if args.action_tokenizer else None,
        model=args.model or "pi05",
        change_config=lambda config: override(config, args.set),
        seed=args.seed or 0,
    )


def dry_run(args: argparse.Namespace, source: Path, *, kind: str, robot: "Robot | None") -> None:
    """Check all that is read and written but the values of weights, and print their tables."""
    from pilot.convert import folders

    if kind == args.to == "pilot" and robot is None:
        raise ValueError(f"{source} is already a checkpoint of pilot; convert it --to another kind")
    options = read_options(args, robot)
    if kind != "pilot":
        start = options.change_config(folders.MODELS[options.model]()) if kind == "paligemma" else None
        key_map = folders.open_checkpoint(source, kind, config=start)[2]
        print(
            f"{args.source} ({kind}): every key is used and none is missing\n",
            *folders.format_key_map(key_map),
            sep="\n",
        )
    bundle = read_bundle(args, source, kind=kind, options=options, weights=False)
    if args.to != "pilot":
        folders.check_export(bundle, args.to)
        table = folders.key_map_for(args.to, bundle.pi.config)
        print(f"\nwritten as {args.to}:\n", *folders.format_key_map(table), sep="\n")


def parse_dtype(args: argparse.Namespace) -> "torch.dtype | None":
    """Return the torch dtype that `--dtype` names; None leaves weights as they are."""
    import torch

    return getattr(torch, args.dtype) if args.dtype else None


VERB = Verb(
    help="Convert checkpoints of openpi, LeRobot and PaliGemma to pilot, and pilot's to openpi and LeRobot.",
    example="pilot convert gs://openpi-assets/checkpoints/pi05_libero checkpoints/pi05_libero --robot libero "
    "--tokenizer gs://big_vision/paligemma_tokenizer.model --set action_horizon=10 --set state_input=none "
    "--set prompt=pi0",
    add_arguments=add_arguments,
    run=run,
    when_stopped="remove the unfinished folder, and run the command again",
)
