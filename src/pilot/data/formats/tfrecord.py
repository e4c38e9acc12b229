"""TFRecord files of `tf.train.Example` messages, without TensorFlow: where the records lie, and what is in one.

A record is `length` (8 bytes), its check sum (4), the message, its check sum (4); check sums are masked CRC32C. An
Example is a map from feature names to lists of bytes, floats or integers (protocol buffers, wire format). Files are
mapped into memory, and a feature's values are decoded only when asked for: pictures that are not wanted are never read.
"""

import mmap
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Int

HEADER, FOOTER = 12, 4
FETCH = "fetch the file again"


def masked_crc(content: bytes) -> int:
    """Compute the check sum that TFRecord files keep of `content`."""
    try:
        import google_crc32c
    except ImportError as error:
        raise ImportError("RLDS data sets need CRC32C check sums: pip install 'pilot[rlds]'") from error
    value = google_crc32c.value(content)
    return ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF


class RecordFile:
    """The records of one file, by number. Not shared between processes."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            raise FileNotFoundError(f"{path} is missing; {FETCH}")
        self.path = path
        with path.open("rb") as file:
            size = path.stat().st_size
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""

    def places(self) -> Int[np.ndarray, "r 2"]:
        """Return offset and length of each record. A bad length or an early end is a `ValueError`."""
        places, at = [], 0
        while at < len(self._map):
            number = len(places)
            header = bytes(self._map[at : at + HEADER])
            if len(header) < HEADER:
                raise ValueError(f"{self.path}: record {number} is cut short; {FETCH}")
            length, crc = struct.unpack("<QI", header)
            if masked_crc(header[:8]) != crc:
                raise ValueError(f"{self.path}: the length of record {number} has a bad CRC; {FETCH}")
            if at + HEADER + length + FOOTER > len(self._map):
                raise ValueError(f"{self.path}: record {number} is cut short; {FETCH}")
            places.append((at + HEADER, length))
            at += HEADER + length + FOOTER
        return np.array(places, np.int64).reshape(-1, 2)

    def read(self, offset: int, length: int, *, check: bool) -> memoryview:
        """Return a record's message; with `check` its CRC is compared, which reads all of it."""
        message = memoryview(self._map)[offset : offset + length]
        if check:
            (crc,) = struct.unpack("<I", self._map[offset + length : offset + length + FOOTER])
            if masked_crc(bytes(message)) != crc:
                raise ValueError(f"{self.path}: the record at byte {offset} has a bad CRC; {FETCH}")
        return message

    def close(self) -> None:
        """Forget the map; it goes when the last message read from it does."""
        self._map = b""


class Example:
    """One `tf.train.Example`: the values of a feature by its name.

    Raises `ValueError` for bytes that are not an Example; `where` names it in errors.
    """

    def __init__(self, message: memoryview, *, where: str) -> None:
        self.where = where
        self._features: dict[str, memoryview] = {}
        try:
            for field, value in _fields(message):
                if field == 1:
                    for _, entry in _fields(value):
                        parts = dict(_fields(entry))
                        self._features[bytes(parts[1]).decode()] = parts[2]
        except (IndexError, KeyError, ValueError) as error:
            raise ValueError(f"{where} is not a tf.train.Example ({error!r}); {FETCH}") from error

    def __contains__(self, name: str) -> bool:
        return name in self._features

    def names(self) -> list[str]:
        """Return the names of all features, sorted."""
        return sorted(self._features)

    def blobs(self, name: str) -> list[memoryview]:
        """Return the values of a feature of bytes, without copies."""
        return [value for kind, content in self._values(name) if kind == 1 for _, value in _fields(content)]

    def numbers(self, name: str) -> np.ndarray:
        """Return the values of a feature of floats (float32) or integers (int64), flat."""
        pieces = [_floats(content) if kind == 2 else _integers(content) for kind, content in self._values(name)]
        return np.concatenate(pieces) if pieces else np.zeros(0, np.float32)

    def _values(self, name: str) -> Iterator[tuple[int, memoryview]]:
        """(kind, list) of a feature: 1 bytes, 2 floats, 3 integers."""
        if name not in self._features:
            raise ValueError(f"{self.where} has no feature '{name}'; it has {self.names()}")
        return _fields(self._features[name])


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """(field number, content) of each field of a message; all that an Example has are of wire type 2 when nested."""
    at, end = 0, len(message)
    while at < end:
        key, at = _varint(message, at)
        if key & 7 != 2:
            raise ValueError(f"wire type {key & 7}")
        length, at = _varint(message, at)
        if at + length > end:
            raise ValueError("a field is longer than its message")
        yield key >> 3, message[at : at + length]
        at += length


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """Read a number of seven bits per byte, least first; return it and where it ends."""
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _floats(content: memoryview) -> np.ndarray:
    """Read a FloatList: packed (one run of 4-byte values), or each with a tag."""
    if not len(content):
        return np.zeros(0, np.float32)
    if content[0] == 0x0A:
        return np.concatenate([np.frombuffer(packed, "<f4") for _, packed in _fields(content)])
    return np.frombuffer(content, np.dtype([("tag", "u1"), ("value", "<f4")]))["value"].copy()


def _integers(content: memoryview) -> np.ndarray:
    """Read an Int64List: packed, or each with a tag."""
    if not len(content):
        return np.zeros(0, np.int64)
    if content[0] == 0x0A:
        return np.concatenate([_varints(np.frombuffer(packed, np.uint8)) for _, packed in _fields(content)])
    values, at = [], 0
    while at < len(content):
        value, at = _varint(content, at + 1)
        values.append(value)
    return np.array(values, np.uint64).astype(np.int64)


def _varints(content: np.ndarray) -> np.ndarray:
    """Read all numbers of a packed run at once: each ends with the byte whose high bit is not set."""
    ends = np.flatnonzero(content < 0x80)
    number = np.cumsum(np.concatenate([[0], (content < 0x80)[:-1]]))
    place = np.arange(len(content)) - np.concatenate([[0], ends[:-1] + 1])[number]
    bits = (content & 0x7F).astype(np.uint64) << (7 * place).astype(np.uint64)
    values = np.zeros(len(ends), np.uint64)
    np.add.at(values, number, bits)
    return values.astype(np.int64)
