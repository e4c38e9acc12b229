"""Memory of a process that must not pause: freed blocks are kept, and garbage collection is kept short.

By default the C library returns large blocks to the system as soon as they are freed. Every observation, and every
training step on a CPU, then pays for new pages, which can cost more than the computation itself.
"""

import contextlib
import ctypes
import gc

TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3  # parameters of mallopt(3)
KEEP = 128 * 2**20
"""Freed bytes that a process keeps by default."""
LARGE = 10 * 2**20
"""Blocks above this size go back to the system at once. An observation's pictures are smaller and stay; a rare message
of 20 MB does not, since nothing else would fit into the gap that it leaves."""
ALL = 2**31 - 1
"""For `keep`: keep whatever was once needed."""
HUGE = 32 * 2**20
"""With `ALL`, the value for `LARGE`: the largest that older versions of glibc accept."""
HEAP = 64 * 2**20
"""The size of the blocks from which threads other than the first allocate."""


def keep_freed_memory(keep: int = KEEP) -> None:
    """Let this process keep up to `keep` bytes of freed memory for itself; does nothing where there is no glibc.

    `ALL` is for work that needs the same memory in every step, on any thread: its peak stays the same.
    """
    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(MMAP_THRESHOLD, HUGE if keep == ALL else LARGE)
        mallopt(TRIM_THRESHOLD, keep)
        if keep == ALL:
            mallopt(TOP_PAD, HEAP)  # else a thread's heap goes back to the system as soon as it is empty


def shorten_garbage_collection() -> None:
    """Take what exists now out of the sight of Python's garbage collector, so that its pauses become short.

    A full collection looks at every object, and nothing else runs meanwhile: with torch loaded that takes 0.2 s and
    more. What is no longer referred to is freed as before; only cycles among the objects of today stay.
    """
    gc.collect()
    gc.freeze()
