# ruff: noqa: N818 - the names of the errors say what happened; their base class says that it is an error
"""What an application hands over to be recognised: an audio file, its bytes, samples, or a microphone; and turns of a
microphone, cut at pauses as they come.
"""

from __future__ import annotations

import io
import queue
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from amser.audio import decode
from amser.features import SAMPLE_RATE, Float32, resample, to_mono, validate

LONGEST_FRAMES: Final = 3000  # 30 s: what the recogniser hears at once
BLOCK_S: Final = 0.25  # of a microphone that come together
PAUSE_S: Final = 0.7  # of silence, after which somebody has finished
PAUSE_WINDOWS: Final = round(PAUSE_S / 0.032)  # of the detector
LOOKED_AT_S: Final = 2.0  # of what was said last, to tell speech from silence: the detector needs what came before
LONGEST_TURN_S: Final = 30.0
KEPT_S: Final = 1.0  # of silence before a turn: a soft first sound is in it
BLOCKS_HELD: Final = 240  # a minute that nobody fetches; what comes then is lost, and `Microphone.lost` counts it

Samples: TypeAlias = NDArray[Any]
Source: TypeAlias = "Path | str | bytes | Samples | Microphone"


class NoMicrophone(OSError):
    """There is none, or it cannot be opened."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What somebody said between two pauses.

    Attributes:
        start_s: seconds from the begin of what was heard.
        waveform: float32, shape (samples,), 16 kHz.
    """

    start_s: float
    waveform: Float32

    @property
    def end_s(self) -> float:
        """Where it ends."""
        return self.start_s + self.waveform.size / SAMPLE_RATE


class Microphone:
    """The sound that a device hears, as 16 kHz mono. A context manager; or open it and `close` it.

    Args:
        device: name or number, as `python -m sounddevice` lists them; None for the system's choice.

    Attributes:
        lost: blocks of `BLOCK_S` that nobody fetched in time.

    Raises:
        NoMicrophone: on entering.
        ModuleNotFoundError: the package sounddevice is not installed (`pip install 'amser[microphone]'`).
    """

    def __init__(self, device: str | int | None = None) -> None:
        self._device = device
        self._blocks: queue.Queue[Float32] = queue.Queue(BLOCKS_HELD)
        self._stream: Any = None
        self.lost = 0

    def __enter__(self) -> Microphone:
        try:
            import sounddevice
        except OSError as error:  # PortAudio, which it stands on, is missing
            raise NoMicrophone(f"no microphone can be opened: {error}") from error
        try:
            self._stream = sounddevice.InputStream(
                samplerate=SAMPLE_RATE,
                channels=1,
                dtype="float32",
                blocksize=round(BLOCK_S * SAMPLE_RATE),
                device=self._device,
                callback=self._heard,
            )
            self._stream.start()
        except (sounddevice.PortAudioError, ValueError) as error:
            self._stream = None
            named = "the microphone" if self._device is None else f"the microphone {self._device!r}"
            raise NoMicrophone(f"{named} cannot be opened: {error}") from error
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def is_open(self) -> bool:
        """Whether it listens."""
        return self._stream is not None

    def close(self) -> None:
        """Lets go of it."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def blocks(self) -> Iterator[Float32]:
        """What it hears: float32, shape (samples,), `BLOCK_S` each; ends where it is closed."""
        while self._stream is not None:
            try:
                yield self._blocks.get(timeout=2 * BLOCK_S)
            except queue.Empty:
                continue

    def _heard(self, samples: Float32, *_: object) -> None:
        """Called by PortAudio in a thread of its own."""
        try:
            self._blocks.put_nowait(samples[:, 0].copy())
        except queue.Full:
            self.lost += 1


def waveform_of(source: Path | str | bytes | Samples, rate: int = SAMPLE_RATE) -> Float32:
    """The speech of a source that is one utterance.

    Args:
        source: an audio file by its path, its content, or samples: (samples,) or (samples, channels), floating point
            with full scale ±1, int16, int32 or uint8.
        rate: Hz, of samples; a file says its own.

    Returns:
        float32, shape (samples,), mono, 16 kHz.

    Raises:
        OSError: the file cannot be read.
        amser.errors.SignalError: it is no audio, damaged, empty, too short, or longer than 30 s.
    """
    if isinstance(source, np.ndarray):
        return validate(resample(to_mono(source, rate), rate))
    if isinstance(source, bytes):
        return validate(decode(io.BytesIO(source), LONGEST_FRAMES).waveform)
    with Path(source).open("rb") as file:  # not the path itself: FFmpeg would take `a:b.wav` for an address
        return validate(decode(file, LONGEST_FRAMES).waveform)


def first_turn(microphone: Microphone) -> Turn:
    """What is said next, to its pause or for 30 s.

    Raises:
        NoMicrophone: it cannot be opened, or was closed before anybody spoke.
        amser.client.weights.WeightsMissing: the detector of speech was not fetched.
    """
    with nullcontext() if microphone.is_open else microphone:
        for turn in turns(microphone.blocks()):
            return turn
    raise NoMicrophone("the microphone was closed before anybody spoke")


def turns(blocks: Iterable[Float32]) -> Iterator[Turn]:
    """Turns of somebody who speaks, each once its pause is there.

    Args:
        blocks: float32, shape (samples,), 16 kHz, as they come; of any size.

    Raises:
        amser.client.weights.WeightsMissing: the detector of speech was not fetched.
    """
    from amser.client.segmentation import SegmentationSettings, SpeechDetector, default_model  # takes onnxruntime along

    detector, settings = (
        SpeechDetector(default_model()),
        SegmentationSettings(minimum_silence_s=PAUSE_S, longest_s=LONGEST_TURN_S),
    )
    held = np.zeros(0, np.float32)
    passed = 0  # samples before those that are held
    spoken = False
    for block in blocks:
        held = np.concatenate([held, block])
        probabilities = detector.probabilities(held[-round(LOOKED_AT_S * SAMPLE_RATE) :])
        spoken = spoken or bool((probabilities >= settings.speech_probability).any())
        pause = probabilities[-PAUSE_WINDOWS:]
        is_silent = pause.size == PAUSE_WINDOWS and bool((pause < settings.silence_probability).all())
        if spoken and (is_silent or held.size >= LONGEST_TURN_S * SAMPLE_RATE):
            yield from _turns(detector.utterances(held, settings), held, passed)
            passed, held, spoken = passed + held.size, held[:0], False
        elif not spoken and held.size > KEPT_S * SAMPLE_RATE:
            dropped = held.size - round(KEPT_S * SAMPLE_RATE)
            passed, held = passed + dropped, held[dropped:]
    if spoken:
        yield from _turns(detector.utterances(held, settings), held, passed)


def _turns(spans: list[tuple[float, float]], held: Float32, passed: int) -> Iterator[Turn]:
    for start, end in spans:
        first, last = round(start * SAMPLE_RATE), round(end * SAMPLE_RATE)
        yield Turn((passed + first) / SAMPLE_RATE, held[first:last])
