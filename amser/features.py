# ruff: noqa: N818 - the names of the errors say what happened; their base class says that it is an error
"""Waveform → log-Mel, the first step on the device (Amser+, IoT-J 2025, equation 1).

`whisper80` and `whisper128` are what Whisper was trained on (Radford et al. 2022, `whisper/audio.py`), since a
pre-trained model must get its own input; `paper` is the Fbank that the AMSER papers describe, for the ablation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import fft, sparse

from amser.channels import mix_down
from amser.errors import SignalError

Float32 = NDArray[np.float32]
Window = Literal["hann", "hamming"]

SAMPLE_RATE: Final = 16_000  # Hz
WINDOW_LENGTH: Final = 400  # samples, 25 ms; also the length of the FFT
HOP_LENGTH: Final = 160  # samples, 10 ms
FRAMES_PER_SECOND: Final = SAMPLE_RATE // HOP_LENGTH
FRAMES_AT_ONCE: Final = 128  # keeps the spectra in the cache and off fresh pages of memory: 256 takes twice as long
MINIMUM_SECONDS: Final = 0.1
MINIMUM_FRAMES: Final = 10  # what MINIMUM_SECONDS gives
RESAMPLED_FROM: Final = (4_000, 192_000)  # Hz; a rate out of a file's header decides how long the filter is

POWER_FLOOR: Final = 1e-10  # below it a band counts as silent
DYNAMIC_RANGE: Final = 8.0  # decades below the utterance's loudest cell that are kept
LOG_OFFSET, LOG_SCALE = 4.0, 4.0  # Whisper's scaling: (log10(power) + 4) / 4

SPEECH_BELOW_PEAK: Final = 35 / 10 / LOG_SCALE  # 35 dB in a log-Mel; quieter frames at either end are a pause
PAUSE_KEPT: Final = 10  # frames of pause that count as speech at either end

# The Slaney Mel scale (Auditory Toolbox, 1998): linear up to 1 kHz, then logarithmic.
MEL_BREAK_HERTZ = 1000.0
MEL_HERTZ = 200 / 3  # Hz per mel in the linear part
MEL_LOG_STEP = math.log(6.4) / 27  # 27 mels from 1 kHz to 6.4 kHz


class AudioError(SignalError):
    """Audio that cannot be turned into a log-Mel."""


class EmptyAudio(AudioError):
    """Not one sample."""


class AudioTooShort(AudioError):
    """Under `MINIMUM_SECONDS`."""


class AudioNotFinite(AudioError):
    """A sample is NaN or infinite."""


class UnsupportedAudio(AudioError):
    """A shape, sample type or sample rate that has no one meaning here."""


@dataclass(frozen=True, slots=True)
class Profile:
    """How a waveform becomes a log-Mel.

    Attributes:
        name: what configurations and reports call it.
        number: what the envelope calls it (`amser.wire`); never reused.
        bands: number of Mel filters, 0 to 8 kHz.
        window: shape of the analysis window, periodic, `WINDOW_LENGTH` samples.
        pre_emphasis: a in y[t] = x[t] − a·x[t−1]; 0 leaves the waveform alone.
    """

    name: str
    number: int
    bands: int
    window: Window
    pre_emphasis: float


PROFILES: Final = MappingProxyType(
    {
        profile.name: profile
        for profile in (
            Profile("whisper80", 1, 80, "hann", 0.0),
            Profile("whisper128", 2, 128, "hann", 0.0),
            Profile("paper", 3, 80, "hamming", 0.97),
        )
    }
)


def log_mel(waveform: ArrayLike, profile: str = "whisper80", *, clamp: bool = True) -> Float32:
    """The log-Mel of a waveform, in Whisper's scale.

    Args:
        waveform: floating point, shape (samples,), at `SAMPLE_RATE`, full scale ±1.
        profile: a name in `PROFILES`. The Whisper profiles equal openai-whisper's `log_mel_spectrogram`, unpadded.
        clamp: raise everything to the floor, eight decades below the loudest cell. That cell is only known once the
            utterance has ended, so a device that streams says False and the server calls `clamp_to_floor`.

    Returns:
        float32, shape (bands, samples // HOP_LENGTH); about −1.5 for silence to 1.8 for full scale.

    Raises:
        AudioError: see `validate`.
        ValueError: there is no such profile.
    """
    chosen = profile_named(profile)
    mel = log_mel_of_windows(centred_windows(pre_emphasize(validate(waveform), chosen)), chosen)
    return clamp_to_floor(mel) if clamp else mel


def profile_named(name: str) -> Profile:
    """One of `PROFILES`.

    Raises:
        ValueError: there is no such profile.
    """
    if name not in PROFILES:
        raise ValueError(f"no profile {name!r}; there are {', '.join(PROFILES)}")
    return PROFILES[name]


def pre_emphasize(waveform: Float32, profile: Profile, before: float = 0.0) -> Float32:
    """y[t] = x[t] − a·x[t−1], the same array where a is 0. `before` is x[−1]. Shape (samples,)."""
    if not profile.pre_emphasis or not waveform.size:
        return waveform
    emphasized = waveform.copy()
    emphasized[0] -= np.float32(profile.pre_emphasis) * np.float32(before)
    emphasized[1:] -= np.float32(profile.pre_emphasis) * waveform[:-1]
    return emphasized


def centred_windows(waveform: Float32) -> Float32:
    """What each frame sees, a read-only view of shape (samples // HOP_LENGTH, WINDOW_LENGTH), of ≥ `MINIMUM_SECONDS`.

    Frame k is centred on sample k · HOP_LENGTH; the edges are mirrored; the last centred frame is left out, as in
    Whisper.
    """
    padded = np.pad(waveform, WINDOW_LENGTH // 2, mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, WINDOW_LENGTH)
    return windows[::HOP_LENGTH][: waveform.size // HOP_LENGTH]


def log_mel_of_windows(windows: Float32, profile: Profile) -> Float32:
    """The log-Mel of frames, each from its own window: (frames, WINDOW_LENGTH) → (bands, frames), not clamped."""
    mel = np.empty((profile.bands, len(windows)), np.float32)
    window, filters = _window(profile.window)[:, None], _sparse_mel_filters(profile.bands)
    for start in range(0, len(windows), FRAMES_AT_ONCE):
        block = slice(start, start + FRAMES_AT_ONCE)
        # (WINDOW_LENGTH // 2 + 1, frames): a frame is a column, as the sparse product reads it
        spectrum: NDArray[np.complex64] = fft.rfft(windows[block].T * window, axis=0)
        mel[:, block] = filters @ (spectrum.real**2 + spectrum.imag**2)
    np.maximum(mel, np.float32(POWER_FLOOR), out=mel)
    np.log10(mel, out=mel)
    mel += LOG_OFFSET
    mel /= LOG_SCALE
    return mel


def clamp_to_floor(log_mel: Float32) -> Float32:
    """Raises a log-Mel to the utterance's floor: eight decades below its loudest cell. Shape and dtype stay."""
    floor = log_mel.max() - np.float32(DYNAMIC_RANGE / LOG_SCALE)
    raised: Float32 = np.maximum(log_mel, floor)
    return raised


def silence_value(log_mel: Float32) -> float:
    """What Whisper's log-Mel holds where this utterance is followed by zeros: the value to pad with.

    The utterance's floor, or the logarithm of `POWER_FLOOR` (−1.5) for a recording too quiet to reach down to it.
    """
    floor = float(log_mel.max()) - DYNAMIC_RANGE / LOG_SCALE
    return max(floor, (math.log10(POWER_FLOOR) + LOG_OFFSET) / LOG_SCALE)


def trim_pauses(log_mel: NDArray[np.floating]) -> NDArray[np.floating]:
    """Cut the quiet ends off a log-Mel, so that an answer does not depend on how closely a device cut the utterance.

    Args:
        log_mel: (bands, T), whisper80 or whisper128, T ≥ 1.

    Returns:
        A view (bands, T′), from the first to the last frame whose loudest band is within 35 dB of the utterance's
        loudest, and 0.1 s around them.
    """
    return log_mel[:, between_pauses(log_mel)]


def between_pauses(log_mel: NDArray[np.floating]) -> slice:
    """The frames that `trim_pauses` keeps."""
    loudness = log_mel.max(axis=0).astype(np.float32)
    speech = np.flatnonzero(loudness >= loudness.max() - SPEECH_BELOW_PEAK)
    return slice(max(0, int(speech[0]) - PAUSE_KEPT), min(log_mel.shape[1], int(speech[-1]) + 1 + PAUSE_KEPT))


def validate(waveform: ArrayLike) -> Float32:
    """A waveform as float32 of shape (samples,), if a log-Mel can be made of it.

    Raises:
        UnsupportedAudio: not one-dimensional, or not floating point (`to_mono` scales integers).
        EmptyAudio, AudioTooShort, AudioNotFinite: as named.
    """
    samples = finite_samples(waveform)
    long_enough(samples.size)
    return samples


def finite_samples(waveform: ArrayLike, before: int = 0) -> Float32:
    """A piece of a waveform as float32 of shape (samples,); it may be empty. `before` is the samples that came before.

    Raises:
        UnsupportedAudio, AudioNotFinite: see `validate`.
    """
    samples = np.asarray(waveform)
    if samples.ndim != 1:
        raise UnsupportedAudio(f"the waveform has shape {samples.shape}", "(samples,); `to_mono` mixes channels")
    if samples.dtype.kind != "f":
        raise UnsupportedAudio(f"the samples are {samples.dtype}", "floating point; `to_mono` scales integers")
    if samples.dtype != np.float32:
        with np.errstate(over="ignore"):  # a float64 too large for float32 becomes infinite and is refused as such
            samples = samples.astype(np.float32)
    if not np.isfinite(samples).all():
        first = int(np.argmin(np.isfinite(samples)))
        where = f"sample {before + first} ({(before + first) / SAMPLE_RATE:.3f} s)"
        raise AudioNotFinite(f"{where} is {samples[first]}", "finite samples")
    return samples


def long_enough(samples: int) -> None:
    """Refuses an utterance of too few samples: EmptyAudio, AudioTooShort."""
    if samples == 0:
        raise EmptyAudio("the audio has no samples", f"{MINIMUM_SECONDS} s or more")
    if samples < MINIMUM_SECONDS * SAMPLE_RATE:
        raise AudioTooShort(f"the audio lasts {samples / SAMPLE_RATE:.4g} s", f"{MINIMUM_SECONDS} s or more")


def to_mono(samples: ArrayLike, rate: int = SAMPLE_RATE) -> Float32:
    """The channels that speak, averaged, as float32 (`amser.channels.mix_down`); integer PCM is scaled to ±1.

    Args:
        samples: shape (samples,) or (samples, channels); floating point, int16, int32, or uint8 (centre 128).
        rate: samples per second.

    Raises:
        UnsupportedAudio: another shape or sample type.
    """
    pcm = np.asarray(samples)
    if pcm.ndim not in (1, 2) or (pcm.ndim == 2 and pcm.shape[1] == 0):
        raise UnsupportedAudio(f"the samples have shape {pcm.shape}", "(samples,) or (samples, channels)")
    with np.errstate(over="ignore", invalid="ignore"):  # too large for float32 becomes infinite: `validate` refuses it
        scaled = _full_scale(pcm)
        return scaled if scaled.ndim == 1 else mix_down(scaled, rate)


def resample(waveform: ArrayLike, rate: int, to: int = SAMPLE_RATE) -> Float32:
    """A waveform at another sample rate, through a zero-phase polyphase filter.

    Args:
        waveform: floating point, shape (samples,).
        rate: Hz, within `RESAMPLED_FROM`.
        to: Hz.

    Returns:
        float32, shape (ceil(samples · to / rate),).

    Raises:
        UnsupportedAudio: a rate out of the range.
    """
    lowest, highest = RESAMPLED_FROM
    if not lowest <= rate <= highest:
        raise UnsupportedAudio(f"the sample rate is {rate} Hz", f"{lowest} to {highest} Hz")
    samples = np.asarray(waveform, np.float32)
    if rate == to or samples.size == 0:
        return samples
    from scipy import signal  # takes longer to import than all the rest, and what only decodes needs none of it

    divisor = math.gcd(rate, to)
    resampled: NDArray[Any] = signal.resample_poly(samples, to // divisor, rate // divisor)
    return resampled.astype(np.float32, copy=False)


def _full_scale(pcm: NDArray[Any]) -> Float32:
    if np.issubdtype(pcm.dtype, np.floating):
        return pcm.astype(np.float32, copy=False)
    if pcm.dtype == np.uint8:
        return (pcm.astype(np.float32) - 128) / np.float32(128)
    if pcm.dtype in (np.int16, np.int32):
        return pcm.astype(np.float32) / np.float32(-float(np.iinfo(pcm.dtype).min))
    raise UnsupportedAudio(f"the samples are {pcm.dtype}", "floating point, int16, int32, uint8")


@cache
def _window(shape: Window) -> Float32:
    from scipy import signal  # see `resample`

    return signal.get_window(shape, WINDOW_LENGTH, fftbins=True).astype(np.float32)


@cache
def _mel_filters(bands: int) -> Float32:
    """Triangles of equal area (Slaney), shape (bands, WINDOW_LENGTH // 2 + 1)."""
    edges = _mel_to_hertz(np.linspace(0.0, _hertz_to_mel(SAMPLE_RATE / 2), bands + 2))
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    bins = fft.rfftfreq(WINDOW_LENGTH, 1 / SAMPLE_RATE)
    rising, falling = (bins - low) / (centre - low), (high - bins) / (high - centre)
    triangles = np.clip(np.minimum(rising, falling), 0.0, None)
    filters: Float32 = (triangles * 2 / (high - low)).astype(np.float32)
    return filters


@cache
def _sparse_mel_filters(bands: int) -> sparse.csr_array[np.float32]:
    """`_mel_filters` without its zeros, 98 % of them: a fifth off the whole log-Mel."""
    return sparse.csr_array(_mel_filters(bands))


def _hertz_to_mel(hertz: float) -> float:
    linear = min(hertz, MEL_BREAK_HERTZ) / MEL_HERTZ
    return linear + math.log(max(hertz, MEL_BREAK_HERTZ) / MEL_BREAK_HERTZ) / MEL_LOG_STEP


def _mel_to_hertz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    break_mel = MEL_BREAK_HERTZ / MEL_HERTZ
    linear = np.minimum(mel, break_mel) * MEL_HERTZ
    return linear * np.exp(np.maximum(mel - break_mel, 0.0) * MEL_LOG_STEP)
