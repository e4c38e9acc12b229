"""A real policy behind the server: what robots get is what the policy says to each, alone or together."""

import asyncio
import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from infer.policies import TOLD, save_toy
from pilot.infer.policy import Policy, load_policy
from pilot.robots.homes import ROBOT
from pilot.serve.client import PolicyError
from pilot.serve.hosted_policy import HostedPolicy
from pilot.serve.server import serve_in_background
from serve.policies import eventually, gauge, robot


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return save_toy(tmp_path_factory.mktemp("checkpoints") / "toy")


@pytest.fixture(scope="module")
def policy(folder) -> Policy:
    return load_policy(folder, num_steps=2)


@pytest.fixture(scope="module", autouse=True)
def without_limits():
    """A model that has learned nothing stays within no limits, and here it is to be heard as it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pilot.infer.actor.limits_of", lambda robot: None)
        yield


@pytest.fixture(scope="module", params=[1, 2], ids=["one worker", "two workers"])
def hosted(request, policy) -> HostedPolicy:
    return HostedPolicy("toy", policy, max_batch=8, workers=request.param)


@pytest.fixture(scope="module")
def port(hosted):
    with serve_in_background(hosted) as port:
        yield port


def observation(seed=0, **changes) -> dict:
    """With a subtask given: a model that has learned nothing talks long."""
    rng = np.random.default_rng(seed)
    images = {camera: rng.integers(0, 256, (64, 64, 3), dtype=np.uint8) for camera in ROBOT.cameras}
    state = rng.uniform(-0.1, 0.1, size=5).astype(np.float32)
    return {"images": images, "state": state, "prompt": "tidy up", "subtask": TOLD} | changes


def test_a_robot_gets_what_a_session_says(policy, port):
    session = policy.session()
    with robot(port) as client:
        for seed, subtask in ((0, None), (1, TOLD)):
            seen = observation(seed, subtask=subtask)
            here, there = session.infer(seen), client.infer(seen)
            np.testing.assert_allclose(there["actions"], here["actions"], atol=1e-5)
            assert there["subtask"] == here["subtask"] and there["actions"].dtype == np.float32


def test_a_chunk_goes_on_from_what_is_left_of_the_one_before(policy, port):
    session = policy.session()
    with robot(port) as client:
        first = client.infer(observation())
        np.testing.assert_allclose(session.infer(observation())["actions"], first["actions"], atol=1e-5)
        previous = {"actions": first["actions"][2:] + 0.05, "delay": 2}
        joined = client.infer(observation(previous=previous))["actions"]
        expected = session.infer(observation(previous=previous))["actions"]
        np.testing.assert_allclose(joined, expected, atol=1e-4)
    away = np.abs(joined[:2] - previous["actions"][:2]).max()
    free = np.abs(policy.session().infer(observation())["actions"][:2] - previous["actions"][:2]).max()
    assert away < free / 2, "what is being done already is taken up"


BAD = [
    ({"images": {"hand": np.zeros((8, 8, 3), np.uint8)}}, r"cameras .*are missing.*got \['hand'\]"),
    ({"state": np.zeros(4, np.float32)}, "robot 'homes' has 5 state dims"),
    ({"state": np.full(5, np.nan, np.float32)}, "'state' .* is nan"),
    ({"prompt": 3}, "'prompt' is a string, got int"),
    ({"prompt": "a " * 1000}, "max_tokens is 80"),
    ({"previous": {"actions": np.zeros((3, 9)), "delay": 1}}, r"actions \[n 4\] of robot 'homes'"),
    ({"previous": {"actions": np.zeros((3, 4))}}, "'previous' holds 'actions' and 'delay'"),
]


def test_bad_robots_fail_alone_in_a_batch_with_good_ones(policy, hosted, port):
    """All wait together while the model is kept busy; then the good ones get what each would get alone."""
    expected = [policy.session().infer(observation(seed))["actions"] for seed in range(2)]
    questions = [observation(0), *(observation(**changes) for changes, _ in BAD), observation(1)]
    go = threading.Event()
    busy = hosted.batcher.run_alone(lambda: go.wait(60))
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(len(questions)) as pool:
        clients = [stack.enter_context(robot(port)) for _ in questions]
        answers = [pool.submit(client.infer, question) for client, question in zip(clients, questions)]
        refused_at_once = sum("nan" in words for _, words in BAD)
        eventually(lambda: gauge(port, "pilot_answering") == len(questions) - refused_at_once)
        go.set()
        assert busy.result(60)
        for answer, actions in zip((answers[0], answers[-1]), expected):
            np.testing.assert_allclose(answer.result()["actions"], actions, atol=1e-4)
        for answer, (_, words) in zip(answers[1:-1], BAD):
            with pytest.raises(PolicyError, match=words):
                answer.result()


def test_sessions_go_on_with_a_policy_that_is_loaded_anew(folder, policy):
    session, other = policy.session(), load_policy(folder, num_steps=3)
    expected = [session.infer(observation())["actions"]]
    session.move_to(other)
    expected.append(session.infer(observation())["actions"])
    hosted = HostedPolicy("toy", policy, load=lambda: load_policy(folder, num_steps=3), max_batch=1)
    with serve_in_background(hosted) as port, robot(port) as client:
        before = client.infer(observation())["actions"]
        asyncio.run(hosted.reload())
        after = client.infer(observation())["actions"]
    np.testing.assert_allclose(before, expected[0], atol=1e-5)
    np.testing.assert_allclose(after, expected[1], atol=1e-5)
