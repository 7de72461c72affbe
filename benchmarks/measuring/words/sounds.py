"""Sounds in which nobody speaks: noises, tones, clicks, silence, synthesised music, and recordings, up to 30 s long.

Each is made of its kind, length, level and seed alone, the same in every run.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from amser.features import SAMPLE_RATE, Float32
from benchmarks.measuring.manifest import ManifestError, read_manifest
from benchmarks.measuring.noise import looped, without_padding
from benchmarks.measuring.words.utterance import LONGEST_SECONDS, Utterance
from training.short_context.clips import FOLDS
from training.short_context.sounds import recordings_in

SECONDS: Final = (0.3, 1.0, 3.0, 8.0, 15.0, LONGEST_SECONDS)
LEVELS: Final = (-45, -25, -10)  # dB of the root mean square below full scale
SEEDS: Final = 2  # of each kind or recording, length and level
RECORDED: Final = "recording"
SILENCE: Final = "silence"
SEMITONE: Final = 2 ** (1 / 12)
SCALE: Final = (0, 2, 4, 5, 7, 9, 11, 12)  # semitones of a major scale
CHORDS: Final = ((0, 4, 7), (5, 9, 12), (7, 11, 14), (9, 12, 16))  # semitones above the key
BASE_HERTZ: Final = (110.0, 220.0)  # of the key, drawn between

Samples = NDArray[np.float64]
Synthesis = Callable[[int, np.random.Generator], Samples]


def sounds(recordings: Sequence[Path], seed: int = 0) -> list[Utterance]:
    """All of them, as utterances without a text, of which the speaker is the sound.

    Args:
        recordings: without speech; `recordings_of` has those that taught nothing.
        seed: another one, other noises.
    """
    made = [
        Utterance(kind, partial(synthesised, kind, seconds, level, seed + number), "", f"{kind} {number}")
        for kind in KINDS
        for seconds in SECONDS
        for level in LEVELS
        for number in range(SEEDS)
    ]
    made += [Utterance(SILENCE, partial(_silence, seconds), "", SILENCE) for seconds in SECONDS]
    made += [
        Utterance(RECORDED, partial(_recorded, file, seconds, seed + number), "", file.stem)
        for file in recordings
        for seconds in SECONDS
        for number in range(SEEDS)
    ]
    return made


def recordings_of(manifest: Path, folds: Sequence[int]) -> list[Path]:
    """The recordings of a manifest in some folds, as `training.short_context` has them: every fifth of their folder.

    Raises:
        ManifestError: it cannot be used, or has none in these folds.
    """
    files = {each.path for each in read_manifest(manifest)}
    folders = sorted({file.parent for file in files})
    chosen = [file for folder in folders for fold in folds for file in recordings_in(folder)[fold - 1 :: FOLDS]]
    if not (kept := [file for file in chosen if file in files]):
        raise ManifestError(f"{manifest}: no recording is in the folds {', '.join(map(str, folds))}")
    return kept


def synthesised(kind: str, seconds: float, level: float, seed: int) -> Float32:
    """One sound.

    Args:
        kind: of `KINDS`.
        seconds: of it.
        level: dB of the root mean square below full scale; lower where peaks would leave -1 to 1.
        seed: another one, another noise or melody.

    Returns:
        float32 (n,), 16 kHz, within -1 to 1.
    """
    samples = KINDS[kind](round(seconds * SAMPLE_RATE), np.random.default_rng((seed, zlib.crc32(kind.encode()))))
    loudest = 1 / max(float(np.abs(samples).max()), 1e-9)
    gain = min(loudest, 10 ** (level / 20) / max(float(np.sqrt(np.square(samples).mean())), 1e-9))
    return (gain * samples).astype(np.float32)


def _silence(seconds: float) -> Float32:
    return np.zeros(round(seconds * SAMPLE_RATE), np.float32)


def _recorded(path: Path, seconds: float, seed: int) -> Float32:
    """Cut out of a recording at a place that is drawn, or repeated where it is shorter."""
    recording = without_padding(path)
    offset = int(np.random.default_rng((seed, zlib.crc32(path.stem.encode()))).integers(recording.size))
    return looped(recording, round(seconds * SAMPLE_RATE), offset)


# --- Noises and tones -------------------------------------------------------------------------------------------------


def _coloured(samples: int, draw: np.random.Generator, slope: float) -> Samples:
    """Noise whose power falls with frequency to the power of `slope`."""
    spectrum = np.fft.rfft(draw.standard_normal(samples))
    frequencies = np.arange(len(spectrum), dtype=np.float64)
    frequencies[0] = 1
    spectrum[0] = 0
    return np.fft.irfft(spectrum / frequencies ** (slope / 2), samples)


def _hum(samples: int, draw: np.random.Generator) -> Samples:
    """Mains hum with overtones that fall."""
    time, mains = _time(samples), draw.choice((50.0, 60.0))
    overtones = range(1, 8)
    phases = draw.uniform(0, 2 * np.pi, len(overtones))
    tones = [np.sin(2 * np.pi * mains * n * time + phase) / n for n, phase in zip(overtones, phases, strict=True)]
    return _sum(tones)


def _tone(samples: int, draw: np.random.Generator) -> Samples:
    hertz = float(np.exp(draw.uniform(np.log(100), np.log(4000))))
    return np.sin(2 * np.pi * hertz * _time(samples))


def _chirp(samples: int, draw: np.random.Generator) -> Samples:
    """A tone that rises and falls by an octave and more, over and over."""
    period, centre = draw.uniform(0.3, 2.0), draw.uniform(400, 1500)
    hertz = centre * 2 ** np.sin(2 * np.pi * _time(samples) / period)
    return np.sin(2 * np.pi * np.cumsum(hertz) / SAMPLE_RATE)


def _clicks(samples: int, draw: np.random.Generator) -> Samples:
    """Short decaying clicks at drawn moments, three a second and one at least."""
    clicks = np.zeros(samples)
    places = draw.integers(0, samples, max(1, round(3 * samples / SAMPLE_RATE)))
    clicks[places] = draw.uniform(0.3, 1, len(places))
    return lfilter([1.0], [1.0, -0.6], clicks)


def _sum(sounds: Sequence[Samples]) -> Samples:
    total: Samples = np.sum(sounds, axis=0)
    return total


def _time(samples: int) -> Samples:
    return np.arange(samples) / SAMPLE_RATE


# --- Music ------------------------------------------------------------------------------------------------------------


def plucked(hertz: float, samples: int, draw: np.random.Generator) -> Samples:
    """A string by Karplus and Strong (1983): noise in a loop that averages neighbours."""
    period = max(2, round(SAMPLE_RATE / hertz))
    excitation = np.zeros(samples)
    excitation[:period] = draw.uniform(-1, 1, period)[:samples]
    feedback = np.zeros(period + 2)
    feedback[0], feedback[period], feedback[period + 1] = 1, -0.498, -0.498
    return lfilter([1.0], feedback, excitation)


def _chords(samples: int, draw: np.random.Generator) -> Samples:
    def chord(length: int, beat: int, key: float) -> Samples:
        return _sum([plucked(key * SEMITONE**tone, length, draw) for tone in CHORDS[beat % len(CHORDS)]])

    return _in_beats(samples, draw, draw.uniform(0.5, 1.2), chord)


def _melody(samples: int, draw: np.random.Generator) -> Samples:
    def note(length: int, _: int, key: float) -> Samples:
        hertz, time = 2 * key * SEMITONE ** draw.choice(SCALE), _time(length)
        tones = [np.sin(2 * np.pi * hertz * overtone * time) / overtone**2 for overtone in (1, 2, 3, 4)]
        return np.exp(-3 * time) * _sum(tones)

    return _in_beats(samples, draw, draw.uniform(0.2, 0.5), note)


def _drums(samples: int, draw: np.random.Generator) -> Samples:
    """A bass drum and a snare in turn, with a cymbal on each beat."""

    def beat(length: int, number: int, _: float) -> Samples:
        time, hiss = _time(length), draw.standard_normal(length)
        bass = np.sin(2 * np.pi * 60 * time) * np.exp(-15 * time)
        snare = hiss * np.exp(-20 * time)
        cymbal = 0.2 * np.diff(hiss, prepend=0) * np.exp(-40 * time)
        return (snare if number % 2 else bass) + cymbal

    return _in_beats(samples, draw, draw.uniform(0.25, 0.5), beat)


def _in_beats(
    samples: int, draw: np.random.Generator, seconds: float, play: Callable[[int, int, float], Samples]
) -> Samples:
    """What is played on each beat, one after another."""
    key, length = draw.uniform(*BASE_HERTZ), round(seconds * SAMPLE_RATE)
    beats: Sequence[Samples] = [play(length, number, key) for number in range(-(-samples // length))]
    return np.concatenate(beats)[:samples]


KINDS: Final[dict[str, Synthesis]] = {
    "white noise": partial(_coloured, slope=0),
    "pink noise": partial(_coloured, slope=1),
    "brown noise": partial(_coloured, slope=2),
    "hum": _hum,
    "tone": _tone,
    "chirp": _chirp,
    "clicks": _clicks,
    "chords": _chords,
    "melody": _melody,
    "drums": _drums,
}
