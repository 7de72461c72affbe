"""Decoded frames → blocks of mono at 16 kHz, whatever their rates and channels; a stream may change both midway."""

from __future__ import annotations

from typing import Final

import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler

from amser.audio.containers import check_setup
from amser.features import SAMPLE_RATE, Float32, to_mono

MIXED_AT_ONCE: Final = 30 * SAMPLE_RATE  # samples whose channels are in memory together
TAKEN_AT_ONCE: Final = SAMPLE_RATE  # samples: an array for every frame costs more than its resampling
LOUDEST: Final = 8.0  # 18 dB over full scale: what a decoder makes of damage, and no recording


class Mixer:
    """Takes frames, and gives blocks.

    Attributes:
        is_lossy: samples louder than `LOUDEST`, or not finite, are damage and become silence.
        is_damaged: there were such samples.
    """

    def __init__(self) -> None:
        self._samples = 0
        self.is_lossy = self.is_damaged = False
        self._ready: list[Float32] = []
        self._held: list[Float32] = []  # (samples, channels), to be mixed together
        self._held_samples = self._channels = 0
        self._setup: tuple[str, str, int] | None = None
        self._waiting_s = 0.0  # in the resampler
        self._resampler: AudioResampler | None = None

    @property
    def samples(self) -> int:
        """Received so far, at 16 kHz; exact once it is flushed."""
        return self._samples + max(0, int(self._waiting_s * SAMPLE_RATE))

    def push(self, frame: AudioFrame) -> None:
        """Raises `amser.features.UnsupportedAudio` where no recording has its rate or channels."""
        setup = (frame.format.name, frame.layout.name, frame.sample_rate)
        if setup != self._setup:
            self.flush()
            check_setup(frame.sample_rate, frame.layout.nb_channels)
            self._setup = setup
        if self._resampler is None:
            # Interleaved: PyAV runs past the table of planes where there are eight or more. The channels stay, since
            # FFmpeg's own mix to mono adds them up to 1.4 times full scale.
            self._resampler = AudioResampler(format="flt", rate=SAMPLE_RATE, frame_size=TAKEN_AT_ONCE)
        self._take(self._resampler.resample(frame))
        self._waiting_s += frame.samples / frame.sample_rate

    def silence(self, seconds: float) -> None:
        """In place of what was lost between two frames."""
        self._drain()
        if self._channels:  # nothing was heard before it otherwise
            self._hold(np.zeros((round(seconds * SAMPLE_RATE), self._channels), np.float32))

    def flush(self) -> None:
        """The end of a stream, or of frames that are alike."""
        self._drain()
        self._mix()
        self._setup = None

    def blocks(self, kept: int = 0) -> list[Float32]:
        """Those that are ready, each once: float32, shape (samples,). So many samples, or more, stay for `drop`."""
        ready, self._ready = self._ready, []
        if kept and ready:
            whole = np.concatenate(ready)
            ready, self._ready = [whole[:-kept]], [whole[-kept:]]
        return [block for block in ready if block.size]

    def drop(self, samples: int) -> None:
        """Takes samples off the end of what is ready."""
        self._ready = [np.concatenate(self._ready)[:-samples]]
        self._samples -= samples

    def _drain(self) -> None:
        if self._resampler is not None:
            self._take(self._resampler.resample(None))
        self._resampler, self._waiting_s = None, 0.0

    def _take(self, pieces: list[AudioFrame]) -> None:
        for piece in pieces:
            self._waiting_s -= piece.samples / SAMPLE_RATE
            samples = np.asarray(piece.to_ndarray(), np.float32)
            self._channels = piece.layout.nb_channels
            self._hold(samples.reshape(-1, self._channels))
        if self._held_samples >= MIXED_AT_ONCE:
            self._mix()

    def _hold(self, samples: Float32) -> None:
        self._held.append(samples)
        self._samples += len(samples)
        self._held_samples += len(samples)

    def _mix(self) -> None:
        if not self._held:
            return
        channels = np.concatenate(self._held)
        self._held, self._held_samples = [], 0
        if self.is_lossy and channels.size and not np.abs(channels).max() <= LOUDEST:  # NaN is not either
            channels[~(np.abs(channels) <= LOUDEST).all(axis=1)] = 0
            self.is_damaged = True
        self._ready.append(to_mono(channels))
