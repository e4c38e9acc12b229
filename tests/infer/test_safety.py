"""No command leaves a robot's limits: on examples by hand, and on thousands of hostile sequences."""

import contextlib
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilot.infer.executor import Executor, LateBehavior
from pilot.infer.safety import MotionFilter, limit_chunk, measured_position, motion_filter
from pilot.types import HandWorkspace, Joint, MotionLimits, is_rate

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
        before = np.zeros(2) if missed else velocity  # drivers hold the last command in ticks without one
        if command.action is None:
            assert (np.abs(before) <= np.array(limit.acceleration) / HZ**2 + 1e-5).all(), "left alone in full motion"
            velocity = np.zeros(2)
            continue
        action = command.action.astype(float)
        assert np.isfinite(action).all()
        assert (action >= np.array(limit.low) - 1e-5).all() and (action <= np.array(limit.high) + 1e-5).all()
        change = action - last
        assert (np.abs(change) <= np.array(limit.speed) / HZ + 1e-5).all()
        assert (np.abs(change - before) <= np.array(limit.acceleration) / HZ**2 + 1e-5).all()
        if is_stopped:
            assert command.status == "stop" and "stopped" in command.reasons
        last, velocity = action, change


# --- chunks as a whole -----------------------------------------------------------------------------------------------


def at_4_hz(**changes):
    """One joint from −1 to 2 that may go 1 per tick; numbers that floats hold exactly."""
    values = {"low": (-1.0,), "high": (2.0,), "speed": (4.0,), "acceleration": (None,)}
    return MotionFilter(MotionLimits(**(values | changes)), units=("rad",), hz=4)


def passes(motion, *places):
    return motion.passes(np.array(places)[:, None])


def test_a_chunk_passes_up_to_the_ends_of_its_range_and_no_further():
    assert passes(at_4_hz(), -1.0, -1.0, -0.5) and passes(at_4_hz(), 2.0, 2.0, 1.5)
    assert not passes(at_4_hz(), -1.125, -1.0) and not passes(at_4_hz(), 2.125, 2.0)
    assert not passes(at_4_hz(), 0.0, -1.125) and not passes(at_4_hz(), 1.5, 2.125)
    assert passes(at_4_hz(), 1.0) and not passes(at_4_hz(), math.nan) and not passes(at_4_hz(), 0.0, math.inf)


def test_a_chunk_passes_at_its_top_speed_and_no_faster():
    assert passes(at_4_hz(), 0.0, 1.0, 2.0) and passes(at_4_hz(), 1.0, 0.0, -1.0)
    assert not passes(at_4_hz(), 0.0, 1.125) and not passes(at_4_hz(), 1.125, 0.0)


def test_a_chunk_passes_at_its_top_acceleration_and_no_higher():
    """4 per second is 0.25 more or less per tick; away from the ends, where there is room to brake."""
    wide = {"low": (-100.0,), "high": (100.0,), "acceleration": (4.0,)}
    assert passes(at_4_hz(**wide), 0.0, 0.25, 0.75, 1.5) and passes(at_4_hz(**wide), 0.0, -0.25, -0.75)
    assert not passes(at_4_hz(**wide), 0.0, 0.25, 0.875) and not passes(at_4_hz(**wide), 0.0, -0.25, -0.875)


def test_a_chunk_does_not_pass_too_fast_for_the_end_that_it_moves_to():
    """At 3 per second and 4 per second² a joint needs 1.125 + 1.125 of room: 1.5 ticks and v²/2a."""
    ends = {"low": (-10.0,), "high": (20.0,), "acceleration": (4.0,)}
    for place, ok in ((17.75, True), (17.875, False)):
        assert passes(at_4_hz(**ends), place, place + 0.75) is ok
    for place, ok in ((-7.75, True), (-7.875, False)):
        assert passes(at_4_hz(**ends), place, place - 0.75) is ok
    assert passes(at_4_hz(**ends), -9.75, -9.0, -8.25) and passes(at_4_hz(**ends), 19.75, 19.0, 18.25), "away from it"


@settings(max_examples=100, deadline=None)
@given(chunk=st.lists(st.tuples(numbers, numbers), min_size=1, max_size=8), size=st.sampled_from([0.02, 0.3, 1.0]))
def test_nothing_in_a_chunk_that_passes_would_be_touched(chunk, size):
    with np.errstate(over="ignore"):
        actions = np.array(chunk) * size
    motion = make_filter()
    if motion.passes(actions):
        motion.join()
        assert [motion.apply(action).reasons for action in actions] == [()] * len(actions)


@pytest.mark.parametrize(("start", "end"), [(-10.0, 20.0), (20.0, -10.0)])
def test_a_fast_robot_brakes_as_hard_as_it_may_and_no_harder(start, end):
    motion = at_4_hz(low=(-10.0,), high=(20.0,), speed=(6.0,), acceleration=(4.0,))
    motion.reset(np.array([start]))
    places = np.array([start, start, *(motion.apply(np.array([end])).action[0] for _ in range(60))])
    velocity = np.diff(places) * 4
    assert np.abs(velocity).max() == pytest.approx(6.0) and np.abs(np.diff(velocity)).max() <= 1.0 + 1e-4
    assert places.min() >= -10.0 and places.max() <= 20.0 and places[-1] == pytest.approx(end, abs=1e-3)
    assert np.abs(places[40] - end) < 0.2, "it does not creep"


