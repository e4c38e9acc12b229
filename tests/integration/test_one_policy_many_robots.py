"""One model for robots of different bodies, the whole way: recorded, trained on together, saved, loaded and served."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data.bodies import record_robot

from pilot.infer.policy import Policy, load_policy
from pilot.infer.safety import limit_chunk
from pilot.models.pi import pi05
from pilot.robots import load_robot
from pilot.serve.hosted_policy import HostedPolicy
from pilot.serve.server import serve_in_background
from pilot.tokenizers.text import box_to_locs
from pilot.train.config import CheckpointConfig, DataConfig, ParallelConfig, Source, TrainConfig
from pilot.train.loop import train
from serve.policies import eventually, gauge, robot

pytestmark = [
    pytest.mark.usefixtures("no_shape_checks"),
    pytest.mark.filterwarnings("ignore:state dim", "ignore:constant dims"),
]
ROBOTS = {name: load_robot(name) for name in ("ur5", "pusht")}
TOLD = box_to_locs((0.1, 0.2, 0.3, 0.4)) + "push"


@pytest.fixture(scope="module")
def policy(tmp_path_factory) -> Policy:
    folder = tmp_path_factory.mktemp("many")
    sources = tuple(
        Source(path=str(record_robot(folder / name, own, seed=seed)), robot=name)
        for seed, (name, own) in enumerate(ROBOTS.items())
    )
    run = TrainConfig(
        name="many", robot="ur5", model=pi05("debug", max_tokens=120), steps=20, batch_size=8,
        data=DataConfig(sources=sources, frame_cache=False), parallel=ParallelConfig(threads=1),
        checkpoints=CheckpointConfig(save_every=20),
    )  # fmt: skip
    return load_policy(train(run, out=folder / "run", progress=False), device="cpu", verify=True)


@pytest.fixture(scope="module")
def hosted(policy) -> HostedPolicy:
    return HostedPolicy("many", policy, max_batch=4)


@pytest.fixture(scope="module")
def port(hosted):
    with serve_in_background(hosted) as port:
        yield port


def observation(name: str, seed: int = 0) -> dict[str, Any]:
    rng, own = np.random.default_rng(seed), ROBOTS[name]
    images = {camera: rng.integers(0, 256, (16, 16, 3), dtype=np.uint8) for camera in own.cameras}
    state = rng.normal(size=own.state_dim).astype(np.float32)
    return {"images": images, "state": state, "prompt": "push", "subtask": TOLD}


def within_limits(name: str, actions: np.ndarray, policy: Policy) -> np.ndarray:
    """Return a chunk as a server sends it: this little training has no sense of what a robot may do."""
    return limit_chunk(actions, policy.describe(name))[0]


def test_two_clients_of_different_robots_are_answered_in_one_batch_as_if_alone(policy, hosted, port):
    go, names = threading.Event(), list(ROBOTS)
    with robot(port, robot="ur5") as arm, robot(port, robot="pusht") as disc, ThreadPoolExecutor(2) as pool:
        clients = dict(zip(names, (arm, disc), strict=True))
        assert [client.metadata["robot"] for client in clients.values()] == names
        assert disc.metadata["control_hz"] == ROBOTS["pusht"].control_hz and disc.metadata["robots"] == names
        busy = hosted.batcher.run_alone(lambda: go.wait(60))
        coming = {name: pool.submit(client.infer, observation(name)) for name, client in clients.items()}
        eventually(lambda: gauge(port, "pilot_answering") == 2)
        go.set()
        assert busy.result(60)
        answers = {name: answer.result() for name, answer in coming.items()}
        assert gauge(port, "pilot_batch_robots_sum") == 2 + 2, "both were in a batch of two"
    for name, answer in answers.items():
        alone = within_limits(name, policy.session(robot=name).infer(observation(name))["actions"], policy)
        assert answer["actions"].shape == (6, ROBOTS[name].action_dim)
        np.testing.assert_allclose(answer["actions"], alone, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("name", "message"),
    [("", "is for robots ur5, pusht: say which you are"), ("push", r"unknown robot .* did you mean 'pusht'\?")],
)
def test_a_client_that_does_not_say_which_robot_it_is_is_told(port, name, message):
    with pytest.raises(ConnectionError, match=message):
        robot(port, robot=name)


def test_each_robot_asks_again_after_a_fifth_of_a_second_of_its_own_ticks(policy):
    assert {name: round(robot.control_hz) for name, robot in ROBOTS.items()} == {"ur5": 20, "pusht": 10}
    for name, steps in (("ur5", 4), ("pusht", 2)):
        assert policy.session(robot=name).replan_steps == policy.describe(name)["replan_steps"] == steps
    with pytest.raises(ValueError, match="pusht"):
        policy.replan_steps_of()


def test_a_robot_that_comes_back_goes_on_and_one_of_another_kind_begins(policy, port):
    session = policy.session(robot="pusht")
    chunks = [session.infer(observation("pusht", seed))["actions"] for seed in range(2)]
    expected = [within_limits("pusht", chunk, policy) for chunk in chunks]
    with robot(port, robot="pusht") as disc:
        first = disc.infer(observation("pusht", 0))["actions"]
        disc._disconnect()
        second = disc.infer(observation("pusht", 1))["actions"]
        with robot(port, robot="ur5") as arm:
            arm._disconnect(over=True)
            arm.session = disc.session
            fresh = arm.infer(observation("ur5"))["actions"]
    np.testing.assert_allclose(np.stack([first, second]), expected, atol=1e-5)
    alone = policy.session(robot="ur5").infer(observation("ur5"))["actions"]
    np.testing.assert_allclose(fresh, within_limits("ur5", alone, policy), atol=1e-5)


def test_openpi_s_client_of_one_of_the_robots_is_understood(policy, port):
    seen = observation("ur5")
    raw = {**seen["images"], "joints": seen["state"][:6], "gripper": seen["state"][6:], "prompt": "push"}
    with robot(port, robot="ur5") as arm:
        answer = arm.infer(raw)["actions"]
    expected = policy.session(robot="ur5").infer({key: seen[key] for key in ("images", "state", "prompt")})
    np.testing.assert_allclose(answer, within_limits("ur5", expected["actions"], policy), atol=1e-5)


def test_the_policy_s_folder_says_whose_statistics_are_whose(policy):
    assert isinstance(policy.path, Path)
    files = {str(file.relative_to(policy.path)) for file in policy.path.rglob("*") if file.is_file()}
    assert {f"robots/{name}/{file}" for name in ROBOTS for file in ("norm_stats.json", "record.safetensors")} <= files
