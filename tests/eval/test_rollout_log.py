"""Rollouts in rerun: what an evaluation logged is repeated, and its words and numbers can be read back."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from eval.jobs import make_record
from pilot.cli import main
from pilot.eval.episode_log import read_rows
from pilot.eval.records import pack_actions
from pilot.eval.rollout_log import choose_rollouts


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory):
    """Two episodes of the expert."""
    folder = tmp_path_factory.mktemp("eval") / "expert"
    command = ["eval", "expert", "--suite", "homes-l1", "--episodes", "2", "--workers", "1", "--out", str(folder)]
    assert main.main(command) == 0
    return folder


def test_a_success_of_each_suite_is_chosen_or_the_scenes_that_are_asked_for(evaluation):
    records = [record for _, record, _ in choose_rollouts(evaluation, None)]
    assert [(record.scene, record.success) for record in records] == [(0, True)]
    ((name, record, actions),) = choose_rollouts(evaluation, [1])
    assert name == "homes-l1-none-00001-seed-0-success" and record.scene == 1 and actions.shape == (record.steps, 4)
    with pytest.raises(ValueError, match="no episode in scene 7"):
        list(choose_rollouts(evaluation, [1, 7]))


def test_rollouts_of_several_seeds_and_policies_have_names_of_their_own(tmp_path):
    def row(policy, scene, **changes):
        record = make_record(scene=scene, **changes)
        key = f"{policy}/code/homes-l1/sim/none//{record.seed}/{scene}"
        return {"key": key, "record": record.to_json(), "actions": pack_actions(np.zeros((3, 4)))}

    rows = [row("a/", 0), row("a/", 1), row("a/", 0, seed=1), row("b/", 0), row("b/2", 1), row("b/2", 2, success=False)]
    (tmp_path / "episodes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for scenes, count in ((None, 5), ([0, 1, 2], 6)):
        names = [chosen.name for chosen in choose_rollouts(tmp_path, scenes)]
        assert len(set(names)) == len(names) == count
    assert "homes-l1-none-00000-seed-1-success" in names, "there is one policy with this seed"


def test_what_was_done_can_be_read_back(evaluation, tmp_path, capsys):
    chunk = pytest.importorskip("rerun.chunk")
    assert main.main(["data", "view", str(evaluation), "--out", str(tmp_path / "out")]) == 0
    assert "wrote 1 files" in capsys.readouterr().out
    (file,) = (tmp_path / "out").iterdir()
    assert file.name == "homes-l1-none-00000-seed-0-success.rrd"
    (record,) = (record for record, _ in read_rows(evaluation).values() if record.scene == 0)
    words, heights = [], []
    for part in chunk.RrdReader(file).stream():
        batch = part.to_record_batch()
        columns = {name.rpartition(":")[2]: batch.column(name) for name in batch.schema.names}
        if part.entity_path == "/words":
            words += [row[0] for row in columns["text"].to_pylist()]
        if part.entity_path == "/action/z":
            heights += [row[0] for row in columns["scalars"].to_pylist()]
    assert words == [record.asked, *(said for _, said in record.subtasks), "success"]
    assert len(heights) == record.steps


class Stream:
    """A stream of rerun that keeps the words that are logged to it."""

    words: list[str]

    def __init__(self, name, *, recording_id):
        type(self).words = []

    def save(self, file):
        Path(file).write_text("begun")

    def set_time(self, name, **when):
        pass

    def log(self, entity, value):
        if entity == "words":
            self.words.append(value)

    def disconnect(self):
        pass


@pytest.fixture
def no_rerun(monkeypatch):
    """A stand-in for rerun, which is too large to be installed everywhere."""
    kinds = {"TextLog": str, "Scalars": float, "EncodedImage": lambda contents, media_type: contents}
    monkeypatch.setitem(sys.modules, "rerun", SimpleNamespace(RecordingStream=Stream, **kinds))


def changed_log(evaluation, folder, change):
    """A copy of an evaluation in which `change` has been made to every record."""
    folder.mkdir()
    rows = [json.loads(line) for line in (evaluation / "episodes.jsonl").read_text().splitlines()]
    for row in rows:
        row["record"].update(change)
    (folder / "episodes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_a_rollout_that_goes_otherwise_now_is_not_shown_as_it_was(evaluation, tmp_path, capsys, no_rerun):
    """The scenes of another seed stand for a simulator that has changed since."""
    out = tmp_path / "out"
    assert main.main(["data", "view", str(evaluation), "--out", str(out)]) == 0
    assert Stream.words[-1] == "success" and len(Stream.words) > 2 and len(list(out.iterdir())) == 1
    changed = changed_log(evaluation, tmp_path / "changed", {"seed": 5})
    other = tmp_path / "other"
    assert main.main(["data", "view", str(changed), "--out", str(other)]) == 2
    assert "scene 0 of 'homes-l1' ended otherwise when its actions were repeated" in capsys.readouterr().err
    assert "success" not in Stream.words and list(other.iterdir()) == []


def test_a_suite_that_is_not_known_here_is_one_error_before_anything_is_written(evaluation, tmp_path, capsys, no_rerun):
    other = changed_log(evaluation, tmp_path / "other", {"suite": "desk"})
    assert main.main(["data", "view", str(other), "--out", str(tmp_path / "out")]) == 2
    assert (said := capsys.readouterr().err).count("\n") == 1
    assert f"the rollouts in {other} cannot be repeated: no suite is called 'desk' here" in said
    assert not (tmp_path / "out").exists()


def test_the_viewer_itself_is_for_data_sets(evaluation, capsys):
    assert main.main(["data", "view", str(evaluation)]) == 2
    assert "give --out FOLDER" in capsys.readouterr().err
