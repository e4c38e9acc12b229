"""Work in processes and on a Ray cluster of this machine: the bytes are those of one process."""

import multiprocessing.connection
import operator
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from data.formats.test_lerobot_v2 import write
from data.recordings import episode, record
from data.records import RECORDS, columns, copy_tiny_arm
from data.tools.test_import_recordings import write_hdf5

from pilot.cli import main
from pilot.data.formats import columns as parts
from pilot.data.formats import lerobot_layout as fmt
from pilot.data.formats.rlds import RldsDataset, RldsLayout
from pilot.data.formats.writer import LeRobotWriter
from pilot.data.importers.base import ImportOptions
from pilot.data.loading import parallel
from pilot.data.loading.parallel import map_in_processes, map_on_ray, serial_map
from pilot.data.tools import import_recordings
from pilot.locks import is_running
from pilot.robots import load_robot


def starts_here() -> None:
    """Ray wants sockets, shared memory and processes of its own, which not every container gives; then it may wait."""
    start = (
        "from pilot.data.loading.parallel import map_on_ray\n"
        "with map_on_ray(cpus=1) as parallel_map: assert list(parallel_map(abs, [-1])) == [1]"
    )
    try:
        found = subprocess.run([sys.executable, "-c", start], capture_output=True, text=True, timeout=180)
    except subprocess.TimeoutExpired:
        pytest.skip("no Ray cluster starts on this machine within three minutes")
    if found.returncode:
        pytest.skip(f"no Ray cluster starts on this machine: {found.stderr.strip().splitlines()[-1:]}")


@pytest.fixture(scope="module")
def ray():
    """One small cluster for all tests; what is asked to work on Ray takes it."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'pilot[ray]'")
    starts_here()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))  # layouts of tests are looked up there
        with map_on_ray(cpus=2) as parallel_map:
            yield parallel_map


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def files(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def same_files(a: Path, b: Path) -> None:
    one, other = files(a), files(b)
    assert list(one) == list(other) and len(one) > 0
    assert [name for name in one if one[name] != other[name]] == []


@pytest.mark.parametrize("kind", ["here", "processes", "ray"])
def test_results_come_in_order_and_errors_in_their_place(kind, request):
    parallel_map = (
        request.getfixturevalue("ray")
        if kind == "ray"
        else {"here": serial_map, "processes": map_in_processes(2)}[kind]
    )
    divided = partial(operator.truediv, 12)
    assert list(parallel_map(divided, range(1, 9))) == [12 / n for n in range(1, 9)]
    taken, results = [], iter(parallel_map(divided, [4, 2, 0, 6]))
    with pytest.raises(ZeroDivisionError, match=r"^(float )?division by zero$"):
        for result in results:
            taken.append(result)
    assert taken == [3.0, 6.0]
    assert parallel_map.processes == (1 if kind == "here" else 2)


def test_a_process_that_dies_is_said():
    with pytest.raises(ChildProcessError, match="was killed, perhaps for lack of memory; run the same command again"):
        list(map_in_processes(2)(os._exit, [1, 2]))


def test_work_under_way_ends_when_nobody_waits_for_it():
    results = map_in_processes(2)(time.sleep, [0, 1000, 1000])
    assert next(results) is None
    workers = multiprocessing.active_children()
    results.close()
    # not `is_alive`: the pool waits for them too, and who comes second is told that they live for a moment more
    assert workers and all(multiprocessing.connection.wait([worker.sentinel], 60) for worker in workers)


PARENT = """
import time
from multiprocessing import active_children
from pilot.data.loading.parallel import map_in_processes
if __name__ == "__main__":
    results = map_in_processes(2)(time.sleep, [0, 0, 0, 600])
    print(next(results), next(results), next(results), *[child.pid for child in active_children()], flush=True)
    time.sleep(600)
