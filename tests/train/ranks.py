"""Processes that train together on one machine, for tests: they meet in a file, so no port has to be free."""

import multiprocessing
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

SECONDS = 240  # a test that hangs ends


def run(work: Callable[..., Any], *, ranks: int, folder: Path, options: dict[str, Any]) -> list[Any]:
    """What `work(**options)` returns on each of `ranks` processes; None of one that has ended early."""
    folder.mkdir(parents=True)
    context = multiprocessing.get_context("forkserver")  # imports torch once, and forks where nothing runs yet
    context.set_forkserver_preload(["torch", "torch._dynamo", "pilot.train.loop"])
    processes = [context.Process(target=enter, args=(work, rank, ranks, folder, options)) for rank in range(ranks)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(SECONDS)
    for process in processes:
        if process.is_alive():
            process.kill()
    errors = [file.read_text() for file in sorted(folder.glob("*.error"))]
    assert not errors, "\n".join(errors)
    files = [folder / f"{rank}.pt" for rank in range(ranks)]
    return [torch.load(file) if file.exists() else None for file in files]


def enter(work: Callable[..., Any], rank: int, count: int, folder: Path, options: dict[str, Any]) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    try:
        dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=count)
        torch.save(work(**options), folder / f"{rank}.pt")

    except BaseException:
        (folder / f"{rank}.error").write_text(traceback.format_exc())
        raise
