"""Memory that a model frees and takes again for every utterance: kept by the process in between, up to a limit."""

from __future__ import annotations

import ctypes
import logging
import os
from pathlib import Path
from typing import Final

logger = logging.getLogger("ray.serve")  # the logger that Serve writes to its files

# By their numbers in glibc; values by trial. A trim threshold alone would stop glibc from adapting its mmap threshold:
# encoding would take twice as long.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_OPTIONS: Final = {
    _M_MMAP_THRESHOLD: 32 << 20,  # bytes, the most that glibc allows
    _M_TRIM_THRESHOLD: 1 << 30,
    _M_TOP_PAD: 64 << 20,
}


MOST_KEPT: Final = 256 << 20  # bytes


def keep_freed_memory() -> bool:
    """Let glibc keep what is freed rather than give it back and have the kernel zero it again; False without glibc.

    Saves the recogniser a twentieth of its CPU time. A process holds on to the most that it ever needed, unless it has
    a `KeptMemory`.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # another C library
        return False
    kept = all([mallopt(option, value) for option, value in _OPTIONS.items()])
    if not kept:
        logger.warning("malloc refused to keep freed memory: the recogniser will take some more CPU time")
    return kept


class KeptMemory:
    """Gives back what was freed once it is more than `MOST_KEPT`. Without glibc 2.33 or /proc, it does nothing."""

    def __init__(self) -> None:
        self._least = _not_in_use()

    def bound(self) -> None:
        """To be called where a batch is done, from any thread."""
        now = _not_in_use()
        self._least = min(self._least, now)  # a model that was loaded since may be held and not all in memory
        if now > self._least + MOST_KEPT:
            ctypes.CDLL(None).malloc_trim(0)
            self._least = _not_in_use()


class _MallocInfo(ctypes.Structure):
    """glibc's `struct mallinfo2`."""

    _names = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")
    _fields_ = [(name, ctypes.c_size_t) for name in _names]


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _not_in_use() -> int:
    """Bytes in memory that no caller of malloc holds: code, mapped files, and what was freed and kept. 0: not known.

    What other threads hold meanwhile is not in it, so that their work does not hide what was freed. Less than 0 where
    more is held than has been touched.
    """
    try:
        mallinfo = ctypes.CDLL(None).mallinfo2
        mallinfo.restype = _MallocInfo
        info = mallinfo()
        return resident() - int(info.uordblks) - int(info.hblkhd)
    except (AttributeError, OSError):
        return 0
