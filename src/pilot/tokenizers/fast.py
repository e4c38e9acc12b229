"""FAST: a chunk of actions as a short text (2501.09747, section V).

Neighbouring actions are alike, so a cosine transform over time leaves a few large numbers, the low frequencies. They
are scaled, rounded, put in a row with the lowest frequency of all dims first, written as one character each, and
compressed by byte-level BPE. The folder on disk is that of the published processor (`processor_config.json`,
`tokenizer.json`), so the released tokenizer and ones fitted here are interchangeable.

The published code does not tell what it loses. This one makes the same tokens and tells: a rounded coefficient that a
tokenizer cannot write is a warning, and a sequence that is no chunk decodes to an error, not to zeros.

Axes: `n` chunks, `t` steps (and frequencies), `d` action dims, `v` ids.
"""

import codecs
import json
import warnings
from collections.abc import Sequence
from functools import cache
from itertools import islice
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int

from pilot.tokenizers.base import DecodeResult, check_chunks, check_ids, write_atomically
from pilot.tokenizers.text import Ids
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

CONFIG_FILE, BPE_FILE = "processor_config.json", "tokenizer.json"
MAX_SYMBOL = 0xD7FF  # the last character before UTF-16's surrogates, which no text holds


class FastTokenizer:
    """FAST. `scale` trades length for accuracy; symbol 0 stands for the rounded coefficient `min_token`.

    `max_token` is the largest coefficient with a symbol of its own: beyond it, as below `min_token`, encoding
    saturates. Published folders have none, tokenizers fitted here have one.
    """

    def __init__(self, bpe: Tokenizer, *, scale: float, min_token: int, max_token: int | None = None) -> None:
        self.bpe = bpe
        self.scale = scale
        self.min_token = min_token
        self.max_token = max_token
        pieces = sorted(bpe.get_vocab().items(), key=lambda item: item[1])
        self._alphabet = {piece for piece, _ in pieces if len(piece) == 1}
        self._bytes = [_bytes_of(piece) for piece, _ in pieces]
        self._followers: dict[bytes, Int[np.ndarray, " v"]] = {}
        self._finishable: dict[bytes, bool] = {}

    @property
    def vocab_size(self) -> int:
        return self.bpe.get_vocab_size()

    @classmethod
    def fit(
        cls,
        chunks: Float[np.ndarray, "n t d"],
        *,
        vocab_size: int = 1024,
        scale: float = 10.0,
        others: Sequence[np.ndarray] = (),
    ) -> "FastTokenizer":
        """Learn the merges from chunks of normalised actions; `others` are chunks [n t d] of robots with other dims.

        Raises:
            ValueError: chunks with NaN, or a vocabulary too small to hold every symbol.
        """
        for own in (chunks, *others):
            check_chunks(own, 3)
        coefficients = [_coefficients(own, scale) for own in (chunks, *others)]
        low, high = int(min(own.min() for own in coefficients)), int(max(own.max() for own in coefficients))
        if high - low > MAX_SYMBOL:
            raise ValueError(f"coefficients reach from {low} to {high}: normalise the actions to about [-1, 1] first")
        # Every value between the extremes gets a symbol, also those that this data lacks: new data may have them.
        alphabet = sorted(_byte_symbols("".join(chr(n) for n in range(high - low + 1))))
        if len(alphabet) > vocab_size:
            raise ValueError(
                f"vocab_size {vocab_size} is too small for the {len(alphabet)} symbols of this data; "
                f"take a larger one, or a scale below {scale}"
            )
        texts = [text for own in coefficients for text in _texts((own - low).astype(np.int64))]
        return cls(_train_bpe(texts, vocab_size, alphabet), scale=scale, min_token=low, max_token=high)

    def encode(self, chunk: Float[np.ndarray, "t d"]) -> list[int]:
        """Return the ids of one chunk, as many as it needs."""
        check_chunks(chunk, 2)
        return self.encode_batch(chunk[None])[0]

    def encode_batch(self, chunks: Float[np.ndarray, "n t d"]) -> list[list[int]]:
        """Return the ids of each chunk; warn where a coefficient has no symbol.

        Raises:
            ValueError: chunks with NaN, or so far from [-1, 1] that no symbol could stand for them.
        """
        texts = _texts(self._symbols(chunks))
        self._warn_about_lost_symbols(texts)
        return [encoding.ids for encoding in self.bpe.encode_batch_fast(texts, add_special_tokens=False)]

    def decode(self, ids: Ids, horizon: int, dim: int) -> DecodeResult:
        """Return the chunk `[horizon dim]` that `ids` stand for, or what is wrong with them."""
        numbers = check_ids(ids, self.vocab_size)
        if isinstance(numbers, DecodeResult):
            return numbers
        text, pending, error = self._read(numbers, horizon, dim)
        if error:
            return error
        if pending or len(text) < horizon * dim:
            message = f"{len(text)} coefficients, a chunk of {horizon} x {dim} needs {horizon * dim}"
            return DecodeResult(error=message, position=len(numbers))
        symbols = np.fromiter(map(ord, text), np.int64, len(text)).reshape(horizon, dim)
        return DecodeResult(actions=_dct_matrix(horizon).T @ ((symbols + self.min_token) / self.scale))

    def allowed(self, ids: Sequence[int], horizon: int, dim: int) -> Bool[np.ndarray, " v"]:
        """Return the ids that make whole characters after `ids`, and no more of them than a chunk has coefficients.

        Raises:
            ValueError: `ids` are malformed already.
        """
        text, pending, error = self._read(ids, horizon, dim)
        if error:
            raise ValueError(f"nothing may follow token {error.position}: {error.error}")
        # A character may take several tokens: only those that can still be finished within the chunk are allowed.
        needed = self._follow(pending)
        return (needed > 0) & (len(text) + needed <= horizon * dim)

    def character_tables(self) -> tuple[Int[np.ndarray, "p v"], Int[np.ndarray, "p v"], Int[np.ndarray, "p v"]]:
        """Return `allowed` as tables, by the unfinished character (0: none) and the id that follows it.

        They are how many characters the id begins or ends (0 where it may not follow), how many it finishes, and which
        character it leaves unfinished.
        """
        states, needed, written, following = {b"": 0}, [], [], []
        for pending in iter(lambda: next(islice(states, len(needed), None), None), None):
            needed.append(self._follow(pending))
            rows = [_whole_characters(pending + self._bytes[i]) if needed[-1][i] else ("", b"") for i in
                    range(self.vocab_size)]  # fmt: skip
            written.append([len(text) for text, _ in rows])
            following.append([states.setdefault(rest, len(states)) for _, rest in rows])
        return np.stack(needed), np.array(written), np.array(following)

    def _read(self, ids: Sequence[int], horizon: int, dim: int) -> tuple[str, bytes, DecodeResult | None]:
        """Return the characters of `ids`, the bytes of an unfinished one at the end, and the error, if there is one."""
        text, pending = "", b""
        for position, i in enumerate(ids):
            try:
                added, pending = _whole_characters(pending + self._bytes[i])
            except UnicodeDecodeError:
                error = "the tokens do not make whole characters"
                return text, pending, DecodeResult(error=error, position=position)
            text += added
            if (got := len(text) + bool(pending)) > horizon * dim:
                error = f"{got} coefficients or more, a chunk of {horizon} x {dim} needs {horizon * dim}"
                return text, pending, DecodeResult(error=error, position=position)
        return text, pending, None

    def _follow(self, pending: bytes) -> Int[np.ndarray, " v"]:
        """Return how many characters each id begins or ends after `pending`; 0 where it cannot follow."""
        if pending not in self._followers:
            self._followers[pending] = np.array([self._needed(pending + written) for written in self._bytes])
        return self._followers[pending]

    def _needed(self, written: bytes) -> int:
        try:
            text, pending = _whole_characters(written)
        except UnicodeDecodeError:
            return 0
        return len(text) + bool(pending) if self._can_finish(pending) else 0

    def _can_finish(self, pending: bytes) -> bool:
        """Return whether tokens exist that finish this character and write nothing behind it."""
        if pending not in self._finishable:
            self._finishable[pending] = not pending or any(self._finishes(pending, end) for end in self._bytes)
        return self._finishable[pending]

    def _finishes(self, pending: bytes, end: bytes) -> bool:
        try:
            text, rest = _whole_characters(pending + end)
        except UnicodeDecodeError:
            return False
        return (len(text) == 1 and not rest) if text else self._can_finish(rest)

    def save(self, folder: str | Path) -> None:
        """Write the processor folder; the configuration comes last, so a half-written folder is not taken for one."""
        folder = Path(folder)
        (folder / CONFIG_FILE).unlink(missing_ok=True)
        write_atomically(folder / BPE_FILE, self.bpe.to_str(pretty=True).encode())
        write_atomically(folder / "special_tokens_map.json", b"{}\n")
        wrapper = {"clean_up_tokenization_spaces": False, "tokenizer_class": "PreTrainedTokenizerFast"}
        write_atomically(folder / "tokenizer_config.json", json.dumps(wrapper, indent=2).encode())
        config = {
            "scale": self.scale,
            "vocab_size": self.vocab_size,
            "min_token": self.min_token,
            "max_token": self.max_token,
            "action_dim": None,
            "time_horizon": None,
            "processor_class": "UniversalActionProcessor",
        }
        write_atomically(folder / CONFIG_FILE, json.dumps(config, indent=2).encode())

    @classmethod
    def load(cls, folder: str | Path) -> "FastTokenizer":
        """Read a processor folder.

        Raises:
            FileNotFoundError: a file is missing, as after an interrupted save.
            ValueError: a file is damaged, or lacks a field.
        """
        folder = Path(folder)
        for name in (CONFIG_FILE, BPE_FILE):
            if not (folder / name).is_file():
                raise FileNotFoundError(f"no {name} in {folder}: not a FAST processor folder, or its save was cut off")
        try:
            config = json.loads((folder / CONFIG_FILE).read_text())
            scale, low, high = float(config["scale"]), int(config["min_token"]), config.get("max_token")
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise ValueError(f"{folder / CONFIG_FILE} is damaged ({error!r}): it needs scale and min_token") from error
        try:
            bpe = Tokenizer.from_file(str(folder / BPE_FILE))
        except Exception as error:  # the library raises plain Exception
            raise ValueError(f"{folder / BPE_FILE} is damaged: {error}") from error
        return cls(bpe, scale=scale, min_token=low, max_token=high)

    def _symbols(self, chunks: Float[np.ndarray, "n t d"]) -> Int[np.ndarray, "n t d"]:
        check_chunks(chunks, 3)
        symbols = np.clip(_coefficients(chunks, self.scale), self.min_token, self.max_token) - self.min_token
        if symbols.max() > MAX_SYMBOL:
            raise ValueError(f"actions up to {np.abs(chunks).max():g} cannot be written; normalise to about [-1, 1]")
        return symbols.astype(np.int64)

    def _warn_about_lost_symbols(self, texts: list[str]) -> None:
        lost = _byte_symbols("".join(set("".join(texts)))) - self._alphabet
        if lost:
            warnings.warn(
                f"{len(lost)} symbols of these actions are not in the tokenizer's alphabet and are dropped, so their "
                "chunks cannot be decoded; fit the tokenizer on this data",
                stacklevel=3,
            )


