"""EpisodeWorker processes for episodes. One that dies or hangs is started anew and goes on with what it had left.

Jobs are dealt out beforehand, one to each worker in turn, so that the same jobs meet in the same batches every time:
a record does not depend on which process was faster.
"""

import dataclasses
import multiprocessing
import time
import uuid
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from multiprocessing import connection
from typing import Any

import torch

from pilot.data.loading.parallel import ParallelMap, begin_worker
from pilot.eval.runner import ATTEMPTS, Finished, Job, Runner, lost
from pilot.memory import keep_freed_memory

STALL_SECONDS = 600.0  # a simulator that works on one step for so long hangs
LOOK_SECONDS = 1.0  # between two looks at workers that say nothing
NOBODY = -1.0
PORTION = 16  # episodes that a machine of a cluster runs before it reports them

RunnerFn = Callable[..., Runner]
"""Makes a worker's `Runner`; called with `entered`."""


class Crew:
    """Runs jobs in `workers` processes, which are started for the first job and live until `close`."""

    def __init__(self, make_runner: RunnerFn, *, workers: int, stall_seconds: float = STALL_SECONDS) -> None:
        self.make_runner, self.size, self.stall_seconds = make_runner, workers, stall_seconds
        self.runner: Runner | None = None  # in this process, where there is one worker only
        self.workers: list[EpisodeWorker] = []

    def run(self, jobs: Sequence[Job]) -> Generator[Finished, None, None]:
        """Run jobs; yield each as it is done, every one of them exactly once.

        Raises:
            ChildProcessError: a worker dies before it has begun an episode.
        """
        if not jobs:
            return
        if self.size == 1:
            self.runner = self.runner or self.make_runner()
            yield from self.runner.run_many(jobs)
            return
        while len(self.workers) < min(self.size, len(jobs)):
            self.workers.append(EpisodeWorker(self.make_runner))
        for index, worker in enumerate(self.workers):
            worker.take(jobs[index :: len(self.workers)])
        attempts: dict[Job, int] = {}
        while busy := [worker for worker in self.workers if worker.left]:
            ready = connection.wait([worker.pipe for worker in busy], timeout=LOOK_SECONDS)
            for worker in busy:
                if worker.pipe in ready and (finished := worker.receive()) is not None:
                    yield _with_restarts(finished, attempts.get(finished.job, 0))
                elif not worker.is_alive or worker.stalls(self.stall_seconds):
                    yield from self.replace(worker, attempts)

    def replace(self, worker: "EpisodeWorker", attempts: dict[Job, int]) -> Iterator[Finished]:
        """Start another process in place of one that died or hangs; yield the episode that is given up, if any is."""
        how = "hung" if worker.is_alive else f"died (exit code {worker.process.exitcode})"
        job, left = worker.current, list(worker.left)
        worker.end()
        if job is None:
            raise ChildProcessError(
                f"a worker process {how} before it began an episode, perhaps for lack of memory; run the same command "
                "again, with fewer --workers"
            )
        attempts[job] = attempts.get(job, 0) + 1
        if attempts[job] >= ATTEMPTS and job in left:  # its simulator may have worked last for one that has ended
            left.remove(job)
            yield Finished(job, *lost(job, f"the simulator {how} in each of {ATTEMPTS} attempts"))
        fresh = EpisodeWorker(self.make_runner)
        self.workers[self.workers.index(worker)] = fresh
        fresh.take(left)

    def close(self) -> None:
        """End the processes, whatever they are at."""
        for worker in self.workers:
            worker.end()
        self.workers.clear()
        if self.runner is not None:
            self.runner.leave()
            self.runner = None


