"""What a policy answers to questions about pictures, beside the right answers: words, and boxes by their overlap."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from pilot.data.formats.image_text import ImageTextRows
from pilot.data.layout import Kind
from pilot.data.pipeline import Row, collate
from pilot.tokenizers.text import split_boxes

AT_ONCE = 16
MAX_TOKENS = 48
OVERLAP = 0.5  # of a box that counts as found


@dataclass(frozen=True, kw_only=True)
class QuestionAnswer:
    """One question, the right answer, and what was said."""

    question: str
    right: str
    said: str

    @property
    def is_right(self) -> bool:
        """Whether the words are the right ones, in the right order; boxes are judged by `overlaps`."""
        return [words for _, words in named_boxes(self.said)] == [words for _, words in named_boxes(self.right)]

    @property
    def overlaps(self) -> list[float]:
        """Intersection over union of each box that was asked for with what was said of the same words, 0 if nothing.

        Where several boxes have the same words, those that overlap most belong together.
        """
        asked, said = (
            [(box, words) for box, words in named_boxes(text) if box is not None] for text in (self.right, self.said)
        )
        pairs = [
            (intersection_over_union(box, other), i, j)
            for i, (box, words) in enumerate(asked)
            for j, (other, same) in enumerate(said)
            if words == same
        ]
        found: dict[int, float] = {}
        taken: set[int] = set()
        for overlap, i, j in sorted(pairs, reverse=True):
            if i not in found and j not in taken:
                found[i] = overlap
                taken.add(j)
        return [found.get(i, 0.0) for i in range(len(asked))]


def named_boxes(text: str) -> list[tuple[tuple[float, ...] | None, str]]:
    """Return the parts of an answer, each with the box in front of its words, or None where it has none."""
    before, boxes = split_boxes(text)
    first = [(None, before)] if before.strip(" ,") else []
    return [(box, words.strip(" ,")) for box, words in [*first, *boxes]]


@dataclass(frozen=True, kw_only=True)
class QuestionAccuracy:
    """The answers of a policy to the questions of one set."""

    answers: tuple[QuestionAnswer, ...]

    @property
    def words(self) -> float:
        """The share of right words, 0 to 1."""
        return float(np.mean([answer.is_right for answer in self.answers]))

    @property
    def overlaps(self) -> list[float]:
        """The overlap of each box that was asked for."""
        return [overlap for answer in self.answers for overlap in answer.overlaps]

    def to_json(self) -> dict[str, Any]:
        """Return the summary."""
        overlaps = self.overlaps
        boxes = {"boxes": len(overlaps)}
        if overlaps:
            boxes |= {"overlap": float(np.mean(overlaps)), "found": float(np.mean(np.array(overlaps) >= OVERLAP))}
        return {"questions": len(self.answers), "right_words": self.words} | boxes

    def to_markdown(self, *, mistakes: int = 5) -> str:
        """Write the summary as a sentence, and a few of the wrong answers."""
        row = self.to_json()
        lines = [f"Questions: right words in {self.words:.1%} of {row['questions']}"]
        if row["boxes"]:
            lines[0] += f"; of {row['boxes']} boxes {row['found']:.0%} overlap by half, {row['overlap']:.2f} on average"
        if wrong := [answer for answer in self.answers if not answer.is_right][:mistakes]:
            lines += ["", "| question | right | said |", "|---|---|---|"]
            lines += [f"| {answer.question} | {answer.right} | {answer.said or '–'} |" for answer in wrong]
        return "\n".join(lines)


def measure_questions(
    policy: Any, dataset: ImageTextRows, *, robot: str | None = None, rows: int = 512, seed: int = 0
) -> QuestionAccuracy:
    """Ask `rows` questions of a set, drawn by seed; answers in the order in which they were drawn.

    More rows ask the same questions first, so that two policies are comparable question by question as far as both
    were asked.

    Raises:
        ValueError: the policy writes no text.
    """
    if not policy.model.config.generates_text:
        raise ValueError("this policy reads text and writes none, so it cannot be asked questions")
    drawn = np.random.default_rng(seed).permutation(len(dataset))[:rows].tolist()  # `choice` depends on how many
    return QuestionAccuracy(
        answers=tuple(
            answer
            for start in range(0, len(drawn), AT_ONCE)
            for answer in _answers(policy, dataset, drawn[start : start + AT_ONCE], robot=robot)
        )
    )


def _answers(policy: Any, dataset: ImageTextRows, rows: Sequence[int], *, robot: str | None) -> list[QuestionAnswer]:
    pipeline, text = policy.pipelines[policy.bundle.find_robot(robot).robot.name], policy.bundle.text
    samples = [dataset.sample(i) for i in rows]
    questions = [without_answer(pipeline.encode(sample)) for sample in samples]
    observation = collate(questions, device=policy.device).observation
    with torch.inference_mode():
        written = policy.model.generate_text(observation, eos=text.eos_id, max_new_tokens=MAX_TOKENS).tolist()
    return [
        QuestionAnswer(question=sample.prompt, right=sample.answer or "", said=text.decode(ids))
        for sample, ids in zip(samples, written, strict=True)
    ]


def without_answer(row: Row) -> Row:
    """Return the row of a question as it is asked: without its target."""
    length = sum(kind == Kind.PREFIX for kind in row.token_kinds)
    row.tokens, row.token_kinds = row.tokens[:length], row.token_kinds[:length]
    row.token_loss = row.token_loss[:length]
    return row


def intersection_over_union(a: Sequence[float], b: Sequence[float]) -> float:
    """Return the overlap of two boxes (y0, x0, y1, x1)."""
    height, width = (max(0.0, min(a[i + 2], b[i + 2]) - max(a[i], b[i])) for i in (0, 1))
    both = height * width
    areas = sum(max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1]) for box in (a, b))
    return both / (areas - both) if areas > both else 0.0
