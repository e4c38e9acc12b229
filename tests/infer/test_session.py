"""Two levels, two clocks: when the high level decides, what overrides it, what is kept of it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from infer.policies import BOX, TOLD, observation, policy_of, says
from pilot.infer.high_level import SUBTASK_TOKENS
from pilot.infer.policy import Policy
from pilot.models.pi import pi0, pi0_fast, pi05
from pilot.models.trained_robots import one_robot
from pilot.robots.homes import ROBOT


@pytest.fixture(scope="module")
def shared() -> Policy:
    return policy_of(pi05("debug", max_tokens=80))


@pytest.fixture
def policy(shared, monkeypatch) -> Policy:
    """Weights are shared by all tests, what tests put in their place is not."""
    monkeypatch.setattr(shared, "_high_level", None)
    return shared


def test_the_model_decides_and_acts_exactly_as_written_out_by_hand(policy):
    """The default high level, to the bit: what is read once, said greedily, and denoised from the same cache."""
    session, generator = policy.session(), torch.Generator().manual_seed(policy.seed)
    pipeline, engine, codec, subtask = policy.pipeline, policy.engine, policy.subtask_codec, None
    for turn in range(5):
        shown = observation(turn)
        answer = session.infer(shown)
        decides = turn % 2 == 0  # every 0.4 s, and a turn takes 0.2
        read = policy.make_observation(policy.make_sample(shown, subtask=None if decides else subtask))
        with torch.inference_mode():
            prefilled = engine.prefill(read, max_new_tokens=SUBTASK_TOKENS if decides else 0)
            if decides:
                said, prefilled = engine.generate(
                    prefilled,
                    eos=codec.end,
                    max_new_tokens=SUBTASK_TOKENS,
                    allowed=codec.grammar(),
                )
                subtask = policy.bundle.text.decode(said[0].tolist()).split(";\n")[0]
            noise = torch.randn(1, 6, policy.model.config.action_dim, generator=generator)
            steps = {"noise": noise, "num_steps": policy.num_steps, "padded_dims": policy.padded_dims(["homes"])}
            chunk = engine.denoise(prefilled, read.state, **steps)[-1][0].numpy()
        np.testing.assert_array_equal(answer["actions"], pipeline.decode_actions(chunk, shown["state"]))
        assert (answer["subtask"], answer["box"]) == pipeline.split_subtask(subtask) and session.subtask == subtask


def test_the_high_level_decides_when_its_time_has_come(policy, monkeypatch):
    calls = says(policy, monkeypatch, TOLD)
    session, counts = policy.session(subtask_seconds=0.6), []
    for _ in range(7):
        session.infer(observation())
        counts.append(len(calls))
    assert counts == [1, 1, 1, 2, 2, 2, 3]


def test_a_robot_that_asks_at_other_times_says_its_control_tick(policy, monkeypatch):
    calls = says(policy, monkeypatch, TOLD)
    session, counts = policy.session(subtask_seconds=0.6), []
    hz = session.robot.control_hz
    for seconds in (0.0, 0.5, 1.0, 1.5, 2.0):
        session.infer(observation() | {"control_tick": round(seconds * hz)})
        counts.append(len(calls))
    assert counts == [1, 1, 2, 2, 3]
    session.infer(observation() | {"control_tick": 0})  # counted anew: as many ticks as usual have passed
    assert session.state.time == pytest.approx(2.0 + 2 * session.replan_steps / hz)
    with pytest.raises(ValueError, match="'control_tick' is a number of control ticks, 0 or more, got -1"):
        session.infer(observation() | {"control_tick": -1})


def test_the_clock_is_whatever_says_the_time(policy, monkeypatch):
    calls, now = says(policy, monkeypatch, TOLD), 100.0
    session = policy.session(subtask_seconds=1.0, clock=lambda: now)
    for now, decisions in ((100.0, 1), (100.9, 1), (101.0, 2), (150.0, 3), (150.5, 3)):
        session.infer(observation())
        assert len(calls) == decisions, now
    (only,) = session.history
    assert (only.start, only.words) == (100.0, "pick up the red cup")
    np.testing.assert_allclose(only.box, (0.1, 0.2, 0.3, 0.4), atol=1e-3)


def test_the_high_level_decides_when_the_person_speaks_or_the_subtask_ends(policy, monkeypatch):
    calls = says(policy, monkeypatch, TOLD)
    session = policy.session(subtask_seconds=1e9)
    for changes, decisions in (
        ({}, 1),
        ({}, 1),
        ({"prompt": "put the blue cup in the sink"}, 2),
        ({"prompt": "put the blue cup in the sink"}, 2),
        ({"prompt": "put the blue cup in the sink", "subtask_done": True}, 3),
        ({"prompt": "put the blue cup in the sink", "subtask_done": False}, 3),
        ({"prompt": "put the blue cup in the sink", "subtask_done": np.array([True])}, 4),
    ):
        session.infer(observation(**changes))
        assert len(calls) == decisions


@pytest.mark.parametrize("on_gripper", [True, False])
def test_a_gripper_that_opens_or_closes_ends_a_subtask(policy, monkeypatch, on_gripper):
    calls = says(policy, monkeypatch, TOLD)
    session, counts = policy.session(subtask_seconds=1e9, on_gripper=on_gripper), []
    for suction in (0, 0, 1, 1, 0):
        session.infer(observation(state=np.array([0, 0, 0, suction, 0], np.float32)))
        counts.append(len(calls))
    assert counts == ([1, 1, 2, 2, 3] if on_gripper else [1, 1, 1, 1, 1])


def test_the_history_is_kept_and_bounded(policy, monkeypatch):
    says(policy, monkeypatch, *(f"{BOX}step {i // 2}" for i in range(200)))
    session = policy.session(subtask_seconds=0.0)
    for _ in range(6):
        session.infer(observation())
    assert [(s.start, s.words) for s in session.history] == [(0.0, "step 0"), (0.4, "step 1"), (0.8, "step 2")]
    session.history.extend([session.history[-1]] * 500)
    assert len(session.history) <= 64
    session.reset()
    assert not session.history and session.subtask is None


def test_what_a_person_says_holds_until_it_is_taken_back(policy, monkeypatch):
    """In plain words it is the prompt; with a box it is acted on as it stands; an observation's own goes first."""
    calls = says(policy, monkeypatch, TOLD)
    session, plain = policy.session(subtask_seconds=1e9), policy.session(subtask_seconds=1e9)
    session.tell("grab the blue bowl")
    for _ in range(2):
        told, asked = session.infer(observation()), plain.infer(observation(prompt="grab the blue bowl"))
        np.testing.assert_array_equal(told["actions"], asked["actions"])
    assert len(calls) == 2
    session.tell(BOX + "pick up the blue bowl")
    assert session.infer(observation())["subtask"] == "pick up the blue bowl" and len(calls) == 2
    assert session.infer(observation(subtask=BOX + "wait"))["subtask"] == "wait"
    session.tell(None)
    assert session.infer(observation())["subtask"] == "pick up the red cup" and len(calls) == 3
    for words in ("", "  "):
        with pytest.raises(ValueError, match="'subtask' is words"):
            session.tell(words)


