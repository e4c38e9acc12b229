"""What a high level says to recorded frames, beside what was right there. Nothing acts, and no simulator is needed.

A set with subtasks says for each of its frames what comes next. A set that a policy drove in (`pilot collect --policy`)
says so for states that the policy itself led to, where its mistakes are.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from pilot.data.formats.episodes import EpisodeDataset
from pilot.sims.base import DONE, Box

Outcome = Literal["right", "stopped too soon", "went on", "an earlier subtask", "a later subtask", "other words"]
"""`went on` is anything but "done" at the end; earlier and later are subtasks of the same episode at other times."""

BATCH_SIZE = 16


@dataclass(frozen=True, kw_only=True)
class SubtaskAnswer:
    """What was said to one frame, and what was right."""

    said: str | None
    said_box: Box | None
    right: str
    right_box: Box | None
    outcome: Outcome

    @property
    def box_error(self) -> float | None:
        """The distance of the boxes' centres as a share of the picture; None without right words or a box."""
        if self.outcome != "right" or self.said_box is None or self.right_box is None:
            return None
        return float(np.abs(_centre(self.said_box) - _centre(self.right_box)).max())


@dataclass(frozen=True, kw_only=True)
class HighLevelAccuracy:
    """All answers of one high level to the frames of one set."""

    answers: tuple[SubtaskAnswer, ...]

    @property
    def outcomes(self) -> Counter[Outcome]:
        """How often each outcome was seen."""
        return Counter(answer.outcome for answer in self.answers)

    @property
    def accuracy(self) -> float:
        """The share of frames with the right words, 0 to 1."""
        return self.outcomes["right"] / len(self.answers)

    @property
    def box_error(self) -> float:
        """The median distance of boxes, as a share of the picture, where the words are right; NaN without boxes."""
        errors = [error for answer in self.answers if (error := answer.box_error) is not None]
        return float(np.median(errors)) if errors else float("nan")

    def confusions(self) -> list[tuple[str, str | None, int]]:
        """Return `(right words, what was said, how often)` of the wrong answers, the most frequent first."""
        pairs = Counter((answer.right, answer.said) for answer in self.answers if answer.outcome != "right")
        return [(right, said, count) for (right, said), count in pairs.most_common()]

    def to_json(self) -> dict[str, Any]:
        """Return the summary, with all confusions."""
        error = self.box_error
        return {
            "frames": len(self.answers),
            "right_words": self.accuracy,
            "box_error": None if np.isnan(error) else error,
            "outcomes": dict(self.outcomes),
            "confusions": [list(confusion) for confusion in self.confusions()],
        }

    def to_markdown(self, *, confusions: int = 10) -> str:
        """Write the outcomes and the most frequent confusions as tables."""
        n = len(self.answers)
        lines = [
            f"High level: right words in {self.accuracy:.1%} of {n} frames, boxes {self.box_error:.1%} of the picture "
            "off (median)",
            "",
            "| outcome | share |",
            "|---|---|",
            *(f"| {outcome} | {count / n:.1%} |" for outcome, count in self.outcomes.most_common()),
        ]
        if worst := self.confusions()[:confusions]:
            lines += ["", "| right | said | times |", "|---|---|---|"]
            lines += [f"| {right} | {said or '–'} | {count} |" for right, said, count in worst]
        return "\n".join(lines)


def measure_high_level(
    policy: Any, dataset: EpisodeDataset, *, robot: str | None = None, rows: int = 512, seed: int = 0
) -> HighLevelAccuracy:
    """Ask a policy's own high level at `rows` frames, drawn from those that have a subtask, each without memory.

    Raises:
        ValueError: the set has no subtasks, or the policy writes none.
    """
    if policy.subtask_codec is None:
        raise ValueError("this policy has not learned to write subtasks, so there is nothing to compare")
    known = np.flatnonzero(np.asarray(dataset.subtask_index) >= 0)
    if not known.size:
        raise ValueError(f"{dataset.path} has no subtasks to compare with; write them: pilot data annotate")
    drawn = np.random.default_rng(seed).choice(known, min(rows, known.size), replace=False)
    return HighLevelAccuracy(answers=tuple(_answers(policy, dataset, sorted(drawn.tolist()), robot=robot)))


def _answers(
    policy: Any, dataset: EpisodeDataset, rows: Sequence[int], *, robot: str | None
) -> Iterator[SubtaskAnswer]:
    options = {} if robot is None else {"robot": robot}
    for start in range(0, len(rows), BATCH_SIZE):
        some = rows[start : start + BATCH_SIZE]
        frames = [dataset.frame(i) for i in some]
        observations = [{"images": f["images"], "state": f["state"], "prompt": f["task"]} for f in frames]
        answers = policy.infer_many([policy.session(**options) for _ in frames], observations)
        for i, frame, answer in zip(some, frames, answers, strict=True):
            episode = dataset.episodes[dataset.episode_of[i]]
            earlier, later = (
                {dataset.subtasks[k] for k in dataset.subtask_index[span] if k >= 0}
                for span in (slice(episode.start, i), slice(i + 1, episode.stop))
            )
            said, right = answer["subtask"], frame["subtask"]
            outcome = judge_words(said, right, earlier=earlier, later=later)
            yield SubtaskAnswer(said=said, said_box=answer["box"], right=right, right_box=frame["box"], outcome=outcome)


def judge_words(said: str | None, right: str, *, earlier: set[str], later: set[str]) -> Outcome:
    """Return what kind of answer the words are; `earlier` and `later` are the episode's subtasks before and after."""
    if said == right:
        return "right"
    if said == DONE:
        return "stopped too soon"
    if right == DONE:
        return "went on"
    if said in later:
        return "a later subtask"
    return "an earlier subtask" if said in earlier else "other words"


def _centre(box: Box) -> np.ndarray:
    return np.array([box[0] + box[2], box[1] + box[3]]) / 2
