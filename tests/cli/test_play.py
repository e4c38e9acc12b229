"""`pilot play` from the command line: mistakes are one line, and the address says how to reach it."""

import pytest

import pilot.infer.policy
import pilot.play.server
from pilot.cli import main
from pilot.cli.play import describe_address
from play.actors import Lifter


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--suite", "homs-l1"], "did you mean 'homes-l1'"),
        (["no/such/checkpoint"], "no/such/checkpoint does not exist"),
        (["--port", "70000"], "0 to 65535"),
        (["checkpoints/nano", "--suite", "rooms-move"], "'mobile'"),
    ],
)
def test_mistakes_are_one_line(arguments, words, capsys, monkeypatch, pytestconfig):
    monkeypatch.chdir(pytestconfig.rootpath)
    assert main.main(["play", *arguments]) == 2
    err = capsys.readouterr().err
    assert words in err and err.count("\n") == 1, err


def test_the_address_carries_the_key_where_browsers_do_not_send_it():
    local = describe_address("127.0.0.1", port=8090, key="abc")
    assert "http://localhost:8090/#key=abc" in local and "ssh -L 8090:localhost:8090" in local
    everywhere = describe_address("192.168.0.5", port=1, key="abc")
    assert "http://192.168.0.5:1/#key=abc" in everywhere and "ssh" not in everywhere


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("record", "step", "step", "step"), "stopped; 3 recorded frames were not kept\n"),
        (
            ("record", "step", "step", "step", "keep", "record", "step"),
            "stopped; 1 recorded frames were not kept; 1 recorded episodes are in ",
        ),
        (("step",), "stopped\n"),
    ],
)
def test_ctrl_c_says_what_was_not_kept(words, message, tmp_path, capsys, monkeypatch, pytestconfig):
    def play(player, server, *, hz):
        for word in words:
            player.handle({"do": word})
        raise KeyboardInterrupt

    monkeypatch.chdir(pytestconfig.rootpath)
    monkeypatch.setattr(pilot.infer.policy, "load_policy", lambda folder, *, device: Lifter())
    monkeypatch.setattr(pilot.play.server, "run_player", play)
    command = ["play", "checkpoints/nano", "--suite", "homes-l2", "--port", "0", "--out", str(tmp_path)]
    assert main.main(command) == 130
    assert message in capsys.readouterr().err
