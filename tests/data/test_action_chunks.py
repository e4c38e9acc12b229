"""Chunks to fit action tokenizers to, and the command that does it."""

import numpy as np
import pytest
from data.bodies import record_robot
from data.recordings import ROBOT, episode, record

from pilot.cli import main
from pilot.data.action_chunks import whole_chunks
from pilot.data.formats import lerobot_layout as fmt
from pilot.data.formats.lerobot import LeRobotDataset
from pilot.data.formats.writer import LeRobotWriter
from pilot.data.stats import compute_norm_stats
from pilot.robots import load_robot
from pilot.tokenizers import load_action_tokenizer

HORIZON, LENGTH, EPISODES = 4, 12, 11


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("data") / "toy"
    record(folder, [episode(rng, LENGTH) for _ in range(EPISODES)])
    return LeRobotDataset(folder, HORIZON)


def drawn(dataset, **options):
    stats = compute_norm_stats([dataset], ROBOT)["actions"]
    return stats, whole_chunks([dataset], ROBOT, stats=stats, **options)


def test_chunks_are_relative_normalised_and_whole(dataset):
    stats, chunks = drawn(dataset)
    assert chunks.shape == (EPISODES * (LENGTH - HORIZON + 1), HORIZON, 2)
    first = dataset.actions[:HORIZON] - dataset.state[0, :2]
    expected = (first - stats.q01) / (stats.q99 - stats.q01 + 1e-6) * 2 - 1
    assert np.isclose(chunks, expected, atol=1e-5).all((1, 2)).sum() == 1
    z = drawn(dataset, norm="zscore")[1]
    assert not np.allclose(z, chunks) and np.isclose(z.std((0, 1)), 1, atol=0.1).all()


def test_held_out_episodes_share_no_chunk_with_those_fitted_to(dataset):
    fitted, held_out = (drawn(dataset, part=part)[1] for part in ("fitted", "held_out"))
    assert (len(fitted), len(held_out)) == (9 * 9, 2 * 9)
    assert not {c.tobytes() for c in fitted} & {c.tobytes() for c in held_out}


def test_rows_that_training_may_not_draw_begin_no_chunk(dataset):
    some = LeRobotDataset(dataset.path, HORIZON)
    some.trainable = np.isin(some.episode_of, (0, 2, 3))
    stats = compute_norm_stats([dataset], ROBOT)["actions"]
    parts = {part: whole_chunks([some], ROBOT, stats=stats, part=part) for part in ("all", "fitted", "held_out")}
    assert {part: len(chunks) for part, chunks in parts.items()} == {"all": 27, "fitted": 18, "held_out": 9}
    kept = LeRobotDataset(dataset.path, HORIZON, episodes=[0, 2, 3])
    expected = whole_chunks([kept], ROBOT, stats=stats)
    assert {c.tobytes() for c in parts["all"]} == {c.tobytes() for c in expected}


def test_one_episode_is_both(dataset):
    alone = LeRobotDataset(dataset.path, HORIZON, episodes=[3])
    assert len(drawn(alone, part="fitted")[1]) == len(drawn(alone, part="held_out")[1]) == 9


def test_a_horizon_longer_than_every_episode_is_an_error(dataset):
    long = LeRobotDataset(dataset.path, LENGTH + 1)
    with pytest.raises(ValueError, match="no episode has 13 usable actions"):
        drawn(long)


@pytest.fixture(scope="module")
def homes(tmp_path_factory):
    """Two hands' breadth of motion for the robot of the homes, with pictures of one pixel."""
    path, robot = tmp_path_factory.mktemp("data") / "homes", load_robot("homes")
    rng, steps = np.random.default_rng(0), np.linspace(0, 1, 30, dtype=np.float32)[:, None]
    with LeRobotWriter(path, robot, robot.control_hz) as writer:
        for _ in range(4):
            state = steps * rng.uniform(-1, 1, robot.state_dim).astype(np.float32)
            pictures = {fmt.IMAGES + camera: np.zeros((30, 1, 1, 3), np.uint8) for camera in robot.cameras}
            action = state[:, : robot.action_dim] + rng.normal(0, 0.01, (30, robot.action_dim)).astype(np.float32)
            writer.add_episode({fmt.STATE: state, fmt.ACTION: action, **pictures}, task="go")
    return path


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        (["--kind", "fast", "--vocab-size", "256", "--scale", "20", "--budget", "3"], "FastTokenizer"),
        (["--kind", "vq", "--vocab-size", "16", "--tokens", "2", "--budget", "2"], "VqTokenizer"),
        (["--kind", "bins", "--budget", "39"], "BinsTokenizer"),
    ],
)
def test_the_command_fits_saves_and_reports(homes, tmp_path, capsys, options, kind):
    assert main.main(["data", "tokenizer", str(homes), "--out", str(tmp_path / "t"), *options]) == 0
    assert type(load_action_tokenizer(tmp_path / "t")).__name__ == kind
    shown = capsys.readouterr().out
    for name in load_robot("homes").action_names:
        assert f"  {name}" in shown
    over = {"fast": "100.00%", "vq": "0.00%", "bins": "100.00%"}[options[1]]
    assert "tokens each" in shown and f"over the token budget: {over}" in shown


def test_the_command_fits_fast_to_sets_of_different_robots(homes, tmp_path, capsys):
    disc = record_robot(tmp_path / "disc", load_robot("pusht"), seed=1)
    both = ["data", "tokenizer", str(homes), str(disc), "--out", str(tmp_path / "t")]
    assert main.main([*both, "--vocab-size", "256"]) == 0
    shown = capsys.readouterr().out
    assert "on held-out episodes of 'homes':" in shown and "on held-out episodes of 'pusht':" in shown
    fast = load_action_tokenizer(tmp_path / "t")
    for dims in (4, 2):
        chunk = np.zeros((10, dims), np.float32)
        assert fast.decode(fast.encode(chunk), 10, dims).actions.shape == chunk.shape
    assert main.main([*both, "--kind", "vq"]) == 2
    assert "'vq' is for one robot's dims, and these sets are of homes, pusht; fit one each" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--kind", "fist"], "did you mean 'fast'?"),
        (["--kind", "fast", "--vocab-size", "4"], "vocab_size 4 is too small"),
        (["--action-horizon", "31"], "shorten the horizon"),
        (["--robot", "homs"], "homes"),
    ],
)
def test_what_cannot_be_fitted_is_said(homes, tmp_path, capsys, options, message):
    assert main.main(["data", "tokenizer", str(homes), "--out", str(tmp_path / "t"), *options]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "t").exists()
