"""Batches are a function of (seed, step), lose no row, and come in order from a thread that ends when it should."""

import threading
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from data.recordings import ROBOT, episode, record

from pilot.contracts import examples
from pilot.data.formats import lerobot_layout as fmt
from pilot.data.formats.lerobot import LeRobotDataset
from pilot.data.formats.web import WebRows, WebWriter
from pilot.data.formats.writer import encode_png
from pilot.data.layout import Batch, Kind
from pilot.data.loading.loader import AHEAD, Loader, RobotRows, split_by_length
from pilot.data.mixture import Mixture
from pilot.data.pipeline import Pipeline, Row
from pilot.models.pi import pi05

CONFIG = pi05("debug", action_horizon=4)
ROWS = 16


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return examples.make_pipeline(ROBOT, CONFIG, with_fast=True)


@pytest.fixture(scope="module")
def mixture(tmp_path_factory) -> Mixture:
    path = tmp_path_factory.mktemp("sources")
    rng = np.random.default_rng(0)
    record(path / "robot", [demonstration(rng, length) for length in (7, 9, 6)])
    with WebWriter(path / "web") as writer:
        for number in range(3):
            picture = encode_png(np.full((8, 8, 3), number, np.uint8))
            writer.add(picture, [("caption", "a red cup" + " and a blue ball" * number)])
    return Mixture({"robot": robot_rows(path / "robot"), "web": WebRows(path / "web")}, seed=3)


def demonstration(rng: np.random.Generator, length: int, *, perturbed: tuple[int, ...] = ()) -> dict[str, np.ndarray]:
    """An episode whose boxes have their top left corner first, as the words for them need."""
    boxes = np.tile(np.array([0.1, 0.2, 0.4, 0.6], np.float32), (length, 1))
    return episode(rng, length, perturbed=perturbed) | {fmt.BOX: boxes}


def robot_rows(path: Path) -> RobotRows:
    return RobotRows("robot", LeRobotDataset(path, CONFIG.action_horizon), loc_stride=1)


@pytest.fixture
def loader(mixture, pipeline) -> Loader:
    return Loader(mixture, pipeline, batch_size=ROWS)


def tensors(batch: list[Batch]) -> list[torch.Tensor]:
    found = []
    for part in batch:
        seen = part.observation
        found += [*seen.images.values(), *seen.image_masks.values(), seen.state]
        found += [seen.tokens, seen.token_kinds, seen.token_loss, part.actions, part.action_mask]
    return found


def same(a: list[Batch], b: list[Batch]) -> bool:
    mine, theirs = tensors(a), tensors(b)
    sources = [part.sources for part in a] == [part.sources for part in b]
    return sources and len(mine) == len(theirs) and all(torch.equal(x, y) for x, y in zip(mine, theirs, strict=True))


def lengths(part: Batch) -> list[int]:
    return (part.observation.token_kinds != Kind.PAD).sum(1).tolist()


def said(part: Batch) -> list[tuple[int, ...]]:
    """Every row's tokens without their padding."""
    rows = zip(part.observation.tokens.tolist(), lengths(part), strict=True)
    return [tuple(tokens[:length]) for tokens, length in rows]


def loader_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "loader"]


def test_a_batch_is_a_function_of_seed_and_step(loader, mixture, pipeline):
    first, second = loader.batch(0), loader.batch(1)
    assert not same(first, second)
    again = Loader(Mixture(mixture.sources, seed=3), pipeline, batch_size=ROWS)
    assert same(again.batch(1), second) and same(again.batch(0), first)
    other = Loader(Mixture(mixture.sources, seed=4), pipeline, batch_size=ROWS)
    assert not same(other.batch(0), first)


