"""One line of JSON for each request, in a file beside the log of Serve's replica.

It says what came of a request and what it took, never what was said, what the answer is, or from which device it came.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, Final

SERVE_LOGGER: Final = "ray.serve"
REQUESTS: Final = logging.getLogger("amser.requests")


def open_request_log() -> None:
    """Sends the lines to `requests_….log`, in the folder of Serve's log of this replica and rotated as that one is.

    Serve's own logger is not used: its level is the operator's, its lines begin with text, and in throughput mode it
    holds back a thousand of them. Without Serve (in a test) the lines go to whoever listens to `amser.requests`.
    """
    REQUESTS.setLevel(logging.INFO)
    served = _file_of_serve()
    if served is None or REQUESTS.handlers:
        return
    path = Path(served.baseFilename)
    handler = RotatingFileHandler(
        path.with_name(f"requests_{path.name.removeprefix('replica_')}"),
        maxBytes=served.maxBytes,
        backupCount=served.backupCount,
        delay=True,
    )
    handler.setFormatter(logging.Formatter("%(message)s"))
    REQUESTS.addHandler(handler)
    REQUESTS.propagate = False


def write(facts: Mapping[str, Any]) -> None:
    """A line, with the time first. What is empty is left out."""
    known = {name: value for name, value in facts.items() if value not in ("", None, (), {})}
    time = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    REQUESTS.info("%s", json.dumps({"time": time, **known}, separators=(",", ":")))


def _file_of_serve() -> RotatingFileHandler | None:
    for handler in logging.getLogger(SERVE_LOGGER).handlers:
        file = getattr(handler, "target", handler)  # Serve puts a buffer before it
        if isinstance(file, RotatingFileHandler):
            return file
    return None
