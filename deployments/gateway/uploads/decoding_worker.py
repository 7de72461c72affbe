"""The process that decodes audio uploads for a gateway, one at a time: FFmpeg meets what strangers send in here.

Started by `decoding` as `python -m deployments.gateway.uploads.decoding_worker MEMORY CPU_SECONDS MAX_FRAMES`, with a
socket as its standard input. It imports neither torch nor Ray, and ends when the socket does.
"""

from __future__ import annotations

import json
import math
import os
import resource
import signal
import socket
import struct
import sys
import time
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any, Final

from amser import audio
from amser.features import AudioError

READY: Final = b"\x06"  # what it says once it can take its first file
REQUEST: Final = struct.Struct("<I")  # bytes of the file, which follows
ANSWER: Final = struct.Struct("<II")  # bytes of a JSON object and of float32 samples, which follow


def main(memory: int, cpu_s: int, max_frames: int) -> None:
    """Serves until the socket is closed.

    Args:
        memory: bytes of address space that may be taken beyond what the process has now.
        cpu_s: seconds of CPU time for a file; the kernel then ends the process with SIGXCPU.
        max_frames: of log-Mel, 10 ms each.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is for the gateway
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    limit = _pages(0) + memory
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")  # where memory runs out, this goes before the gateway
    with socket.socket(fileno=sys.stdin.fileno()) as connection, connection.makefile("rb") as stream:
        connection.sendall(READY)
        while size := stream.read(REQUEST.size):
            content = stream.read(*REQUEST.unpack(size))
            resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(time.process_time()) + cpu_s, resource.RLIM_INFINITY))
            connection.sendall(_answer(content, max_frames))


def _answer(content: bytes, max_frames: int) -> bytes:
    fields: dict[str, Any]
    samples = b""
    try:
        heard = audio.decode(BytesIO(content), max_frames)
        fields = {"format": heard.format, "warnings": heard.warnings}
        samples = heard.waveform.astype("<f4", copy=False).tobytes()
    except AudioError as error:
        fields = {"error": type(error).__name__, "cause": error.cause, "limit": error.limit}
    document = json.dumps({**fields, "resident": _pages(1)}).encode()
    return ANSWER.pack(len(document), len(samples)) + document + samples


def _pages(field: int) -> int:
    """Bytes of this process: 0 is its address space, 1 what of it is resident."""
    return int(Path("/proc/self/statm").read_text().split()[field]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
