"""The Docker files name extras, files and options that exist; nothing here builds an image."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest

from pilot.cli import main

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def instructions(file: Path, word: str) -> list[str]:
    text = file.read_text().replace("\\\n", " ")
    return re.findall(rf"^{word} (.*)$", text, re.MULTILINE)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_what_is_copied_and_installed_exists(file):
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for line in instructions(file, "COPY"):
        for name in line.split()[:-1]:
            assert (ROOT / name).exists() and f"!{name}" in ignored, name
    extras = re.findall(r"'\.\[([\w,-]+)\]'", file.read_text())
    assert extras and set(extras[0].split(",")) <= set(EXTRAS)
    assert instructions(file, "USER") == ["pilot"], "nothing runs as root"


def test_there_is_a_server_and_a_client():
    assert [file.stem for file in FILES] == ["client", "server"]


def test_the_server_starts_with_options_that_it_has():
    (entry,) = instructions(ROOT / "docker" / "server.Dockerfile", "ENTRYPOINT")
    command = shlex.split(entry.strip("[]").replace(",", " "))
    assert command[0] == "pilot"
    arguments = main.build_parser().parse_args([*command[1:], "/checkpoints/nano"])
    assert (arguments.verb, arguments.host, arguments.log) == ("serve", "0.0.0.0", "json")
