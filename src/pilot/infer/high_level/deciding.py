"""High levels that decide on what the model has read: the model itself, and SayCan.

Source of the second: SayCan (arXiv 2204.01691), equation 1.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import numpy as np
import torch
from jaxtyping import Bool, Float

from pilot.data.layout import Kind
from pilot.infer.engine import sampling
from pilot.infer.engine.sampling import Multinomial, Scored, select_rows
from pilot.infer.high_level.base import SUBTASK_TOKENS, HighLevel, check_decides
from pilot.models.generation import Greedy
from pilot.tokenizers.grammar import Grammar, LabelGrammar, TextGrammar
from pilot.tokenizers.prompts import encode_target

if TYPE_CHECKING:
    from pilot.infer.engine.fast import FastEngine
    from pilot.infer.engine.state import PrefillState
    from pilot.infer.policy import Policy
    from pilot.infer.session import Turn

BOX_TOKENS = 4


@dataclass(frozen=True, kw_only=True)
class Model(HighLevel):
    """The model itself.

    `temperature` 0 says the likeliest, others draw. `labels`: the only subtasks to choose from. `boxes`: whether one
    may stand in front (`first`) or not (`none`). `keep_margin`: another subtask than the old one must be more likely
    than that by so much, in log-probability, boxes included; it need not where the person has spoken or the subtask
    has ended, or where the old one is `never_kept`: who has said "done" too soon has nothing to lose by going on.
    """

    name: ClassVar[str] = "model"
    temperature: float = 0.0
    labels: tuple[str, ...] = ()
    boxes: Literal["first", "none"] = "first"
    keep_margin: float | None = None
    never_kept: tuple[str, ...] = ("done",)

    def check(self, policy: "Policy") -> None:
        check_decides(policy)
        if not self.temperature >= 0 or (self.keep_margin is not None and not self.keep_margin >= 0):
            raise ValueError(f"a temperature and a margin are 0 or more, got {self.temperature} and {self.keep_margin}")
        if self.boxes not in ("first", "none"):
            raise ValueError(f"boxes stand 'first' or there are 'none', got {self.boxes!r}")
        label_ids(policy, self.labels)

    def decider(self, policy: "Policy") -> HighLevel | None:
        return self

    @property
    def mixes(self) -> bool:
        """What is drawn, or weighed against an old subtask, is so for rows that decide."""
        return not self.temperature and self.keep_margin is None

    def decide(self, policy: "Policy", prefilled: Any, turns: Sequence["Turn"]) -> Any:
        if self == Model():
            said, after = policy.generate(prefilled, skip_rows=silent_rows(turns, device=policy.device))
        else:
            said, after = self.generate(policy, prefilled, turns)
        for turn, tokens in zip(turns, said, strict=True):
            if turn.decide:
                turn.spoken = policy.subtask_text(tokens)
        return after

    def generate(self, policy: "Policy", prefilled: Any, turns: Sequence["Turn"]) -> tuple[list[list[int]], Any]:
        """What each row says, and the reading that goes on with it."""
        engine, eos = engine_of(policy), policy.subtask_end
        if self.temperature:
            sampler = Multinomial(self.temperature, generators=[fork(turn.session.words_generator) for turn in turns])
        else:
            sampler = Greedy(engine.config.loc_token_range(Kind.TEXT))
        scored = Scored(sampler, eos=eos)
        before = None if self.keep_margin is None else select_rows(prefilled, range(len(turns)))
        tokens, after = engine.generate(
            prefilled, eos=eos, max_new_tokens=SUBTASK_TOKENS, allowed=self.grammar(policy), sampler=scored,
            skip_rows=silent_rows(turns, device=policy.device),
        )  # fmt: skip
        said = tokens.tolist()
        if before is None:
            return said, after
        kept = self.kept(policy, before, turns, said=said, scores=scored.scores.tolist())
        if not kept:
            return said, after
        said = [kept.get(row, up_to(tokens, eos)) for row, tokens in enumerate(said)]
        return said, sampling.teacher_force(engine, before, said, eos=eos)

    def kept(
        self, policy: "Policy", prefilled: Any, turns: Sequence["Turn"], *, said: list[list[int]], scores: list[float]
    ) -> dict[int, list[int]]:
        """The tokens of the old subtask, in the rows where it stays: `said` is another one, and not enough likelier."""
        assert self.keep_margin is not None
        rivals: list[tuple[int, list[int]]] = []
        for row, (turn, tokens) in enumerate(zip(turns, said, strict=True)):
            new, old = (in_words(policy, text or "") for text in (policy.subtask_text(tokens), turn.old))
            if turn.old and new != old and old not in self.never_kept:
                ids = encode_target(policy.bundle.text, "subtask", text=turn.old)
                rivals += [(row, ids)] if len(ids) <= SUBTASK_TOKENS else []
        if not rivals:
            return {}
        old = sampling.score(engine_of(policy), prefilled, rivals, eos=policy.subtask_end).tolist()
        pairs = zip(rivals, old, strict=True)
        return {row: ids for (row, ids), likely in pairs if scores[row] - likely < self.keep_margin}

    def grammar(self, policy: "Policy") -> Grammar:
        key = self.labels, self.boxes
        if key not in policy.grammars:
            words = policy.text_grammar(boxes=self.boxes)
            policy.grammars[key] = words if not self.labels else LabelGrammar(
                policy.bundle.text, self.labels, vocab_size=policy.model.config.vocab_size, name="subtask",
                boxes=words if self.boxes == "first" else None,
            )  # fmt: skip
        return policy.grammars[key]


Affordance = Callable[[Mapping[str, Any], Sequence[str]], Float[np.ndarray, " n"]]
"""How feasible each label is now, in 0…1, from a raw observation."""


@dataclass(frozen=True, kw_only=True)
class SayCan(HighLevel):
    """Scores `labels`: how likely the model says one, times how feasible it is.

    How likely is `p(label) = p(label, no box) + p(a box) · mean of p(label | box)` over as many `boxes` as are drawn
    from the model: it says where before it says what. 0 boxes leave the first term alone. The label with the largest
    product is said, with the box that makes it likeliest.
    """

    name: ClassVar[str] = "saycan"
    labels: tuple[str, ...]
    affordance: Affordance | None = None
    boxes: int = 4

    def check(self, policy: "Policy") -> None:
        check_decides(policy)
        if not self.labels or self.boxes < 0:
            raise ValueError(f"give saycan labels to score, and 0 or more boxes; got {self.labels} and {self.boxes}")
        label_ids(policy, self.labels)

    def decider(self, policy: "Policy") -> HighLevel | None:
        return self

    def prepare(self, observation: Mapping[str, Any]) -> Float[np.ndarray, " n"]:
        """The affordance of each label."""
        if self.affordance is None:
            return np.ones(len(self.labels))
        values = np.asarray(self.affordance(observation, self.labels), float)
        if values.shape != (len(self.labels),) or not ((values >= 0) & (values <= 1)).all():
            raise ValueError(
                f"an affordance is a number in 0…1 for each of {len(self.labels)} labels, got {values.tolist()}"
            )
        if not values.any():
            raise ValueError("the affordance allows none of the labels; let it allow one at least, such as 'done'")
        return values

    def decide(self, policy: "Policy", prefilled: Any, turns: Sequence["Turn"]) -> Any:
        said = [self.check_name(policy, prefilled, row, turn=turn) for row, turn in enumerate(turns)]
        for turn, tokens in zip(turns, said, strict=True):
            turn.spoken = policy.subtask_text(tokens)
        return sampling.teacher_force(engine_of(policy), prefilled, said, eos=policy.subtask_end)

    def check_name(self, policy: "Policy", prefilled: Any, row: int, *, turn: "Turn") -> list[int]:
        """The tokens of the label for one row, its box in front; what every label is worth goes into the answer."""
        engine, eos, labels = engine_of(policy), policy.subtask_end, label_ids(policy, self.labels)
        likely = bare = np.array(self.scores(engine, prefilled, [(row, ids) for ids in labels], eos=eos))
        boxes, by_box = [], np.zeros((0, len(labels)))
        if self.boxes:
            boxes, after, any_box = self.draw_boxes(policy, prefilled, row, generator=turn.session.words_generator)
            found = self.scores(engine, after, [(k, ids) for k in range(self.boxes) for ids in labels], eos=eos)
            by_box = any_box * np.reshape(found, (self.boxes, -1))
            likely = bare + by_box.mean(0)
        worth = likely * turn.prepared
        best = int(worth.argmax())
        turn.answer["scores"] = dict(zip(self.labels, worth.tolist(), strict=True))
        with_box = likely[best] > 2 * bare[best]  # more of it with a box than without
        return [*(boxes[int(by_box[:, best].argmax())] if with_box else []), *labels[best]]

    def scores(
        self, engine: "FastEngine", prefilled: Any, said: list[tuple[int, list[int]]], *, eos: int
    ) -> list[float]:
        return sampling.score(engine, prefilled, said, eos=eos).double().exp().tolist()

    def draw_boxes(
        self, policy: "Policy", prefilled: Any, row: int, *, generator: torch.Generator
    ) -> tuple[list[list[int]], "PrefillState", float]:
        """Boxes, the reading that goes on with one in each row, and how likely it is that there is one at all."""
        engine, grammar = engine_of(policy), OneBox(policy.text_grammar(boxes="first"))
        once = select_rows(prefilled, [row])
        start, stop = engine.config.loc_token_range(Kind.TEXT) or (0, 0)
        assert once.hidden is not None, "the reading was made without room to speak"
        likely = engine.model.logits(once.hidden).float().softmax(-1)[0, start:stop].sum()
        sampler = Multinomial(1.0, generators=[generator] * self.boxes)
        many = select_rows(once, [0] * self.boxes)
        boxes, after = engine.generate(
            many, eos=policy.subtask_end, max_new_tokens=BOX_TOKENS, allowed=grammar, sampler=sampler
        )
        return boxes.tolist(), after, float(likely)


class OneBox:
    """Four places, as a grammar with boxes has them."""

    def __init__(self, grammar: TextGrammar) -> None:
        self.grammar = grammar

    def allowed(self, said: Sequence[int]) -> Bool[np.ndarray, " v"]:
        return self.grammar.allowed(said) if said else self.grammar.loc_mask


def engine_of(policy: "Policy") -> "FastEngine":
    """What decides can speak."""
    return cast("FastEngine", policy.engine)


def silent_rows(turns: Sequence["Turn"], *, device: str) -> Bool[torch.Tensor, " b"] | None:
    """Which rows do not decide now; None if all do."""
    if all(turn.decide for turn in turns):
        return None
    return torch.tensor([not turn.decide for turn in turns], device=device)


def fork(generator: torch.Generator) -> torch.Generator:
    """A generator for one decision. Rows draw on until all have ended, and the next decision is not to know of that."""
    return torch.Generator().manual_seed(int(torch.randint(2**62, (), generator=generator)))


def in_words(policy: "Policy", subtask: str) -> str:
    return policy.pipeline.split_subtask(subtask)[0]


def up_to(tokens: Sequence[int], eos: int) -> list[int]:
    return list(tokens[: tokens.index(eos) + 1] if eos in tokens else tokens)


def label_ids(policy: "Policy", labels: Sequence[str]) -> list[list[int]]:
    """The tokens of each label, with their end.

    Raises:
        ValueError: a label is empty, has a box, or leaves no room for one; not a tuple, which can be compared.
    """
    if not isinstance(labels, tuple):
        raise ValueError(f"labels are a tuple of words, got {labels!r}")
    rows = [encode_target(policy.bundle.text, "subtask", text=label) for label in labels]
    for label, ids in zip(labels, rows, strict=True):
        if "<loc" in label or len(ids) > SUBTASK_TOKENS - BOX_TOKENS:
            raise ValueError(
                f"label {label!r} has {len(ids)} tokens; labels are words without places, "
                f"{SUBTASK_TOKENS - BOX_TOKENS} tokens at most"
            )
    return rows
