"""No command leaves a robot's limits: on examples by hand, and on thousands of hostile sequences."""

import contextlib
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilot.infer.executor import Executor, LateBehavior
from pilot.infer.safety import MotionFilter, limit_chunk, measured_position, motion_filter
from pilot.types import MotionLimits, is_rate

HZ = 10.0


def limits(**changes):
    values = {"low": (-1.0, -0.5), "high": (1.0, 0.5), "speed": (1.0, 2.0), "acceleration": (5.0, 10.0)}
    return MotionLimits(**(values | changes))


def make_filter(**changes):
    return MotionFilter(limits(**changes), units=("rad", "m/s"), hz=HZ)


def test_what_is_allowed_passes_to_the_bit():
    motion = make_filter()
    motion.reset(np.array([0.0, np.nan]))
    for wanted in ([0.04, 0.05], [0.09, 0.15], [0.12, 0.2]):
        sent = motion.apply(np.array(wanted, np.float32))
        np.testing.assert_array_equal(sent.action, np.array(wanted, np.float32))
        assert sent.reasons == ()
    assert motion.counts == {}


def test_a_jump_becomes_a_motion_at_the_allowed_speed():
    motion = make_filter()
    motion.reset(np.array([0.0, 0.0]))
    sent = [motion.apply(np.array([1e30, 0.0])) for _ in range(60)]
    places = np.array([0.0, *(command.action[0] for command in sent)])
    steps = np.diff(places) * HZ
    assert steps.max() <= 1.0 + 1e-6 and np.diff(steps).max() <= 0.5 + 1e-6
    assert places[-1] == pytest.approx(1.0, abs=1e-3)
    assert sent[0].reasons == ("range", "speed", "acceleration") and sent[0].wanted[0] == 1e30


def test_it_slows_down_in_time_for_the_end_of_the_range():
    motion = make_filter()
    motion.reset(np.array([0.0, 0.0]))
    places = np.array([0.0, *(motion.apply(np.array([1.0, 0.0])).action[0] for _ in range(80))])
    accelerations = np.diff(places, 2) * HZ**2
    assert np.abs(accelerations).max() <= 5.0 + 1e-4 and places.max() <= 1.0


def test_what_is_not_finite_stops_the_robot_until_somebody_releases_it():
    motion = make_filter()
    motion.reset(np.array([0.0, 0.0]))
    motion.apply(np.array([0.05, 0.1]))
    assert motion.apply(np.array([np.nan, 0.1])).reasons == ("not finite",)
    for _ in range(10):
        held = motion.apply(np.array([0.5, 0.5]))
    assert held.reasons == ("stopped",) and held.action[1] == 0.0
    assert motion.apply(np.array([0.5, 0.5])).action[0] == held.action[0]
    motion.release()
    assert motion.apply(np.array([0.5, 0.0])).action[0] > held.action[0]


def test_a_robot_may_rather_stop_than_clip():
    motion = make_filter(on_violation="stop")
    motion.reset(np.array([0.0, 0.0]))
    assert motion.apply(np.array([0.04, 0.0])).reasons == ()
    assert "speed" in motion.apply(np.array([0.9, 0.0])).reasons
    assert motion.is_stopped


def test_a_stall_takes_the_speed_away():
    motion = make_filter()
    motion.reset(np.array([0.0, 0.0]))
    for _ in range(3):
        last = motion.apply(np.array([1.0, 0.0])).action[0]
    after = motion.apply(np.array([1.0, 0.0]), missed=7).action[0]
    assert after - last == pytest.approx(0.5 / HZ, abs=1e-6)  # from rest: half of 1 per second


def test_the_emergency_stop_is_latched():
    motion = make_filter()
    motion.reset(np.array([0.2, 0.0]))
    motion.stop()
    motion.reset(np.array([0.2, 0.0]))
    assert motion.apply(np.array([0.3, 0.3])).action.tolist() == pytest.approx([0.2, 0.0])
    assert motion.is_stopped and motion.counts == {"stopped": 1}


