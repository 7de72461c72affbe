"""Whether results can be written, asked before the work that they cost."""

from __future__ import annotations

import errno
import os
from pathlib import Path


def check_writable(file: Path) -> None:
    """Opens a file for writing without changing it; makes its folder where it is missing.

    Raises:
        OSError: it cannot be written; the message has the path and the reason.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(file.parent)) from None
    existed = file.exists()
    with file.open("a", encoding="utf-8"):
        pass
    if not existed:
        file.unlink()
