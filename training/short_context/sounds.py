"""Sounds in which nobody speaks: recordings, and what is computed here (noise, hum, tones, clicks, music, silence)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import soundfile
from numpy.typing import NDArray

from amser.features import SAMPLE_RATE, resample, to_mono
from training.corpora.manifest import ManifestError

Float32 = NDArray[np.float32]
Draw = np.random.Generator

RECORDED: Final = 0.5  # share of the sounds that are recordings, where there are any
SHORTEST_SECONDS: Final = 0.3
LONGEST_SECONDS: Final = 29.0
QUIETEST: Final = 1e-3  # peak
SEMITONE: Final = 2 ** (1 / 12)
CHORDS: Final = ((0, 4, 7), (0, 3, 7), (0, 4, 7, 11), (0, 5, 7), (0, 3, 7, 10))  # in semitones
RECORDING_SUFFIXES: Final = (".flac", ".ogg", ".wav")


def recordings_in(folder: Path) -> list[Path]:
    """The audio files of a folder, in the order of their names.

    Raises:
        ManifestError: there are none.
    """
    files = sorted(file for file in folder.rglob("*") if file.suffix in RECORDING_SUFFIXES)
    if not files:
        raise ManifestError(f"{folder} has no recordings ({', '.join(RECORDING_SUFFIXES)})")
    return files


def sound(draw: Draw, recordings: Sequence[Path]) -> Float32:
    """float32, (n,), 16 kHz, of 0.3 to 29 s, short ones more often; now and then two sounds at once."""
    samples = round(SAMPLE_RATE * SHORTEST_SECONDS * (LONGEST_SECONDS / SHORTEST_SECONDS) ** draw.beta(1.0, 1.3))
    made = _one(draw, samples, recordings)
    if draw.random() < 0.3:
        made = made + float(draw.uniform(0.1, 1.0)) * _one(draw, samples, recordings)
    peak = float(np.abs(made).max())
    level = float(np.exp(draw.uniform(np.log(QUIETEST), 0.0)))
    return (made * (level / peak) if peak > 0 else made).astype(np.float32)


def _one(draw: Draw, samples: int, recordings: Sequence[Path]) -> Float32:
    if recordings and draw.random() < RECORDED:
        return _recorded(draw, samples, recordings)
    return _COMPUTED[draw.integers(len(_COMPUTED))](draw, samples)


def _recorded(draw: Draw, samples: int, recordings: Sequence[Path]) -> Float32:
    content, rate = soundfile.read(recordings[int(draw.integers(len(recordings)))], dtype="float32", always_2d=True)
    mono = resample(to_mono(content), rate)
    start = int(draw.integers(len(mono)))
    return np.take(mono, np.arange(start, start + samples), mode="wrap")


def _coloured(draw: Draw, samples: int) -> Float32:
    """White, pink and brown noise and what lies between, sometimes in a band alone."""
    spectrum = np.fft.rfft(draw.standard_normal(samples))
    hertz = np.fft.rfftfreq(samples, 1 / SAMPLE_RATE)
    spectrum *= np.maximum(hertz, 20.0) ** -draw.uniform(0.0, 1.2)
    if draw.random() < 0.3:
        low, high = np.sort(np.exp(draw.uniform(np.log(60), np.log(8000), 2)))
        spectrum *= (hertz >= low) & (hertz <= high)
    return _swelling(draw, np.fft.irfft(spectrum, samples))


def _swelling(draw: Draw, samples: NDArray[np.float64]) -> Float32:
    """As it is, or rising and falling like wind, waves and passing cars."""
    scaled = samples / max(1e-9, float(np.abs(samples).max()))
    if draw.random() < 0.5:
        seconds = np.arange(len(scaled)) / SAMPLE_RATE
        scaled = scaled * (0.55 + 0.45 * np.sin(2 * np.pi * (draw.uniform(0.1, 6.0) * seconds + draw.random())))
    return scaled.astype(np.float32)


def _hum(draw: Draw, samples: int) -> Float32:
    seconds = np.arange(samples) / SAMPLE_RATE
    base = draw.choice([50.0, 60.0, 100.0, 120.0]) * draw.uniform(0.98, 1.02)
    wave = sum(draw.random() / n * np.sin(2 * np.pi * (base * n * seconds + draw.random())) for n in range(1, 12))
    hum: Float32 = (wave + 0.05 * draw.random() * draw.standard_normal(samples)).astype(np.float32)
    return hum


def _tone(draw: Draw, samples: int) -> Float32:
    """A steady, gliding or interrupted tone."""
    seconds = np.arange(samples) / SAMPLE_RATE
    start, end = np.exp(draw.uniform(np.log(80), np.log(6000), 2))
    hertz = np.linspace(start, end if draw.random() < 0.5 else start, samples)
    wave = np.sin(2 * np.pi * np.cumsum(hertz) / SAMPLE_RATE)
    if draw.random() < 0.5:
        wave = wave * (np.modf(seconds * draw.uniform(0.5, 5.0))[0] < draw.uniform(0.2, 0.8))
    return wave.astype(np.float32)


def _clicks(draw: Draw, samples: int) -> Float32:
    """Clicks, knocks and typing: short decaying bursts, in a rhythm or at random."""
    wave = np.zeros(samples, np.float32)
    apart = int(SAMPLE_RATE * draw.uniform(0.08, 1.2))
    regular = draw.random() < 0.5
    burst = round(SAMPLE_RATE * draw.uniform(0.002, 0.06))
    decay = np.exp(-np.arange(burst) / (burst / 5))
    for place in range(int(draw.integers(apart)), samples, apart):
        start = place if regular else int(draw.integers(samples))
        piece = (draw.standard_normal(burst) * decay)[: samples - start]
        wave[start : start + len(piece)] += piece * draw.uniform(0.3, 1.0)
    return wave


def _music(draw: Draw, samples: int) -> Float32:
    """Notes and chords that decay, on a scale and in a rhythm, with a drum now and then."""
    wave = np.zeros(samples, np.float32)
    beat = int(SAMPLE_RATE * draw.uniform(0.12, 0.6))
    root = draw.uniform(80, 500)
    partials = draw.integers(1, 9)
    drum = draw.random() < 0.4
    chords = draw.random() < 0.6
    for place in range(0, samples, beat):
        steps = CHORDS[draw.integers(len(CHORDS))] if chords else (0,)
        lift = draw.choice([0, 2, 4, 5, 7, 9, 12])
        length = min(samples - place, int(beat * draw.uniform(0.8, 4.0)))
        seconds = np.arange(length) / SAMPLE_RATE
        envelope = np.minimum(1.0, seconds / 0.01) * np.exp(-seconds * draw.uniform(0.5, 6.0))
        for step in steps:
            hertz = root * SEMITONE ** (step + lift)
            note = sum(np.sin(2 * np.pi * hertz * n * seconds) / n for n in range(1, 1 + partials) if hertz * n < 7500)
            wave[place : place + length] += envelope * note
        if drum:
            hit = min(samples - place, SAMPLE_RATE // 12)
            wave[place : place + hit] += (
                draw.standard_normal(hit) * np.exp(-np.arange(hit) / 250.0) * draw.uniform(0, 3)
            )
    return wave


def _silence(draw: Draw, samples: int) -> Float32:
    """Digital silence, or the last bit of a converter."""
    made: Float32 = (draw.choice([0.0, 1.0]) * draw.integers(-1, 2, samples) / 32768).astype(np.float32)
    return made


_COMPUTED: Final[tuple[Callable[[Draw, int], Float32], ...]] = (
    _coloured,
    _coloured,
    _hum,
    _tone,
    _clicks,
    _music,
    _music,
    _silence,
)