def test_the_first_command_of_a_robot_that_nobody_measured_is_only_kept_in_range():
    motion = make_filter()
    sent = motion.apply(np.array([3.0, 0.05]))
    assert sent.action[0] == 1.0 and sent.reasons == ("range",)


numbers = st.one_of(
    st.floats(-2, 2), st.sampled_from([math.nan, math.inf, -math.inf, 1e30, -1e30, 0.0]), st.floats(allow_nan=True)
)
events = st.lists(
    st.tuples(st.tuples(numbers, numbers), st.integers(0, 3), st.sampled_from(["", "", "", "stop", "release"])),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(
    events=events,
    start=st.floats(-1, 1),
    speed=st.floats(0.05, 50),
    acceleration=st.floats(0.05, 500),
    hz=st.sampled_from([3.0, 20.0, 50.0]),
    mode=st.sampled_from(["clip", "stop"]),
)
def test_no_sequence_of_commands_stalls_and_stops_leaves_the_limits(events, start, speed, acceleration, hz, mode):
    limit = limits(speed=(speed, speed), acceleration=(acceleration, acceleration), on_violation=mode)
    motion = MotionFilter(limit, units=("rad", "m/s"), hz=hz)
    motion.reset(np.array([start, np.nan]))
    last, velocity = np.array([start, 0.0]), np.zeros(2)
    slack = 1e-6 * (1 + np.abs(last).max())
    for wanted, missed, event in events:
        if event:
            getattr(motion, event)()
        action = motion.apply(np.array(wanted), missed=missed).action.astype(float)
        assert np.isfinite(action).all()
        assert (action >= np.array(limit.low) - slack).all() and (action <= np.array(limit.high) + slack).all()
        change = action - last
        assert (np.abs(change) <= speed / hz + 4 * slack).all()
        before = np.zeros(2) if missed else velocity
        assert (np.abs(change - before) <= acceleration / hz**2 + 8 * slack).all()
        last, velocity = action, change


def test_limits_that_leave_nothing_are_refused():
    with pytest.raises(ValueError, match=r"low 1\.0 is below high 1\.0"):
        limits(low=(1.0, -1.0), high=(1.0, 1.0))
    with pytest.raises(ValueError, match="one number per action dim"):
        limits(speed=(1.0,))
    with pytest.raises(ValueError, match="'clip' or 'stop'"):
        limits(on_violation="hope")
    with pytest.raises(ValueError, match="stands still at 0"):
        MotionFilter(limits(low=(-1.0, 0.1)), units=("rad", "m/s"), hz=HZ)


def test_units_are_a_closed_list():
    assert is_rate("m/s") and is_rate("5 cm per step") and is_rate("rad per step")
    assert not is_rate("rad") and not is_rate("0 to 1")
    with pytest.raises(ValueError, match="no unit 'furlongs per step'"):
        is_rate("furlongs per step")


def test_a_server_says_what_a_robot_may_do():
    metadata = {
        "limits": {"low": [-1, -1], "high": [1, 1], "speed": [1, 1], "acceleration": [1, 1], "on_violation": "stop"},
        "action_units": ["rad", "rad/s"], "action_names": ["elbow", "turn"], "state_names": ["turn", "elbow"],
        "control_hz": 20.0,
    }  # fmt: skip
    made = motion_filter(metadata)
    assert made is not None and made.limits.on_violation == "stop" and made.rates.tolist() == [False, True]
    assert motion_filter(metadata | {"limits": None}) is None
    np.testing.assert_array_equal(measured_position(metadata, np.array([9.0, 0.5])), [0.5, np.nan])


def test_where_nobody_names_an_acceleration_only_range_and_speed_hold():
    motion = make_filter(acceleration=(None, None), speed=(20.0, 20.0))
    motion.reset(np.array([-1.0, 0.0]))
    for wanted in ([1.0, 0.5], [-1.0, -0.5], [1.0, 0.0]):
        sent = motion.apply(np.array(wanted))
        assert sent.action.tolist() == wanted and sent.reasons == (), "from end to end within a tick"
    assert motion.apply(np.array([1.2, 0.0])).reasons == ("range",)


def test_limits_of_parts_become_those_of_the_whole():
    arm, hand = limits(), limits(low=(-3.0, -4.0), acceleration=(None, 7.0))
    whole = MotionLimits.join(arm, hand)
    assert whole.low == (-1.0, -0.5, -3.0, -4.0) and whole.acceleration == (5.0, 10.0, None, 7.0)
    with pytest.raises(ValueError, match="unpack"):
        MotionLimits.join(arm, limits(on_violation="stop"))


CHUNK_METADATA = {
    "limits": {"low": [-1, -1], "high": [1, 1], "speed": [1, 1], "acceleration": [5, 5], "on_violation": "clip"},
    "action_units": ["rad", "rad/s"], "action_names": ["elbow", "turn"], "state_names": ["turn", "elbow"],
    "control_hz": 10.0,
}  # fmt: skip


def test_a_chunk_within_the_limits_comes_back_itself():
    in_motion = np.stack([np.linspace(-0.3, 0.3, 7), np.full(7, 0.9)], axis=1).astype(np.float32)
    actions, reasons = limit_chunk(in_motion, CHUNK_METADATA)
    assert actions is in_motion and reasons == ()
    assert limit_chunk(in_motion, CHUNK_METADATA | {"limits": None})[0] is in_motion


def test_a_chunk_that_leaves_the_limits_is_bent_to_stay_inside():
    wild = np.zeros((20, 2), np.float32)
    wild[5:, 0] = 1e30
    actions, reasons = limit_chunk(wild, CHUNK_METADATA)
    assert reasons == ("range", "speed", "acceleration") and actions.dtype == np.float32
    np.testing.assert_array_equal(actions[:5], wild[:5])
    assert np.abs(np.diff(actions[:, 0])).max() <= 0.1 + 1e-6 and actions.max() <= 1.0
    with pytest.raises(ValueError, match="has 2 dims"):
        limit_chunk(np.zeros((3, 3)), CHUNK_METADATA)


deliveries = st.lists(
    st.tuples(
        st.sampled_from(["chunk", "chunk", "lost", "late", "stop", "release", "reset"]),
        st.lists(st.tuples(numbers, numbers), min_size=1, max_size=12),
        st.sampled_from([0, 0, 0, 0, 1, 3, 12, 60]),  # ticks that the control loop misses
    ),
    max_size=40,
)


@settings(max_examples=300, deadline=None)
@given(deliveries=deliveries, start=st.floats(-1, 1), mode=st.sampled_from(["clip", "stop"]), latch=st.booleans())
def test_no_outputs_delays_losses_and_stalls_let_an_executor_past_the_limits(deliveries, start, mode, latch):
    limit = limits(on_violation=mode)
    motion = MotionFilter(limit, units=("rad", "m/s"), hz=HZ)
    executor = Executor(replan_steps=2, patience=3, late=LateBehavior(latch=latch, stop_after=5), motion=motion)
    executor.place(np.array([start, np.nan]))
    last, velocity, waiting = np.array([start, 0.0]), np.zeros(2), []
    for event, actions, missed in deliveries:
        request = executor.request()
        if event in ("stop", "release", "reset"):
            getattr(executor, event)()
        if request is not None and event != "lost":
            waiting.append(request)
        if event != "late":
            for request in waiting:
                with contextlib.suppress(ValueError):  # not finite: refused as a whole
                    executor.deliver(request, np.array(actions))
            waiting = []
        is_stopped = executor.is_stopped
        command = executor.next(missed=missed)
        if command.action is None:
            continue
        action = command.action.astype(float)
        assert np.isfinite(action).all()
        assert (action >= np.array(limit.low) - 1e-5).all() and (action <= np.array(limit.high) + 1e-5).all()
        change = action - last
        assert (np.abs(change) <= np.array(limit.speed) / HZ + 1e-5).all()
        before = np.zeros(2) if missed else velocity
        assert (np.abs(change - before) <= np.array(limit.acceleration) / HZ**2 + 1e-5).all()
        if is_stopped:
            assert command.status == "stop" and "stopped" in command.reasons
        last, velocity = action, change
