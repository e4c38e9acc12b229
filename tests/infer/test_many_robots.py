"""One policy, several kinds of robots at once: each answered as if it were alone."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from infer.weights import model
from pilot.contracts import examples
from pilot.infer.policy import Policy, export, load_policy
from pilot.infer.record import FILE
from pilot.models.bundle import Bundle
from pilot.models.pi import PiConfig, pi0, pi0_fast, pi05
from pilot.models.trained_robots import TrainedRobot, by_name
from pilot.robots.homes import ROBOT as HOMES
from pilot.tokenizers.fast import FastTokenizer
from pilot.tokenizers.text import TextTokenizer, box_to_locs
from pilot.types import Robot, make_bool_mask

TWO_HANDS = Robot(
    name="two_hands",
    cameras=("room", "left", "wrist"),
    wrist_cameras=("wrist", "left"),
    state_names=tuple(f"joint_{i}" for i in range(8)),
    action_names=tuple(f"joint_{i}" for i in range(8)),
    delta_mask=make_bool_mask(7, -1),
    control_hz=50.0,
    control_mode="joint",
)
EYELESS = replace(
    TWO_HANDS, name="eyeless", cameras=("room",), wrist_cameras=(), state_names=("x", "y"), action_names=("x", "y"),
    delta_mask=(False, False), control_hz=20.0, control_mode="",
)  # fmt: skip
ROBOTS = (HOMES, TWO_HANDS, EYELESS)
TOLD = box_to_locs((0.1, 0.2, 0.3, 0.4)) + "pick up the red cup"
CHUNKS = np.random.default_rng(0).uniform(-1, 1, (64, 6, 4)).astype(np.float32)
CONFIGS: dict[str, PiConfig] = {
    "pi05": pi05("debug", max_tokens=160),
    "pi0": pi0("debug", max_tokens=160, prompt="pi0"),
    "openpi": pi05("debug", max_tokens=160, prompt="pi05", integrate_padded_dims=True),
    "pi0_fast": pi0_fast("debug", max_tokens=160),
}


def bundle_of(config: PiConfig, *robots: Robot) -> Bundle:
    trained = [TrainedRobot(robot=robot, norm_stats=examples.make_norm_stats(robot)) for robot in robots]
    fast = FastTokenizer.fit(CHUNKS, vocab_size=config.fast_vocab_size)
    return Bundle(model=model(config), robots=by_name(trained), text=TextTokenizer(), action_tokenizer=fast)


def observation(robot: Robot, seed: int = 0, **changes: Any) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    images = {camera: rng.integers(0, 256, (24, 32, 3), dtype=np.uint8) for camera in robot.cameras}
    state = rng.uniform(-1, 1, robot.state_dim).astype(np.float32)
    return {"images": images, "state": state, "prompt": "put the red cup in the sink"} | changes


@pytest.fixture(scope="module")
def policy() -> Policy:
    return Policy(bundle_of(CONFIGS["pi05"], *ROBOTS))


@pytest.mark.parametrize("name", CONFIGS)
def test_robots_in_one_batch_are_answered_as_if_alone(name):
    policy = Policy(bundle_of(CONFIGS[name], *ROBOTS))
    order = [TWO_HANDS, HOMES, EYELESS, HOMES]
    told = {} if name != "pi05" else {"subtask": TOLD}
    shown = [observation(robot, seed, **told) for seed, robot in enumerate(order)]
    together = policy.infer_many([policy.session(robot=robot.name) for robot in order], shown)
    for robot, seen, answer in zip(order, shown, together, strict=True):
        alone = policy.session(robot=robot.name).infer(seen)["actions"]
        assert answer["actions"].shape == (6, robot.action_dim)
        np.testing.assert_allclose(answer["actions"], alone, atol=1e-6, rtol=0)


def test_it_acts_for_each_as_a_policy_of_that_robot_alone_does(policy):
    for robot in ROBOTS:
        own = Policy(replace(policy.bundle, robots={robot.name: policy.bundle.robots[robot.name]}))
        seen = observation(robot)
        np.testing.assert_array_equal(own.infer(seen)["actions"], policy.infer(seen, robot=robot.name)["actions"])


def test_subtasks_are_written_in_one_batch_too(policy):
    order = [TWO_HANDS, HOMES]
    shown = [observation(robot) for robot in order]
    together = policy.infer_many([policy.session(robot=robot.name) for robot in order], shown)
    for robot, seen, answer in zip(order, shown, together, strict=True):
        alone = policy.session(robot=robot.name).infer(seen)
        assert answer["subtask"] == alone["subtask"]
        np.testing.assert_allclose(answer["actions"], alone["actions"], atol=1e-6, rtol=0)


def test_dims_that_a_row_s_robot_lacks_end_at_zero(policy, monkeypatch):
    chunks = {}
    for name, pipeline in policy.pipelines.items():
        decode = pipeline.decode_actions
        monkeypatch.setattr(
            pipeline,
            "decode_actions",
            lambda chunk, *a, n=name, d=decode, **k: chunks.update({n: chunk}) or d(chunk, *a, **k),
        )
    policy.infer_many(
        [policy.session(robot=robot.name) for robot in ROBOTS], [observation(robot, subtask=TOLD) for robot in ROBOTS]
    )
    for robot in ROBOTS:
        assert np.abs(chunks[robot.name][:, robot.action_dim :]).max(initial=0) < 1e-6
        assert np.abs(chunks[robot.name][:, : robot.action_dim]).max() > 1e-3


@pytest.mark.parametrize("mode", ["guided", "prefix"])
def test_chunks_of_different_robots_are_joined_in_one_batch(policy, mode):
    joined = Policy(policy.bundle)
    joined.rtc = replace(policy.rtc, mode=mode)
    order = [TWO_HANDS, EYELESS, HOMES]
    left = [None, np.full((4, 2), 0.3, np.float32), np.full((3, 4), 0.2, np.float32)]
    more = [{} if actions is None else {"previous": {"actions": actions, "delay": 2}} for actions in left]
    shown = [observation(robot, subtask=TOLD, **one) for robot, one in zip(order, more, strict=True)]
    together = joined.infer_many([joined.session(robot=robot.name) for robot in order], shown)
    for robot, seen, answer in zip(order, shown, together, strict=True):
        alone = joined.session(robot=robot.name).infer(seen)["actions"]
        np.testing.assert_allclose(answer["actions"], alone, atol=2e-5, rtol=0)


def test_a_session_names_its_robot(policy):
    for ask in (policy.session, lambda: policy.infer(observation(HOMES))):
        with pytest.raises(ValueError, match="for robots homes, two_hands, eyeless; name one: robot='homes'"):
            ask()
    with pytest.raises(ValueError, match=r"not trained on robot 'two_hand'; did you mean 'two_hands'\?"):
        policy.session(robot="two_hand")
    with pytest.raises(ValueError, match=r"cameras \['left'\] are missing; robot 'two_hands'"):
        policy.infer(observation(HOMES), robot="two_hands")
    with pytest.raises(ValueError, match="'two_hands' has 8 state dims"):
        policy.infer(observation(TWO_HANDS, state=np.zeros(5)), robot="two_hands")


def test_a_session_knows_its_robot_s_clock_and_dims(policy):
    session = policy.session(robot="two_hands")
    assert session.metadata["robot"] == "two_hands" and session.metadata["control_hz"] == 50
    assert session.metadata["control_mode"] == "joint" and session.metadata["robots"] == list(policy.robots)
    session.infer(observation(TWO_HANDS, subtask=TOLD))
    assert session.state.time == pytest.approx(6 / 50), "its chunks are no longer than that"
    assert policy.metadata["robots"] == ["homes", "two_hands", "eyeless"] and "robot" not in policy.metadata


def test_one_that_is_wrong_is_told_and_the_others_are_answered(policy):
    sessions = [policy.session(robot=robot.name) for robot in (HOMES, TWO_HANDS)]
    good, bad = policy.infer_many(
        sessions, [observation(HOMES, subtask=TOLD), observation(HOMES, subtask=TOLD)], errors="return"
    )
    assert good["actions"].shape == (6, 4) and isinstance(bad, ValueError)


def test_a_session_moves_only_to_a_policy_that_knows_its_robot(policy):
    session = policy.session(robot="eyeless")
    wider = replace(EYELESS, state_names=("x", "y", "z"))
    for robots, message in (((HOMES, TWO_HANDS), "not trained on robot 'eyeless'"), ((wider,), "has other dims")):
        with pytest.raises(ValueError, match=message):
            session.move_to(Policy(bundle_of(CONFIGS["pi05"], *robots)))
        assert session.policy is policy
    other = Policy(bundle_of(CONFIGS["pi05"], EYELESS))
    session.move_to(other)
    assert session.infer(observation(EYELESS, subtask=TOLD))["actions"].shape == (6, 2)


@pytest.mark.usefixtures("no_manifests")
def test_a_checkpoint_records_and_verifies_each_robot(policy, tmp_path):
    folder = export(policy.bundle, tmp_path / "many")
    assert all((folder / "robots" / robot.name / FILE).is_file() for robot in ROBOTS) and not (folder / FILE).exists()
    again = load_policy(folder, device="cpu", verify=True)
    seen = observation(TWO_HANDS, subtask=TOLD)
    np.testing.assert_array_equal(
        again.infer(seen, robot="two_hands")["actions"], policy.infer(seen, robot="two_hands")["actions"]
    )
    change_statistics(folder / "robots/two_hands/norm_stats.json")
    with pytest.raises(ValueError, match=r"does not act as it was recorded for robot 'two_hands'"):
        load_policy(folder, device="cpu", verify=True)


def change_statistics(file: Path) -> None:
    values = json.loads(file.read_text())
    values["norm_stats"]["actions"]["q99"][0] += 1
    file.write_text(json.dumps(values))


def test_padded_dims_of_a_batch(policy):
    assert policy.padded_dims(["two_hands", "two_hands"]) is None
    assert policy.padded_dims(["homes", "homes"]).shape == (1, 8)
    mixed = policy.padded_dims(["homes", "two_hands", "eyeless"])
    assert torch.equal(mixed.sum(1), torch.tensor([4, 0, 6]))