def test_nobody_decides_where_the_high_level_is_none_or_implicit(policy, monkeypatch):
    calls = says(policy, monkeypatch, TOLD)
    for name in ("none", "implicit"):
        session = policy.session(high_level=name)
        answers = [session.infer(observation()) for _ in range(2)]
        assert not calls and all(answer["subtask"] is None and answer["box"] is None for answer in answers)
        by_hand = policy.engine.sample_actions(
            policy.make_observation(policy.make_sample(observation())),
            noise=policy.noise(torch.Generator().manual_seed(policy.seed)),
            num_steps=policy.num_steps,
            padded_dims=policy.padded_dims(["homes"]),
        )
        np.testing.assert_array_equal(
            answers[0]["actions"], policy.pipeline.decode_actions(by_hand[0].numpy(), np.zeros(5, np.float32))
        )
        told = session.infer(observation(subtask=TOLD))
        assert told["subtask"] == "pick up the red cup" and session.infer(observation())["subtask"] is None


def test_the_oracle_is_in_the_observation(policy, monkeypatch):
    calls = says(policy, monkeypatch, TOLD)
    session = policy.session(high_level="oracle")
    assert session.infer(observation(subtask=BOX + "open the drawer"))["subtask"] == "open the drawer"
    with pytest.raises(ValueError, match="needs the true 'subtask' in each observation"):
        session.infer(observation())
    assert session.infer(observation(subtask="take the cup"))["subtask"] == "pick up the red cup" and len(calls) == 1


def test_a_policy_has_a_high_level_of_its_own(policy):
    assert policy.session().high_level.name == "model"
    policy.high_level = "implicit"
    assert policy.session().decider is None and policy.session(high_level="model").decider is not None
    with pytest.raises(ValueError, match="no high level 'implict'; did you mean 'implicit'"):
        policy.session(high_level="implict")


@pytest.mark.parametrize(
    "config", [pi05("debug", max_tokens=20), pi0_fast("debug", max_tokens=20)], ids=["flow", "fast"]
)
def test_what_the_model_says_is_never_too_long_to_go_on_with(config):
    """A person can shorten a prompt; nobody can shorten what these untrained weights say."""
    policy = policy_of(config)
    session = policy.session(subtask_seconds=1e9)
    said = [session.infer(observation(turn))["subtask"] for turn in range(2)]
    assert said[0] == said[1] and len(policy.bundle.text.encode(said[0])) > 10
    with pytest.raises(ValueError, match="max_tokens is 20; shorten"):
        session.infer(observation(subtask=BOX + "pick up the red cup and put it in the sink"))


