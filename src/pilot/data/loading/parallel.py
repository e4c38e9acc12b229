"""Work on many parts, results in the order of the parts: here, in processes of this machine, or on a Ray cluster.

The caller cuts the work into parts, and results come in the order of the parts. Neither depends on who does the work,
so the same bytes come out of one process and of a thousand.
"""

import os
import shutil
import signal
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from multiprocessing import active_children, get_context, parent_process
from multiprocessing.connection import wait
from typing import Any

Work = Callable[[Any], Any]
PARENT_SECONDS = 2.0
"""Between two looks of a worker at whether its parent lives, where its death is not announced."""
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}


@dataclass(frozen=True)
class ParallelMap:
    """Gives `work(part)` of each part, in order, worked on by `processes` at once.

    An error in the work is raised where its result would have come. Close the generator to stop early: then no process
    works on.
    """

    processes: int
    over: Callable[[Work, Iterable[Any]], Iterator[Any]]

    def __call__(self, work: Work, parts: Iterable[Any]) -> Generator[Any, None, None]:
        yield from self.over(work, parts)


serial_map = ParallelMap(1, map)
"""One after the other, in this process."""


def map_in_processes(count: int) -> ParallelMap:
    """Return a map over `count` processes of this machine; with one, in this process."""

    def over(work: Work, parts: Iterable[Any]) -> Iterator[Any]:
        with worker_pool(count, partial(_take_up, work)) as pool:
            start, end = (lambda part: pool.submit(_do, part)), (lambda future: future.result())
            yield from _in_order(start, end, parts, ahead=2 * count, coming=deque())

    return ParallelMap(count, over) if count > 1 else serial_map


@contextmanager
def worker_pool(count: int, begin: Callable[[], None]) -> Iterator[ProcessPoolExecutor]:
    """Start `count` processes, each of which calls `begin` first. They ignore Ctrl-C and end when the block is left, at
    once if it is left by an error, so that nobody who stops waits for work under way. They also end when this process
    dies, however it dies.

    Raises:
        ChildProcessError: one was killed.
    """
    others = set(active_children())
    pool = ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=begin_worker, initargs=(begin,))
    try:
        yield pool
    except BaseException as error:
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in set(active_children()) - others:
            worker.terminate()
        if isinstance(error, BrokenProcessPool):  # this pool, or another whose work the block was at
            raise ChildProcessError(
                "a process that works for this one was killed, perhaps for lack of memory; run the same command again"
            ) from error
        raise
    pool.shutdown(cancel_futures=True)


@contextmanager
def map_on_ray(address: str | None = None, *, cpus: int | None = None) -> Iterator[ParallelMap]:
    """Return a map over the Ray cluster at `address`; without one, over that of `$RAY_ADDRESS`, or over one that is
    started here.

    A cluster that this process is connected to already is taken as it is. Its machines must have pilot installed, and
    see the files under the same paths. `cpus`: processes of a cluster that is started here (None: one per core).

    Raises:
        ImportError: Ray is not installed.
        ConnectionError: no cluster answers at `address`.
    """
    ray, folder = _ray(), None
    mine = not ray.is_initialized()
    if mine and (address or os.environ.get("RAY_ADDRESS")):
        try:
            ray.init(address=address, log_to_driver=False, logging_level="error")
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise ConnectionError(f"no Ray cluster answers at {address}: {error}") from error
    elif mine:
        folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp" if os.path.isdir("/tmp") else None)  # sockets: short names
        options = {"log_to_driver": False, "logging_level": "error", "include_dashboard": False}
        ray.init(address="local", num_cpus=cpus, _temp_dir=folder, **options)
    try:
        yield ParallelMap(cores := int(ray.cluster_resources()["CPU"]), partial(_over_cluster, ray, cores))
    finally:
        if mine:
            ray.shutdown()
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


def _over_cluster(ray: Any, cores: int, work: Work, parts: Iterable[Any]) -> Iterator[Any]:
    task = ray.remote(lambda part: work(part))  # what is in `work` goes to each process once
    coming: deque[Any] = deque()
    try:
        yield from _in_order(task.remote, partial(_result, ray), parts, ahead=2 * cores, coming=coming)
    finally:
        for reference in coming:
            ray.cancel(reference)
        if coming:  # nobody works on after an error
            ray.wait(list(coming), num_returns=len(coming))


def _result(ray: Any, reference: Any) -> Any:
    """Return the result of a task; its error is raised as if the work had been done here."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error


def _in_order(
    submit: Callable[[Any], Any],
    result: Callable[[Any], Any],
    parts: Iterable[Any],
    *,
    ahead: int,
    coming: deque[Any],
) -> Iterator[Any]:
    """Yield results in order; at most `ahead` parts are under way, in `coming`, so that waiting results stay few."""
    waiting = iter(parts)
    coming.extend(submit(part) for part in islice(waiting, ahead))
    while coming:
        finished = result(coming.popleft())
        coming.extend(submit(part) for part in islice(waiting, 1))
        yield finished


def _ray() -> Any:
    """Import Ray, here and nowhere else."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError as error:
        raise ImportError("--ray needs Ray: pip install 'pilot[ray]'") from error
    return ray


_work: list[Work] = []  # of this process, where it is one of `map_in_processes`


def begin_worker(begin: Callable[[], None]) -> None:
    """Begin a worker process: it leaves Ctrl-C to its parent, and ends when that dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    begin()


def _end_with_parent() -> None:
    """Wait for the end of the process that started this one, then end this one too.

    A worker that waits for work would not notice: it holds both ends of the queue itself. Linux can send a signal at a
    parent's death, but does so when the parent's thread ends.
    """
    parent = parent_process()
    if parent is None:
        return
    # A pipe whose other end only the parent holds. A process that the parent has forked may hold it too, and then
    # the number of our parent tells.
    while not wait([parent.sentinel], timeout=PARENT_SECONDS) and os.getppid() == parent.pid:
        pass
    os._exit(1)


def _take_up(work: Work) -> None:
    _work[:] = [work]


def _do(part: Any) -> Any:
    return _work[0](part)
