"""Rows from video by windows and in streams: the same batches from any number of ranks and processes, few decodings."""

from pathlib import Path

import pytest
from data.recordings import ROBOT, number_of, record_numbered_films

from pilot.contracts import examples
from pilot.data.formats import lerobot_layout as fmt
from pilot.data.formats import video
from pilot.data.formats.lerobot import LeRobotDataset
from pilot.data.loading.loader import Loader, RobotRows
from pilot.data.mixture import Mixture
from pilot.data.pipeline import Pipeline
from pilot.models.pi import pi05

pytest.importorskip("av")
CONFIG = pi05("debug", action_horizon=4)
EPISODES, LENGTH, BATCH = 8, 24, 16


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return examples.make_pipeline(ROBOT, CONFIG, with_fast=False)


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    """Eight episodes of 24 frames, each in an mp4 of its own; two tasks that take turns."""
    path = tmp_path_factory.mktemp("sources") / "set"
    record_numbered_films(path, EPISODES, length=LENGTH)
    assert len(list(path.glob(f"videos/{fmt.IMAGES}room/*/*.mp4"))) == EPISODES
    return path


def loader(path: Path, pipeline: Pipeline, *, draws: str = "windows", streams: int = 1, **options) -> Loader:
    rows = RobotRows("robot", LeRobotDataset(path, CONFIG.action_horizon, cameras=["room"]), loc_stride=1)
    mixture = Mixture({"robot": rows}, seed=3, draws=draws, streams=streams)
    return Loader(mixture, pipeline, batch_size=BATCH, **options)


def numbers(rows: list) -> list[tuple[int, list[int]]]:
    return [(row.row_id, row.tokens) for row in rows]


def test_a_picture_is_that_of_its_row(path, pipeline):
    made = loader(path, pipeline, streams=2)
    for draw in made.mixture.draw(3, BATCH):
        assert number_of(made.mixture.read(draw).images["room"]) == draw.index


@pytest.mark.parametrize("streams", [1, 4])
def test_a_frame_is_decoded_once_per_epoch(path, pipeline, monkeypatch, streams):
    """Where rows come by windows; drawn one by one, two out of three frames are decoded for nothing."""
    read, decoded = video.VideoFile.read, []
    monkeypatch.setattr(video.VideoFile, "read", lambda self, n: decoded.append((self.path, n)) or read(self, n))
    made = loader(path, pipeline, streams=streams)
    for step in range(EPISODES * LENGTH // BATCH):
        for draw in made.mixture.draw(step, BATCH):
            made.mixture.read(draw)
    assert len(set(decoded)) == EPISODES * LENGTH
    assert len(decoded) <= 1.1 * EPISODES * LENGTH, "the last windows of an epoch and the first of the next overlap"


def read(made: Loader, steps: range) -> tuple[list, set[Path]]:
    """What is drawn, and the mp4 files that are opened to read it."""
    drawn = [made.mixture.draw(step, BATCH, rank=made.rank, ranks=made.ranks) for step in steps]
    for draw in (draw for draws in drawn for draw in draws):
        made.mixture.read(draw)
    rows = made.mixture.sources["robot"]
    assert isinstance(rows, RobotRows)
    return drawn, {file for file in rows.dataset.folder._open if file.suffix == ".mp4"}


@pytest.mark.parametrize("draws", ["rows", "windows"])
def test_ranks_read_files_of_their_own(path, pipeline, draws):
    """With a stream for each of four ranks; a run that goes on with two ranks draws the same batches."""
    whole, _ = read(loader(path, pipeline, draws=draws, streams=4), range(17))
    for ranks in (2, 4):
        open_cached = []
        for rank in range(ranks):
            drawn, files = read(loader(path, pipeline, draws=draws, streams=4, rank=rank, ranks=ranks), range(5, 17))
            assert drawn == [rows[rank::ranks] for rows in whole[5:]]
            open_cached.append(files)
        assert sum(map(len, open_cached)) == len(set.union(*open_cached)) == EPISODES


def test_without_streams_ranks_read_the_same_files(path, pipeline):
    """What streams are for."""
    open_cached = [read(loader(path, pipeline, draws="rows", rank=rank, ranks=2), range(8))[1] for rank in range(2)]
    assert len(open_cached[0] & open_cached[1]) > EPISODES // 2


def test_ranks_make_the_rows_of_one(path, pipeline):
    whole = loader(path, pipeline, streams=4).rows(6)
    parts = [loader(path, pipeline, streams=4, rank=rank, ranks=2).rows(6) for rank in range(2)]
    assert [numbers(part) for part in parts] == [numbers(whole[rank::2]) for rank in range(2)]


def test_processes_make_the_same_batches(path, pipeline):
    expected = loader(path, pipeline, streams=2)
    with loader(path, pipeline, streams=2, workers=2).prefetch(7, 9) as batches:
        for step, batch in enumerate(batches, 7):
            mine = expected.batch(step)
            assert [part.row_ids for part in batch] == [part.row_ids for part in mine]
            for part, own in zip(batch, mine, strict=True):
                assert all((part.observation.images[c] == own.observation.images[c]).all() for c in ("room",))


def test_a_process_makes_whole_windows(path, pipeline):
    made = loader(path, pipeline)
    lanes: dict[int, set[int]] = {}
    for step in range(20):
        for draw in made.mixture.draw(step, BATCH):
            lanes.setdefault(draw.index // LENGTH, set()).add(made._lane(draw) % 2)
    assert all(len(workers) == 1 for workers in lanes.values()) and len(set.union(*lanes.values())) == 2


def test_streams_that_do_not_fit_are_refused(path, pipeline):
    with pytest.raises(ValueError, match="16 rows is no multiple of 3 streams"):
        loader(path, pipeline, streams=3)
    with pytest.raises(ValueError, match="2 streams do not split over 4 ranks"):
        loader(path, pipeline, streams=2, ranks=4)
