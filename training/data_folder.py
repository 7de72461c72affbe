"""Where corpora are looked for that a recipe names by a relative path: `$AMSER_DATA`, or the current folder."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "AMSER_DATA"


def in_data_folder(path: str | Path) -> Path:
    """A path under `$AMSER_DATA`, or under the current folder where that is not set; an absolute one as it is."""
    return Path(os.environ.get(VARIABLE) or ".") / Path(path).expanduser()