def test_every_drawn_row_comes_once(loader, mixture, pipeline):
    rows = [pipeline.encode(mixture.read(draw)) for draw in mixture.draw(0, ROWS)]
    parts = loader.batch(0)
    assert sorted(tokens for part in parts for tokens in said(part)) == sorted(tuple(row.tokens) for row in rows)
    assert sorted(s for part in parts for s in part.sources) == sorted(row.source for row in rows)
    actions = np.concatenate([part.actions.flatten(1).numpy() for part in parts]).tolist()
    assert sorted(actions) == sorted(row.actions.flatten().tolist() for row in rows)


def test_rows_come_with_their_like(loader):
    parts = loader.batch(0)
    cameras = [tuple(part.observation.images) for part in parts]
    assert set(cameras) == {("room", "wrist"), ("room",)} and cameras == sorted(cameras, key=len, reverse=True)
    for part in parts:
        assert all(mask.all() for mask in part.observation.image_masks.values())
        assert set(part.sources) == ({"robot"} if len(part.observation.images) == 2 else {"web"})
    for names in set(cameras):
        of_cameras = [n for part, own in zip(parts, cameras, strict=True) if own == names for n in lengths(part)]
        assert of_cameras == sorted(of_cameras, reverse=True)


@pytest.mark.parametrize(("count", "sizes"), [(7, [7]), (9, [4, 5]), (32, [8, 8, 8, 8])])
def test_rows_are_split_by_length_without_loss(count, sizes):
    rows = [row(length) for length in np.random.default_rng(0).integers(1, 50, count)]
    parts = split_by_length(rows)
    assert [len(part) for part in parts] == sizes
    assert {id(r) for part in parts for r in part} == {id(r) for r in rows}
    assert all(min(len(r.tokens) for r in a) >= max(len(r.tokens) for r in b) for a, b in pairwise(parts))


def row(length: int) -> Row:
    return Row(
        images={}, tokens=[0] * length, token_kinds=[1] * length, token_loss=[False] * length,
        state=np.zeros(1, np.float32),
        actions=np.zeros((1, 1), np.float32), action_mask=np.zeros((1, 1), bool), source="",
    )  # fmt: skip


def test_chunks_with_a_perturbed_step_teach_no_fast_tokens(tmp_path, pipeline):
    """The end of an episode leaves a chunk whole; the last recorded action is what the robot goes on holding."""
    record(tmp_path / "set", [demonstration(np.random.default_rng(1), 12, perturbed=(5,))])
    rows = robot_rows(tmp_path / "set")
    whole = [rows.sample(i, np.random.default_rng(0)).extra["whole"] for i in range(12)]
    assert [i for i in range(12) if not whole[i]] == [3, 4, 5]
    parts = Loader(Mixture({"robot": rows}, seed=0), pipeline, batch_size=32).batch(0)
    draws = Mixture({"robot": rows}, seed=0).draw(0, 32)
    fast = sum((part.observation.token_kinds == Kind.FAST).any(1).sum().item() for part in parts)
    assert fast == sum(whole[draw.index] for draw in draws) and 0 < fast < 32
    assert all(part.action_mask.flatten(1).any(1).all() for part in parts)  # the flow learns from what is left


