"""Memory that a model frees and takes again for every utterance, kept by the process in between."""

from __future__ import annotations

import ctypes
import logging
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


def keep_freed_memory() -> bool:
    """Let glibc keep what is freed rather than give it back and have the kernel zero it again; False without glibc.

    Saves the recogniser a twentieth of its CPU time. A process holds on to the most that it ever needed.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # another C library
        return False
    kept = all([mallopt(option, value) for option, value in _OPTIONS.items()])
    if not kept:
        logger.warning("malloc refused to keep freed memory: the recogniser will take some more CPU time")
    return kept
