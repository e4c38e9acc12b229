"""Freed memory stays with the process, where the C library is glibc."""

import platform
import subprocess
import sys

import pytest

PAGES = """
import resource, threading
from pilot.memory import ALL, keep_freed_memory
if {keep}:
    keep_freed_memory(ALL)

def work():
    for _ in range(20):
        pieces = [bytearray(2_000_000) for _ in range(8)]
        del pieces

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(faults())
"""


def faults(*, keep: bool) -> int:
    program = PAGES.format(keep=keep)
    return int(subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc")
def test_a_thread_that_needs_the_same_memory_again_finds_it_there():
    assert faults(keep=True) < 0.5 * faults(keep=False)
