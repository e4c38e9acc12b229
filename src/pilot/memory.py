"""Memory that is used again.

By default the C library gives large pieces back to the system as soon as they are free. Every observation, and every
step of training on a CPU, then pays for new pages, which can cost more than everything else that is done to it.
"""

import contextlib
import ctypes

TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3  # of mallopt(3)
KEEP, LARGE = 128 * 2**20, 4 * 2**20
"""What is kept, and how large a piece goes back at once: the pictures of an observation stay, but not the 20 MB that
somebody sends now and then, between which nothing else would fit."""
ALL, HUGE, HEAP = 2**31 - 1, 32 * 2**20, 64 * 2**20
"""For `keep`: whatever was needed once. Then the largest `LARGE` that older versions of glibc take, and the size of the
pieces that other threads than the first allocate from."""


def keep_freed_memory(keep: int = KEEP) -> None:
    """From now on this process keeps up to `keep` freed bytes for itself. Does nothing where there is no glibc.

    `ALL` is for work that needs the same memory in every step, on any thread: the most that it takes stays the same.
    """
    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(MMAP_THRESHOLD, HUGE if keep == ALL else LARGE)
        mallopt(TRIM_THRESHOLD, keep)
        if keep == ALL:
            mallopt(TOP_PAD, HEAP)  # else a thread's heap goes back as soon as nothing is left in it
