"""Nodes of a local cluster that differ as machines do: clocks that are wrong, weights that lie elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from models.weights import default_store

ANOTHER_CLOCK: Final = {"wall_s": 3600.0, "since_boot_s": 100_000.0}  # ahead of this machine's


def another_clock(folder: Path) -> Path:
    """A folder that, on the PYTHONPATH of a process, puts its clocks ahead."""
    made = folder / "clock"
    made.mkdir()
    (made / "sitecustomize.py").write_text(
        "import time\n"
        "wall, since_boot = time.time, time.monotonic\n"
        f"time.time = lambda: wall() + {ANOTHER_CLOCK['wall_s']}\n"
        f"time.monotonic = lambda: since_boot() + {ANOTHER_CLOCK['since_boot_s']}\n"
    )
    return made


def another_cache(folder: Path, *models: str) -> Path:
    """A cache folder ($AMSER_CACHE) with the weights of these models, by links, and no others."""
    made = folder / "cache"
    (made / "weights").mkdir(parents=True)
    for name in models:
        (made / "weights" / name).symlink_to(default_store() / name)
    return made