def test_the_acceleration_of_a_motion_is_used_to_the_full():
    motion = make_filter()
    motion.reset(np.array([0.0, 0.0]))
    sent = [motion.apply(np.array([1.0, 0.0])).action[0] for _ in range(4)]
    assert sent == pytest.approx([0.05, 0.15, 0.25, 0.35])


def test_a_robot_that_nobody_measured_starts_from_rest_at_its_first_command():
    motion = make_filter()
    motion.apply(np.array([0.2, 0.0]))
    assert motion.apply(np.array([1.0, 0.0])).action[0] == pytest.approx(0.25)


def test_a_robot_that_nobody_measured_stands_at_zero_or_as_near_as_it_may():
    for low, stands in (((-1.0, -0.5), 0.0), ((0.25, -0.5), 0.25)):
        motion = make_filter(low=low)
        motion.stop()
        assert motion.apply(np.array([0.7, 0.2])).action.tolist() == [stands, 0.0]


def test_rounding_is_forgiven_and_nothing_more():
    """A millionth of a range of 2."""
    motion = make_filter()
    motion.join()
    assert motion.apply(np.array([1.0 + 1e-6, 0.0])).reasons == ()
    assert motion.apply(np.array([1.0 + 3e-6, 0.0])).reasons == ("range",)
    for acceleration, allowed, reason in ((None, 0.1, "speed"), (5.0, 0.05, "acceleration")):
        for more, reasons in ((1e-6, ()), (3e-6, (reason,))):
            motion = make_filter(acceleration=(acceleration, None))
            motion.reset(np.zeros(2))
            assert motion.apply(np.array([allowed + more, 0.0])).reasons == reasons


@pytest.mark.parametrize("end", [1e6, math.inf])
def test_a_range_without_ends_forgives_no_more(end):
    """A wheel, or a joint that turns on and on."""
    motion = make_filter(low=(-end, -0.5), high=(end, 0.5), acceleration=(None, None))
    motion.reset(np.zeros(2))
    sent = motion.apply(np.array([0.2, 0.0]))
    assert sent.reasons == ("speed",) and sent.action[0] == pytest.approx(0.1)


def test_what_makes_no_filter_is_refused():
    for units, hz in ((("rad",), HZ), (("rad", "m/s"), 0.0), (("rad", "m/s"), -1.0), (("rad", "m/s"), math.nan)):
        with pytest.raises(ValueError, match="2 limits for"):
            MotionFilter(limits(), units=units, hz=hz)
    assert MotionFilter(limits(), units=("rad", "m/s"), hz=0.5).dt == 2.0
    for low, high in (((-1.0, 0.0), (1.0, 0.5)), ((-1.0, -0.5), (1.0, 0.0))):
        assert MotionFilter(limits(low=low, high=high), units=("rad", "m/s"), hz=HZ).rates.tolist() == [False, True]
    for low, high in (((-1.0, 0.1), (1.0, 0.5)), ((-1.0, -0.5), (1.0, -0.1))):
        with pytest.raises(ValueError, match="stands still at 0"):
            MotionFilter(limits(low=low, high=high), units=("rad", "m/s"), hz=HZ)


# --- hands and grippers ----------------------------------------------------------------------------------------------

# Two links of 1 m in a plane, the second on a slide, above a floor that is 0.5 m below the shoulder.
ELBOW = HandWorkspace(
    low=(-3.0, -3.0, -0.5), high=(3.0, 3.0, 3.0),
    joints=(
        Joint(dim=0, axis=(0, 1, 0), at=(0, 0, 0)),
        Joint(dim=1, axis=(0, 1, 0), at=(1, 0, 0)),
        Joint(dim=2, axis=(1, 0, 0), at=(0, 0, 0), slides=True),
    ),
    hand=(1, 0, 0),
)  # fmt: skip


def reaching(**changes):
    values = {"low": (-3.0, -3.0, 0.0), "high": (3.0, 3.0, 0.5), "speed": (5.0, 5.0, 1.0)}
    values |= {"acceleration": (None,) * 3, "workspaces": (ELBOW,)}
    return MotionFilter(MotionLimits(**(values | changes)), units=("rad", "rad", "m"), hz=HZ)


def test_a_hand_is_where_its_joints_put_it():
    half = math.pi / 2
    actions = np.array([[0, 0, 0], [-half, 0, 0.25], [0, -half, 0], [half, -half, 0.5]])
    np.testing.assert_allclose(ELBOW.place(actions), [[2, 0, 0], [0, 0, 2.25], [1, 0, 1], [1.5, 0, -1]], atol=1e-12)


