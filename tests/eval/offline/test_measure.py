"""Measures on recorded data: what is counted, and one pass of a tiny policy over sets of both kinds."""

import io
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from data.bodies import record_robot
from data.recordings import ROBOT, episode, record
from PIL import Image

from eval.checkpoints import save_random_policy
from pilot.cli import main
from pilot.data.formats.open_dataset import open_episodes, open_image_text
from pilot.data.formats.web import WebWriter
from pilot.datasets import layouts_from
from pilot.eval.offline.actions import ActionErrors, measure_actions, measure_tokens, probe_language
from pilot.eval.offline.measure import OfflineResult, save_results
from pilot.eval.offline.questions import QuestionAccuracy, QuestionAnswer, intersection_over_union, measure_questions
from pilot.infer.policy import load_policy
from pilot.robots import load_robot
from pilot.tokenizers.base import DecodeResult


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    return load_policy(save_random_policy(tmp_path_factory.mktemp("policy") / "policy", ROBOT), num_steps=2)


@pytest.fixture(scope="module")
def demonstrations(tmp_path_factory):
    path, rng = tmp_path_factory.mktemp("data") / "set", np.random.default_rng(0)
    record(path, [episode(rng, 12), episode(rng, 9, perturbed=(5,))])
    return path


@pytest.fixture(scope="module")
def questions(tmp_path_factory):
    path = tmp_path_factory.mktemp("web") / "set"
    file = io.BytesIO()
    Image.fromarray(np.full((16, 16, 3), 90, np.uint8)).save(file, "PNG")
    with WebWriter(path) as writer:
        for number in range(5):
            where = ("where?", "<loc0000><loc0000><loc0512><loc0512>cup")
            writer.add(file.getvalue(), [(f"what is number {number}?", "a cup"), where])
    return path


def open_set(policy, path):
    return open_episodes(path, policy.model.config.action_horizon, layouts=layouts_from(None))


def test_errors_are_counted_by_step_and_dim_and_only_where_something_was_recorded():
    errors = np.arange(12.0).reshape(2, 3, 2)
    found = ActionErrors(
        errors=errors, valid=np.array([[1, 1, 0], [1, 0, 0]], bool), names=("x", "y"), spread=np.array([2.0, 0.0])
    )
    by_step = found.by_step()
    assert by_step[0].tolist() == [3, 4] and by_step[1].tolist() == [2, 3] and np.isnan(by_step[2]).all()
    assert found.relative == pytest.approx(np.mean([0, 2, 6]) / 2), "a dim that never moves cannot be judged"
    table = found.to_markdown()
    assert "| dim | spread | step 1 | step 2 | step 3 |" in table and "| x | 2 | 3 | 2 | nan |" in table


def test_what_was_not_recorded_is_null_in_files(tmp_path):
    late = np.array([[1, 0]], bool)
    found = ActionErrors(errors=np.ones((1, 2, 1)), valid=late, names=("x",), spread=np.zeros(1))
    save_results([OfflineResult(data="d", measures={"actions": found})], tmp_path)
    (row,) = json.loads((tmp_path / "offline.json").read_text())
    assert row["actions"] == {"frames": 1, "relative_error": None, "error_by_step": {"x": [1.0, None]}}


def test_a_policy_that_answers_with_the_recorded_actions_has_no_error(policy, demonstrations):
    dataset = open_set(policy, demonstrations)
    exact = Recorded(policy, dataset)
    found = measure_actions(exact, dataset)
    assert found.errors[found.valid].max() == 0 and found.relative == 0 and len(found.errors) == 21
    ours = measure_actions(policy, dataset, rows=6)
    assert len(ours.errors) == 6 and ours.relative > 0.1 and ours.names == ("x", "y")
    again = measure_actions(policy, dataset, rows=6)
    np.testing.assert_array_equal(again.errors, ours.errors)


