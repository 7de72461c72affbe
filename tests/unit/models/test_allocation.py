"""That freed memory stays with the process is a matter of page faults: they are counted."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
import numpy as np
from models.whisper.allocation import keep_freed_memory

if "keep" in sys.argv:
    assert keep_freed_memory()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50):
    layers = [np.ones(3_000_000) for _ in range(4)]
    del layers
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(*arguments: str) -> int:
    return int(subprocess.run([sys.executable, "-c", FAULTS, *arguments], capture_output=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator of glibc is told what to keep")
def test_memory_that_was_freed_is_taken_again_without_the_kernel() -> None:
    assert page_faults("keep") < page_faults() / 3


KEPT = """
import numpy as np
from models.whisper.allocation import MOST_KEPT, KeptMemory, keep_freed_memory, resident

assert keep_freed_memory()
kept = KeptMemory()
before = resident()


def request(megabytes):
    arrays = [np.ones(1 << 20, np.int64) for _ in range(megabytes // 8)]
    del arrays
    full = resident()
    kept.bound()
    return full - before, resident() - before


print(MOST_KEPT, *request(128), *request(512), *request(128))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator of glibc is told what to keep")
def test_what_a_large_request_freed_goes_back_and_what_a_small_one_freed_stays() -> None:
    child = subprocess.run([sys.executable, "-c", KEPT], capture_output=True, check=True)
    most, small, small_kept, large, large_kept, again, again_kept = map(int, child.stdout.split())
    assert most == 256 << 20
    assert small_kept >= small > 100 << 20
    assert large > 500 << 20
    assert large_kept < 100 << 20
    assert again_kept >= again > 100 << 20
