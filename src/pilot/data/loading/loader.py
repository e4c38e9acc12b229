"""Batches of mixed rows, drawn ahead of the step that needs them.

A batch is a function of (seed, step) and nothing else: not of the number of processes that read ahead, nor of the
number of ranks that share it. Rows are short work (a slice, two pictures, some tokens), and numpy, PIL and the
tokenizers let go of the interpreter lock, so one thread beside the training step keeps up with a small model; for
large ones `workers` processes read ahead.
"""

import threading
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from itertools import islice, pairwise
from queue import Queue
from typing import Literal, Protocol, TypeGuard, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int

from pilot.data.formats.episodes import EpisodeDataset
from pilot.data.language import to_sample
from pilot.data.layout import Batch
from pilot.data.loading.parallel import worker_pool
from pilot.data.loading.shuffle import hash_64
from pilot.data.loading.windows import WINDOW, WindowCache, choose_windows, find_windows
from pilot.data.mixture import LOSSES, Draw, Mixture, RowSource, check_teaches
from pilot.data.pipeline import Pipeline, Row, collate, common_camera_order
from pilot.data.state_shift import shift_state
from pilot.data.storage.folder import DatasetFolder
from pilot.types import Moment, Sample

AHEAD = 4
FILES_AHEAD = 16  # steps: for which files of sources that lie elsewhere are fetched while earlier ones are read
AUGMENTING, SHIFTING = 1, 2  # keep what pictures and states draw apart from what words draw


@runtime_checkable
class FolderRowSource(Protocol):
    """A source whose files can be fetched ahead, where its folder lies elsewhere."""

    @property
    def folder(self) -> DatasetFolder:
        """The files of the set."""
        ...

    def prefetch(self, i: int) -> None:
        """Announce that row `i` will be read."""
        ...


