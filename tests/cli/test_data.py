"""`pilot data stats` from the command line: whose rows share statistics, and what is said of odd ones."""

import sys
from dataclasses import replace

import pytest
from data.bodies import EPISODES, STEPS, put_nan, record_robot
from data.recordings import ROBOT
from data.records import LAYOUT, copy_tiny_arm

from pilot.cli import main
from pilot.data.formats.rlds import RldsDataset
from pilot.data.stats import compute_norm_stats, load_norm_stats
from pilot.datasets import Dataset
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
    assert main.main(["data", "stats", *(str(sets / name) for name in names), "--workers", "1", *flags]) == 0
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


def test_mistakes_are_one_line(sets, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for arguments, message in (
        ([str(sets / "nothing")], "does not exist"),
        ([str(tmp_path / "empty")], "holds no meta/info.json (LeRobot) or features.json (RLDS); it has no files"),
        ([str(sets / "a"), "--robot", "ur6"], "did you mean 'ur5'"),
        ([str(sets / "a"), "--robot", "pusht"], "has 7 state dims, robot 'pusht' declares 2"),
    ):
        assert main.main(["data", "stats", *arguments]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.usefixtures("no_manifests")
def test_bad_episodes_are_skipped_and_listed_only_when_asked(tmp_path, capsys):
    put_nan(record_robot(tmp_path / "disc", load_robot("pusht"), seed=0), column="observation.state", row=STEPS + 1)
    assert main.main(["data", "stats", str(tmp_path / "disc"), "--workers", "1"]) == 2
    assert "NaN or infinity in episode 1" in capsys.readouterr().err
    assert main.main(["data", "stats", str(tmp_path / "disc"), "--workers", "1", "--skip-bad"]) == 0
    printed = capsys.readouterr().out
    assert "skipped: " in printed and f"{(EPISODES - 1) * STEPS} rows, 1 skipped" in printed


def test_a_set_elsewhere_sends_its_columns_only(sets, tmp_path, monkeypatch, capsys):
    system = pytest.importorskip("fsspec").filesystem("memory")
    monkeypatch.setenv("PILOT_CACHE", str(tmp_path / "cache"))
    for file in (file for file in (sets / "disc").rglob("*") if file.is_file()):
        system.pipe(f"/cli/disc/{file.relative_to(sets / 'disc')}", file.read_bytes())
    system.pipe("/cli/disc/videos/film.mp4", b"large")
    assert main.main(["data", "stats", "memory://cli/disc"]) == 2
    assert "choose a folder with --out FOLDER" in capsys.readouterr().err
    assert main.main(["data", "stats", "memory://cli/disc", "--workers", "1", "--out", str(tmp_path / "out")]) == 0
    run(sets, "disc")
    assert (tmp_path / "out/disc/norm_stats.json").read_bytes() == (sets / "disc/norm_stats.json").read_bytes()
    assert not list((tmp_path / "cache").rglob("*.mp4"))
    for name in [name for name in system.store if name.startswith("/cli/")]:
        del system.store[name]


def test_an_rlds_set_is_of_the_robot_of_its_entry(tmp_path, monkeypatch, capsys):
    path = copy_tiny_arm(tmp_path)
    entry = Dataset(name="tiny_arm", path="tiny_arm", robot="arm", reader="robot", objective="", layout=LAYOUT)
    data = RldsDataset(path, 2, layout=LAYOUT)
    names = [tuple(f"dim_{i}" for i in range(n)) for n in (data.state.shape[1], data.actions.shape[1])]
    arm = replace(ROBOT, name="arm", state_names=names[0], action_names=names[1], delta_mask=(False,) * len(names[1]))
    monkeypatch.setattr("pilot.datasets.all_datasets", lambda: {"tiny_arm": entry})
    monkeypatch.setattr("pilot.robots.load_robot", {"arm": arm}.__getitem__)
    assert main.main(["data", "stats", str(path), "--action-horizon", "2", "--workers", "1"]) == 0
    assert "9 rows, 0 skipped" in capsys.readouterr().out
    expected = compute_norm_stats([data], arm)
    found = load_norm_stats(path)
    for name in ("state", "actions"):
        assert (found[name].mean == expected[name].mean).all() and (found[name].q99 == expected[name].q99).all()


def test_the_old_word_for_importing_still_works(tmp_path, capsys):
    with pytest.warns(UserWarning, match="'pilot data convert' is now 'pilot data import'"):
        assert main.main(["data", "convert", str(tmp_path / "none"), str(tmp_path / "out")]) == 2
    assert "none does not exist; give the folder that holds the recordings" in capsys.readouterr().err


def test_a_set_and_a_robot_of_ones_own_are_told_by_their_files(tmp_path, monkeypatch, capsys):
    path = copy_tiny_arm(tmp_path)
    data = RldsDataset(path, 2, layout=LAYOUT)
    dims = data.state.shape[1], data.actions.shape[1]
    (tmp_path / "tiny_robot.py").write_text(
        "from dataclasses import replace\nfrom pilot.robots.pusht import ROBOT as PUSHT\n"
        f"STATE, ACTION = (tuple(f'dim_{{i}}' for i in range(n)) for n in {dims})\n"
        "ROBOT = replace(PUSHT, name='tiny', state_names=STATE, action_names=ACTION, state_units=(), action_units=(),\n"
        "    grippers=(), limits=None, delta_mask=(False,) * len(ACTION))\n"
    )
    (tmp_path / "tiny_sets.py").write_text(
        "from data.records import LAYOUT\nfrom pilot.datasets import Dataset\nfrom pilot.robots import load_robot\n"
        "DATASETS = (Dataset(name='tiny_arm', path='x', robot='tiny', reader='robot', objective='', layout=LAYOUT),)\n"
    )
    monkeypatch.setattr("sys.path", list(sys.path))
    monkeypatch.setattr("pilot.robots._from_files", {})
    files = ["--robot", str(tmp_path / "tiny_robot.py"), "--layouts", str(tmp_path / "tiny_sets.py")]
    assert main.main(["data", "stats", str(path), *files, "--action-horizon", "2", "--workers", "1"]) == 0
    assert "9 rows, 0 skipped" in capsys.readouterr().out
    assert main.main(["data", "stats", str(path), *files[:2], "--action-horizon", "2"]) == 2
    assert "no entry describes the RLDS set 'tiny_arm'" in capsys.readouterr().err
    for name in ("tiny_robot", "tiny_sets"):
        del sys.modules[name]
