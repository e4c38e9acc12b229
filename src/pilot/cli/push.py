"""`pilot push FOLDER OWNER/NAME`: a checkpoint or a data set, with its card, to the Hugging Face Hub."""

import argparse
import json
from pathlib import Path

from pilot.cli.arguments import Verb, local_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this verb."""
    parser.add_argument("folder", type=Path, help="a checkpoint, such as checkpoints/nano, or a LeRobot data set")
    parser.add_argument("repo", help="repository of the hub: owner/name; it is made if there is none")
    parser.add_argument("--license", required=True, help="of the weights or the data, such as apache-2.0 or cc-by-4.0")
    parser.add_argument(
        "--results", type=Path, nargs="+", default=[], metavar="FILE", help="results.json of pilot eval --out"
    )
    parser.add_argument("--notes", default="", help="a sentence or two for the card")
    parser.add_argument("--private", action="store_true", help="make the repository private")
    parser.add_argument("--dry-run", action="store_true", help="print the card and the files, and upload nothing")


def run(args: argparse.Namespace) -> None:
    """Run this verb with its parsed options."""
    from pilot.data.storage.files import read_json
    from pilot.data.storage.upload import check_repo_name, upload
    from pilot.eval.card import DATA_FILES, FILES, checkpoint_card, dataset_card, files_of, is_checkpoint

    repo, folder = check_repo_name(args.repo), local_path(args.folder, "give a checkpoint or a data set")
    if (folder / "policy" / "config.json").is_file():  # the folder of a run stands for its policy
        folder = folder / "policy"
    of_model = is_checkpoint(folder)
    if of_model:
        remedy = "run pilot eval --out FOLDER again"
        results = [row for file in args.results for row in read_json(file, remedy=remedy)]
        card = checkpoint_card(folder, repo=repo, licence=args.license, results=results, notes=args.notes)
    elif args.results:
        raise ValueError("--results are of a checkpoint, and this is a data set")
    else:
        card = dataset_card(folder, repo=repo, licence=args.license, notes=args.notes)
    files = files_of(folder, only=FILES if of_model else DATA_FILES)
    own = "README.md" in files  # a card that somebody wrote is better than ours
    if args.dry_run:
        print((folder / "README.md").read_text(encoding="utf-8") if own else card)
        print(json.dumps(files, indent=2))
        return
    address = upload(
        folder,
        repo,
        kind="model" if of_model else "dataset",
        files=files,
        texts={} if own else {"README.md": card},
        message=f"Upload of {folder.name} by pilot push",
        private=args.private,
    )
    print(f"uploaded {len(files) + (not own)} files to {address}")


VERB = Verb(
    help="Upload a checkpoint or a data set to the Hugging Face Hub, with a card that is generated.",
    example="pilot push checkpoints/nano me/nano --license apache-2.0 --results outputs/eval/results.json",
    add_arguments=add_arguments,
    run=run,
    when_stopped="files that were sent are kept there, and the same command sends the rest",
)
