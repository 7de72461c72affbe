"""Recording → utterances: the device splits at pauses and sends nothing where there is no speech.

Silero VAD gives a probability of speech every 32 ms; two thresholds and a few durations make utterances of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from amser.client.weights import stored
from amser.features import SAMPLE_RATE, Float32

Span = tuple[float, float]  # start and end in seconds

WINDOW: Final = 512  # samples, 32 ms: what one probability is about
CONTEXT: Final = 64  # samples before the window that the network also sees
STATE_SHAPE: Final = (1, 1, 128)  # of the LSTM
WINDOWS_AT_ONCE: Final = 256  # 8 s: an hour of audio needs no more memory than a minute
LONGEST_PENDING: Final = 20_000  # windows, 10 min without a pause, until what there is becomes utterances as it is

LOUDNESS_BLOCK_S: Final = 0.02
QUIET_S: Final = 0.2  # how long it must be quiet where a long utterance is cut; between two words it is


class Samples(Protocol):
    """A waveform, float32, shape (samples,), 16 kHz: an array, or a file of which parts are read."""

    @property
    def size(self) -> int:
        """Samples."""

    def __getitem__(self, part: slice, /) -> Float32:
        """Some of them."""


@dataclass(frozen=True, slots=True)
class SegmentationSettings:
    """When speech begins and ends.

    Attributes:
        speech_probability: from here on it is speech.
        silence_probability: below it is silence; in between it stays what it was.
        minimum_speech_s: anything shorter is a click or a cough.
        minimum_silence_s: anything shorter is a breath, and the utterance goes on.
        padding_s: added on both sides, so that soft first and last sounds are kept.
        longest_s: what is longer is cut at its quietest point; Whisper takes 30 s at once.
    """

    speech_probability: float = 0.5
    silence_probability: float = 0.35
    minimum_speech_s: float = 0.25
    minimum_silence_s: float = 0.3
    padding_s: float = 0.1
    longest_s: float = 30.0


def default_model() -> Path:
    """Silero VAD in the weight store.

    Raises:
        amser.client.weights.WeightsMissing: it was not fetched.
    """
    return stored("silero-vad", "silero_vad_16k_sequence.onnx")


class SpeechDetector:
    """Silero VAD on one thread.

    Args:
        model: `silero_vad_16k_sequence.onnx`, which takes a whole recording in one call.

    Raises:
        FileNotFoundError: there is no such file.
    """

    def __init__(self, model: Path) -> None:
        if not model.is_file():
            raise FileNotFoundError(f"no voice activity detector at {model}")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])

    def probabilities(self, waveform: Samples) -> Float32:
        """The probability of speech in each window of a waveform at 16 kHz.

        Returns:
            float32, shape (ceil(samples / WINDOW),).
        """
        return np.concatenate([np.zeros(0, np.float32), *self._blocks(waveform)])

    def utterances(
        self,
        waveform: Samples,
        settings: SegmentationSettings = SegmentationSettings(),  # noqa: B008 - frozen
    ) -> list[Span]:
        """Start and end in seconds of each utterance, in order, none overlapping; empty where there is no speech.

        Args:
            waveform: float32, shape (samples,), 16 kHz.
            settings: when speech begins and ends.
        """
        return list(self.found(waveform, settings))

    def found(self, waveform: Samples, settings: SegmentationSettings) -> Iterator[Span]:
        """The same utterances, each as soon as the pause behind it is found: some minutes are in memory at most."""
        pending, first = np.zeros(0, np.float32), 0  # probabilities, and the window of the first one
        for block in self._blocks(waveform):
            pending = np.concatenate([pending, block])
            cut = _last_pause(pending, settings)
            if cut or pending.size >= LONGEST_PENDING:
                cut = cut or pending.size
                yield from _utterances(pending[:cut], first, waveform, settings)
                pending, first = pending[cut:], first + cut
        yield from _utterances(pending, first, waveform, settings)

    def _blocks(self, waveform: Samples) -> Iterator[Float32]:
        """Probabilities of `WINDOWS_AT_ONCE` windows each."""
        count = -(-waveform.size // WINDOW)
        hidden = cell = np.zeros(STATE_SHAPE, np.float32)
        for start in range(0, count, WINDOWS_AT_ONCE):
            stop = min(start + WINDOWS_AT_ONCE, count)
            begin = start * WINDOW - CONTEXT
            piece = waveform[max(0, begin) : stop * WINDOW]
            padded = np.zeros(CONTEXT + (stop - start) * WINDOW, np.float32)
            padded[max(0, -begin) :][: piece.size] = piece
            windows = np.lib.stride_tricks.sliding_window_view(padded, CONTEXT + WINDOW)[::WINDOW]
            block = np.ascontiguousarray(windows)
            speech, hidden, cell = self._session.run(None, {"input": block, "h": hidden, "c": cell})
            yield speech


def _last_pause(probabilities: Float32, settings: SegmentationSettings) -> int:
    """The window in the middle of the last pause that ends an utterance; 0 where there is none."""
    edges = np.diff((~_is_speech(probabilities, settings)).astype(np.int8), prepend=0, append=0)
    starts, ends = np.flatnonzero(edges > 0), np.flatnonzero(edges < 0)
    # So long that the padding on both sides does not reach its middle
    long_enough = (ends - starts) * WINDOW / SAMPLE_RATE >= settings.minimum_silence_s + 2 * settings.padding_s
    pauses = np.flatnonzero(long_enough & (starts > 0))
    return int(starts[pauses[-1]] + ends[pauses[-1]]) // 2 if pauses.size else 0


def _utterances(probabilities: Float32, first: int, waveform: Samples, settings: SegmentationSettings) -> list[Span]:
    """In a stretch of a waveform that begins with the window `first`."""
    offset_s = first * WINDOW / SAMPLE_RATE
    duration_s = min(waveform.size - first * WINDOW, probabilities.size * WINDOW) / SAMPLE_RATE
    spans = _padded(_spans(probabilities, settings), duration_s, settings.padding_s)
    return [
        piece
        for start, end in spans
        for piece in _split((start + offset_s, end + offset_s), waveform, settings.longest_s)
    ]


def _spans(probabilities: Float32, settings: SegmentationSettings) -> list[Span]:
    """Stretches of speech: breaths joined, clicks dropped."""
    edges = np.diff(_is_speech(probabilities, settings).astype(np.int8), prepend=0, append=0)
    starts, ends = np.flatnonzero(edges > 0), np.flatnonzero(edges < 0)
    spans: list[Span] = []
    for start, end in zip(starts * WINDOW / SAMPLE_RATE, ends * WINDOW / SAMPLE_RATE, strict=True):
        if spans and start - spans[-1][1] < settings.minimum_silence_s:
            start = spans.pop()[0]
        spans.append((float(start), float(end)))
    return [(start, end) for start, end in spans if end - start >= settings.minimum_speech_s]


def _is_speech(probabilities: Float32, settings: SegmentationSettings) -> NDArray[np.bool_]:
    """Whether each window is speech; one that is neither clearly speech nor silence is what the one before it was."""
    speech = probabilities >= settings.speech_probability
    decided = speech | (probabilities < settings.silence_probability)
    last_decided = np.maximum.accumulate(np.where(decided, np.arange(probabilities.size), 0))
    return speech[last_decided]


def _padded(spans: list[Span], duration_s: float, padding_s: float) -> list[Span]:
    """Spans with padding on both sides, which never reaches beyond the middle of a pause."""
    middles = [(end + start) / 2 for (_, end), (start, _) in zip(spans, spans[1:], strict=False)]
    limits = [0.0, *middles, duration_s]
    return [
        (max(start - padding_s, low), min(end + padding_s, high))
        for (start, end), low, high in zip(spans, limits, limits[1:], strict=False)
    ]


def _split(span: Span, waveform: Samples, longest_s: float) -> list[Span]:
    """A span in pieces of at most `longest_s`, none of them under a third of that."""
    start, end = span
    pieces = []
    while end - start > longest_s:
        cut = _quietest(waveform, start + longest_s / 3, min(start + longest_s, end - longest_s / 3))
        pieces.append((start, cut))
        start = cut
    return [*pieces, (start, end)]


def _quietest(waveform: Samples, low_s: float, high_s: float) -> float:
    """The second within [low_s, high_s] around which `QUIET_S` of the waveform have the least energy."""
    block = round(LOUDNESS_BLOCK_S * SAMPLE_RATE)
    region = waveform[round(low_s * SAMPLE_RATE) : round(high_s * SAMPLE_RATE)]
    blocks = region[: region.size // block * block].reshape(-1, block)
    energy = np.square(blocks).mean(axis=1)
    together = max(1, min(round(QUIET_S / LOUDNESS_BLOCK_S), energy.size))
    quietest = int(np.argmin(np.convolve(energy, np.ones(together), mode="valid")))
    return float(low_s + (quietest + together / 2) * LOUDNESS_BLOCK_S)