class RobotRows:
    """Frames of demonstrations as a source of a mixture.

    `teaches` names the losses that its rows carry: "text" (subtasks), "fast" and "flow" (actions). `cameras` gives the
    robot's name for a camera that the set calls otherwise. `prompt` stands in place of the set's own tasks. `group_by`:
    what a mixture weighs as one group, the rows of a task or those of a label "group" that the set gives its episodes.
    `moments`: with 2, samples hold what was seen one step earlier too, unless `skip_bad` leaves it out.
    `first_seconds`: draw only rows of the first so many seconds of each subtask, or after a disturbance.

    Raises:
        ValueError: an unknown loss or camera; the set has no subtasks whose first seconds could be drawn.
    """

    def __init__(
        self,
        name: str,
        dataset: EpisodeDataset,
        *,
        loc_stride: int,
        box_jitter: float = 0.0,
        teaches: tuple[str, ...] = LOSSES,
        cameras: Mapping[str, str] | None = None,
        prompt: str | None = None,
        group_by: Literal["task", "label"] = "task",
        moments: int = 1,
        first_seconds: float | None = None,
    ) -> None:
        check_teaches(name, teaches)
        if unknown := set(cameras or {}) - set(dataset.cameras):
            raise ValueError(f"{dataset.path} has cameras {dataset.cameras}, not {sorted(unknown)}; see Source.cameras")
        self.name, self.dataset, self.loc_stride, self.box_jitter = name, dataset, loc_stride, box_jitter
        self.teaches, self.prompt, self.group_by = frozenset(teaches), prompt, group_by
        self.names = {camera: (cameras or {}).get(camera, camera) for camera in dataset.cameras}
        self.moments, self.first_seconds = moments, first_seconds
        if first_seconds is not None and not (dataset.subtask_index >= 0).any():
            raise ValueError(
                f"{dataset.path} names no subtasks, so it has no first seconds of any; see Source.first_seconds"
            )
        self._starts = {episode.index: episode.start for episode in dataset.episodes}
        self._lengths = {episode.index: episode.stop - episode.start for episode in dataset.episodes}
        self._window = WINDOW

    def __len__(self) -> int:
        return len(self.dataset)

    @property
    def folder(self) -> DatasetFolder:
        """The files of the set."""
        return self.dataset.folder

    def groups(self) -> dict[str, Int[np.ndarray, " n"]]:
        """Return trainable rows by the task of their episode, or by its label "group" where `group_by` asks for it."""
        rows = self.dataset.trainable_rows()
        if self.first_seconds is not None:
            rows = rows[seconds_since_change(self.dataset)[rows] < self.first_seconds]
        if not len(rows):
            return {}  # numpy splits nothing into one piece, of no group
        by_label = self.group_by == "label"
        own = [(by_label and episode.labels.get("group")) or episode.task for episode in self.dataset.episodes]
        names, numbers = np.unique(own, return_inverse=True)  # rows are many and words long: numbers are sorted
        of_rows = numbers[self.dataset.episode_of[rows]]
        order = np.argsort(of_rows, kind="stable")
        present, starts = np.unique(of_rows[order], return_index=True)
        return dict(zip(names[present].tolist(), np.split(rows[order], starts[1:]), strict=True))

    def files_of(self, rows: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """Return a number for the file that the pictures of each row lie in."""
        numbers = {}
        files = [self.dataset.picture_files(episode)[0] for episode in range(len(self.dataset.episodes))]
        of_episode = np.array([numbers.setdefault(file, len(numbers)) for file in files])
        return of_episode[self.dataset.episode_of[rows]]

    def read_windows(self, lanes: int) -> int:
        """Decode pictures by windows, unless they are cached; return how many are open at a time in each of `lanes`."""
        self._window, at_once = choose_windows(lanes)
        if self.dataset.frames is None:
            self.dataset.frames = WindowCache(self.dataset, window=self._window, open_windows=lanes * at_once)
        return at_once

    def find_windows(self, rows: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """Return the first row of the window of each row."""
        return find_windows(self.dataset, rows, window=self._window)

    def prefetch(self, i: int) -> None:
        """Announce that row `i` will be read, so that its files can be fetched ahead where the set lies elsewhere."""
        self.dataset.folder.prefetch(self.dataset.picture_files(int(self.dataset.episode_of[i])))

    def sample(self, i: int, rng: np.random.Generator) -> Sample:
        """Return row `i` as a training sample.

        `extra["whole"]`: every step up to the episode's end is the demonstrator's, so FAST tokens can be learned.
        """
        frame = self.dataset.readable_frame(i, rng)
        if self.box_jitter and frame["box"] is not None:
            frame["box"] = jitter_box(frame["box"], rng, self.box_jitter)
        if self.prompt is not None:
            frame |= {"task": self.prompt, "rephrasings": ()}
        frame["images"] = {self.names[camera]: image for camera, image in frame["images"].items()}
        with_subtask = "text" in self.teaches
        sample = to_sample(
            frame, rng=rng, loc_stride=self.loc_stride, with_subtask=with_subtask, source=self.name
        )  # fmt: skip
        assert sample.action_is_pad is not None
        # At an episode's end a chunk is padded, and is whole all the same; after a disturbed step it is not.
        left = self._lengths[frame["episode_index"]] - frame["frame_index"]
        whole = not sample.action_is_pad[:left].any()
        if self.moments > 1 and frame["frame_index"] > 0:
            before = self._starts[frame["episode_index"]] + frame["frame_index"] - 1
            # Where `skip_bad` leaves its pictures out, a row has no past, like the first of an episode.
            if (pictures := self.dataset.readable_pictures(before)) is not None:
                images = {self.names[camera]: picture for camera, picture in pictures.items()}
                sample.past = Moment(images=images, state=self.dataset.state[before])
        sample.extra |= {"whole": whole and "fast" in self.teaches, "flow": "flow" in self.teaches}
        return sample


def seconds_since_change(dataset: EpisodeDataset) -> Float[np.ndarray, " n"]:
    """Return for each row of a set how long ago its subtask began, or a disturbance ended.

    Infinity in a disturbance, whose rows teach a single action, and where there is no subtask.
    """
    rows, subtask, episode = np.arange(len(dataset)), dataset.subtask_index, dataset.episode_of
    disturbed = np.zeros(len(dataset), bool) if dataset.perturbed is None else dataset.perturbed
    changes = [np.diff(column) != 0 for column in (subtask, episode, disturbed)]
    begins = np.append(True, np.any(changes, axis=0))
    seconds = (rows - np.maximum.accumulate(np.where(begins, rows, 0))) / dataset.fps
    return np.where((subtask >= 0) & ~disturbed, seconds, np.inf)


def split_by_length(rows: list[Row]) -> list[list[Row]]:
    """Split rows by length, in two or four parts where there are enough: little padding, and work for two threads."""
    count = 4 if len(rows) >= 32 else 2 if len(rows) >= 8 else 1
    # The longest first, so that the costly part starts first.
    rows = sorted(rows, key=lambda row: -len(row.tokens))
    edges = [len(rows) * i // count for i in range(count + 1)]
    return [rows[a:b] for a, b in pairwise(edges)]


def jitter_box(box: tuple[float, ...], rng: np.random.Generator, deviation: float) -> tuple[float, ...]:
    """Move the box as a whole by a normal draw in each direction, within the picture."""
    shift = np.tile(rng.normal(0.0, deviation, 2), 2)
    return tuple(np.clip(np.asarray(box) + shift, 0.0, 1.0).tolist())


class Loader:
    """Batches of a mixture, each row through the pipeline of its source's robot.

    `pipeline` serves all sources, or there is one per source, all of one model. `state_shift` is the `deviation` of
    `shift_state`. `workers` processes read ahead (0: a thread). Of `ranks` processes that train together, `rank` makes
    its own part of every batch of `batch_size` rows.

    A batch comes in parts. By default they are for threads on a CPU: rows with the same cameras and of like length
    come together. With `passes` there are that many, all of the same number of rows and with the same cameras, as
    processes that go in step need them, and text is padded to at least `length` tokens. `pin` puts them where a GPU can
    fetch them from by itself.
    """

    def __init__(
        self,
        mixture: Mixture,
        pipeline: Pipeline | Mapping[str, Pipeline],
        *,
        batch_size: int,
        with_fast: bool = True,
        augments: bool = False,
        state_shift: float = 0.0,
        workers: int = 0,
        rank: int = 0,
        ranks: int = 1,
        passes: int | None = None,
        length: int = 0,
        pin: bool = False,
        device: str = "cpu",
    ) -> None:
        shared = isinstance(pipeline, Pipeline)
        self.pipelines = dict.fromkeys(mixture.sources, pipeline) if shared else dict(pipeline)
        if missing := set(mixture.sources) - set(self.pipelines):
            raise ValueError(f"sources {sorted(missing)} have no pipeline")
        if batch_size % (ranks * (passes or 1)):
            over = f"{ranks} ranks" + (f" of {passes} passes each" if passes else "")
            raise ValueError(f"a batch of {batch_size} rows does not split over {over}; make it a multiple")
        if batch_size % mixture.streams:
            raise ValueError(f"a batch of {batch_size} rows is no multiple of {mixture.streams} streams; make it one")
        if mixture.streams > 1 and mixture.streams % ranks:
            raise ValueError(f"{mixture.streams} streams do not split over {ranks} ranks; take a multiple")
        self.mixture, self.batch_size, self.device = mixture, batch_size, device
        self.with_fast, self.augments, self.state_shift, self.workers = with_fast, augments, state_shift, workers
        self.rank, self.ranks, self.passes, self.length, self.pin = rank, ranks, passes, length, pin
        self._elsewhere = {name: rows for name, rows in mixture.sources.items() if _is_streamed(rows)}
        self._drawn: dict[int, list[Draw]] = {}
        self._asked_to = 0
        self.fast_dropped = 0  # rows so far whose FAST tokens did not fit
        of_robots = [] if passes is None else [pipeline.picture_sizes() for pipeline in self.pipelines.values()]
        sizes = {camera: size for cameras in of_robots for camera, size in cameras.items()}
        self.cameras = {camera: sizes[camera] for camera in common_camera_order(of_robots)}

    def batch(self, step: int) -> list[Batch]:
        """Return the batch of one step, the same whenever it is asked for."""
        return self.make_batches(self.rows(step))

    def rows(self, step: int, *, worker: int = 0, workers: int = 1) -> list[Row]:
        """Return the rows of one step that are this rank's; of `workers` processes, those that `worker` makes."""

        def mine(step: int) -> list[Draw]:
            return [draw for draw in self._draws(step) if workers == 1 or self._lane(draw) % workers == worker]

        if self._elsewhere:
            # Steps announced before need not be announced again; after a jump everything is new.
            known = self._asked_to if step < self._asked_to <= step + FILES_AHEAD else step + 1
            for draw in (draw for later in range(known, step + 1 + FILES_AHEAD) for draw in mine(later)):
                if draw.source in self._elsewhere:
                    self._elsewhere[draw.source].prefetch(draw.index)
            self._asked_to = step + 1 + FILES_AHEAD
        return [self._row(draw) for draw in mine(step)]

    def _draws(self, step: int) -> list[Draw]:
        """Return this rank's draws of a step; those of a few steps are remembered."""
        if step not in self._drawn:
            self._drawn[step] = self.mixture.draw(step, self.batch_size, rank=self.rank, ranks=self.ranks)
            for other in [other for other in self._drawn if not step - FILES_AHEAD <= other <= step]:
                del self._drawn[other]
        return self._drawn[step]

    def _lane(self, draw: Draw) -> int:
        """Return the lane of a row; one process makes the rows of a lane, so that a window is decoded once."""
        if self.mixture.draws == "windows" and isinstance(rows := self.mixture.sources[draw.source], RobotRows):
            # By the window, not by the row: two processes would both decode it.
            return hash_64(int(rows.find_windows(np.array([draw.index]))[0]))
        return draw.seed[-1] // self.ranks

    def _row(self, draw: Draw) -> Row:
        sample, pipeline = self.mixture.read(draw), self.pipelines[draw.source]
        if self.state_shift:
            shifting = np.random.default_rng((*draw.seed, SHIFTING))
            sample = shift_state(sample, pipeline.robot, shifting, deviation=self.state_shift)
        rng = np.random.default_rng((*draw.seed, AUGMENTING)) if self.augments else None
        with_fast = self.with_fast and sample.extra.get("whole", True)
        flow = sample.extra.get("flow", True)
        row = pipeline.encode(sample, with_fast=with_fast, flow=flow, rng=rng)
        row.row_id = draw.seed[-1]
        return row

    def make_batches(self, rows: list[Row]) -> list[Batch]:
        """Collate rows with the same cameras together, of whatever robot, so that a web row is neither padded to the
        length of a robot row nor given a black wrist picture; among those, rows of like length.

        Losses are normalised over all parts: they are one batch. With `passes` rows stay in their order.
        """
        self.fast_dropped += sum(row.fast_dropped for row in rows)
        if self.passes is not None:
            # Every n-th row, so that each pass has rows of all sources.
            of_pass = [rows[i :: self.passes] for i in range(self.passes)]
            parts_of_pass = [
                collate(part, device=self.device, cameras=self.cameras, length=self.length) for part in of_pass
            ]
            if self.pin:
                return [part.with_indices().map(torch.Tensor.pin_memory) for part in parts_of_pass]
            return parts_of_pass
        parts: dict[tuple[str, ...], list[Row]] = {}
        for row in rows:
            parts.setdefault(tuple(row.images), []).append(row)
        cameras = sorted(parts, key=len, reverse=True)  # the costly ones first, so that threads end together
        return [collate(part, device=self.device) for names in cameras for part in split_by_length(parts[names])]

    def prefetch(self, start: int, stop: int) -> AbstractContextManager[Iterator[list[Batch]]]:
        """Make the batches of steps `start` to `stop` ahead, in a thread or processes that end with the `with` block.

        An error there is raised where its batch would have come.
        """
        return self._from_processes(start, stop) if self.workers else self._from_thread(start, stop)

    @contextmanager
    def _from_processes(self, start: int, stop: int) -> Iterator[Iterator[list[Batch]]]:
        """Yield batches of which every process makes its own rows, the same ones however fast it is."""

        def batches() -> Iterator[list[Batch]]:
            steps, coming = iter(range(start, stop)), deque[list[Future[list[Row]]]]()
            for step in islice(steps, AHEAD + 1):
                coming.append([pool.submit(_rows_in_worker, step) for pool in pools])
            while coming:
                rows = [row for part in coming.popleft() for row in part.result()]
                coming.extend([pool.submit(_rows_in_worker, step) for pool in pools] for step in islice(steps, 1))
                # Processes finish in any order; the batch may not depend on it.
                yield self.make_batches(sorted(rows, key=lambda row: row.row_id))

        with ExitStack() as stack:
            ready = [partial(_keep_in_worker, self, number) for number in range(self.workers)]
            pools = [stack.enter_context(worker_pool(1, begin)) for begin in ready]
            yield batches()

    @contextmanager
    def _from_thread(self, start: int, stop: int) -> Iterator[Iterator[list[Batch]]]:
        queue: Queue[list[Batch] | BaseException] = Queue(AHEAD)
        closing = threading.Event()

        def work() -> None:
            for step in range(start, stop):
                if closing.is_set():
                    return
                try:
                    queue.put(self.batch(step))
                except BaseException as error:
                    queue.put(error)
                    return

        thread = threading.Thread(target=work, name="loader", daemon=True)
        thread.start()
        try:
            yield self._take(queue, stop - start)
        finally:
            closing.set()
            while thread.is_alive():
                # The thread may wait for room in the queue: make some, until it sees that it is to end.
                while not queue.empty():
                    queue.get_nowait()
                thread.join(timeout=0.05)

    @staticmethod
    def _take(queue: "Queue[list[Batch] | BaseException]", count: int) -> Iterator[list[Batch]]:
        for _ in range(count):
            item = queue.get()
            if isinstance(item, BaseException):
                raise item
            yield item


def _is_streamed(rows: RowSource) -> TypeGuard[FolderRowSource]:
    """Return whether the files of a source are fetched from elsewhere as they are read."""
    return isinstance(rows, FolderRowSource) and not rows.folder.is_local


_worker: list[tuple[Loader, int]] = []  # the loader of this process and its number, where it is one that reads ahead


def _keep_in_worker(loader: Loader, number: int) -> None:
    _worker[:] = [(loader, number)]


def _rows_in_worker(step: int) -> list[Row]:
    loader, number = _worker[0]
    return loader.rows(step, worker=number, workers=loader.workers)
