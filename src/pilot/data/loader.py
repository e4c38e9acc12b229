"""Batches of mixed rows, drawn ahead of the step that needs them.

A batch is a function of (seed, step) and nothing else. Rows are short work (a slice, two pictures, some tokens), and
numpy, PIL and the tokenizers let go of the interpreter lock, so one thread beside the training step keeps up.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from queue import Queue

import numpy as np
from jaxtyping import Int

from pilot.data.language import to_sample
from pilot.data.layout import Batch
from pilot.data.lerobot import LeRobotDataset
from pilot.data.mixture import Mixture
from pilot.data.pipeline import Pipeline, Row, collate
from pilot.types import Sample

AHEAD = 4


class RobotRows:
    """Frames of a LeRobot data set as a source of a mixture."""

    def __init__(self, name: str, dataset: LeRobotDataset, *, loc_stride: int, box_jitter: float = 0.0) -> None:
        self.name, self.dataset, self.loc_stride, self.box_jitter = name, dataset, loc_stride, box_jitter
        self._stops = np.array([e.stop for e in dataset.episodes])[dataset.episode_of]

    def __len__(self) -> int:
        return len(self.dataset)

    def groups(self) -> dict[str, Int[np.ndarray, " n"]]:
        return self.dataset.groups()

    def sample(self, i: int, rng: np.random.Generator) -> Sample:
        """Row `i`.

        `extra["whole"]`: every step up to the episode's end is the demonstrator's, so FAST tokens can be learned.
        """
        frame = self.dataset.frame(i)
        if self.box_jitter and frame["box"] is not None:
            frame["box"] = jittered(frame["box"], rng, self.box_jitter)
        sample = to_sample(frame, rng=rng, loc_stride=self.loc_stride, source=self.name)
        assert sample.action_is_pad is not None
        sample.extra["whole"] = not sample.action_is_pad[: self._stops[i] - i].any()
        return sample


def split(rows: list[Row]) -> list[list[Row]]:
    """Rows by length, in two or four parts where there are enough: little padding, and work for two threads."""
    count = 4 if len(rows) >= 32 else 2 if len(rows) >= 8 else 1
    rows = sorted(rows, key=lambda row: -len(row.tokens))
    edges = [len(rows) * i // count for i in range(count + 1)]
    return [rows[a:b] for a, b in pairwise(edges)]


def jittered(box: tuple[float, ...], rng: np.random.Generator, deviation: float) -> tuple[float, ...]:
    """The box moved as a whole by a normal draw in each direction, within the picture."""
    shift = np.tile(rng.normal(0.0, deviation, 2), 2)
    return tuple(np.clip(np.asarray(box) + shift, 0.0, 1.0).tolist())


class Loader:
    """Batches of a mixture, through the pipeline."""

    def __init__(
        self, mixture: Mixture, pipeline: Pipeline, *, batch_size: int, say_actions: bool = True, device: str = "cpu"
    ) -> None:
        self.mixture, self.pipeline, self.batch_size, self.device = mixture, pipeline, batch_size, device
        self.say_actions = say_actions

    def batch(self, step: int) -> list[Batch]:
        """The batch of one step, the same whenever it is asked for.

        Rows with the same cameras come together, so that a web row is not padded to the length of a robot row nor given
        a black wrist picture; of those, rows of like length. Losses are normalised over all parts: they are one batch.
        """
        parts: dict[tuple[str, ...], list[Row]] = {}
        for draw in self.mixture.draw(step, self.batch_size):
            sample = self.mixture.read(draw)
            row = self.pipeline.encode(sample, say_actions=self.say_actions and sample.extra.get("whole", True))
            parts.setdefault(tuple(row.images), []).append(row)
        cameras = sorted(parts, key=len, reverse=True)  # the costly ones first, so that threads end together
        return [collate(rows, device=self.device) for names in cameras for rows in split(parts[names])]

    @contextmanager
    def prefetch(self, start: int, stop: int) -> Iterator[Iterator[list[Batch]]]:
        """Batches of steps `start` to `stop`, made ahead by a thread that ends with the `with` block.

        An error of the thread is raised where its batch would have come.
        """
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
