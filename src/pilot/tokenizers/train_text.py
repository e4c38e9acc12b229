"""Rebuild `assets/nano.model`, the text model of the small configurations: `python -m pilot.tokenizers.train_text`.

The same kind of SentencePiece model as PaliGemma's (BPE, byte fallback, no normalisation, `<pad>` 0, `<eos>` 1,
`<bos>` 2, `<unk>` 3), kept as small as a one-laptop model needs. Three groups of symbols are fixed, so that a prompt
is short: the pieces of the prompt formats, the 1024 `<loc>` tokens, and the numbers 0 to 255 with the space before
them (a state of five dims is five tokens). The words of a simulated home are learned by BPE, each ending as one
piece; any other text falls back to letters and bytes and still survives the round trip.

Training is deterministic: the same word list gives the same bytes.
"""

import io
from collections.abc import Sequence

import sentencepiece

from pilot.tokenizers.base import write_atomically
from pilot.tokenizers.text import LOC_BINS, NANO_MODEL, loc_token

SPACE = "▁"  # SentencePiece's visible space

FORMAT_PIECES = (
    "\n",
    ";",
    ":",
    ",",
    f",{SPACE}",
    "|",
    "?",
    ".",
    ";\n",
    "Task:",
    f",{SPACE}State:",
    f";\nSubtask:{SPACE}",
    f";\nAction:{SPACE}",
    f"Action:{SPACE}",
    "Question:",
    f"\nAnswer:{SPACE}",
)

# Every word is one piece after a space and without one: a text that follows a <loc> token has no space in front.
WORDS = (
    "red green blue yellow purple orange",
    "cup bowl plate block ball bottle book hat dishes toys objects everything nothing",
    "sink basket tray bin crate table gripper",
    "put place move clear pick up it in into to on the all and a done grab take drop now",
    "detect list caption what where how many is are there at of colour kind yes no none",
)

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"  # any other character costs one token per byte
LEARNED = 254  # letters and merges; the fewest that make every word one piece, so re-count it when a word is added


def build_nano_model() -> bytes:
    """Train the text model of the generated homes and return it as bytes.

    Raises:
        ValueError: a word is more than one piece, so `LEARNED` is too small for the list.
    """
    return _train(nano_words(), learned=LEARNED)


CONTROL_MODES = tuple(
    f"{SPACE}<control{SPACE}mode>{SPACE}{mode}{SPACE}<control{SPACE}mode>" for mode in ("joint", f"end{SPACE}effector")
)


def build_text_model(words: Sequence[str]) -> bytes:
    """Train a text model in which each of these words is one piece, and what a prompt says of a control mode too.

    It has as few pieces as that takes, in steps of 64.
    """
    learned = len(words)
    while True:
        learned += 64
        try:
            return _train(words, learned=learned, more=CONTROL_MODES)
        except ValueError:
            continue


def nano_words() -> list[str]:
    """Return the words of the generated homes."""
    return [word for line in WORDS for word in line.split()]


def _train(words: Sequence[str], *, learned: int, more: Sequence[str] = ()) -> bytes:
    symbols = [*FORMAT_PIECES, *(f"{SPACE}{n}" for n in range(256)), *(loc_token(n) for n in range(LOC_BINS)), *more]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([form for word in words for form in (word, f" {word}")]),
        model_writer=model,
        model_type="bpe",
        vocab_size=4 + 256 + len(symbols) + learned,
        user_defined_symbols=symbols,
        required_chars=LETTERS,
        byte_fallback=True,
        split_digits=False,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        pad_id=0,
        eos_id=1,
        bos_id=2,
        unk_id=3,
        pad_piece="<pad>",
        eos_piece="<eos>",
        bos_piece="<bos>",
        minloglevel=2,
    )
    _check_words(words, sentencepiece.SentencePieceProcessor(model_proto=model.getvalue()), learned=learned)
    return model.getvalue()


def _check_words(words: Sequence[str], processor: sentencepiece.SentencePieceProcessor, *, learned: int) -> None:
    broken = [w for w in words if len(processor.encode(w)) > 1 or len(processor.encode(f" {w}")) > 1]
    if broken:
        raise ValueError(f"{len(broken)} words are more than one piece: {broken}; raise LEARNED (now {learned})")


if __name__ == "__main__":
    write_atomically(NANO_MODEL, build_nano_model())
    print(f"wrote {NANO_MODEL}")
