"""Speech in noise for benchmarks: other speakers who talk at once, or a recording, at a stated signal-to-noise ratio.

What is mixed with an utterance depends on its name alone, not on which others are measured: the same on every run.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, Literal, Protocol, get_args

import numpy as np

from amser.features import Float32
from benchmarks.measuring.manifest import ManifestError, read_file

Kind = Literal["clean", "babble", "noise"]
CLEAN: Final = "clean"
VOICES: Final = 6  # that babble is the sum of
SEED: Final = 2025
QUIET_END: Final = 1e-3  # of a recording's peak: what is below it at the ends is padding
_NAME: Final = re.compile(r"(?P<kind>[a-z]+)-(?P<snr>-?\d+)db")


@dataclass(frozen=True, slots=True)
class Condition:
    """What speech is mixed with: `clean`, `babble-10db`, `noise-5db`.

    Attributes:
        kind: nothing, other speakers, or a recording.
        snr_db: power of the speech over that of the noise, both over the whole utterance; 0 where it is clean.
    """

    kind: Kind
    snr_db: int = 0

    @classmethod
    def parse(cls, text: str) -> Condition:
        """Raises ValueError for anything but `clean` or `KIND-NUMBERdb`."""
        if text == CLEAN:
            return cls("clean")
        parts = _NAME.fullmatch(text)
        for kind in get_args(Kind)[1:]:
            if parts and parts["kind"] == kind:
                return cls(kind, int(parts["snr"]))
        raise ValueError(f"condition {text!r}: expected clean, babble-10db, noise-5db or another number of decibels")

    def __str__(self) -> str:
        return self.kind if self.kind == CLEAN else f"{self.kind}-{self.snr_db}db"


class Noise(Protocol):
    """What can be mixed with an utterance."""

    def __call__(self, name: str, speaker: str | None, samples: int) -> Float32:
        """Noise (samples,), 16 kHz, at any level, for the utterance of this name and speaker."""


def mix(speech: Float32, noise: Float32, snr_db: float) -> Float32:
    """Speech and noise (n,) at a ratio of their powers over the whole utterance.

    Where the sum would leave -1 to 1, all of it is made quieter: the ratio stays, and nothing is clipped.

    Raises:
        ValueError: either of them is silent.
    """
    powers = [float(np.square(each, dtype=np.float64).mean()) for each in (speech, noise)]
    if min(powers) <= 0:
        raise ValueError("there is no signal-to-noise ratio: the speech or the noise is silent")
    gain = np.float32(np.sqrt(powers[0] / powers[1] / 10 ** (snr_db / 10)))
    mixed: Float32 = speech + gain * noise
    mixed /= max(1.0, float(np.abs(mixed).max()))
    return mixed


def looped(recording: Float32, samples: int, offset: int) -> Float32:
    """So many samples of a recording from `offset` on, which begins anew where it ends."""
    return np.take(recording, np.arange(offset, offset + samples), mode="wrap")


@dataclass(frozen=True, slots=True)
class Babble:
    """Six others at once, one utterance of each, all equally loud.

    Attributes:
        recordings: of each speaker; those of the utterance's own speaker are not drawn from.
        load: reads one.
    """

    recordings: Mapping[str, Sequence[Path]]
    load: Callable[[Path], Float32] = read_file

    def voices(self, name: str, speaker: str | None) -> list[tuple[str, Path]]:
        """Who speaks behind an utterance, and in which recording.

        Raises:
            ValueError: it is not known who speaks, or there are too few others.
        """
        if speaker is None:
            raise ValueError("babble is made of other speakers: the manifest needs a column speaker")
        others = sorted(self.recordings.keys() - {speaker})
        if len(others) < VOICES:
            raise ValueError(f"babble behind speaker {speaker} needs {VOICES} others; there are {len(others)}")
        random = _random(name)
        chosen = [others[index] for index in random.choice(len(others), VOICES, replace=False)]
        return [(each, self.recordings[each][int(random.integers(len(self.recordings[each])))]) for each in chosen]

    def __call__(self, name: str, speaker: str | None, samples: int) -> Float32:
        """See `Noise`."""
        babble = np.zeros(samples, np.float32)
        for _, path in self.voices(name, speaker):
            voice = looped(self.load(path), samples, 0)
            babble += voice / max(np.sqrt(np.square(voice).mean()), np.float32(1e-6))
        return babble


@dataclass(frozen=True, slots=True)
class Recordings:
    """A recording of a folder behind each utterance, from a random place on.

    Attributes:
        files: to draw from; of any rate and length.
    """

    files: Sequence[Path]

    def __call__(self, name: str, speaker: str | None, samples: int) -> Float32:  # noqa: ARG002 - the Protocol's
        """See `Noise`."""
        random = _random(name)
        recording = without_padding(self.files[int(random.integers(len(self.files)))])
        return looped(recording, samples, int(random.integers(recording.size)))


@cache
def without_padding(file: Path) -> Float32:
    """A recording (n,), 16 kHz, without the quiet at its ends. Raises ManifestError: silent, or unreadable."""
    recording = read_file(file)
    loud = np.flatnonzero(np.abs(recording) > QUIET_END * np.abs(recording).max())
    if not loud.size:
        raise ManifestError(f"{file} is silent")
    return recording[loud[0] : loud[-1] + 1]


def _random(name: str) -> np.random.Generator:
    return np.random.default_rng((SEED, zlib.crc32(name.encode())))
