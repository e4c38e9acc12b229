"""What a shell offers for the last word of a command line, and that its scripts are scripts."""

import shutil
import subprocess

import pytest

from pilot import configs
from pilot.cli import data, main
from pilot.cli.completion import SCRIPTS, complete
from pilot.eval.suites import CONTROLS
from pilot.robots import robot_names


def offered(line: str) -> list[str]:
    return list(complete(line.split(" "), main.VERBS, data.WORDS))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", [*main.VERBS, "--help", "--version"]),
        ("tr", ["train"]),
        ("data ", list(data.WORDS)),
        ("data ins", ["inspect"]),
        ("data inspect --ep", ["--episodes"]),
        ("train nano_f", ["nano_finetune"]),
        ("plan ", configs.names()),
        ("train debug ", []),
        ("train debug --set optim.pe", ["optim.peak_lr="]),
        ("eval x --control ", list(CONTROLS)),
        ("eval x --suite homes-l1 homes-l2-", ["homes-l2-multi"]),
        ("eval x --episodes ", []),
        ("serve x --log ", ["text", "json"]),
        ("collect out --robot ", robot_names),  # asked then: another test may have read a robot of its own
        ("nonsense --", []),
    ],
)
def test_what_is_offered(line, words):
    assert offered(line) == (words() if callable(words) else words)


def test_the_words_come_one_a_line(capsys):
    assert main.main(["completion", "words", "--", "train", "nano_stage"]) == 0
    assert capsys.readouterr().out.split() == ["nano_stage1", "nano_stage2"]


def test_options_that_begin_with_two_dashes_reach_the_words(capsys):
    assert main.main(["completion", "words", "--", "eval", "x", "--epis"]) == 0
    assert capsys.readouterr().out.split() == ["--episodes"]


@pytest.mark.parametrize("shell", SCRIPTS)
def test_scripts_are_scripts(shell, capsys):
    assert main.main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "pilot completion words -- " in script
    if shell == "bash" and (bash := shutil.which("bash")):
        subprocess.run([bash, "-n"], input=script, text=True, check=True)
