"""The bytes of openpi's client, exactly; and nothing that a stranger sends gets further than an error."""

import contextlib
import pickle

import msgpack
import numpy as np
import pytest

from pilot.serve import wire
from pilot.serve.wire import WireError, pack, unpack

# Recorded from openpi-client 0.1.2 (numpy 1.26, msgpack 1.2).
ARRAY = "84c40b5f5f6e6461727261795f5fc3c40464617461"
SCALAR = "83c40d5f5f6e7067656e657269635f5fc3c40464617461"
RECORDED = {
    "image": (
        {"images": {"room": np.arange(12, dtype=np.uint8).reshape(2, 2, 3)}},
        f"81a6696d6167657381a4726f6f6d{ARRAY}c40c000102030405060708090a0bc4056474797065a37c7531c405736861706593020203",
    ),
    "state": (
        {"state": np.array([0.5, -1.0], np.float32), "prompt": "put the red cup in the sink"},
        f"82a57374617465{ARRAY}c4080000003f000080bfc4056474797065a33c6634c4057368617065"
        "9102a670726f6d7074bb70757420746865207265642063757020696e207468652073696e6b",
    ),
    "transposed": (
        np.arange(6).reshape(2, 3).T,
        f"{ARRAY}c430000000000000000003000000000000000100000000000000040000000000000002000000000000000500000000000000"
        "c4056474797065a33c6938c4057368617065920302",
    ),
    "scalars": (
        [np.float32(1.5), np.int16(-3), np.bool_(True), np.float64(2.5)],
        f"94{SCALAR}cb3ff8000000000000c4056474797065a33c6634{SCALAR}fdc4056474797065a33c6932"
        f"{SCALAR}c3c4056474797065a37c6231cb4004000000000000",
    ),
    "empty": (np.zeros((0, 4)), f"{ARRAY}c400c4056474797065a33c6638c4057368617065920004"),
    "no dims": (np.array(7, np.uint16), f"{ARRAY}c4020700c4056474797065a33c7532c405736861706590"),
    "text": (
        np.array(["a", "bc"]),
        f"{ARRAY}c41061000000000000006200000063000000c4056474797065a33c5532c40573686170659102",
    ),
    "plain": ({"a": [1, 2.5, None, True, b"xy"], "b": {}}, "82a1619501cb4004000000000000c0c3c4027879a16280"),
}


def hostile(**fields):
    array = {b"__ndarray__": True, b"data": b"\0" * 8, b"dtype": "<f4", b"shape": [2]}
    return msgpack.packb(array | {key.encode(): value for key, value in fields.items()})


@pytest.mark.parametrize("name", RECORDED)
def test_bytes_are_those_of_openpis_client(name):
    message, recorded = RECORDED[name]
    assert pack(message).hex() == recorded


@pytest.mark.parametrize("name", RECORDED)
def test_messages_come_back(name):
    message, recorded = RECORDED[name]
    got = unpack(bytes.fromhex(recorded))
    np.testing.assert_equal(got, message)
    assert pack(got).hex() == recorded


def test_arrays_are_writable_and_on_their_own():
    got = unpack(pack([np.zeros(3), np.zeros(3)]))
    got[0][:] = 1
    assert not got[1].any()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"dtype": "|O"}, "refused"),
        ({"dtype": "|V8"}, "refused"),
        ({"dtype": "<c8"}, "refused"),
        ({"dtype": "<M8[s]"}, "refused"),
        ({"dtype": "(2,)<f4"}, "refused"),
        ({"dtype": "<U0", "shape": [10**9], "data": b""}, "refused"),
        ({"dtype": "<f3"}, "unknown"),
        ({"dtype": 7}, "refused"),
        ({"dtype": [["a", "<f4"]]}, "refused"),
        ({"shape": [3]}, "has 12 bytes, got 8"),
        ({"shape": [2**40, 2**40]}, "bytes, got 8"),
        ({"shape": [-2, -1]}, "cannot have shape"),
        ({"shape": [True, 2]}, "cannot have shape"),
        ({"shape": [1] * 40 + [2]}, "cannot have shape"),
        ({"shape": "2"}, "list as shape"),
        ({"data": "text"}, "bytes as data"),
    ],
)
def test_arrays_that_do_not_add_up_are_refused(fields, words):
    with pytest.raises(WireError, match=words):
        unpack(hostile(**fields))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        pickle.dumps({"state": 1}),
        pack({"image": np.zeros(100)})[:-5],
        pack(1) + pack(2),
        b"\x91" * 5000 + b"\x01",
        b"\x81" * 3000,
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\x81\x90\x01",
        msgpack.packb({b"__npgeneric__": True, b"data": "x", b"dtype": "<f4"}),
        msgpack.packb({b"__npgeneric__": True, b"data": 300, b"dtype": "|u1"}),
        msgpack.packb({b"__npgeneric__": True, b"data": [1], b"dtype": "<f4"}),
        msgpack.packb({b"__ndarray__": True}),
    ],
    ids=lambda data: repr(data[:12]),
)
def test_garbage_is_an_error(data):
    with pytest.raises(WireError):
        unpack(data)


def test_random_damage_never_gets_further_than_an_error():
    rng = np.random.default_rng(0)
    whole = pack({"images": {"room": np.zeros((4, 4, 3), np.uint8)}, "state": np.ones(5), "prompt": "go"})
    for _ in range(2000):
        damaged = bytearray(whole)
        for at in rng.integers(0, len(whole), 3):
            damaged[at] = rng.integers(256)
        with contextlib.suppress(WireError):
            unpack(bytes(damaged))


def test_a_small_message_cannot_grow_large():
    bomb = msgpack.packb([[{} for _ in range(100)] for _ in range(100)])
    with pytest.raises(WireError, match="over 1000 lists"):
        unpack(bomb)
    with pytest.raises(WireError, match="10000 items"):
        unpack(msgpack.packb([[0] * 9_000] * 900))
    with pytest.raises(WireError, match="limit is 10"):
        unpack(pack(np.zeros(100)), max_bytes=10)


@pytest.mark.parametrize("message", [object(), {"a": np.array([None])}, np.zeros(2, complex), {1, 2}, 2**80])
def test_what_cannot_be_sent_says_so(message):
    with pytest.raises(WireError, match="cannot"):
        pack(message)


def test_a_message_that_could_not_be_sent_leaves_nothing_in_the_next():
    whole = pack({"a": np.arange(3)})
    with pytest.raises(WireError):
        pack({"a": np.arange(3), "b": object()})
    assert pack({"a": np.arange(3)}) == whole


def test_the_module_cannot_unpickle():
    assert not hasattr(wire, "pickle")
