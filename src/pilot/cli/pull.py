"""`pilot pull OWNER/NAME FOLDER`: a checkpoint or a data set of the Hugging Face Hub into a folder of yours."""

import argparse
import shutil
from pathlib import Path

from pilot.cli.arguments import Verb, folder_to_write


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this verb."""
    parser.add_argument("repo", help="owner/name, datasets/owner/name, or hf://… with @revision and /folder")
    parser.add_argument("folder", type=folder_to_write, help="a new or empty folder for the files")
    parser.add_argument("--only", nargs="+", default=["**"], metavar="PATTERN", help="files to bring (default: all)")


def run(args: argparse.Namespace) -> None:
    """Run this verb with its parsed options."""
    from pilot.data.storage.remote import fetch, matches_any

    if args.folder.exists() and any(args.folder.iterdir()):
        raise ValueError(f"{args.folder} is not empty; give a new folder")
    address = args.repo if "://" in args.repo else f"hf://{args.repo}"
    source = fetch(address, only=tuple(args.only))
    if source.is_file():
        raise ValueError(f"{address} is one file; give the address of a repository or of a folder in it")
    copied = 0
    for file in sorted(path for path in source.rglob("*") if path.is_file()):
        name = str(file.relative_to(source))
        if matches_any(name, args.only):
            (args.folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, args.folder / name)
            copied += 1
    print(f"{copied} files of {address} are in {Path(args.folder)}")


VERB = Verb(
    help="Bring a checkpoint or a data set of the Hugging Face Hub into a folder.",
    example="pilot pull me/nano checkpoints/mine",
    add_arguments=add_arguments,
    run=run,
    when_stopped="what was fetched is kept, and the same command goes on with the rest",
)