class Recorded:
    """Answers with the recorded chunk of the frame that has this state."""

    def __init__(self, policy, dataset):
        self.bundle, self.dataset = policy.bundle, dataset

    def session(self, *, robot):
        return None

    def infer_many(self, sessions, observations):
        rows = [int(np.flatnonzero((self.dataset.state == o["state"]).all(1))[0]) for o in observations]
        return [{"actions": self.dataset.row(i)["actions"]} for i in rows]


def test_another_robots_data_is_refused(policy, tmp_path):
    record_robot(tmp_path / "other", load_robot("ur5"), scale=1.0, seed=0)
    with pytest.raises(ValueError, match=r"has 7 action dims, robot 'toy' of the policy 2"):
        measure_actions(policy, open_set(policy, tmp_path / "other"))


def test_tokens_that_lose_nothing_have_no_error(policy, demonstrations):
    dataset = open_set(policy, demonstrations)
    bundle = SimpleNamespace(action_tokenizer=Exact(), find_robot=policy.bundle.find_robot)
    found = measure_tokens(SimpleNamespace(bundle=bundle, pipelines=policy.pipelines), dataset)
    assert found.to_json()["rms_error"] == 0 and found.to_json()["tokens_max"] == found.lengths[0]
    bundle.action_tokenizer = Exact(off=0.25)
    worse = measure_tokens(SimpleNamespace(bundle=bundle, pipelines=policy.pipelines), dataset)
    assert worse.to_json()["rms_error"] == pytest.approx(0.25) and "0.2500 off" in worse.to_markdown()
    assert measure_tokens(policy, dataset) is None


class Exact:
    """A tokenizer that remembers the chunk; read back it is `off` by so much."""

    def __init__(self, off: float = 0.0):
        self.off = off

    def encode(self, chunk):
        self.chunk = chunk
        return list(range(chunk.size))

    def decode(self, ids, horizon, dim):
        assert (horizon, dim) == self.chunk.shape
        return DecodeResult(actions=self.chunk + self.off)


def test_the_probe_tells_a_policy_that_listens_from_one_that_does_not(policy, demonstrations):
    dataset = open_set(policy, demonstrations)
    for listens, follows in ((True, 1.0), (False, 0.0)):
        found = probe_language(Listens(policy, listens), dataset, rows=8)
        assert found.follows == follows and len(found.by_words) == 8
    same = probe_language(policy, dataset, rows=4)
    assert same.by_noise.min() > 0, "other noise is another chunk"
    np.testing.assert_array_equal(probe_language(policy, dataset, rows=4).by_words, same.by_words)


def test_dims_that_never_move_do_not_decide_whether_words_matter(monkeypatch):
    """A gripper that is always open: a thousandth of it would be a thousand of its spreads."""
    moving, still = np.random.default_rng(0).normal(size=(8, 5, 1)), np.ones((8, 5, 1))

    def probe(recorded):
        dataset = SimpleNamespace(
            tasks=["a", "b"],
            task_index=np.arange(8) % 2,
            trainable_rows=lambda: np.arange(8),
            action_chunks=lambda rows: (recorded[rows], np.zeros((len(rows), 5), bool)),
        )

        def answer(policy, dataset, rows, *, robot=None, prompts=None, noise=None):
            return recorded[rows] + [1.0 * (prompts is not None), 0.001 * (noise is not None)]

        monkeypatch.setattr("pilot.eval.offline.actions.ask", answer)
        return probe_language(None, dataset, rows=8)

    found = probe(np.concatenate([moving, still], -1))
    assert found.follows == 1 and found.by_noise.max() == 0
    assert probe(np.concatenate([still, still], -1)) is None


class Listens:
    """Chunks that depend on the words, if it listens, and a little on the noise."""

    def __init__(self, policy, listens):
        self.bundle, self.listens = policy.bundle, listens

    def session(self, *, robot):
        return SimpleNamespace(noise_generator=torch.Generator().manual_seed(0))

    def infer_many(self, sessions, observations):
        noise = [0.01 * torch.rand(1, generator=session.noise_generator).item() for session in sessions]
        heard = [float(o["prompt"][-1]) if self.listens else 0.0 for o in observations]
        return [{"actions": np.full((4, 2), a + b)} for a, b in zip(heard, noise)]


