"""Episodes in rerun: what is written can be read back, with the numbers, pictures and words of the set."""

import sys

import numpy as np
import pyarrow as pa
import pytest
from data.bodies import record_robot

from pilot.cli import main
from pilot.data.formats import lerobot_layout as fmt
from pilot.data.formats.lerobot import LeRobotDataset
from pilot.data.formats.writer import LeRobotWriter
from pilot.data.tools.rerun_log import import_rerun, write_recordings
from pilot.robots import load_robot

STEPS = 6


def record(path):
    """Two episodes of the homes robot; the second has a subtask with a box from frame 2 on."""
    robot, rng = load_robot("homes"), np.random.default_rng(0)
    with LeRobotWriter(path, robot, robot.control_hz) as writer:
        for number in range(2):
            boxes = np.full((STEPS, 4), np.nan, np.float32)
            boxes[2:] = (0.25, 0.5, 0.5, 1.0)
            frames = {
                fmt.STATE: rng.normal(size=(STEPS, 5)).astype(np.float32),
                fmt.ACTION: rng.normal(size=(STEPS, 4)).astype(np.float32),
                fmt.BOX: boxes,
            }
            frames |= {fmt.IMAGES + c: rng.integers(0, 255, (STEPS, 8, 8, 3), dtype=np.uint8) for c in robot.cameras}
            said = [(0.2, "subtask", "assistant", "pick up the cup")]
            writer.add_episode(frames, task=f"task {number}", persistent=said)
    return path


def read(file):
    """All values in a file of rerun, in order, by entity and component."""
    chunk = pytest.importorskip("rerun.chunk")
    found = {}
    for part in chunk.RrdReader(file).stream():
        batch = part.to_record_batch()
        for name in (field.name for field in batch.schema if not pa.types.is_temporal(field.type)):
            values = [value for value in batch.column(name).to_pylist() if value is not None]
            found.setdefault(f"{part.entity_path}:{name}", []).extend(values)
    return found


def test_what_is_written_can_be_read_back(tmp_path):
    pytest.importorskip("rerun")
    data = LeRobotDataset(record(tmp_path / "set"), 1)
    (file,) = write_recordings(data, tmp_path / "out", episodes=[1], robot=load_robot("homes"))
    assert file.name == "episode-000001.rrd" and file.stat().st_size > 1000
    found = read(file)
    curves = {name.partition(":")[0] for name in found}
    assert {"/state/x", "/state/holding", "/action/suction", "/cameras/room", "/cameras/wrist", "/words"} <= curves

    def values(entity, part):
        (name,) = [name for name in found if name.startswith(f"{entity}:") and part in name]
        return found[name]

    heights = np.array(values("/state/z", "scalars"), np.float64).ravel()
    assert np.allclose(heights, data.state[STEPS:, 2])
    assert np.allclose(np.array(values("/action/x", "scalars"), np.float64).ravel(), data.actions[STEPS:, 0])
    assert [str(words[0]) for words in values("/words", "text")] == ["task 1", "pick up the cup"]
    assert len(values("/cameras/room", "blob")) == STEPS
    half_sizes = np.array(values("/cameras/room/subtask", "half_sizes"), float).reshape(-1, 2)
    assert np.allclose(half_sizes, [[2, 1]] * (STEPS - 2)), "half of 4 x 2 pixels"


def test_from_the_command_line(tmp_path, capsys):
    pytest.importorskip("rerun")
    record_robot(tmp_path / "disc", load_robot("pusht"), seed=0)
    command = ["data", "view", str(tmp_path / "disc"), "--out", str(tmp_path / "out"), "--episodes"]
    assert main.main([*command, "0", "1"]) == 0
    assert "wrote 2 files" in capsys.readouterr().out
    assert main.main([*command, "99"]) == 2
    assert "has no episode 99; it has 0 to" in capsys.readouterr().err


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(ImportError, match=r"pip install 'pilot\[rerun\]'"):
        import_rerun()
