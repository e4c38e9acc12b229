"""What verbs are made of: the parser, the types of options, and the options that several verbs share.

Nothing heavy of the library is imported here, so that `--help` is instant.
"""

import argparse
import dataclasses
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from pilot.names import check_name, suggest_names

HIGH_LEVELS = ("model", "none", "implicit", "saycan", "oracle", "human", "vlm")
"""The names of `pilot.infer.high_level`, which takes seconds to import; a test keeps them equal."""
OPTIONS = {"labels": "--labels", "keep_margin": "--keep-margin", "url": "--vlm", "model": "--vlm-model",
           "as_prompt": "--as-prompt"}  # fmt: skip
"""Options of a high level, by the names of its fields."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verb:
    """One word after `pilot`: its help, an example to copy, its arguments, and the function that runs it.

    `when_stopped` is said at Ctrl-C: what was kept, and what the same command does then.
    """

    help: str
    example: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], None]
    when_stopped: str = "nothing was written"

    def execute(self, args: argparse.Namespace) -> None:
        """Run the verb; a Ctrl-C that says nothing itself becomes one that says what was kept."""
        try:
            self.run(args)
        except KeyboardInterrupt as stopped:
            raise KeyboardInterrupt(str(stopped) or f"stopped; {self.when_stopped}") from stopped


def chosen_options(args: argparse.Namespace) -> dict[str, str]:
    """Return how the options that differ from their defaults are written, by their names in `args`."""
    options = [action for action in args.parser._actions if action.option_strings and action.dest in vars(args)]
    return {o.dest: o.option_strings[-1] for o in options if getattr(args, o.dest) != o.default}


class Parser(argparse.ArgumentParser):
    """A parser that raises its errors, so that they are one line; argparse itself prints the whole usage and exits.

    `fill` adds the arguments of a verb when that verb is parsed: a verb may look up names for its help without keeping
    the others waiting.
    """

    fill: Callable[["Parser"], None] | None = None

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse, with the arguments of the verb."""
        if self.fill is not None:
            fill, self.fill = self.fill, None
            fill(self)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Raise the message as a `ValueError`."""
        raise ValueError(f"{message} ({self.prog} --help)")

    def refuse_unknown(self, words: list[str]) -> None:
        """Raise an error for `words` that are left of the command line when all known ones have been parsed."""
        option = next((word.partition("=")[0] for word in words if word.startswith("-")), None)
        if option is not None:
            known = re.findall(r"--[a-z][a-z-]*", self.format_usage())
            self.error(f"unknown option '{option}'; {suggest_names(option, known)}")
        if words:
            self.error(f"unexpected argument '{words[0]}'")


def listing_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of a verb that lists things."""
    parser.add_argument(
        "file", nargs="?", type=Path, metavar="FILE", help="list what this Python file of yours defines instead"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


def list_rows(rows: Sequence[Mapping[str, Any]], *, as_json: bool) -> None:
    """Print rows of equal keys as aligned columns with a head, or as JSON."""
    if as_json:
        print(json.dumps(list(rows), indent=2))
        return
    lines = [list(rows[0]), *([_cell(value) for value in row.values()] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def whole_number(least: int, most: int | None = None) -> Callable[[str], int]:
    """Return a parser of whole numbers within these limits, to be the `type` of an option."""

    def read(text: str) -> int:
        if re.fullmatch(r"-?\d+", text) and least <= int(text) and (most is None or int(text) <= most):
            return int(text)
        limits = f"of {least} or more" if most is None else f"from {least} to {most}"
        raise argparse.ArgumentTypeError(f"must be a whole number {limits}, got '{text}'")

    return read


def share(text: str) -> float:
    """Parse a number between 0 and 1."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if 0 < value < 1:
        return value
    raise argparse.ArgumentTypeError(f"must be a number between 0 and 1, got '{text}'")


def above_zero(text: str) -> float:
    """Parse a number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number above 0, got '{text}'")
    return value


def folder_to_write(text: str) -> Path:
    """Parse the path of a folder that exists or can be created, so that a mistake shows before hours of work."""
    path = Path(text)
    existing = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    if not existing.is_dir():
        raise argparse.ArgumentTypeError(f"'{existing}' is a file; give a folder to write into")
    if not os.access(existing, os.W_OK):
        raise argparse.ArgumentTypeError(f"no permission to write into '{existing}'; give another folder")
    return path


def file_to_write(text: str) -> Path:
    """Parse the path of a file that exists or can be created."""
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"'{path}' is a folder; give a file to write")
    folder_to_write(str(path.parent))
    return path


def local_path(address: str | Path, remedy: str) -> Path:
    """Return the local path of a file or folder, fetched if `address` is remote.

    Verbs call this before they import what reads the files: a mistake is reported at once, an import takes seconds.

    Raises:
        FileNotFoundError: there is nothing; the message ends with `remedy`.
    """
    from pilot.data.storage.remote import fetch

    return require_path(fetch(address), address, remedy)


def checkpoint_at(
    address: str | Path,
    remedy: str = "give the folder of a checkpoint (pilot train makes one), or its address: hf://owner/repo, gs://…",
) -> Path:
    """Return the local folder of a checkpoint, fetched if it is remote; the folder of a run stands for its policy.

    Raises:
        FileNotFoundError: there is nothing at this address.
    """
    from pilot.data.storage.remote import fetch_checkpoint

    return require_path(fetch_checkpoint(address), address, remedy)


def require_path(path: Path, address: str | Path, remedy: str) -> Path:
    """Return `path` if something is there.

    Raises:
        FileNotFoundError: there is nothing; the message ends with `remedy`.
    """
    if not path.exists():
        raise FileNotFoundError(f"{address} does not exist; {remedy}")
    return path


def verify_argument(parser: argparse.ArgumentParser) -> None:
    """Declare the option that replays a checkpoint's record before it is used."""
    parser.add_argument(
        "--verify",
        action="store_true",
        help="first replay what the checkpoint has recorded of itself, and compare all its checksums",
    )


def replay_record(folder: Path) -> None:
    """Replay what a checkpoint has recorded of itself.

    Raises:
        FileNotFoundError: it has no record.
        ValueError: it acts otherwise than when it was written, or a file has changed.
    """
    from pilot.infer.policy import load_policy

    load_policy(folder, verify=True)
    print(f"{folder} acts as when it was written")


def high_level_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose what decides on subtasks."""
    group = parser.add_argument_group("high level")
    group.add_argument("--high-level", metavar="NAME", help="what decides on subtasks (default: the model, if it can): "
                       f"{' '.join(HIGH_LEVELS)}")  # fmt: skip
    group.add_argument("--labels", metavar="FILE", help="for model, saycan, vlm: subtasks to choose from, one per line")
    group.add_argument(
        "--keep-margin", type=float, metavar="NATS", help="for model: how much likelier a new subtask must be"
    )
    group.add_argument(
        "--vlm", metavar="URL", help="for vlm: an OpenAI-compatible endpoint, such as http://localhost:8000/v1"
    )
    group.add_argument("--vlm-model", metavar="NAME", help="for vlm: its model; the API key is in $OPENAI_API_KEY")
    group.add_argument(
        "--as-prompt", action="store_true", default=None,
        help="for human, vlm: what they say replaces the prompt, and the model decides on the subtask below",
    )  # fmt: skip


def read_high_level(args: argparse.Namespace) -> Any:
    """Return the high level that the options name, or None if they name none.

    Raises:
        ValueError: there are options without a high level, or that do not belong to it.
        OSError: the labels cannot be read.
    """
    options = {"labels": args.labels, "keep_margin": args.keep_margin, "url": args.vlm, "model": args.vlm_model,
               "as_prompt": args.as_prompt}  # fmt: skip
    given = {name: value for name, value in options.items() if value is not None}
    if args.high_level is None:
        if given:
            raise ValueError(f"{', '.join(OPTIONS[name] for name in given)}: needs --high-level NAME as well")
        return None
    check_name("high level", args.high_level, HIGH_LEVELS)
    if args.labels is not None:
        lines = Path(args.labels).read_text(encoding="utf-8").splitlines()
        given["labels"] = [line.strip() for line in lines if line.strip()]
    from pilot.infer.high_level import make_high_level

    return make_high_level(args.high_level, **given)


def add_verbs(parsers: Any, verbs: Mapping[str, Verb]) -> None:
    """Add a parser for each verb to `parsers`, the result of `add_subparsers`; its help ends with the example."""
    for name, verb in verbs.items():
        sub = parsers.add_parser(
            name,
            help=verb.help,
            description=verb.help,
            epilog=f"Example: {verb.example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.set_defaults(parser=sub)
        sub.fill = verb.add_arguments