def test_a_subtask_of_blanks_is_none(policy):
    text = policy.bundle.text
    assert (
        policy.subtask_codec.decode(text.encode("  ;\n")) is None
        and policy.subtask_codec.decode(text.encode(";\n")) is None
    )
    assert policy.subtask_codec.decode(text.encode("wave;\n")) == "wave"


def test_grippers_that_nobody_measures_end_nothing(policy):
    """As in checkpoints of before robots declared their grippers."""
    (gripper,) = ROBOT.grippers
    for grippers in ((), (replace(gripper, state=None),)):
        blind = Policy(
            replace(policy.bundle, robots=one_robot(replace(ROBOT, grippers=grippers), policy.bundle.norm_stats))
        )
        assert blind.session().infer(observation())["actions"].shape == (6, 4)
        with pytest.raises(
            ValueError, match=r"on_gripper needs a gripper that is measured, and robot 'homes' .* has none"
        ):
            blind.session(on_gripper=True)


def test_a_turn_that_is_not_finished_has_not_happened(policy):
    """Nothing in a session changes before the result comes: not its state, not its noise, not what it draws."""
    session, other = (policy.session() for _ in range(2))
    session.begin(observation(3))
    for turn in range(3):
        if turn == 1:
            session.begin(observation(prompt="tidy up"))
        np.testing.assert_array_equal(session.infer(observation())["actions"], other.infer(observation())["actions"])
    assert session.state == other.state and session.history == other.history


@pytest.mark.parametrize(
    "options", [{"subtask_seconds": -1.0}, {"subtask_seconds": float("nan")}, {"replan_steps": 0}], ids=str
)
def test_a_clock_that_cannot_run_is_refused(policy, options):
    with pytest.raises(ValueError, match="subtask_seconds is 0 or more and replan_steps 1 or more, got"):
        policy.session(**options)


def test_boxes_are_for_models_that_read_them():
    flat = policy_of(pi0("debug", prompt="pi0"))
    session = flat.session()
    for tell in (lambda: session.infer(observation(subtask=TOLD)), lambda: session.tell(TOLD)):
        with pytest.raises(ValueError, match="reads no boxes; say it in words, such as 'pick up the red cup'"):
            tell()
    told, asked = (flat.session() for _ in range(2))
    told.tell("pick up the red cup")
    np.testing.assert_array_equal(
        told.infer(observation())["actions"], asked.infer(observation(prompt="pick up the red cup"))["actions"]
    )


def test_a_policy_that_says_nothing_has_no_high_level():
    flat = policy_of(pi0("debug", prompt="pi0"))
    assert flat.session().high_level.name == "none"
    for name in ("model", "implicit"):
        with pytest.raises(ValueError, match="has not learned"):
            flat.session(high_level=name)


# --- several robots, one of which is in trouble ----------------------------------------------------------------------

BAD = [
    {"previous": {"actions": np.zeros((3, 7)), "delay": 1}},
    {"state": np.full(5, np.nan, np.float32)},
    {"images": {"room": np.zeros((64, 64, 3), np.uint8)}},
    {"images": {camera: np.zeros((64, 64), np.uint8) for camera in ROBOT.cameras}},
    {"prompt": "put the red cup in the sink " * 40},
    {"prompt": None},
    {"subtask": ""},
    {"subtask_done": "no"},
    {"subtask_done": np.zeros(2, bool)},
    {"images": 3},
    {"images": dict.fromkeys(ROBOT.cameras)},
]


def test_one_robots_trouble_is_nobody_elses(policy, no_shape_checks):
    """Bad turns change nothing: neither the answers of others nor their own session."""
    good = [observation(1), observation(2, subtask=TOLD)]
    alone = [policy.session().infer(one) for one in good]
    bad = [observation(9, **changes) for changes in BAD]
    sessions = [policy.session() for _ in (*bad, *good)]
    answers = policy.infer_many(sessions, [*bad, *good], errors="return")
    assert all(isinstance(answer, Exception) for answer in answers[: len(bad)])
    for answer, want in zip(answers[len(bad) :], alone, strict=True):
        np.testing.assert_allclose(answer["actions"], want["actions"], atol=1e-4)
        assert answer["subtask"] == want["subtask"]
    again = policy.infer_many(sessions[: len(bad)], [good[0]] * len(bad), errors="return")
    for answer in again:
        np.testing.assert_allclose(answer["actions"], alone[0]["actions"], atol=1e-4)
    with pytest.raises(ValueError, match="NaN"):
        policy.infer_many([policy.session(), policy.session()], [good[0], bad[1]])
    lonely = policy.infer_many([policy.session()], [bad[1]], errors="return")
    assert isinstance(lonely[0], ValueError)


