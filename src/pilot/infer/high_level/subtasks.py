"""How subtasks are written and read: tokens of words with a box in front, or of one of some labels.

A subtask is text such as `<loc0100><loc0200><loc0300><loc0400>pick up the red cup`: its box as four `<loc>` tokens, or
none, then words. The box and the words are acted on together.
"""

from collections.abc import Sequence
from typing import Literal

from pilot.tokenizers.base import action_ids
from pilot.tokenizers.grammar import Grammar, LabelGrammar, TextGrammar, WithoutGrammar
from pilot.tokenizers.prompts import ACTION_START, SUBTASK_END, encode_target
from pilot.tokenizers.text import TextTokenizer

SUBTASK_TOKENS = 24
BOX_TOKENS = 4

Boxes = Literal["first", "none"]
"""Whether a box may stand in front of the words."""


class SubtaskCodec:
    """The tokens of subtasks, for a model with this text tokenizer and vocabulary. `end` is the token that ends one."""

    def __init__(self, text: TextTokenizer, *, vocab_size: int, action_tokens: int = 0, action_offset: int = 0) -> None:
        self.text = text
        self.vocab_size = vocab_size
        self.end = text.encode("x" + SUBTASK_END)[-1]
        self.action_ids = action_ids(vocab_size, action_tokens, offset=action_offset) if action_tokens else range(0)
        self._grammars: dict[tuple[tuple[str, ...], Boxes, tuple[str, ...]], Grammar] = {}

    def encode(self, subtask: str) -> list[int]:
        """Return the tokens of a subtask, with their end."""
        return encode_target(self.text, "subtask", text=subtask)

    def decode(self, tokens: Sequence[int]) -> str | None:
        """Return the subtask that tokens are, up to its end; None if it is empty."""
        subtask = self.text.decode(tokens).split(SUBTASK_END)[0]
        return subtask if subtask.strip() else None

    def grammar(
        self, *, labels: tuple[str, ...] = (), boxes: Boxes = "first", without: tuple[str, ...] = ()
    ) -> Grammar:
        """Return the grammar of subtasks, or of these labels alone. No token of actions is ever a word.

        Free words do not begin with any of the words `without`, except behind a box.
        """
        key = labels, boxes, without
        if key not in self._grammars:
            words = self.text_grammar(boxes=boxes)
            grammar: Grammar = words if not labels else LabelGrammar(
                self.text, labels, vocab_size=self.vocab_size, name="subtask",
                boxes=words if boxes == "first" else None,
            )  # fmt: skip
            if without and not labels:
                grammar = WithoutGrammar(grammar, [self.encode(word)[:-1] for word in without])
            self._grammars[key] = grammar
        return self._grammars[key]

    def text_grammar(self, *, boxes: Boxes) -> TextGrammar:
        """Return the grammar of free words, with a box in front or none."""
        actions = [*self.action_ids]
        # A model that has learned rows without a subtask also wants to go on with its actions at once.
        start = self.text.encode(ACTION_START)[0]
        if self.text.decode([start]).strip(" :") == ACTION_START.strip(" :"):
            actions.append(start)
        return TextGrammar(self.text, vocab_size=self.vocab_size, end=self.end, boxes=boxes, actions=actions)

    def encode_labels(self, labels: Sequence[str]) -> list[list[int]]:
        """Return the tokens of each label, with their end.

        Raises:
            ValueError: a label is empty, has a box, or leaves no room for one; or they are not a tuple, which can be
                compared.
        """
        if not isinstance(labels, tuple):
            raise ValueError(f"labels are a tuple of words, got {labels!r}")
        rows = [self.encode(label) for label in labels]
        for label, ids in zip(labels, rows, strict=True):
            if "<loc" in label or len(ids) > SUBTASK_TOKENS - BOX_TOKENS:
                raise ValueError(
                    f"label {label!r} has {len(ids)} tokens; labels are words without a box, "
                    f"{SUBTASK_TOKENS - BOX_TOKENS} tokens at most"
                )
        return rows
