"""A small SentencePiece model made like PaliGemma's: words first, then `<loc>` and `<seg>` behind them as user-defined
symbols, so that places are the last ids but 128."""

import io
from pathlib import Path

import sentencepiece

SENTENCES = ("pick up the red cup", "Task: State: Subtask: Action: Question: Answer:", "place it in the sink, done | ;")
USER_DEFINED = 4  # of the piece types in SentencePiece's model.proto


def build(path: Path) -> Path:
    """Writes the model to `path`. Its words are the first ids; `<loc0000>` is the first behind them."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 20), model_writer=model, model_type="bpe", vocab_size=400,
        hard_vocab_limit=False, byte_fallback=True, split_digits=True, normalization_rule_name="identity",
        add_dummy_prefix=False, remove_extra_whitespaces=False, user_defined_symbols=["<mask>", "\n"],
        pad_id=0, eos_id=1, bos_id=2, unk_id=3, pad_piece="<pad>", eos_piece="<eos>", bos_piece="<bos>", minloglevel=2,
    )  # fmt: skip
    marks = [f"<loc{n:04d}>" for n in range(1024)] + [f"<seg{n:03d}>" for n in range(128)]
    path.write_bytes(model.getvalue() + b"".join(map(piece, marks)))
    return path


def piece(text: str) -> bytes:
    """One more entry of the repeated field `pieces`: protobuf reads what is appended as if it had been there."""
    inner = field(1, text.encode()) + bytes([3 << 3, USER_DEFINED])
    return field(1, inner)


def field(number: int, content: bytes) -> bytes:
    assert len(content) < 128
    return bytes([number << 3 | 2, len(content)]) + content
