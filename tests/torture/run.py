"""`make torture`, an hour: mutants of every file and kills at random moments; the table goes into docs/promises.md.

python tests/torture/run.py --mutants 300 --kills 40
"""

import argparse
import platform
import re
import time
from datetime import date
from pathlib import Path

import torch

from pilot.data.storage.manifest import source_commit

from torture import kills, mutants  # isort: skip

PAGE = mutants.ROOT / "docs" / "promises.md"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--mutants", type=int, default=6000, help="with manifests, and as many without (default: %(default)s)"
    )
    parser.add_argument(
        "--kills", type=int, default=480, help="half of a training, half of a collection (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    start = time.monotonic()
    lines = mutants.table(mutants.run(options.mutants, seed=options.seed, show=True))
    if options.kills:
        lines += ["", *kills.table(kills.run(options.kills, seed=options.seed))]
    minutes = (time.monotonic() - start) / 60
    commit = (source_commit() or "unknown")[:8]
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    told = f"Commit {commit}, {date.today()}, {minutes:.0f} minutes, {versions}."
    write(PAGE, ["", *lines, "", told, ""])
    print("\n".join([*lines, told]))


def write(page: Path, lines: list[str]) -> None:
    """Put lines between the marks of a page, in place of those that are there."""
    between = re.compile(r"(<!-- torture -->\n).*(<!-- /torture -->)", re.DOTALL)
    text, count = between.subn(
        lambda found: found[1] + "\n".join(lines).lstrip("\n") + "\n" + found[2], page.read_text()
    )
    assert count == 1, page
    page.write_text(text)


if __name__ == "__main__":
    main()
