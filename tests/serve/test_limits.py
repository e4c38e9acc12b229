"""What is wrong with an observation, whatever the robot: what was expected, and what came."""

import asyncio

import numpy as np
import pytest

from pilot.serve.limits import Limits, Patience, RateLimit, Turnstile, check_observation
from serve.policies import OBSERVATION

LIMITS = Limits(prompt_characters=50, pictures=3, picture_pixels=100 * 100)


def nested(depth):
    found = [1]
    for _ in range(depth - 1):
        found = [found]
    return found


def test_a_good_one_passes_as_it_is():
    assert check_observation(OBSERVATION, LIMITS) is OBSERVATION


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prompt": "a" * 51}, "the prompt has 51 characters, the limit is 50"),
        ({"images": dict.fromkeys("abcd", np.zeros((2, 2, 3), np.uint8))}, "4 pictures, the limit is 3"),
        ({"images": {"room": np.zeros((100, 101, 3), np.uint8)}}, r"'images.room' is uint8 \[100, 101, 3\].*10000 pix"),
        ({"images": {"room": np.zeros((1, 1, 1, 1, 1))}}, r"'images.room' has 5 dimensions"),
        ({"state": np.array([0, np.nan, 1], np.float32)}, r"'state' \(float32 \[3\]\) is nan at \[1\]"),
        ({"state": np.array([np.inf])}, r"'state' \(float64 \[1\]\) is inf at \[0\]"),
        ({"previous": {"actions": np.full((2, 3), np.nan), "delay": 1}}, r"'previous.actions'.* is nan at \[0, 0\]"),
        ({"more": [np.zeros(2), np.array([-np.inf])]}, r"'more.1'.* is -inf"),
        ({"more": [{"said": "a" * 51}]}, "'more.0.said' has 51 characters, the limit is 50"),
        ({"b" * 201: 1}, "a name has 201 characters, the limit is 200; it begins with 'bbbb"),
        ({"images": {b"c" * 201: None}}, r"names are text, got b'c{78} in 'images'"),
        ({"state": [0.0, float("inf")]}, r"'state\.1' is inf"),
        ({"more": nested(17)}, "nested 16 deep at most, this one is deeper at 'more.0.0"),
        ({"more": nested(5000)}, "nested 16 deep at most"),
    ],
)
def test_what_is_beyond_is_said(changes, words):
    with pytest.raises(ValueError, match=words):
        check_observation({**OBSERVATION, **changes}, LIMITS)


@pytest.mark.parametrize("observation", [None, [1], "text", 3.5, {1: 2}])
def test_what_is_no_observation(observation):
    with pytest.raises(ValueError, match="an observation is a dict with images, state and prompt"):
        check_observation(observation, LIMITS)


def test_a_rate_lets_a_second_through_at_once_and_then_what_flows_in():
    now = [100.0]
    rate = RateLimit(10, clock=lambda: now[0])
    for _ in range(10):
        rate.take()
    with pytest.raises(ValueError, match="more than 10 observations in a second; the next in 100 ms"):
        rate.take()
    now[0] += 0.25
    rate.take()
    rate.take()
    with pytest.raises(ValueError, match="the next in 50 ms"):
        rate.take()
    now[0] += 1000
    for _ in range(10):
        rate.take()
    with pytest.raises(ValueError, match="more than 10"):
        rate.take()


def test_a_slow_rate_still_lets_one_through():
    now = [0.0]
    rate = RateLimit(0.5, clock=lambda: now[0])
    rate.take()
    with pytest.raises(ValueError, match="the next in 2000 ms"):
        rate.take()


def test_limits_are_above_nothing():
    with pytest.raises(ValueError, match="robots must be above 0, got 0"):
        Limits(robots=0)


def test_more_cameras_may_send_more():
    limits = Limits(message_bytes=100, camera_bytes=30)
    assert [limits.largest_message(cameras) for cameras in (0, 1, 2, 3, 4, 16)] == [30, 30, 60, 90, 100, 100]


def test_fewer_events_at_once_than_in_a_second():
    now = [0.0]
    rate = RateLimit(10, at_once=3, clock=lambda: now[0])
    for _ in range(3):
        rate.take()
    with pytest.raises(ValueError, match="more than 10 observations"):
        rate.take()
    now[0] = 10.0  # a long rest does not add up
    for _ in range(3):
        rate.take()
    with pytest.raises(ValueError, match="more than 10 observations"):
        rate.take()


def test_who_is_refused_again_and_again_waits_longer_each_time(monkeypatch):
    waits = []

    async def sleep(seconds):
        waits.append(seconds)

    monkeypatch.setattr("pilot.serve.limits.asyncio.sleep", sleep)
    patience = Patience()
    for refused in [*[True] * 9, False, True]:
        asyncio.run(patience.pause(refused=refused))
    assert waits == [0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.5, 0.5, 0.0, 0.005]


def test_a_turnstile_lets_some_through_at_once_and_the_others_in_turn(monkeypatch):
    now, through = [0.0], []

    async def sleep(seconds):
        now[0] += seconds

    async def come(turnstile, name):
        await turnstile.wait(is_gone=lambda: name == "left")
        through.append((name, round(now[0], 9)))

    async def crowd():
        turnstile = Turnstile(10, at_once=2)
        turnstile.rate = RateLimit(10, at_once=2, clock=lambda: now[0])
        await asyncio.gather(*(come(turnstile, name) for name in ("a", "b", "c", "left", "d")))

    monkeypatch.setattr("pilot.serve.limits.asyncio.sleep", sleep)
    asyncio.run(crowd())
    assert through == [("a", 0.0), ("b", 0.0), ("c", 0.1), ("left", 0.1), ("d", 0.2)]