@cache
def _dct_matrix(t: int) -> Float[np.ndarray, "t t"]:
    """Return the orthonormal DCT-II: row `k` is the cosine of frequency `k`, and the inverse is the transpose."""
    steps = np.arange(t)
    matrix = np.cos(np.pi / t * (steps + 0.5) * steps[:, None]) * np.sqrt(2 / t)
    # The constant has half the energy of the cosines; with this the inverse is the transpose.
    matrix[0] /= np.sqrt(2)
    return matrix


def _coefficients(chunks: Float[np.ndarray, "n t d"], scale: float) -> Float[np.ndarray, "n t d"]:
    """Return whole numbers, still as floats: as integers those of actions far out would wrap around."""
    frequencies = _dct_matrix(chunks.shape[1]) @ chunks.astype(np.float64)
    # The only step that loses anything; small coefficients of high frequencies become 0 and cost nothing.
    return np.around(frequencies * scale)


def _texts(symbols: Int[np.ndarray, "n t d"]) -> list[str]:
    """Write one character per coefficient; row-major, so all dims of the lowest frequency come first."""
    rows = symbols.reshape(len(symbols), -1).astype("<u4")
    return [row.tobytes().decode("utf-32-le") for row in rows]


def _whole_characters(written: bytes) -> tuple[str, bytes]:
    """Decode UTF-8 that may end within a character; return the whole characters, and the bytes of that one."""
    text, length = codecs.utf_8_decode(written, "strict", False)
    return text, written[length:]


@cache
def _byte_of_symbol() -> dict[str, int]:
    """Return byte-level BPE's symbols: printable bytes stand for themselves, the others follow from U+0100 (GPT-2)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


def _bytes_of(piece: str) -> bytes:
    """Return the bytes that a piece writes; published alphabets also hold characters that are no such symbols."""
    table = _byte_of_symbol()
    return bytes(table[symbol] for symbol in piece) if all(s in table for s in piece) else piece.encode()


def _byte_symbols(text: str) -> set[str]:
    """Return the printable symbols by which byte-level BPE writes the UTF-8 bytes of `text`."""
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return {symbol for part, _ in byte_level.pre_tokenize_str(text) for symbol in part}


def _train_bpe(texts: list[str], vocab_size: int, alphabet: list[str]) -> Tokenizer:
    bpe = Tokenizer(models.BPE())
    # No splitting at "words": these characters are numbers, and whether one is a letter means nothing.
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)  # type: ignore[assignment]
    bpe.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        show_progress=False,
        special_tokens=[],
        initial_alphabet=alphabet,
        max_token_length=10_000,
    )
    bpe.train_from_iterator(texts, trainer=trainer, length=len(texts))
    return bpe
