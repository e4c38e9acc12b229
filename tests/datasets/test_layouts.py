"""What the entries of others' data sets make of their features: state, actions, gripper, and what may be drawn."""

import numpy as np
import pytest

from pilot.datasets import all_datasets, bridge, droid, libero, load_layout, oxe
from pilot.robots import load_robot

STEPS = 40


class Features(dict):
    """An episode's features, as `EpisodeFeatures` gives them."""

    def metadata(self, name):
        return self["episode_metadata/" + name]


def numbered(*shape: int) -> np.ndarray:
    """Values that tell step and dim: step + dim / 100."""
    dims = np.arange(int(np.prod(shape, dtype=int))).reshape(shape) / 100
    return (np.arange(STEPS).reshape(-1, *[1] * len(shape)) + dims).astype(np.float32)


def droid_episode(velocity: np.ndarray, file_path: str = "r2d2/success/1") -> Features:
    return Features(
        {
            "episode_metadata/file_path": file_path,
            "observation/joint_position": numbered(7),
            "observation/gripper_position": numbered(),
            "action_dict/joint_velocity": velocity,
            "action_dict/gripper_position": numbered(1) + 0.5,
        }
    )


HAS = {f"episode_metadata/has_image_{i}": i < 2 for i in range(4)}
EPISODES = {
    "droid": droid_episode(numbered(7)),
    "bridge_dataset": Features({"observation/state": numbered(7), "action": numbered(7)} | HAS),
    "bridge": Features({"observation/state": numbered(7), "action/open_gripper": np.arange(STEPS) % 2 == 0}),
    "fractal20220817_data": Features(
        {
            "observation/base_pose_tool_reached": numbered(7),
            "observation/gripper_closed": numbered(1),
            "action/world_vector": numbered(3),
            "action/rotation_delta": numbered(3),
            "action/gripper_closedness_action": np.zeros((STEPS, 1)),
        }
    ),
    "berkeley_autolab_ur5": Features(
        {"observation/robot_state": numbered(15), "action/gripper_closedness_action": np.zeros(STEPS)}
    ),
} | dict.fromkeys(
    [f"libero_{suite}_no_noops" for suite in libero.SUITES],
    Features({"observation/state": numbered(8), "action": numbered(7)}),
)


@pytest.mark.parametrize("name", [name for name, entry in all_datasets().items() if entry.layout])
def test_columns_are_the_robots(name):
    entry, robot = all_datasets()[name], load_robot(all_datasets()[name].robot)
    found = entry.layout.columns(EPISODES[name])
    assert found.state.shape[1] == robot.state_dim and found.actions.shape[1] == robot.action_dim
    assert len(found.state) == len(found.actions)
    assert set(entry.layout.cameras) <= set(robot.cameras) and entry.layout.instruction


def test_an_unknown_set_says_where_to_describe_it():
    assert load_layout("droid").fps == 15
    with pytest.raises(ValueError, match=r"no entry describes the RLDS set 'kuka', known are .*bridge\.py"):
        load_layout("kuka")


def test_droid_leaves_failures_out():
    assert droid.columns(droid_episode(numbered(7), "r2d2/failure/1")) is None
    found = droid.columns(EPISODES["droid"])
    np.testing.assert_allclose(found.state[3], [*(3 + np.arange(7) / 100), 3], rtol=1e-6)
    np.testing.assert_allclose(found.actions[3], [*(3 + np.arange(7) / 100), 3.5], rtol=1e-6)


def velocity(*spans: tuple[int, bool]) -> np.ndarray:
    """Commands that change at every step of a moving span, and at none of an idle one."""
    change = np.concatenate([np.full(length, moves) for length, moves in spans])
    return np.cumsum(np.where(change, 0.1, 0.0))[:, None].repeat(7, 1)


@pytest.mark.parametrize(
    ("spans", "drawn"),
    [
        ([(40, True)], [(0, 30)]),
        ([(20, True), (6, False), (20, True)], [(0, 36)]),  # a short rest does not count
        ([(20, True), (7, False), (20, True)], [(0, 10), (27, 37)]),
        ([(10, True), (9, False), (30, True)], [(19, 39)]),  # ten moving steps are too few
        ([(60, False)], []),
    ],
)
def test_droid_draws_steps_that_move(spans, drawn):
    found = np.flatnonzero(droid.moving(velocity(*spans))).tolist()
    assert found == [step for start, stop in drawn for step in range(start, stop)]


def test_bridge_actions_are_what_was_reached():
    state = numbered(7) ** 2
    gripper = np.linspace(1, 0, STEPS, dtype=np.float32)
    found = bridge.own_columns(Features({"observation/state": state, "action": gripper[:, None].repeat(7, 1)} | HAS))
    assert found.missing == ("image_2", "image_3")
    assert found.first == 1 and len(found.state) == STEPS - 2
    np.testing.assert_array_equal(found.state, state[1:-1])
    np.testing.assert_allclose(found.actions[:, :6], state[2:, :6] - state[1:-1, :6], rtol=1e-6)
    oxe_like = bridge.oxe_columns(EPISODES["bridge"])
    assert oxe_like.actions[:4, 6].tolist() == [0, 1, 0, 1]


def test_bridge_grippers_on_their_way_count_as_there():
    commands = np.array([1, 1, 0.7, 0.3, 0, 0, 0.4, 1, 0.8], np.float32)
    np.testing.assert_allclose(bridge.settle_gripper(commands), [1, 1, 0, 0, 0, 0, 1, 1, 0.8])


@pytest.mark.parametrize(
    ("change", "closed"),
    [
        ([0, 0, 1, 0, 0, -1, 0], [0, 0, 1, 1, 1, 0, 0]),
        ([0, -1, 0], [1, 0, 0]),  # who opens was closed
        ([0, 0.05, 0], [0, 0, 0]),
        ([0.5, 0, -0.5], [1, 1, 0]),
    ],
)
def test_gripper_changes_become_targets(change, closed):
    assert oxe.is_closed(np.array(change, np.float32)).tolist() == [bool(c) for c in closed]


def test_fractal_opens_with_one_and_ur5_with_zero():
    change = np.zeros(STEPS)
    change[10] = 1
    fractal = EPISODES["fractal20220817_data"] | {"action/gripper_closedness_action": change[:, None]}
    assert oxe.fractal_columns(Features(fractal)).actions[[9, 10, 11], 6].tolist() == [1, 0, 0]
    ur5 = oxe.ur5_columns(
        Features({"observation/robot_state": numbered(15), "action/gripper_closedness_action": change})
    )
    assert ur5.actions[[9, 10, 11], 6].tolist() == [0, 1, 1]
    np.testing.assert_allclose(ur5.actions[5, :6], 6 + np.arange(6) / 100, rtol=1e-6)  # the joints of the next step
    np.testing.assert_allclose(ur5.state[5], [*(5 + np.arange(6) / 100), 5.13], rtol=1e-6)
