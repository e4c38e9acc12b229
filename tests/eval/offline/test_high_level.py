"""The high level beside recorded words: every kind of mistake is counted as what it is."""

from types import SimpleNamespace

import numpy as np
import pytest

from pilot.eval.offline.high_level import judge_words, measure_high_level

PICK, PUT, NEXT, DONE = "pick up the red cup", "put it in the sink", "pick up the blue bowl", "done"
WORDS = [PICK, PICK, PUT, NEXT, DONE]
BOX = (0.25, 0.25, 0.5, 0.5)


class Frames:
    """One episode of five frames."""

    def __init__(self):
        self.path = "set"
        self.subtasks = [PICK, PUT, NEXT, DONE]
        self.subtask_index = np.array([0, 0, 1, 2, 3])
        self.episodes = [SimpleNamespace(start=0, stop=5)]
        self.episode_of = np.zeros(5, int)

    def frame(self, i):
        box = BOX if WORDS[i] != DONE else None
        return {"images": {}, "state": np.array([i]), "task": "clean up", "subtask": WORDS[i], "box": box}


class Says:
    """A policy that says a fixed thing to each frame, each asked of a new session."""

    subtask_codec = object()

    def __init__(self, words, box=BOX):
        self.words, self.box, self.sessions = words, box, 0

    def session(self):
        self.sessions += 1
        return self.sessions

    def infer_many(self, sessions, observations):
        assert len(set(sessions)) == len(observations)
        assert all(observation["prompt"] == "clean up" for observation in observations)
        return [{"subtask": self.words[int(o["state"][0])], "box": self.box} for o in observations]


def test_right_words_and_the_distance_of_boxes():
    found = measure_high_level(Says(WORDS, box=(0.25, 0.35, 0.5, 0.6)), Frames(), rows=100)
    assert found.accuracy == 1.0 and len(found.answers) == 5
    assert found.box_error == pytest.approx(0.1)
    assert found.confusions() == []


def test_each_mistake_has_its_name():
    found = measure_high_level(Says([DONE, NEXT, PICK, "pick up the red bowl", PUT]), Frames())
    assert [answer.outcome for answer in found.answers] == [
        "stopped too soon", "a later subtask", "an earlier subtask", "other words", "went on",
    ]  # fmt: skip
    assert found.accuracy == 0.0 and np.isnan(found.box_error)
    assert ("put it in the sink", "pick up the red cup", 1) in found.confusions()
    assert "| stopped too soon | 20.0% |" in found.to_markdown()


def test_frequent_confusions_come_first_and_rows_are_drawn_by_seed():
    found = measure_high_level(Says([DONE, DONE, PUT, NEXT, DONE]), Frames())
    assert found.confusions() == [(PICK, DONE, 2)]
    some = [measure_high_level(Says(WORDS), Frames(), rows=2, seed=seed).answers for seed in (0, 0, 1, 2, 3)]
    assert some[0] == some[1] and len(some[0]) == 2 and any(other != some[0] for other in some[2:])


def test_what_is_said_again_later_counts_as_later():
    assert judge_words(PICK, PUT, earlier={PICK}, later={PICK, DONE}) == "a later subtask"
    assert judge_words(None, PUT, earlier=set(), later=set()) == "other words"


def test_nothing_to_compare_is_refused():
    frames = Frames()
    frames.subtask_index = np.full(5, -1)
    with pytest.raises(ValueError, match="set has no subtasks to compare with"):
        measure_high_level(Says(WORDS), frames)
    mute = Says(WORDS)
    mute.subtask_codec = None
    with pytest.raises(ValueError, match="has not learned to write subtasks"):
        measure_high_level(mute, Frames())
