"""`python -m amser stream`: words and emotion while somebody speaks."""

from __future__ import annotations

import argparse
import queue
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from amser.audio import decode
from amser.client.credentials import given_key
from amser.client.stream import Ends, Event, StreamFailed, StreamSettings, stream
from amser.errors import SignalError
from amser.features import SAMPLE_RATE, Float32

PIECE: Final = SAMPLE_RATE // 10  # samples


EPILOG = """\
examples:
  python -m amser stream call.wav --language en
  python -m amser stream --microphone --url https://amser.example --key-file key

exit codes: 0 all was answered, 1 the cluster failed or refused, 2 wrong usage,
130 stopped by Ctrl-C"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.epilog = EPILOG
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("file", nargs="?", type=Path, help="an audio file, sent as fast as it plays")
    source.add_argument("--microphone", action="store_true", help="until Ctrl-C (needs the package sounddevice)")
    parser.add_argument("--url", default=StreamSettings().url, help="of the cluster (%(default)s)")
    parser.add_argument("--key-file", type=Path, help="a file with the key; without it AMSER_KEY is read")
    parser.add_argument("--language", help="that is spoken; without it the cluster detects it")


def run(options: argparse.Namespace) -> int:
    """Prints partial words in one line, and each final answer in a line of its own."""
    key = given_key(options.key_file)
    ends: Ends = "cluster" if options.microphone else "client"
    settings = StreamSettings(url=options.url, key=key, language=options.language, ends=ends)
    pieces = _microphone() if options.microphone else _played(options.file)
    try:
        for event in stream(pieces, settings):
            _show(event)
    except (StreamFailed, SignalError, OSError) as error:
        print(f"amser: {error}", file=sys.stderr)
        return 1
    return 0


def _show(event: Event) -> None:
    feeling = f"  [{event.emotion} {event.confidence:.0%}]" if event.emotion else ""
    if event.type == "partial":
        if sys.stdout.isatty():
            print(f"\r\x1b[K… {event.text}{feeling}", end="", flush=True)
    elif event.type == "final":
        print(f"\r\x1b[K{event.text}{feeling}" if sys.stdout.isatty() else f"{event.text}{feeling}", flush=True)
    else:
        print(f"amser: {event.document['problem']['detail']}", file=sys.stderr)


def _played(file: Path) -> Iterator[Float32]:
    with file.open("rb") as content:
        waveform = decode(content).waveform
    started = time.monotonic()
    for start in range(0, waveform.size, PIECE):
        yield waveform[start : start + PIECE]
        time.sleep(max(0.0, started + (start + PIECE) / SAMPLE_RATE - time.monotonic()))


def _microphone() -> Iterator[Float32]:
    import sounddevice

    heard: queue.Queue[Float32] = queue.Queue()
    with sounddevice.InputStream(
        SAMPLE_RATE, PIECE, channels=1, dtype="float32", callback=lambda data, *_: heard.put(data[:, 0].copy())
    ):
        while True:
            yield heard.get()
