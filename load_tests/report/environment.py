"""What a measurement ran on and which command made it: kept beside every figure."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("gevent", "geventhttpclient", "locust", "numpy")  # of the load generator


def environment(packages: Iterable[str] = PACKAGES) -> dict[str, Any]:
    """Command line, hardware, versions and the time, without anything that names this one machine."""
    return {
        "command": command_line(),
        "hardware": {"processor": processor(), "cores": len(os.sched_getaffinity(0))},
        "versions": versions(packages),
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def command_line(arguments: Sequence[str] | None = None) -> str:
    """How this process was started, to be typed again: `python -m benchmarks.asr --limit 2`.

    Args:
        arguments: behind the name of the program; by default those of this process.
    """
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    program = ["python", "-m", spec.name.removesuffix(".__main__")] if spec else [Path(sys.argv[0]).name]
    return shlex.join(program + [_portable(each) for each in (sys.argv[1:] if arguments is None else arguments)])


def _portable(argument: str) -> str:
    """An absolute path from the working directory on, or as its last part: the rest is this machine's alone."""
    path = Path(argument)
    if not path.is_absolute():
        return argument
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else path.name


def processor() -> str:
    """Its name as Linux has it, else the architecture."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Of Python and of those packages that are installed."""
    found = {"python": platform.python_version()}
    for package in packages:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
