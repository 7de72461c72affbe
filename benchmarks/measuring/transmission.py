"""Utterances through a transport to what the recogniser writes of them, each kept on disk once it is known.

A text is kept under a digest of what it depends on: the samples, the transport and its setting, the tables of `klt`,
and the recogniser. An interrupted measurement goes on where it stopped, and a second one reads what is there.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import numpy as np

from amser.codecs.klt import step_index
from amser.codecs.klt_tables import digest, tables
from amser.features import SAMPLE_RATE, Float32, silence_value
from benchmarks.measuring import console
from edge_sim.transports import Transport
from models.messages import Mel, Speech, Transcript
from models.weights import cache_folder

AT_ONCE: Final = 8  # utterances of similar length that the recogniser decodes together
LAYOUT: Final = 1  # of what is kept; another number leaves the old unread
ENCODERS: Final = ("av", "ctranslate2")  # whose versions change what is recognised
Item = TypeVar("Item")


class Recognizer(Protocol):
    """As `WhisperRecognizer`."""

    def transcribe(self, mels: Sequence[Mel]) -> list[Transcript]:
        """The words of each utterance, in order."""


@dataclass(frozen=True, slots=True)
class Utterance:
    """Speech that is sent.

    Attributes:
        waveform: float32 (n,), 16 kHz.
        language: ISO 639-1 code; None to have it detected.
        digest: of both.
    """

    waveform: Float32
    language: str | None
    digest: str

    @classmethod
    def of(cls, waveform: Float32, language: str | None) -> Utterance:
        """With its digest."""
        samples = np.ascontiguousarray(waveform, np.float32)
        return cls(samples, language, f"{hashlib.sha256(samples.tobytes()).hexdigest()}-{language}")

    @property
    def seconds(self) -> float:
        return self.waveform.size / SAMPLE_RATE


@dataclass(frozen=True, slots=True)
class Arrived:
    """What became of an utterance: its words, the bytes that carried it, with and without their container, and whether
    the recogniser heard somebody speak.
    """

    text: str
    payload_bytes: int
    elementary_bytes: int
    speech: Speech = "yes"


class Kept:
    """JSON values by what they depend on, in a file; each is on disk as soon as it is put there.

    Args:
        file: by default one in Amser's cache folder.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._file = file or cache_folder() / "codec-benchmark.sqlite"
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(self._file)) as base, base:
            base.execute("CREATE TABLE IF NOT EXISTS kept (key TEXT PRIMARY KEY, value TEXT NOT NULL)")

    def read(self, keys: Sequence[str]) -> dict[str, Any]:
        """The values of those keys that have one."""
        found: dict[str, Any] = {}
        with closing(sqlite3.connect(self._file)) as base:
            for key in keys:
                for (value,) in base.execute("SELECT value FROM kept WHERE key = ?", (key,)):
                    found[key] = json.loads(value)
        return found

    def write(self, values: dict[str, Any]) -> None:
        """All or none of them."""
        with closing(sqlite3.connect(self._file)) as base, base:
            rows = [(key, json.dumps(value)) for key, value in values.items()]
            base.executemany("INSERT OR REPLACE INTO kept VALUES (?, ?)", rows)


class Transcriber:
    """Sends utterances and has their words recognised.

    Args:
        kept: where the texts are.
        recogniser: fingerprint of its weights.
        bring: loads it, when the first text is missing.
    """

    def __init__(self, kept: Kept, recogniser: str, bring: Callable[[], Recognizer]) -> None:
        self.kept = kept
        self._fingerprint = recogniser
        self._bring = bring

    @cached_property
    def recognizer(self) -> Recognizer:
        """Loaded at the first use."""
        return self._bring()

    def send(self, transport: Transport, utterances: Sequence[Utterance], label: str) -> list[Arrived]:
        """What arrives of each utterance, in order; utterances of similar length are decoded together."""
        keys = [self._key(transport, utterance) for utterance in utterances]
        values = self.kept.read(keys)
        missing = [position for position, key in enumerate(keys) if key not in values]
        missing.sort(key=lambda position: utterances[position].seconds)
        for group in progress(missing, f"{label}, {transport.name}:{transport.setting}"):
            arrived = self._transcribe(transport, [utterances[position] for position in group])
            new = {keys[position]: asdict(each) for position, each in zip(group, arrived, strict=True)}
            self.kept.write(new)
            values |= new
        return [Arrived(**values[key]) for key in keys]

    def _transcribe(self, transport: Transport, utterances: Sequence[Utterance]) -> list[Arrived]:
        payloads = [transport.encode(utterance.waveform) for utterance in utterances]
        mels = [rebuilt(transport, *each) for each in zip(utterances, payloads, strict=True)]
        return [
            Arrived(transcript.text, len(payload), transport.elementary_bytes(payload), transcript.speech)
            for transcript, payload in zip(self.recognizer.transcribe(mels), payloads, strict=True)
        ]

    def _key(self, transport: Transport, utterance: Utterance) -> str:
        return key_of("text", utterance.digest, self._fingerprint, identity(transport))


def rebuilt(transport: Transport, utterance: Utterance, payload: bytes) -> Mel:
    """The log-Mel that the cluster makes of a payload."""
    mel = transport.as_log_mel(payload)
    return Mel(mel.astype(np.float16), silence_value(mel), utterance.seconds, utterance.language, transport.name, None)


def identity(transport: Transport) -> list[str]:
    """What names a transport and all that decides what arrives."""
    if transport.name == "klt":  # a profile's name may come to mean another step
        return ["klt", str(step_index(transport.setting)), digest_of_tables()]
    return [transport.name, transport.setting]


@cache
def digest_of_tables() -> str:
    """Of the tables that this process has loaded: the file may be replaced while it runs."""
    before = digest()
    tables()
    if digest() != before:
        raise RuntimeError("klt's tables were replaced while they were read; start again")
    return before


def key_of(*content: object) -> str:
    """A digest of what a value depends on."""
    versions = {name: version(name) for name in ENCODERS}
    return hashlib.sha256(json.dumps([LAYOUT, versions, *content]).encode()).hexdigest()


def progress(items: Sequence[Item], label: str) -> Iterator[Sequence[Item]]:
    """Groups of `AT_ONCE`, with a bar on standard error; none where there is nothing to do."""
    if items:
        groups = [items[start : start + AT_ONCE] for start in range(0, len(items), AT_ONCE)]
        yield from console.progress(groups, label)
