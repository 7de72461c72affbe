"""What every benchmark writes beside its table: rows, and what they were measured on."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("ctranslate2", "numpy", "openai-whisper", "ray", "torch", "transformers")


def write_rows(path: Path, rows: Sequence[Mapping[str, object]], **about: object) -> None:
    """Write the rows as a JSON list; each gains `about`, the hardware, the versions and the time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([{**row, **about, **environment()} for row in rows], indent=1) + "\n")


def environment() -> dict[str, object]:
    """Hardware, versions and the time, without anything that names this one machine."""
    return {
        "hardware": {"processor": _processor(), "cores": len(os.sched_getaffinity(0))},
        "versions": {"python": platform.python_version(), **{package: version(package) for package in PACKAGES}},
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