def test_ranks_share_the_batch_of_one(mixture, pipeline):
    whole = Loader(mixture, pipeline, batch_size=ROWS).rows(5)
    for ranks in (2, 4):
        parts = [Loader(mixture, pipeline, batch_size=ROWS, rank=rank, ranks=ranks).rows(5) for rank in range(ranks)]
        assert all(len(part) == ROWS // ranks for part in parts)
        together = [row for place in zip(*parts, strict=True) for row in place]
        assert [row.tokens for row in together] == [row.tokens for row in whole]
        assert all(np.array_equal(a.actions, b.actions) for a, b in zip(together, whole, strict=True))
    with pytest.raises(ValueError, match="does not split over 3 ranks"):
        Loader(mixture, pipeline, batch_size=ROWS, ranks=3)


def test_augmentation_is_drawn_from_seed_step_and_row(mixture, pipeline):
    plain = Loader(mixture, pipeline, batch_size=ROWS).batch(1)
    first, again = (Loader(mixture, pipeline, batch_size=ROWS, augments=True) for _ in range(2))
    assert same(first.batch(1), again.batch(1)) and not same(first.batch(1), plain)
    augmentations = [row.augmentations for row in first.rows(1)]
    assert all(list(row.augmentations) == list(row.images) for row in first.rows(1))
    assert augmentations != [row.augmentations for row in first.rows(2)]
    assert len({str(plan) for plan in augmentations}) > ROWS // 2, "rows differ, but where nothing is drawn to be done"
    for changed, part in zip(first.batch(1), plain, strict=True):
        assert torch.equal(changed.observation.tokens, part.observation.tokens)
        assert torch.equal(changed.actions, part.actions)


def test_states_are_shifted_by_seed_step_and_row(mixture, pipeline):
    plain = Loader(mixture, pipeline, batch_size=ROWS).rows(1)
    first, again = (Loader(mixture, pipeline, batch_size=ROWS, state_shift=0.1) for _ in range(2))
    assert same(first.batch(1), again.batch(1))
    moved = [not np.array_equal(a.state, b.state) for a, b in zip(first.rows(1), plain, strict=True)]
    robot = [row.source == "robot" for row in plain]
    assert 0 < sum(moved) < sum(robot) and all(was for was, moves in zip(robot, moved, strict=True) if moves)


def test_every_source_needs_a_pipeline(mixture, pipeline):
    with pytest.raises(ValueError, match=r"sources \['web'\] have no pipeline"):
        Loader(mixture, {"robot": pipeline}, batch_size=ROWS)


@pytest.fixture
def small(mixture, pipeline) -> Loader:
    return Loader(mixture, pipeline, batch_size=2)


def test_prefetch_gives_the_same_batches_in_order(small):
    with small.prefetch(2, 9) as batches:
        got = list(batches)
    assert len(got) == 7 and all(same(batch, small.batch(step)) for step, batch in enumerate(got, 2))
    assert not loader_threads()


def test_an_error_comes_where_its_batch_would_have_come(small, monkeypatch):
    made = small.batch

    def batch(step: int) -> list[Batch]:
        if step == 2:
            raise ValueError("picture 'a.png' is missing")
        return made(step)

    monkeypatch.setattr(small, "batch", batch)
    got = []
    with pytest.raises(ValueError, match=r"a\.png"), small.prefetch(0, 5) as batches:
        for item in batches:
            got.append(item)
    assert len(got) == 2 and same(got[1], made(1))
    assert not loader_threads()


def test_the_thread_ends_when_the_block_is_left_early(small, monkeypatch):
    made, steps = small.batch, []

    def batch(step: int) -> list[Batch]:
        steps.append(step)
        return made(step)

    monkeypatch.setattr(small, "batch", batch)
    with pytest.raises(KeyboardInterrupt), small.prefetch(0, 40) as batches:
        next(batches)
        assert len(loader_threads()) == 1
        raise KeyboardInterrupt
    assert not loader_threads()
    assert len(steps) <= 1 + AHEAD + 1  # the one taken, those that wait, the one in the making


def test_a_source_may_have_one_prompt_for_all(tmp_path):
    record(tmp_path / "robot", [demonstration(np.random.default_rng(0), 5)])
    dataset = LeRobotDataset(tmp_path / "robot", CONFIG.action_horizon)
    rows = RobotRows("robot", dataset, loc_stride=1, prompt="uncap the pen")
    prompts = {rows.sample(i, np.random.default_rng(i)).prompt for i in range(5)}
    assert prompts == {"uncap the pen", "say 0"}, "what was said out loud still is"


def test_rows_are_grouped_by_task_or_by_the_label_of_their_episode(tmp_path):
    """A set of many tasks is as many groups, whatever it calls its episodes; older runs counted by the label."""
    rng = np.random.default_rng(0)
    record(tmp_path / "set", [episode(rng, length) for length in (6, 5, 4)])
    dataset = LeRobotDataset(tmp_path / "set", CONFIG.action_horizon)
    for one in dataset.episodes:
        one.labels["group"] = "all"
    by_task = RobotRows("robot", dataset, loc_stride=1).groups()
    assert {name: len(rows) for name, rows in by_task.items()} == {"task 0": 10, "task 1": 5}
    by_label = RobotRows("robot", dataset, loc_stride=1, group_by="label").groups()
    assert {name: len(rows) for name, rows in by_label.items()} == {"all": 15}


def test_only_where_subtasks_begin(tmp_path):
    record(tmp_path / "set", [episode(np.random.default_rng(0), length) for length in (9, 6)])
    dataset = LeRobotDataset(tmp_path / "set", CONFIG.action_horizon)
    groups = RobotRows("robot", dataset, loc_stride=1, first_seconds=0.2).groups()
    # No subtask for two frames, then one for three, then another to the end, ten frames a second.
    assert {name: rows.tolist() for name, rows in groups.items()} == {"task 0": [2, 3, 5, 6], "task 1": [11, 12, 14]}
    dataset.trainable = dataset.subtask_index < 0
    assert RobotRows("robot", dataset, loc_stride=1, first_seconds=0.2).groups() == {}
    dataset.subtask_index[:] = -1
    with pytest.raises(ValueError, match="names no subtasks"):
        RobotRows("robot", dataset, loc_stride=1, first_seconds=0.2)


def test_only_where_subtasks_begin_or_a_disturbance_has_ended(tmp_path):
    record(tmp_path / "set", [episode(np.random.default_rng(0), 9)])
    dataset = LeRobotDataset(tmp_path / "set", CONFIG.action_horizon)
    dataset.perturbed = np.isin(np.arange(9), (2, 6))
    rows = RobotRows("robot", dataset, loc_stride=1, first_seconds=0.2).groups()["task 0"]
    # A subtask begins at 2, disturbed, another at 5; 6 is disturbed, and its one action is not drawn.
    assert rows.tolist() == [3, 4, 5, 7, 8]


def test_a_damaged_picture_one_step_earlier_is_left_out_and_listed(tmp_path, monkeypatch):
    record(tmp_path / "set", [demonstration(np.random.default_rng(0), 5)])
    dataset = LeRobotDataset(tmp_path / "set", CONFIG.action_horizon, skip_bad=True)
    decode = dataset.decode

    def decode_some(i: int, camera: str) -> np.ndarray:
        if (i, camera) == (1, "wrist"):
            raise ValueError("row 1 is damaged")
        return decode(i, camera)

    monkeypatch.setattr(dataset, "decode", decode_some)
    rows = RobotRows("robot", dataset, loc_stride=1, moments=2)
    assert rows.sample(2, np.random.default_rng(0)).past is None
    assert [(skip.episode, skip.reason) for skip in dataset.skipped] == [(0, "row 1 is damaged")]
    assert rows.sample(4, np.random.default_rng(0)).past is not None
    dataset.skip_bad = False
    with pytest.raises(ValueError, match="row 1 is damaged"):
        rows.sample(2, np.random.default_rng(0))


def test_rows_that_lost_their_fast_tokens_are_counted(tmp_path):
    record(tmp_path / "set", [episode(np.random.default_rng(0), 12) | {fmt.BOX: np.full((12, 4), np.nan, np.float32)}])
    rows = RobotRows("robot", LeRobotDataset(tmp_path / "set", CONFIG.action_horizon), loc_stride=1)
    pipeline = examples.make_pipeline(ROBOT, CONFIG, with_fast=True)
    longest = max(len(row.tokens) for row in Loader(Mixture({"robot": rows}, seed=0), pipeline, batch_size=8).rows(0))
    pipeline.model = replace(CONFIG, max_tokens=longest - 1)
    loader = Loader(Mixture({"robot": rows}, seed=0), pipeline, batch_size=8)
    with pytest.warns(UserWarning, match="FAST tokens"):
        loader.batch(0)
    assert 0 < loader.fast_dropped <= 8
