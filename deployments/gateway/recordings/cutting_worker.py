"""The process that decodes one recording and cuts it at its pauses: FFmpeg meets what strangers send in here.

Started by `cutting` as `python -m deployments.gateway.recordings.cutting_worker MEMORY CPU_SECONDS MAX_FRAMES MODEL
FILE SAMPLES`: a socket as its standard input, the recording and an empty file for its samples as open files. It
imports neither torch nor Ray. It sends one message after another, and waits where nobody reads them:

- `{"decoding": seconds}` and `{"cutting": seconds}`: how far it is;
- `{"format": name, "seconds": seconds, "warnings": […]}` once all is decoded. It waits for a byte then, and goes on;
- `{"start": seconds, "end": seconds}` and an envelope, for each segment;
- `{}` at the end, or `{"error": name, "cause": text, "limit": text}`.
"""

from __future__ import annotations

import json
import resource
import signal
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np

from amser import audio, wire
from amser.client.segmentation import SegmentationSettings, SpeechDetector
from amser.errors import SignalError
from amser.features import HOP_LENGTH, SAMPLE_RATE, AudioError, Float32, finite_samples
from deployments.gateway.uploads.envelopes import envelope_of

HEAD: Final = struct.Struct("<II")  # bytes of a JSON object and of an envelope, which follow
GO_ON: Final = b"\x06"
SAMPLE_BYTES: Final = 4
# Breaths do not end a segment: whole sentences are recognised better, and their fixed costs are paid once
PAUSES: Final = SegmentationSettings(minimum_silence_s=0.6, longest_s=29.5)
SHORTEST_S: Final = 0.1  # the recogniser takes nothing shorter

Say = Callable[..., None]


class SampleFile:
    """Samples in a file, of which parts are read.

    Args:
        file: float32, little-endian.
        size: samples.
    """

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self.size = file, size

    def __getitem__(self, part: slice, /) -> Float32:
        """Shape (samples,)."""
        start, stop, _ = part.indices(self.size)
        self._file.seek(start * SAMPLE_BYTES)
        content = self._file.read(max(0, stop - start) * SAMPLE_BYTES)
        return np.frombuffer(content, "<f4").astype(np.float32, copy=False)


def main(memory: int, cpu_s: int, max_frames: int, model: Path, recording: int, samples: int) -> None:
    """Cuts one recording.

    Args:
        memory: bytes of address space that may be taken beyond what the process has now.
        cpu_s: seconds of CPU time; the kernel then ends the process with SIGXCPU.
        max_frames: of the recording, 10 ms each.
        model: Silero VAD.
        recording, samples: numbers of the open files.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is for the gateway
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + memory
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, resource.RLIM_INFINITY))
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")  # where memory runs out, this goes before the gateway
    with socket.socket(fileno=sys.stdin.fileno()) as connection, suppress(BrokenPipeError, ConnectionResetError):

        def say(content: bytes = b"", **fields: Any) -> None:
            document = json.dumps(fields).encode()
            connection.sendall(HEAD.pack(len(document), len(content)) + document + content)

        try:
            with open(recording, "rb") as source, open(samples, "r+b") as decoded:
                heard, waveform = decode(source, decoded, max_frames, say)
                say(format=heard.format, seconds=waveform.size / SAMPLE_RATE, warnings=heard.warnings)
                if connection.recv(len(GO_ON)) != GO_ON:
                    return
                for start, end, envelope in segments(waveform, SpeechDetector(model), say):
                    say(envelope, start=start, end=end)
                say()
        except SignalError as error:
            say(error=type(error).__name__, cause=error.cause, limit=error.limit)


def decode(source: BinaryIO, decoded: BinaryIO, max_frames: int, say: Say) -> tuple[audio.Blocks, SampleFile]:
    """Decodes a recording into a file of samples."""
    written = 0
    heard = audio.blocks(source, max_frames)
    for block in heard:
        decoded.write(finite_samples(block, written).astype("<f4", copy=False).tobytes())
        written += block.size
        say(decoding=written / SAMPLE_RATE)
    decoded.flush()
    if not written:
        raise AudioError("the audio has no samples", f"{SHORTEST_S} s or more")
    return heard, SampleFile(decoded, written)


def segments(waveform: SampleFile, detector: SpeechDetector, say: Say) -> Iterator[tuple[float, float, bytes]]:
    """Start and end in seconds of each stretch of speech, and the envelope that a device would have sent of it."""
    for start, end in detector.found(_Telling(waveform, say), PAUSES):
        speech = waveform[round(start * SAMPLE_RATE) : round(end * SAMPLE_RATE)]
        if speech.size >= SHORTEST_S * SAMPLE_RATE:
            yield start, end, wire.pack(envelope_of(speech, None, speech.size // HOP_LENGTH))


class _Telling:
    """Samples that say how far they have been read."""

    def __init__(self, waveform: SampleFile, say: Say) -> None:
        self._waveform, self._say, self.size = waveform, say, waveform.size

    def __getitem__(self, part: slice, /) -> Float32:
        self._say(cutting=part.start / SAMPLE_RATE)
        return self._waveform[part]


if __name__ == "__main__":
    memory, cpu_s, max_frames, recording, samples = (int(sys.argv[each]) for each in (1, 2, 3, 5, 6))
    main(memory, cpu_s, max_frames, Path(sys.argv[4]), recording, samples)