def test_a_session_has_one_turn_at_a_time(policy):
    session, other = policy.session(), policy.session()
    with pytest.raises(ValueError, match="one turn at a time"):
        policy.infer_many([session, session], [observation(), observation()])
    answers = policy.infer_many([session, session, other], [observation()] * 3, errors="return")
    assert [isinstance(answer, ValueError) for answer in answers] == [False, True, False]


def test_a_session_is_answered_by_its_own_policy(policy):
    other = Policy(policy.bundle)
    session, mine = policy.session(), other.session()
    answers = other.infer_many([session, mine], [observation()] * 2, errors="return")
    assert "session.move_to(policy)" in str(answers[0]) and "actions" in answers[1]
    session.move_to(other)
    assert "actions" in other.infer_many([session], [observation()])[0]


def test_a_session_that_moves_keeps_the_time_of_the_new_policy_unless_it_has_its_own(policy):
    quick = Policy(policy.bundle, replan_steps=1)
    follows, chosen = policy.session(), policy.session(replan_steps=3)
    for session in (follows, chosen):
        session.move_to(quick)
    assert (follows.replan_steps, chosen.replan_steps) == (1, 3)


def test_a_session_that_moves_is_led_by_the_new_policys_own_high_level(policy, monkeypatch):
    """A checkpoint with subtasks in place of one without, and back; what somebody chose for a session stays."""
    says(policy, monkeypatch, TOLD)
    flat = policy_of(pi0("debug", prompt="pi0"))
    session, chosen = flat.session(), policy.session(high_level="implicit")
    for to, subtask in ((policy, "pick up the red cup"), (flat, None), (policy, "pick up the red cup")):
        session.move_to(to)
        assert session.infer(observation())["subtask"] == subtask
    with pytest.raises(ValueError, match="has not learned to write subtasks"):
        chosen.move_to(flat)
    assert chosen.infer(observation())["subtask"] is None and chosen.policy is policy


def test_high_levels_of_one_batch_differ(policy, monkeypatch):
    levels = ["model", "none", "oracle", "model"]
    shown = [observation(i, **({"subtask": TOLD} if level == "oracle" else {})) for i, level in enumerate(levels)]
    alone = [policy.session(high_level=level).infer(one) for level, one in zip(levels, shown, strict=True)]
    together = policy.infer_many([policy.session(high_level=level) for level in levels], shown)
    for one, of_many in zip(alone, together, strict=True):
        np.testing.assert_allclose(of_many["actions"], one["actions"], atol=1e-4)
        assert of_many["subtask"] == one["subtask"]


def test_a_camera_that_is_not_there_is_masked(policy):
    """The same as if the picture had never been read, alone and beside a robot that has it."""
    whole = observation(1)
    without = whole | {"images": whole["images"] | {"wrist": None}}
    row = policy.make_observation(policy.make_sample(without))
    assert list(row.images) == ["room"]
    alone = policy.session().infer(without)
    assert np.abs(alone["actions"] - policy.session().infer(whole)["actions"]).max() > 1e-6
    together = policy.infer_many([policy.session(), policy.session()], [whole, without])
    np.testing.assert_allclose(together[1]["actions"], alone["actions"], atol=1e-4)
    with pytest.raises(ValueError, match=r"needs one camera at least, got None for \['room', 'wrist'\]"):
        policy.session().infer(whole | {"images": dict.fromkeys(ROBOT.cameras)})
    with pytest.raises(ValueError, match="not 'rear'"):
        policy.session().infer(whole | {"images": {**whole["images"], "rear": None}})


def test_a_neighbour_without_a_camera_does_not_change_the_order_of_others(policy):
    """The model reads pictures in the robot's order, whoever comes first in a batch."""
    whole = observation(1)
    without = whole | {"images": whole["images"] | {"room": None}}
    alone = [policy.session().infer(one) for one in (without, whole)]
    together = policy.infer_many([policy.session(), policy.session()], [without, whole])
    for one, of_many in zip(alone, together, strict=True):
        np.testing.assert_allclose(of_many["actions"], one["actions"], atol=1e-4)


def test_a_model_that_cannot_do_without_a_camera_says_so(policy, monkeypatch):
    monkeypatch.setattr(type(policy.model), "needs_all_cameras", True)
    shown = observation()
    with pytest.raises(ValueError, match=r"needs all of its cameras, got None for \['wrist'\]"):
        policy.session().infer(shown | {"images": shown["images"] | {"wrist": None}})
