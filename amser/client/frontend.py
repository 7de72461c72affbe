# ruff: noqa: N818 - the names of the errors say what happened
"""Waveform → log-Mel on the device: by NumPy, or the same numbers from a C library; at once or as audio arrives.

A device names its front end. `asrfront` (MIT, C with SIMD, NumPy its only dependency) computes the Whisper profiles in
half the time of `numpy`, also where 20 ms arrive at a time. On LibriSpeech both are within 7e-5 of openai-whisper's own
log-Mel; eight decades below a pure tone, where float32 holds round-off, within 1e-3. `numpy` computes every profile.
"""

from __future__ import annotations

from types import ModuleType
from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from amser import features
from amser.errors import SignalError
from amser.features import DYNAMIC_RANGE, HOP_LENGTH, LOG_SCALE, WINDOW_LENGTH, Float32, Profile

Frontend = Literal["asrfront", "numpy"]

FRONTENDS: Final[tuple[Frontend, ...]] = get_args(Frontend)
DEFAULT_FRONTEND: Final[Frontend] = "asrfront"
ASRFRONT_PROFILES: Final = ("whisper80", "whisper128")

HALF_WINDOW: Final = WINDOW_LENGTH // 2
BLOCK: Final = 32 * HOP_LENGTH  # samples of a stream taken at once
# asrfront centres frame k of what it gets on sample k · HOP_LENGTH. With FIRST zeros in front, frame LEAD_FRAMES is the
# first whose window is, whole, in what follows them.
LEAD_FRAMES: Final = 2
FIRST: Final = LEAD_FRAMES * HOP_LENGTH - HALF_WINDOW  # samples
ON_THE_FLOOR: Final = 1e-4  # above the floor, in Whisper's scale: what asrfront raised to it, and its rounding


class UnknownFrontend(SignalError):
    """No front end has this name."""


class UnsupportedProfile(SignalError):
    """The front end does not compute this profile."""


class FrontendMissing(ImportError):
    """The front end's library is not installed. The message names the command that brings it."""


def log_mel(
    waveform: ArrayLike, profile: str = "whisper80", *, clamp: bool = True, frontend: str = DEFAULT_FRONTEND
) -> Float32:
    """The log-Mel of a waveform, in Whisper's scale: `amser.features.log_mel` through a front end.

    Args:
        waveform: floating point, shape (samples,), 16 kHz, full scale ±1.
        profile: a name in `amser.features.PROFILES`; `asrfront` computes `ASRFRONT_PROFILES`.
        clamp: raise everything to the floor, eight decades below the loudest cell. `asrfront` always does, so that
            NumPy computes the log-Mel of a whole utterance that should not be: `StreamingLogMel` is quicker in pieces.
        frontend: one of `FRONTENDS`; on speech they differ by less than 1e-4.

    Returns:
        float32, shape (bands, samples // HOP_LENGTH).

    Raises:
        amser.features.AudioError: see `amser.features.validate`.
        ValueError, UnknownFrontend, UnsupportedProfile, FrontendMissing: see `require`.
    """
    chosen = require(frontend, profile)
    if frontend == "numpy" or not clamp:
        return features.log_mel(waveform, profile, clamp=clamp)
    mel: Float32 = _asrfront().log_mel(features.validate(waveform), chosen.bands, pad_or_trim=False)
    return mel


def require(frontend: str, profile: str) -> Profile:
    """The profile, if this front end can compute it here: what a device checks before it records.

    Raises:
        ValueError: there is no such profile.
        UnknownFrontend, UnsupportedProfile, FrontendMissing: as named. Nothing else is taken in its place.
    """
    chosen = features.profile_named(profile)
    if frontend not in FRONTENDS:
        raise UnknownFrontend(f"no front end {frontend!r}", ", ".join(FRONTENDS))
    if frontend == "asrfront":
        if profile not in ASRFRONT_PROFILES:
            limit = f"{', '.join(ASRFRONT_PROFILES)}; the front end numpy computes every profile"
            raise UnsupportedProfile(f"asrfront does not compute the profile {profile}", limit)
        _asrfront()
    return chosen


