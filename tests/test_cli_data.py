"""`pilot data stats` from the command line: whose rows share statistics, and what is said of odd ones."""

import pytest
from data.bodies import EPISODES, STEPS, put_nan, record_robot

from pilot import cli
from pilot.data.stats import load_norm_stats
from pilot.robots import load_robot


@pytest.fixture
def sets(tmp_path):
    """Two sets of one robot and one of another; the deviations are 1, 10 and 100."""
    for number, (name, robot) in enumerate((("a", "ur5"), ("b", "ur5"), ("disc", "pusht"))):
        record_robot(tmp_path / name, load_robot(robot), scale=10.0**number, seed=number)
    return tmp_path


def run(sets, *names: str, **options: str) -> dict[str, float]:
    """The state's mean deviation by set."""
    flags = [word for name, value in options.items() for word in (f"--{name}", value)]
    assert cli.main(["data", "stats", *(str(sets / name) for name in names), "--workers", "1", *flags]) == 0
    return {name: float(load_norm_stats(sets / name)["state"].std.mean()) for name in names}


def test_sets_share_statistics_as_asked(sets, capsys):
    assert run(sets, "a", "b", "disc") == pytest.approx({"a": 1, "b": 10, "disc": 100}, rel=0.3)
    together = run(sets, "a", "b", "disc", per="robot")
    assert together == pytest.approx({"a": 7.1, "b": 7.1, "disc": 100}, rel=0.3) and together["a"] == together["b"]
    mixed = run(sets, "a", "b", "disc", per="mixture")
    assert mixed["a"] == mixed["b"] < mixed["disc"] and mixed["disc"] == pytest.approx(58, rel=0.3)
    assert [len(load_norm_stats(sets / name)["state"].mean) for name in ("a", "disc")] == [7, 2]
    printed = capsys.readouterr().out
    assert "wrist_3" in printed and "72 rows, 0 skipped" in printed


def test_mistakes_are_one_line(sets, capsys):
    for arguments, message in (
        ([str(sets / "nothing")], "does not exist"),
        ([str(sets / "a"), "--robot", "ur6"], "did you mean 'ur5'"),
        ([str(sets / "a"), "--robot", "pusht"], "has 7 state dims, robot 'pusht' declares 2"),
    ):
        assert cli.main(["data", "stats", *arguments]) == 2
        assert message in capsys.readouterr().err


def test_bad_episodes_are_skipped_and_listed_only_when_asked(tmp_path, capsys):
    put_nan(record_robot(tmp_path / "disc", load_robot("pusht"), seed=0), column="observation.state", row=STEPS + 1)
    assert cli.main(["data", "stats", str(tmp_path / "disc"), "--workers", "1"]) == 2
    assert "NaN or infinity in episode 1" in capsys.readouterr().err
    assert cli.main(["data", "stats", str(tmp_path / "disc"), "--workers", "1", "--skip-bad"]) == 0
    printed = capsys.readouterr().out
    assert "skipped: " in printed and f"{(EPISODES - 1) * STEPS} rows, 1 skipped" in printed