"""


def test_workers_die_with_a_parent_that_was_killed(tmp_path):
    """One of them is at work, one waits for work."""
    (tmp_path / "parent.py").write_text(PARENT)
    with subprocess.Popen([sys.executable, tmp_path / "parent.py"], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        workers = [int(word) for word in parent.stdout.readline().split()[3:]]
        assert len(workers) == 2 and all(map(is_running, workers))
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and any(map(is_running, workers)):
        time.sleep(0.01)
    assert [worker for worker in workers if is_running(worker)] == []


def test_work_under_way_is_bounded():
    submitted = []
    take = lambda part: submitted.append(part) or part  # noqa: E731
    results = parallel._in_order(take, lambda part: part, range(100), ahead=3, coming=deque())
    assert [next(results), next(results)] == [0, 1] and submitted == [0, 1, 2, 3, 4]


def test_a_missing_ray_names_the_extra(monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(ImportError, match=r"pip install 'pilot\[ray\]'"), map_on_ray():
        pass


def test_a_path_is_no_address(tmp_path, capsys):
    assert main.main(["data", "stats", "--robot", "pusht", "--ray", str(tmp_path), str(tmp_path)]) == 2
    assert "write --ray last" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["mp4", "hdf5 with a bad file"])
def test_conversion(ray, tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)  # the cluster works in another folder
    options = []
    if kind == "mp4":
        pytest.importorskip("av")
        write(tmp_path / "raw", codec={"codec": "libx264", "g": "2"})
    else:
        for number in range(5):
            write_hdf5(tmp_path / f"raw/episode_{number}.hdf5", start=6 * number)
        (tmp_path / "raw/episode_2.hdf5").write_bytes(b"no recording")
        options = ["--fps", "10", "--task", "open the box", "--pictures", "image", "--skip-bad"]
    for target, who in (("alone", []), ("cluster", ["--ray"])):
        assert main.main(["data", "import", "raw", target, *options, *who]) == 0
    same_files(tmp_path / "alone", tmp_path / "cluster")


def test_conversion_that_stops_goes_on_elsewhere(ray, tmp_path):
    for number in range(4):
        write_hdf5(tmp_path / f"raw/episode_{number}.hdf5", start=6 * number, task="x")
    whole = (tmp_path / "raw/episode_2.hdf5").read_bytes()
    (tmp_path / "raw/episode_2.hdf5").write_bytes(b"no recording")
    options = ImportOptions(fps=10, pictures="image")
    with pytest.raises(ValueError, match=r"episode_2.hdf5 is damaged .*--skip-bad"):
        import_recordings.import_recordings(
            tmp_path / "raw", tmp_path / "cluster", options=options, progress=False, parallel_map=ray
        )
    (tmp_path / "raw/episode_2.hdf5").write_bytes(whole)
    with pytest.warns(UserWarning, match="2 finished episodes are kept"):
        import_recordings.import_recordings(tmp_path / "raw", tmp_path / "cluster", options=options, progress=False)
    import_recordings.import_recordings(tmp_path / "raw", tmp_path / "alone", options=options, progress=False)
    same_files(tmp_path / "alone", tmp_path / "cluster")


def test_statistics(ray, tmp_path, monkeypatch, rng):
    robot = load_robot("pusht")
    with LeRobotWriter(tmp_path / "set", robot, robot.control_hz) as writer:
        for length in (9, 6, 12, 30):
            numbers = rng.normal(size=(length, robot.state_dim + robot.action_dim)).astype(np.float32)
            frames = {fmt.STATE: numbers[:, : robot.state_dim], fmt.ACTION: numbers[:, robot.state_dim :]}
            pictures = {fmt.IMAGES + camera: np.zeros((length, 8, 8, 3), np.uint8) for camera in robot.cameras}
            writer.add_episode(frames | pictures, task="push")
    monkeypatch.setattr(parts, "PART_ROWS", 8)
    assert len(parts.index_columns(tmp_path / "set").parts) > 1
    found = []
    for who in (["--workers", "1"], ["--workers", "2"], ["--ray"]):
        assert main.main(["data", "stats", str(tmp_path / "set"), "--action-horizon", "3", *who]) == 0
        found.append((tmp_path / "set/norm_stats.json").read_bytes())
    assert found[0] == found[1] == found[2]


def test_first_reading_of_records(ray, tmp_path):
    """Of each record file elsewhere; a damaged one is listed."""
    layout = RldsLayout(
        fps=5, cameras={"top": "observation/image"}, instruction=("language_instruction",), columns=columns
    )
    for name, parallel_map in (("alone", serial_map), ("cluster", ray)):
        path = copy_tiny_arm(tmp_path / name)
        content = bytearray((path / RECORDS).read_bytes())
        content[60] ^= 1
        (path / RECORDS).write_bytes(bytes(content))
        dataset = RldsDataset(path, 2, layout=layout, skip_bad=True, parallel_map=parallel_map)
        assert [skip.episode for skip in dataset.skipped] == [0]
    kept = [next((tmp_path / name).rglob("columns-*")) for name in ("alone", "cluster")]
    for name in (file.name for file in kept[0].iterdir()):
        one, other = ((folder / name).read_bytes() for folder in kept)
        assert one.replace(b"/alone/", b"/cluster/") == other


def test_annotation(ray, tmp_path, monkeypatch, rng):
    monkeypatch.setattr(fmt, "DATA_FILE_MB", 0.02)
    record(tmp_path / "alone", [episode(rng, 10) for _ in range(5)])
    shutil.copytree(tmp_path / "alone", tmp_path / "cluster")
    assert len(list(tmp_path.glob("alone/data/*/*.parquet"))) > 1
    table = tmp_path / "labels.csv"
    table.write_text("episode,start,subtask\n0,0.5,put it down\n0,0,pick it up\n4,0.2,reach\n")
    for name, who in (("alone", []), ("cluster", ["--ray"])):
        assert main.main(["data", "annotate", str(tmp_path / name), "--csv", str(table), "--overwrite", *who]) == 0
    same_files(tmp_path / "alone", tmp_path / "cluster")


def test_a_person_answers_alone(tmp_path, capsys):
    assert main.main(["data", "annotate", str(tmp_path), "--by-hand", "--ray"]) == 2
    assert "leave --workers and --ray out" in capsys.readouterr().err