class StreamingLogMel:
    """The log-Mel of an utterance while it is spoken: each frame as soon as its window is complete.

    A frame comes out with the sample half a window (12.5 ms) after its centre, so a sample is in a frame at most half a
    window and a hop after it arrived. The frames do not depend on how the waveform is cut, and are those of
    `log_mel(waveform, clamp=False)`: exactly with `numpy`, on speech within 1e-4 with `asrfront`. Whoever has the whole
    utterance calls `amser.features.clamp_to_floor`. Used by one thread at a time.

    Args:
        profile, frontend: see `log_mel`.

    Raises:
        ValueError, UnknownFrontend, UnsupportedProfile, FrontendMissing: see `require`.
    """

    def __init__(self, profile: str = "whisper80", *, frontend: str = DEFAULT_FRONTEND) -> None:
        self._profile = require(frontend, profile)
        self._frontend = frontend
        self._held = np.zeros(FIRST + WINDOW_LENGTH + BLOCK, np.float32)
        self._begin()

    def _begin(self) -> None:
        self._received = 0  # samples
        self._frames = 0  # that came out
        self._last = 0.0  # sample, before pre-emphasis
        self._end = FIRST + HALF_WINDOW  # of what `_held` holds; before sample 0 is room for its mirrored half window

    def push(self, samples: ArrayLike) -> Float32:
        """The frames that these samples complete.

        Args:
            samples: floating point, shape (samples,), 16 kHz; any number of them.

        Returns:
            float32, shape (bands, new frames), not clamped.

        Raises:
            amser.features.UnsupportedAudio, AudioNotFinite: nothing of these samples was taken.
        """
        piece = features.finite_samples(samples, before=self._received)
        emphasized = features.pre_emphasize(piece, self._profile, before=self._last)
        mels = []
        for start in range(0, piece.size, BLOCK):
            block = emphasized[start : start + BLOCK]
            self._held[self._end : self._end + block.size] = block
            self._end += block.size
            self._received += block.size
            if frames := self._complete():
                mels.append(self._next(frames))
        if piece.size:
            self._last = float(piece[-1])
        if len(mels) == 1:
            return mels[0]
        return np.concatenate(mels, axis=1) if mels else np.empty((self._profile.bands, 0), np.float32)

    def finish(self) -> Float32:
        """The frames whose windows reach beyond the end, which is mirrored. The next `push` begins another utterance.

        Returns:
            float32, shape (bands, 0 or 1), not clamped.

        Raises:
            amser.features.EmptyAudio, AudioTooShort: as named; the next `push` begins another utterance all the same.
        """
        try:
            features.long_enough(self._received)
            if self._received // HOP_LENGTH == self._frames:
                return np.empty((self._profile.bands, 0), np.float32)
            beyond, last = FIRST + WINDOW_LENGTH - self._end, self._end - 1
            self._held[self._end : self._end + beyond] = self._held[last - 1 : last - 1 - beyond : -1]
            return self._next(1)
        finally:
            self._begin()

    def _complete(self) -> int:
        """Frames whose window is in `_held`. The mirrored half of frame 0 needs one sample more than its other half."""
        if self._received <= HALF_WINDOW:
            return 0
        if self._frames == 0:
            zero = FIRST + HALF_WINDOW
            self._held[FIRST:zero] = self._held[zero + HALF_WINDOW : zero : -1]
        return (self._end - FIRST - WINDOW_LENGTH) // HOP_LENGTH + 1

    def _next(self, frames: int) -> Float32:
        """The log-Mel of the first `frames` windows; then `_held` begins with the window of the frame after them."""
        end = FIRST + WINDOW_LENGTH + (frames - 1) * HOP_LENGTH
        if self._frontend == "numpy":
            mel = features.log_mel_of_windows(_windows(self._held[FIRST:end]), self._profile)
        else:
            mel = self._by_asrfront(end)
        kept = self._held[FIRST + frames * HOP_LENGTH : self._end]
        self._held[FIRST : FIRST + kept.size] = kept
        self._end = FIRST + kept.size
        self._frames += frames
        return mel

    def _by_asrfront(self, end: int) -> Float32:
        """asrfront on `_held`, with the frames that reach the floor of this block computed again by NumPy."""
        clamped = _asrfront().log_mel(self._held[:end], self._profile.bands, pad_or_trim=False)
        floor = float(clamped.max()) - DYNAMIC_RANGE / LOG_SCALE + ON_THE_FLOOR
        mel: Float32 = clamped[:, LEAD_FRAMES:].copy()
        if mel.min() <= floor:
            quiet = mel.min(axis=0) <= floor
            windows = _windows(self._held[FIRST:end])
            mel[:, quiet] = features.log_mel_of_windows(windows[quiet], self._profile)
        return mel


def _windows(waveform: Float32) -> Float32:
    """(frames, WINDOW_LENGTH), a view; frame k begins at sample k · HOP_LENGTH."""
    return np.lib.stride_tricks.sliding_window_view(waveform, WINDOW_LENGTH)[::HOP_LENGTH]


def _asrfront() -> ModuleType:
    try:
        from asrfront import whisper
    except ImportError as error:
        raise FrontendMissing(
            "the front end asrfront is not installed. Bring it with: pip install 'amser[edge]'; or name numpy instead"
        ) from error
    return whisper