def test_answers_are_judged_by_words_and_boxes():
    box = "<loc0000><loc0000><loc0512><loc0512>"
    answers = [
        QuestionAnswer(question="?", right="a cup", said=" a cup"),
        QuestionAnswer(question="?", right=f"{box}cup", said="<loc0000><loc0000><loc0512><loc0256>cup"),
        QuestionAnswer(question="?", right=f"{box}cup", said="bowl"),
    ]
    found = QuestionAccuracy(answers=tuple(answers))
    assert found.words == pytest.approx(2 / 3) and found.overlaps == [pytest.approx(0.5, abs=2e-3), 0.0]
    assert "right words in 66.7% of 3; of 2 boxes" in found.to_markdown() and "| ? | " in found.to_markdown()
    both = f"{box}cup, <loc0512><loc0512><loc1023><loc1023>bowl"
    assert QuestionAnswer(question="?", right=both, said=both).is_right
    turned = QuestionAnswer(question="?", right=both, said=f"{box} bowl, {box} cup")
    assert not turned.is_right and turned.overlaps == [1.0, 0.0], "each box is compared with that of its own words"
    two = f"{box}cup, <loc0512><loc0512><loc1023><loc1023>cup"
    assert QuestionAnswer(question="?", right=two, said=two).overlaps == [1.0, 1.0]
    assert QuestionAnswer(question="?", right=two, said=f"{box}cup").overlaps == [1.0, 0.0]
    assert intersection_over_union((0, 0, 1, 1), (0.5, 0, 1.5, 1)) == pytest.approx(1 / 3)
    assert intersection_over_union((0, 0, 0, 0), (0, 0, 0, 0)) == 0


def test_a_policy_is_asked_the_questions_of_a_set(policy, questions):
    dataset = open_image_text(questions, camera="room")
    found = measure_questions(policy, dataset, rows=100)
    assert len(found.answers) == 10 and {answer.right for answer in found.answers} >= {"a cup"}
    assert [answer.said for answer in measure_questions(policy, dataset, rows=100).answers] == [
        answer.said for answer in found.answers
    ]


def test_more_questions_begin_with_the_same_ones(monkeypatch):
    """Also across the blocks that are answered at once, the last of which is cut off."""

    def answer(policy, dataset, rows, *, robot):
        return [QuestionAnswer(question=dataset[row], right="", said="") for row in rows]

    def ask(rows: int, *, of: int = 1000, seed: int = 0) -> list[str]:
        found = measure_questions(writer, [f"question {k}" for k in range(of)], rows=rows, seed=seed)
        return [answer.question for answer in found.answers]

    monkeypatch.setattr("pilot.eval.offline.questions._answers", answer)
    writer = SimpleNamespace(model=SimpleNamespace(config=SimpleNamespace(generates_text=True)))
    many = ask(500)
    assert len(set(many)) == 500 and many != sorted(many)
    assert [ask(count) for count in (1, 16, 40)] == [many[:1], many[:16], many[:40]]
    assert ask(500, seed=1)[:40] != many[:40] and sorted(ask(99, of=20)) == sorted(f"question {k}" for k in range(20))


def test_the_verb_measures_what_each_set_allows(policy, demonstrations, questions, tmp_path, capsys):
    command = ["eval", str(policy.path), "--offline", str(demonstrations), str(questions)]
    assert main.main([*command, "--rows", "8", "--num-steps", "2", "--out", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    assert "of their own spread off" in shown and "another instruction changes the chunk" in shown
    assert "No action tokens: the policy has no action tokenizer" in shown and "High level: right words" in shown
    first, second = json.loads((tmp_path / "out" / "offline.json").read_text())
    assert set(first) == {"data", "actions", "language", "high_level", "skipped"} and first["actions"]["frames"] == 8
    assert second["questions"]["questions"] == 8
    assert main.main(["eval", "expert", "--offline", str(questions)]) == 2
    assert main.main(["eval", str(policy.path), "--offline", str(tmp_path / "nothing")]) == 2
    assert "nothing does not exist; give the folder of a data set" in capsys.readouterr().err
