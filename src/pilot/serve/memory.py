"""Memory that is used again.

By default the C library gives large pieces back to the system as soon as they are free. Every observation then pays for
new pages, which can cost more than everything else that is done to it.
"""

import contextlib
import ctypes

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of mallopt(3)
KEEP, LARGE = 128 * 2**20, 32 * 2**20  # as much as older versions of glibc take


def keep_freed_memory() -> None:
    """From now on this process keeps up to `KEEP` freed bytes for itself. Does nothing where there is no glibc."""
    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(MMAP_THRESHOLD, LARGE)
        mallopt(TRIM_THRESHOLD, KEEP)
