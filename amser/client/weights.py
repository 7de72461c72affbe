"""Where a device finds its models: the same store that `python -m models.weights` fills.

A device does not carry the cluster's code, so it names the store's folder itself.
"""

from __future__ import annotations

import os
from pathlib import Path


class WeightsMissing(FileNotFoundError):  # noqa: N818 - an error by its base class
    """A file is not in the store. The message names the command that brings it."""


def stored(model: str, file: str) -> Path:
    """A file of a fetched model, in `$AMSER_CACHE`, `$XDG_CACHE_HOME/amser` or `~/.cache/amser`.

    Raises:
        WeightsMissing: it is not there.
    """
    if own := os.environ.get("AMSER_CACHE"):
        cache = Path(own)
    elif xdg := os.environ.get("XDG_CACHE_HOME"):
        cache = Path(xdg) / "amser"
    else:
        cache = Path.home() / ".cache" / "amser"
    path = cache / "weights" / model / file
    if not path.is_file():
        raise WeightsMissing(f"{path} is missing. Bring it with: python -m models.weights fetch {model}")
    return path
