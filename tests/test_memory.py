"""Freed memory stays with the process, where the C library is glibc."""

import platform
import subprocess
import sys

import pytest

PAGES = """
import ctypes, resource, threading
ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE: small pages, whatever the system prefers
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
    if not (given_back := faults(keep=False)):
        pytest.skip("this system does not count page faults")
    assert faults(keep=True) < 0.5 * given_back


COLLECTED = """
import gc, weakref
from pilot.memory import shorten_garbage_collection

class Node: pass

def cycle():
    node = Node()
    node.self = node
    return weakref.ref(node)

gc.disable()
many, alone, before = [[] for _ in range(200_000)], Node(), cycle()
shorten_garbage_collection()
seen, after, freed = len(gc.get_objects()), cycle(), weakref.ref(alone)
del alone
gc.collect()
print(seen, before() is None, after() is None, freed() is None)
"""


def test_what_exists_is_not_looked_at_again_and_garbage_is_still_collected():
    out = subprocess.run([sys.executable, "-c", COLLECTED], check=True, capture_output=True, text=True).stdout
    seen, *collected = out.split()
    assert int(seen) < 1000
    assert collected == ["True"] * 3  # cycles of before and after, and what nobody refers to
