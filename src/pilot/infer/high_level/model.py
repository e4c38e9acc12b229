"""The model itself as the high level: it writes the next subtask behind its own prefill."""

from collections.abc import Sequence
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
    prompt or the end of a subtask, nor for a previous one in `never_kept`: a robot that is "done" too soon loses
    nothing by continuing.
    """

    name: ClassVar[str] = "model"
    temperature: float = 0.0
    labels: tuple[str, ...] = ()
    boxes: Boxes = "first"
    keep_margin: float | None = None
    never_kept: tuple[str, ...] = ("done",)

    def check(self, codec: SubtaskCodec | None) -> None:
        codec = check_writes_subtasks(codec)
        if not self.temperature >= 0 or (self.keep_margin is not None and not self.keep_margin >= 0):
            raise ValueError(f"a temperature and a margin are 0 or more, got {self.temperature} and {self.keep_margin}")
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
        before = None if scored is None else select_rows(prefilled, range(len(requests)))
        written, after = engine.generate(
            prefilled, eos=codec.end, max_new_tokens=SUBTASK_TOKENS,
            allowed=codec.grammar(labels=self.labels, boxes=self.boxes),
            sampler=scored or self.sampler(engine, requests),
            skip_rows=rows_to_skip(requests, device=engine.model.embedding.weight.device),
        )  # fmt: skip
        tokens = written.tolist()
        # 2) Where the previous subtask is about as likely, take that instead and bring it into the cache.
        if scored is not None:
            assert before is not None
            scores = scored.scores.tolist()
            kept = self.kept_rows(before, requests, engine=engine, codec=codec, tokens=tokens, scores=scores)
            if kept:
                tokens = [kept.get(row, up_to(ids, codec.end)) for row, ids in enumerate(tokens)]
                after = sampling.teacher_force(engine, before, tokens, eos=codec.end)
        return [Decision(subtask=codec.decode(ids)) for ids in tokens], after

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
            if request.previous and new != previous and previous not in self.never_kept:
                rival = codec.encode(request.previous)
                rivals += [(row, rival)] if len(rival) <= SUBTASK_TOKENS else []
        if not rivals:
            return {}
        previous_scores = sampling.score(engine, prefilled, rivals, eos=codec.end).tolist()
        pairs = zip(rivals, previous_scores, strict=True)
        return {row: ids for (row, ids), score in pairs if scores[row] - score < self.keep_margin}


def fork(generator: torch.Generator) -> torch.Generator:
    """Return a generator for one decision, so that the next one does not depend on how long this batch went on."""
    return torch.Generator().manual_seed(int(torch.randint(2**62, (), generator=generator)))


def plain_words(subtask: str) -> str:
    """Return the words of a subtask without its box."""
    return split_box(subtask)[1].strip()


def up_to(tokens: Sequence[int], eos: int) -> list[int]:
    """Return the tokens up to and with the first `eos`."""
    return list(tokens[: tokens.index(eos) + 1] if eos in tokens else tokens)
