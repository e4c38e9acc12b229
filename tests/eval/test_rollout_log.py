"""Rollouts in rerun: what an evaluation logged is repeated, and its words and numbers can be read back."""

import pytest

from pilot.cli import main
from pilot.eval.episode_log import read_rows
from pilot.eval.rollout_log import choose_rollouts


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory):
    """Two episodes of the expert."""
    folder = tmp_path_factory.mktemp("eval") / "expert"
    command = ["eval", "expert", "--suite", "homes-l1", "--episodes", "2", "--workers", "1", "--out", str(folder)]
    assert main.main(command) == 0
    return folder


def test_a_success_of_each_suite_is_chosen_or_the_scenes_that_are_asked_for(evaluation):
    records = [record for record, _ in choose_rollouts(evaluation, None)]
    assert [(record.scene, record.success) for record in records] == [(0, True)]
    ((record, actions),) = choose_rollouts(evaluation, [1])
    assert record.scene == 1 and actions.shape == (record.steps, 4)
    with pytest.raises(ValueError, match="no episode in scene 7"):
        list(choose_rollouts(evaluation, [1, 7]))


def test_what_was_done_can_be_read_back(evaluation, tmp_path, capsys):
    chunk = pytest.importorskip("rerun.chunk")
    assert main.main(["data", "view", str(evaluation), "--out", str(tmp_path / "out")]) == 0
    assert "wrote 1 files" in capsys.readouterr().out
    (file,) = (tmp_path / "out").iterdir()
    assert file.name == "homes-l1-none-00000-success.rrd"
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


def test_the_viewer_itself_is_for_data_sets(evaluation, capsys):
    assert main.main(["data", "view", str(evaluation)]) == 2
    assert "give --out FOLDER" in capsys.readouterr().err
