"""SayCan: how likely the model writes each of some labels, times how feasible the label is.

Source: SayCan (arXiv 2204.01691), equation 1.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float

from pilot.data.layout import Kind
from pilot.infer.engine import sampling
from pilot.infer.engine.protocol import Engine
from pilot.infer.engine.sampling import Multinomial, select_rows
from pilot.infer.high_level.base import Decision, HighLevel, SubtaskRequest, check_writes_subtasks
from pilot.infer.high_level.subtasks import BOX_TOKENS, SubtaskCodec
from pilot.tokenizers.grammar import TextGrammar

Affordance = Callable[[Mapping[str, Any], Sequence[str]], Float[np.ndarray, " n"]]
"""How feasible each label is now, in 0…1, from a raw observation."""


@dataclass(frozen=True, kw_only=True)
class SayCan(HighLevel):
    """Scores `labels`: how likely the model writes one, times how feasible it is.

    How likely is `p(label) = p(label, no box) + p(a box) · mean of p(label | box)` over as many `boxes` as are drawn
    from the model, which writes where before it writes what. With 0 boxes the first term is left alone. The label with
    the largest product is taken, with the box that makes it likeliest.
    """

    name: ClassVar[str] = "saycan"
    labels: tuple[str, ...]
    affordance: Affordance | None = None
    boxes: int = 4

    def check(self, codec: SubtaskCodec | None) -> None:
        codec = check_writes_subtasks(codec)
        if not self.labels or self.boxes < 0:
            raise ValueError(f"give saycan labels to score, and 0 or more boxes; got {self.labels} and {self.boxes}")
        codec.encode_labels(self.labels)

    def decider(self, codec: SubtaskCodec | None) -> HighLevel | None:
        return self

    def prepare(self, observation: Mapping[str, Any]) -> Float[np.ndarray, " n"]:
        """Return the affordance of each label."""
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

    def decide(
        self, prefilled: Any, requests: Sequence[SubtaskRequest], *, engine: Engine, codec: SubtaskCodec
    ) -> tuple[list[Decision], Any]:
        chosen = [
            self.choose(prefilled, request, row=row, engine=engine, codec=codec) for row, request in enumerate(requests)
        ]
        tokens = [ids for ids, _ in chosen]
        decisions = [Decision(subtask=codec.decode(ids), details={"scores": scores}) for ids, scores in chosen]
        return decisions, sampling.teacher_force(engine, prefilled, tokens, eos=codec.end)

    def choose(
        self, prefilled: Any, request: SubtaskRequest, *, row: int, engine: Engine, codec: SubtaskCodec
    ) -> tuple[list[int], dict[str, float]]:
        """Return the tokens of the label for one row, its box in front, and the product of every label.

        Labels that are not feasible are not scored: whatever they would get, their product is 0.
        """
        feasible = np.flatnonzero(request.prepared)
        labels = [codec.encode_labels(self.labels)[k] for k in feasible]
        probability = bare = probabilities(engine, prefilled, [(row, ids) for ids in labels], eos=codec.end)
        boxes: list[list[int]] = []
        by_box = np.zeros((0, len(labels)))
        if self.boxes:
            boxes, after, any_box = self.draw_boxes(
                prefilled, row=row, engine=engine, codec=codec, generator=request.generator
            )
            behind = [(k, ids) for k in range(self.boxes) for ids in labels]
            by_box = any_box * probabilities(engine, after, behind, eos=codec.end).reshape(self.boxes, -1)
            probability = bare + by_box.mean(0)
        product = np.zeros(len(self.labels))
        product[feasible] = probability * request.prepared[feasible]
        best = int(product[feasible].argmax())
        with_box = probability[best] > 2 * bare[best]  # more of it with a box than without
        box = boxes[int(by_box[:, best].argmax())] if with_box else []
        return [*box, *labels[best]], dict(zip(self.labels, product.tolist(), strict=True))

    def draw_boxes(
        self, prefilled: Any, *, row: int, engine: Engine, codec: SubtaskCodec, generator: torch.Generator
    ) -> tuple[list[list[int]], Any, float]:
        """Draw boxes; return them, the state with one in each row, and how likely a box is at all."""
        one = select_rows(prefilled, [row])
        start, stop = engine.config.loc_token_range(Kind.TEXT) or (0, 0)
        assert one.hidden is not None, "prefilled without room to generate"
        any_box = engine.model.logits(one.hidden).float().softmax(-1)[0, start:stop].sum()
        boxes, after = engine.generate(
            select_rows(one, [0] * self.boxes), eos=codec.end, max_new_tokens=BOX_TOKENS,
            allowed=BoxGrammar(codec.text_grammar(boxes="first")),
            sampler=Multinomial(1.0, generators=[generator] * self.boxes),
        )  # fmt: skip
        return boxes.tolist(), after, float(any_box)


class BoxGrammar:
    """One box: four `<loc>` tokens, as a grammar with boxes has them."""

    def __init__(self, grammar: TextGrammar) -> None:
        self.grammar = grammar

    def allowed(self, generated: Sequence[int]) -> Bool[np.ndarray, " v"]:
        return self.grammar.allowed(generated) if generated else self.grammar.loc_mask


def probabilities(
    engine: Engine, prefilled: Any, texts: list[tuple[int, list[int]]], *, eos: int
) -> Float[np.ndarray, " n"]:
    """Compute the probability of each `(row, tokens)`."""
    return np.array(sampling.score(engine, prefilled, texts, eos=eos).double().exp().tolist())
