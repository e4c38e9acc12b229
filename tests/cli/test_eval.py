"""`pilot eval`: one folder for several commands, what its manifest says, and options that do not go together."""

import json

import pytest

from pilot.cli import main


def evaluate(out, options):
    assert main.main(["eval", "expert", "--workers", "1", "--out", str(out), *options.split()]) == 0
    return json.loads((out / "results.json").read_text()) if (out / "results.json").exists() else []


def cells(rows):
    return [(row["suite"], row["episodes"], row["settings"]["hold_steps"]) for row in rows]


def test_a_second_command_into_a_folder_adds_to_its_table(tmp_path):
    evaluate(tmp_path, "--suite homes-l1 --episodes 2")
    rows = evaluate(tmp_path, "--suite homes-l2 --episodes 1")
    assert cells(rows) == [("homes-l1", 2, 0), ("homes-l2", 1, 0)]
    rows = evaluate(tmp_path, "--suite homes-l1 --episodes 1")
    assert cells(rows) == [("homes-l1", 1, 0), ("homes-l2", 1, 0)], "measured again"
    rows = evaluate(tmp_path, "--suite homes-l1 --episodes 1 --hold-steps 2 --executor open-loop")
    assert cells(rows) == [("homes-l1", 1, 0), ("homes-l2", 1, 0), ("homes-l1", 1, 2)], "with other settings"
    head, _, *lines = (tmp_path / "results.md").read_text().splitlines()
    assert head.endswith("| settings |") and len(lines) == 3
    assert lines[1].startswith("| homes-l2 |") and lines[1].endswith("| – |")
    assert lines[2].endswith("| hold steps 2, executor open-loop |")


def test_the_manifest_says_how_it_was_measured_and_covers_the_logs_of_shards(tmp_path, capsys):
    how = "--suite homes-l1 --episodes 2 --clock --latency-ms 100 --executor rtc --hold-steps 1"
    for shard in ("1/2", "2/2"):
        evaluate(tmp_path, f"{how} --shard {shard}")
    evaluate(tmp_path, how)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    logs = ["episodes-1-of-2.jsonl", "episodes-2-of-2.jsonl"]
    assert sorted(manifest["files"]) == [*logs, "results.json", "results.md"]
    config = manifest["origin"]["config"]
    wanted = {"clock": True, "latency_ms": 100.0, "executor": "rtc", "hold_steps": 1, "high_level": None}
    assert config.items() >= wanted.items() and config["suite"] == ["homes-l1"]
    assert main.main(["verify", str(tmp_path), "--accept"]) == 0
    assert json.loads((tmp_path / "manifest.json").read_text())["files"] == manifest["files"]
    (tmp_path / logs[0]).write_text("")
    assert main.main(["verify", str(tmp_path)]) == 2
    assert f"{logs[0]} has 0 bytes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ("--high-level none --clock", "--clock, --high-level:"),
        ("--suite homes-l1 --control oracle", "--suite, --control:"),
        ("--replan-steps 2 --until 0.5 --shard 1/2 --episodes 3", "--episodes, --replan-steps, --until, --shard:"),
        ("--latency-ms 5 --executor rtc --hold-steps 1 --plan", "--plan, --hold-steps, --latency-ms, --executor:"),
        ("--labels words.txt --vlm http://localhost:1/v1", "--labels, --vlm:"),
    ],
)
def test_options_of_episodes_are_refused_for_recorded_data(options, named, capsys):
    assert main.main(["eval", "checkpoints/nano", "--offline", "no/such/set", *options.split()]) == 2
    assert f"pilot: {named} has no meaning with --offline" in capsys.readouterr().err


def test_options_of_recorded_data_are_let_through(tmp_path, capsys):
    """The set is missing, which is said after the options have been looked at."""
    options = "--rows 3 --robot homes --seed 1 --num-steps 2 --verify --episodes 200 --control none"
    command = ["eval", str(tmp_path), "--offline", "no/such/set", "--out", str(tmp_path / "out"), *options.split()]
    assert main.main(command) == 2
    assert "no/such/set does not exist" in capsys.readouterr().err


def test_a_number_of_rows_without_recorded_data_is_refused(capsys):
    assert main.main(["eval", "checkpoints/nano", "--rows", "3"]) == 2
    assert "pilot: --rows: counts rows of recorded data" in capsys.readouterr().err
