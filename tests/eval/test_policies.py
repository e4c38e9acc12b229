"""A checkpoint's policy as a function: it plans a chunk, executes some of it, and travels as its path."""

import pickle

import numpy as np

from eval.checkpoints import save_random_policy
from pilot.cli.main import main
from pilot.data.formats.lerobot import LeRobotDataset
from pilot.data.storage.files import read_json
from pilot.eval.episode_log import fingerprint
from pilot.eval.policies import Driver
from pilot.infer.policy import load_policy

OBSERVATION = {
    "images": {"room": np.zeros((64, 64, 3), np.uint8), "wrist": np.zeros((64, 64, 3), np.uint8)},
    "state": np.zeros(5, np.float32),
    "prompt": "put the red cup in the sink",
}


def test_a_driver_acts_as_a_session_of_its_checkpoint_and_starts_anew(tmp_path):
    path = save_random_policy(tmp_path / "policy")
    policy = load_policy(path)
    session = policy.session()
    chunks = [session.infer(OBSERVATION)["actions"] for _ in range(2)]
    expected = np.concatenate([chunk[: policy.replan_steps] for chunk in chunks])
    driver = pickle.loads(pickle.dumps(Driver(path)))
    for _ in range(2):
        driver.reset()
        actions = []
        for tick in range(len(expected)):
            assert driver.looks == (tick % policy.replan_steps == 0)
            actions.append(driver(OBSERVATION))
        np.testing.assert_allclose(np.stack(actions), expected, atol=1e-6)
    assert not np.allclose(expected[:2], expected[2:])  # the second look drew other noise
    driver = pickle.loads(pickle.dumps(Driver(path, replan_steps=1)))
    assert [driver.looks for _ in range(3) if driver(OBSERVATION) is not None] == [True] * 3


def test_collect_lets_a_policy_drive(tmp_path, capsys):
    path = save_random_policy(tmp_path / "policy")
    base = [
        "collect",
        str(tmp_path / "set"),
        "--suite",
        "homes-l1",
        "--homes",
        "1",
        "--episodes",
        "1",
        "--workers",
        "1",
    ]
    for option in ("--driven-steps", "--takeovers", "--replan-steps"):
        assert main([*base, option, "30"]) != 0
        assert f"{option} says how a policy drives; name it: --policy CHECKPOINT" in capsys.readouterr().err
    drives = [*base, "--policy", str(path), "--driven-steps", "30"]
    assert main([*drives, "--replan-steps", "3"]) == 0
    known = read_json(tmp_path / "set" / "collect.json", remedy="")["settings"]["driver"]
    assert known == f"{fingerprint(path)}, 3 actions at a time"
    assert main([*drives, "--replan-steps", "2"]) != 0  # a set is of one policy that acts in one way
    assert "was collected with driver=" in capsys.readouterr().err
    dataset = LeRobotDataset(tmp_path / "set", 8)
    driven = np.flatnonzero(dataset.perturbed)
    assert len(driven) >= 4 and driven[0] == 0
