"""Observations and actions as bytes: msgpack with numpy arrays, the format of openpi's public client.

An array is the map `{b"__ndarray__": true, b"data", b"dtype", b"shape"}`, a numpy scalar
`{b"__npgeneric__": true, b"data", b"dtype"}`, everything else plain msgpack. Nothing is ever unpickled: dtypes are
numbers, booleans and text, sizes must add up, and nothing may be larger than the limits below.
"""

import math
import re
import threading
from typing import Any, cast

import msgpack
import numpy as np

MAX_BYTES = 32 * 2**20  # four uncompressed cameras of 1080p
MAX_CONTAINERS = 1_000  # lists and maps in a message
MAX_ITEMS = 10_000  # items in all of them; an array is one item
OVER = 4000  # the code with which a robot closes its websocket when it will not resume its session

_DTYPE = re.compile(r"[<>|=][biufSU][1-9]\d{0,3}")
_KINDS = "biufSU"
_OF_THREAD = threading.local()


class WireError(ValueError):
    """Bytes that are not a message, or an object that cannot be sent as one."""


def host_in_url(host: str) -> str:
    """Return a host as it stands in an address: IPv6 in brackets."""
    return f"[{host}]" if host.count(":") > 1 and not host.startswith("[") else host


def pack(message: Any) -> bytes:
    """Return a message of dicts, lists, text, numbers and arrays as bytes.

    Raises:
        WireError: it holds something else, such as a torch tensor or an object array.
    """
    packer = _packer()
    try:
        return cast(bytes, packer.pack(message))
    except (TypeError, OverflowError, ValueError) as error:
        packer.reset()
        if isinstance(error, WireError):
            raise
        raise WireError(f"cannot send this: {error}; send numpy arrays, numbers, text, lists and dicts") from error


def unpack(data: bytes, *, max_bytes: int = MAX_BYTES) -> Any:
    """Return the message in `data`; its arrays are copies, and writable.

    Raises:
        WireError: it is not msgpack, cut off or too large, or an array's size does not match its shape.
    """
    if len(data) > max_bytes:
        raise WireError(f"the message has {len(data)} bytes, the limit is {max_bytes}; send smaller images")
    containers = items = 0

    def count(container: Any) -> Any:
        """Count lists and maps: one byte is enough for an empty map of 100 bytes, so a limit on bytes is not enough."""
        nonlocal containers, items
        containers, items = containers + 1, items + len(container)
        if containers > MAX_CONTAINERS or items > MAX_ITEMS:
            raise WireError(f"the message has over {MAX_CONTAINERS} lists and maps or {MAX_ITEMS} items; send arrays")
        return container

    def read_map(plain: dict[Any, Any]) -> Any:
        return _from_plain(count(plain))

    try:
        return msgpack.unpackb(
            data, object_hook=read_map, list_hook=count, max_array_len=MAX_ITEMS, max_map_len=MAX_ITEMS
        )
    except WireError:
        raise
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise WireError(f"not a whole msgpack message ({type(error).__name__}: {error})") from error


def _packer() -> msgpack.Packer:
    """Return this thread's packer, which keeps its buffer: a new one for pictures costs more than filling it."""
    if not hasattr(_OF_THREAD, "packer"):
        _OF_THREAD.packer = msgpack.Packer(default=_to_plain)
    return _OF_THREAD.packer


def _to_plain(value: Any) -> Any:
    if not isinstance(value, np.ndarray | np.generic):
        raise TypeError(f"{type(value).__name__} is not numpy")
    if value.dtype.kind not in _KINDS:
        raise WireError(f"arrays of dtype {value.dtype} cannot be sent; only numbers, booleans and text")
    if isinstance(value, np.ndarray):
        return {b"__ndarray__": True, b"data": _bytes(value), b"dtype": value.dtype.str, b"shape": value.shape}
    return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}


def _bytes(array: np.ndarray) -> memoryview:
    """Return an array's bytes in C order, without a copy if it is in that order already."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _from_plain(plain: dict[Any, Any]) -> Any:
    if b"__ndarray__" in plain:
        return read_array(plain.get(b"data"), plain.get(b"shape"), dtype=read_dtype(plain.get(b"dtype")))
    if b"__npgeneric__" in plain:
        return _scalar(plain.get(b"data"), dtype=read_dtype(plain.get(b"dtype")))
    return plain


def read_dtype(name: Any) -> np.dtype:
    """Return the dtype of that name.

    Raises:
        WireError: there is none, or it is one that is not allowed.
    """
    if not isinstance(name, str) or not _DTYPE.fullmatch(name):
        raise WireError(f"dtype {name!r} is refused; only numbers, booleans and text, such as '<f4'")
    try:
        return np.dtype(name)
    except TypeError as error:
        raise WireError(f"dtype {name!r} is unknown") from error


def read_array(data: Any, shape: Any, *, dtype: np.dtype) -> np.ndarray:
    """Return an array that owns its memory.

    Raises:
        WireError: the data are no bytes, or their number does not match the shape.
    """
    if not isinstance(data, bytes) or not isinstance(shape, list):
        raise WireError("an array needs bytes as data and a list as shape")
    if len(shape) > 32 or not all(type(n) is int and n >= 0 for n in shape):
        raise WireError(f"an array cannot have shape {shape[:33]}")
    if math.prod(shape) * dtype.itemsize != len(data):
        raise WireError(f"an array {shape} of {dtype} has {math.prod(shape) * dtype.itemsize} bytes, got {len(data)}")
    # numpy copies large arrays without the interpreter's lock: other threads go on.
    return np.ndarray(shape, dtype, buffer=data).copy()


def _scalar(value: Any, *, dtype: np.dtype) -> np.generic:
    if not isinstance(value, bool | int | float | str | bytes):
        raise WireError(f"a numpy scalar cannot hold {type(value).__name__}")
    try:
        return dtype.type(value)
    except (ValueError, OverflowError) as error:
        raise WireError(f"{value!r} does not fit into {dtype}") from error
