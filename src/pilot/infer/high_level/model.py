"""The model itself as the high level: it writes the next subtask behind its own prefill."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from pilot.data.layout import Kind
from pilot.infer.engine import sampling
from pilot.infer.engine.protocol import Engine
from pilot.infer.engine.sampling import Multinomial, Scored, select_rows
from pilot.infer.high_level.base import Decision, HighLevel, SubtaskRequest, check_writes_subtasks, rows_to_skip
from pilot.infer.high_level.subtasks import SUBTASK_TOKENS, Boxes, SubtaskCodec
from pilot.models.generation import Greedy
from pilot.tokenizers.text import split_box


@dataclass(frozen=True, kw_only=True)
class ModelHighLevel(HighLevel):
    """The model itself.

    At `temperature` 0 the likeliest subtask is taken, at others one is drawn. `labels`: the only subtasks to choose
    from. `boxes`: whether a box may stand in front (`first`) or not (`none`). `keep_margin`: another subtask replaces
    the previous one only if its log-probability, box included, is larger by so much. That does not hold after a new
    prompt or the end of a subtask, nor for a previous one in `stop_words`: a robot that is "done" too soon loses
    nothing by continuing. For the same reason one of `stop_words` is taken only at a probability of `stop_probability`
    or more, and otherwise the likeliest of all else (0: always taken; a draw at a temperature is never changed).
    `remember_boxes`: the same words again, now without a box, keep the box of the previous subtask, for what an arm
    hides is still where it was.
    """

    name: ClassVar[str] = "model"
    temperature: float = 0.0
    labels: tuple[str, ...] = ()
    boxes: Boxes = "first"
    keep_margin: float | None = None
    stop_words: tuple[str, ...] = ("done",)
    stop_probability: float = 0.99
    remember_boxes: bool = False

    def check(self, codec: SubtaskCodec | None) -> None:
        codec = check_writes_subtasks(codec)
        if not self.temperature >= 0 or (self.keep_margin is not None and not self.keep_margin >= 0):
            raise ValueError(f"a temperature and a margin are 0 or more, got {self.temperature} and {self.keep_margin}")
        if not 0 <= self.stop_probability <= 1:
            raise ValueError(f"stop_probability is a probability, 0 to 1, got {self.stop_probability}")
        if self.boxes not in ("first", "none"):
            raise ValueError(f"boxes stand 'first' or there are 'none', got {self.boxes!r}")
        codec.encode_labels(self.labels)

    def decider(self, codec: SubtaskCodec | None) -> HighLevel | None:
        return self

    @property
    def batches_continuing_rows(self) -> bool:
        """Whether the choice is greedy: a draw, or a comparison with the previous subtask, needs rows that decide."""
        return not self.temperature and self.keep_margin is None

    def decide(
        self, prefilled: Any, requests: Sequence[SubtaskRequest], *, engine: Engine, codec: SubtaskCodec
    ) -> tuple[list[Decision], Any]:
        # 1) Write a subtask in each row that decides.
        scored = Scored(self.sampler(engine, requests), eos=codec.end) if self.keep_margin is not None else None
        skip_rows = rows_to_skip(requests, device=engine.model.embedding.weight.device)
        written, after = engine.generate(
            prefilled, eos=codec.end, max_new_tokens=SUBTASK_TOKENS,
            allowed=codec.grammar(labels=self.labels, boxes=self.boxes),
            sampler=scored or self.sampler(engine, requests), skip_rows=skip_rows,
        )  # fmt: skip
        tokens = written.tolist()
        said = [codec.decode(ids) for ids in tokens]
        scores = [0.0] * len(tokens) if scored is None else scored.scores.tolist()
        # 2) Where that is a stop which is not sure enough, take the likeliest of all else.
        changed = self.rewrite_doubtful_stops(prefilled, requests, engine=engine, codec=codec, said=said)
        for row, (ids, score) in changed.items():
            tokens[row], scores[row] = ids, score
        # 3) Where the previous subtask is about as likely, take that instead.
        if scored is not None:
            kept = self.kept_rows(prefilled, requests, engine=engine, codec=codec, tokens=tokens, scores=scores)
            changed |= {row: (ids, 0.0) for row, ids in kept.items()}
        if self.remember_boxes:
            changed |= self.with_remembered_boxes(requests, said, codec=codec, changed=changed)
        # 4) Bring what was changed into the cache.
        if changed:
            tokens = [changed[row][0] if row in changed else up_to(ids, codec.end) for row, ids in enumerate(tokens)]
            said = [codec.decode(ids) if row in changed else said[row] for row, ids in enumerate(tokens)]
            before = select_rows(prefilled, range(len(requests)))
            after = sampling.teacher_force(engine, before, tokens, eos=codec.end, skip_rows=skip_rows)
        return [Decision(subtask=subtask) for subtask in said], after

    def rewrite_doubtful_stops(
        self,
        prefilled: Any,
        requests: Sequence[SubtaskRequest],
        *,
        engine: Engine,
        codec: SubtaskCodec,
        said: Sequence[str | None],
    ) -> dict[int, tuple[list[int], float]]:
        """Return other tokens, and their log-probability, for each row that would stop without being sure enough."""
        others = tuple(label for label in self.labels if label not in self.stop_words)
        if not self.stop_probability or self.temperature or (self.labels and not others):
            return {}
        pairs = enumerate(zip(requests, said, strict=True))
        stops = [(row, codec.encode(words)) for row, (one, words) in pairs if one.decide and words in self.stop_words]
        if not stops:
            return {}
        sure = sampling.score(engine, prefilled, stops, eos=codec.end).tolist()
        rows = [row for (row, _), score in zip(stops, sure, strict=True) if score < math.log(self.stop_probability)]
        if not rows:
            return {}
        sampler = Scored(self.sampler(engine, requests), eos=codec.end)
        written, _ = engine.generate(
            select_rows(prefilled, rows), eos=codec.end, max_new_tokens=SUBTASK_TOKENS, sampler=sampler,
            allowed=codec.grammar(labels=others, boxes=self.boxes, without=self.stop_words),
        )  # fmt: skip
        ids = [up_to(row, codec.end) for row in written.tolist()]
        return dict(zip(rows, zip(ids, sampler.scores.tolist(), strict=True), strict=True))

    def sampler(self, engine: Engine, requests: Sequence[SubtaskRequest]) -> Greedy | Multinomial:
        """Return how the next token is chosen in each row."""
        if not self.temperature:
            return Greedy(engine.config.loc_token_range(Kind.TEXT))
        return Multinomial(self.temperature, generators=[fork(request.generator) for request in requests])

    def kept_rows(
        self,
        prefilled: Any,
        requests: Sequence[SubtaskRequest],
        *,
        engine: Engine,
        codec: SubtaskCodec,
        tokens: list[list[int]],
        scores: list[float],
    ) -> dict[int, list[int]]:
        """Return the tokens of the previous subtask for each row where another one is not likely enough."""
        assert self.keep_margin is not None
        rivals: list[tuple[int, list[int]]] = []
        for row, (request, ids) in enumerate(zip(requests, tokens, strict=True)):
            new, previous = (plain_words(text or "") for text in (codec.decode(ids), request.previous))
            if request.previous and new != previous and previous not in self.stop_words:
                rival = codec.encode(request.previous)
                rivals += [(row, rival)] if len(rival) <= SUBTASK_TOKENS else []
        if not rivals:
            return {}
        previous_scores = sampling.score(engine, prefilled, rivals, eos=codec.end).tolist()
        pairs = zip(rivals, previous_scores, strict=True)
        return {row: ids for (row, ids), score in pairs if scores[row] - score < self.keep_margin}

    def with_remembered_boxes(
        self,
        requests: Sequence[SubtaskRequest],
        said: Sequence[str | None],
        *,
        codec: SubtaskCodec,
        changed: Mapping[int, Any],
    ) -> dict[int, tuple[list[int], float]]:
        """Return the tokens of the previous subtask for each row that says its words again and no box."""
        rows = {}
        for row, (request, words) in enumerate(zip(requests, said, strict=True)):
            before = request.previous
            if not (request.decide and before and words) or row in changed or split_box(words)[0] is not None:
                continue
            if split_box(before)[0] is not None and plain_words(before) == words.strip():
                rows[row] = codec.encode(before), 0.0
        return rows


def fork(generator: torch.Generator) -> torch.Generator:
    """Return a generator for one decision, so that the next one does not depend on how long this batch went on."""
    return torch.Generator().manual_seed(int(torch.randint(2**62, (), generator=generator)))


def plain_words(subtask: str) -> str:
    """Return the words of a subtask without its box."""
    return split_box(subtask)[1].strip()


def up_to(tokens: Sequence[int], eos: int) -> list[int]:
    """Return the tokens up to and with the first `eos`."""
    return list(tokens[: tokens.index(eos) + 1] if eos in tokens else tokens)
