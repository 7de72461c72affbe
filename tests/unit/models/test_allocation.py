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