class MapCrew:
    """Runs jobs on the machines of a `ParallelMap`, such as a Ray cluster, `PORTION` at a time.

    Records come in the order of the jobs. A machine that is lost is the cluster's to replace; whether a simulator hangs
    there is not seen here.
    """

    def __init__(self, make_runner: RunnerFn, parallel_map: ParallelMap) -> None:
        self.make_runner, self.parallel_map = make_runner, parallel_map
        self.token = uuid.uuid4().hex  # a process keeps its runner from portion to portion of this crew

    def run(self, jobs: Sequence[Job]) -> Generator[Finished, None, None]:
        """Run jobs; yield each as the portion that it is in is done."""
        portions = [list(jobs[i : i + PORTION]) for i in range(0, len(jobs), PORTION)]
        for finished in self.parallel_map(partial(_run_portion, self.token, self.make_runner), portions):
            yield from finished

    def close(self) -> None:
        """Forget the runner, if it was in this process."""
        _kept.pop(self.token, None)


_kept: dict[str, Runner] = {}
"""The runner of this process, by the crew that it works for."""


def _run_portion(token: str, make_runner: RunnerFn, jobs: Sequence[Job]) -> list[Finished]:
    if token not in _kept:
        _kept.clear()
        _kept[token] = make_runner()
    return list(_kept[token].run_many(jobs))


class EpisodeWorker:
    """One process with a `Runner`, as its parent sees it."""

    def __init__(self, make_runner: RunnerFn) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.at = context.RawArray("d", [NOBODY, 0.0])  # the job whose simulator works, and since when
        self.process = context.Process(target=_work, args=(make_runner, theirs, self.at), daemon=True)
        self.process.start()
        theirs.close()
        self.jobs: list[Job] = []
        self.left: list[Job] = []

    def take(self, jobs: Sequence[Job]) -> None:
        """Give it jobs to run."""
        self.jobs, self.left = list(jobs), list(jobs)
        self.at[0] = NOBODY
        if self.jobs:
            self.pipe.send(self.jobs)

    def receive(self) -> Finished | None:
        """Return what it has finished; None if it died.

        Raises:
            Exception: what has gone wrong in it.
        """
        try:
            message = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join(1.0)
            return None
        if isinstance(message, Exception):
            raise message
        self.left.remove(message.job)
        return message

    @property
    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self.process.is_alive()

    @property
    def current(self) -> Job | None:
        """The job whose simulator it is at."""
        return None if self.at[0] == NOBODY else self.jobs[int(self.at[0])]

    def stalls(self, seconds: float) -> bool:
        """Return whether one step of a simulator has taken longer than that."""
        return self.at[0] != NOBODY and time.time() - self.at[1] > seconds

    def end(self) -> None:
        """End the process now."""
        self.process.kill()  # a hung simulator may not hear anything less
        self.process.join()
        self.pipe.close()


def _work(make_runner: RunnerFn, pipe: Any, at: Any) -> None:
    """Run in a worker process: take lists of jobs, send back each as it is done, or the error that ends it all."""
    begin_worker(keep_freed_memory)
    torch.set_num_threads(1)  # the processes are the parallelism
    numbers: dict[Job, int] = {}

    def entered(job: Job) -> None:
        at[1] = time.time()
        at[0] = numbers[job]

    try:
        runner = make_runner(entered=entered)
        while True:
            jobs = pipe.recv()
            numbers = {job: number for number, job in enumerate(jobs)}
            for finished in runner.run_many(jobs):
                pipe.send(finished)
    except EOFError:  # the parent has gone
        return
    except Exception as error:
        pipe.send(_portable(error))


def _portable(error: Exception) -> Exception:
    """Return an error that survives the way to the parent, in pickle, with its words."""
    kinds = (ValueError, ImportError, FileNotFoundError, OSError)
    kind = next((kind for kind in kinds if isinstance(error, kind)), RuntimeError)
    return kind("\n".join([str(error), *getattr(error, "__notes__", ())]))


def _with_restarts(finished: Finished, restarts: int) -> Finished:
    record = finished.record
    return finished._replace(record=dataclasses.replace(record, restarts=record.restarts + restarts))