def test_a_hand_stops_at_the_wall_of_its_workspace():
    motion = reaching()
    motion.reset(np.zeros(3))
    heights, reasons = [], set()
    for _ in range(10):
        sent = motion.apply(np.array([1.2, 0.0, 0.0]))
        heights.append(ELBOW.place(sent.action)[2])
        reasons |= set(sent.reasons)
    assert min(heights) >= -0.5 - 1e-6 and heights[-1] == pytest.approx(-0.5, abs=1e-5)
    assert reasons == {"speed", "workspace"}
    assert motion.apply(np.array([0.0, 0.0, 0.0])).reasons == (), "away from the wall as it likes"


def test_a_hand_that_is_outside_may_only_come_nearer():
    motion = reaching(speed=(100.0, 100.0, 100.0))
    motion.reset(np.array([0.8, 0.0, 0.0]))
    deeper = motion.apply(np.array([1.0, 0.0, 0.0]))
    assert deeper.reasons == ("workspace",) and deeper.action[0] == pytest.approx(0.8, abs=1e-5)
    assert motion.apply(np.array([0.6, 0.0, 0.0])).reasons == ()


def test_a_robot_may_stop_at_the_wall_until_somebody_releases_it():
    motion = reaching(on_violation="stop", speed=(100.0, 100.0, 100.0))
    motion.reset(np.array([0.2, 0.0, 0.0]))
    sent = motion.apply(np.array([1.0, 0.0, 0.0]))
    assert sent.reasons == ("workspace",) and sent.action[0] == pytest.approx(0.2) and motion.is_stopped


def test_a_chunk_that_leads_out_of_the_workspace_does_not_pass():
    motion = reaching()
    down = np.linspace(0.0, 0.5, 12)[:, None] * [1.0, 0.0, 0.0]
    assert ELBOW.place(down[-1])[2] < -0.5 and not motion.passes(down) and motion.passes(down[:5])


@settings(max_examples=100, deadline=None)
@given(
    events=st.lists(st.tuples(st.tuples(numbers, numbers, numbers), st.sampled_from(["", "", "stop", "release"]))),
    start=st.tuples(st.floats(-3, 0.1), st.floats(0, 0.1), st.floats(0, 0.5)),
    mode=st.sampled_from(["clip", "stop"]),
)
def test_no_sequence_of_commands_takes_a_hand_out_of_its_workspace(events, start, mode):
    motion = reaching(on_violation=mode)
    motion.reset(np.array(start))
    last = np.array(start)
    for wanted, event in events:
        if event:
            getattr(motion, event)()
        action = motion.apply(np.array(wanted)).action.astype(float)
        place = ELBOW.place(action)
        assert (place >= np.array(ELBOW.low) - 1e-5).all() and (place <= np.array(ELBOW.high) + 1e-5).all()
        assert (np.abs(action - last) <= np.array(motion.speed) / HZ + 1e-5).all()
        last = action


def test_a_gripper_presses_with_no_more_than_it_may():
    motion = make_filter(low=(-1.0, -1.0), high=(1.0, 1.0), effort=(None, 0.25), acceleration=(None, None))
    motion.reset(np.zeros(2))
    assert motion.apply(np.array([0.0, 0.2])).reasons == ()
    for wanted, sent in ((0.9, 0.25), (-0.9, 0.05), (-0.9, -0.15), (-0.9, -0.25)):
        command = motion.apply(np.array([0.0, wanted]))
        assert command.action[1] == pytest.approx(sent) and command.reasons[0] == "effort"
    assert motion.apply(np.array([1.5, -0.25])).reasons == ("range", "speed")


@settings(max_examples=60, deadline=None)
@given(events=st.lists(numbers, max_size=40), effort=st.floats(0.01, 2))
def test_no_sequence_of_commands_presses_harder(events, effort):
    motion = make_filter(low=(-1.0, -1.0), high=(1.0, 1.0), effort=(None, effort))
    for wanted in events:
        action = motion.apply(np.array([0.0, wanted])).action
        assert abs(action[1]) <= min(1.0, effort) * (1 + 1e-6)


def test_workspaces_and_efforts_travel_and_join():
    arm = reaching(effort=(None, None, 2.0)).limits
    assert MotionLimits.from_dict(json.loads(json.dumps(arm.to_dict()))) == arm
    assert set(limits().to_dict()) == {"low", "high", "speed", "acceleration", "on_violation"}, (
        "as older readers know it"
    )
    both = MotionLimits.join(limits(), arm)
    assert both.effort == (None, None, None, None, 2.0)
    assert [joint.dim for joint in both.workspaces[0].joints] == [2, 3, 4]
    assert both.workspaces[0].place(np.zeros(5)).tolist() == [2, 0, 0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"effort": (None, 0.0, 1.0)}, "the effort of dim 1 is above 0"),
        ({"effort": (None, 1.0)}, "one number per action dim"),
        ({"workspaces": (replace(ELBOW, low=(-3.0, 3.0, 0.0)),)}, "a box from low to high"),
        ({"workspaces": (replace(ELBOW, joints=(replace(ELBOW.joints[0], dim=3),)),)}, r"dims \[3\]; there are 3"),
        ({"workspaces": (replace(ELBOW, joints=(replace(ELBOW.joints[0], dim=-1),)),)}, r"dims \[-1\]"),
    ],
)
def test_what_is_no_workspace_or_effort_is_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        reaching(**changes)
