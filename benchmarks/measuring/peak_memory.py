"""Peak memory of a device that encodes one utterance, measured in a process that has done nothing else. Linux.

Growth of the resident set from the transport, imported and made, to the highest point of its first utterance: what the
C libraries allocate counts too, and so do tables and code that only a first utterance touches.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import numpy as np

from amser.features import Float32
from edge_sim.transports import by_name

ONE_THREAD: Final = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
RESET_PEAK: Final = "5"  # proc(5), clear_refs: the peak becomes the resident set of now


def peak_mib(transport: str, setting: str, waveform: Float32) -> float:
    """MiB that encoding adds to a new process.

    Args:
        transport, setting: see `edge_sim.transports.by_name`.
        waveform: float32, shape (samples,), 16 kHz.
    """
    child = subprocess.run(
        [sys.executable, "-m", __spec__.name, transport, setting],
        input=waveform.tobytes(),
        capture_output=True,
        check=True,
        env=os.environ | ONE_THREAD,
    )
    return round(float(child.stdout), 3)


def main() -> None:
    transport = by_name(*sys.argv[1:])
    waveform = np.frombuffer(sys.stdin.buffer.read(), np.float32)
    Path("/proc/self/clear_refs").write_text(RESET_PEAK)
    before = _resident_kib("VmRSS")
    transport.encode(waveform)
    print((_resident_kib("VmHWM") - before) / 1024)


def _resident_kib(what: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what))


if __name__ == "__main__":
    main()
