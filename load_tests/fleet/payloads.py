"""The utterances that the devices send, encoded before the run: the load is the cluster's and not the generator's.

At run time a request packs a prepared envelope anew, with its own ids and time: about 7 µs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from amser import codecs
from amser.audio import read
from amser.client.device import Device, DeviceSettings
from amser.client.weights import stored
from amser.errors import SignalError
from amser.features import SAMPLE_RATE, AudioError, Float32
from amser.wire import Envelope, pack, unpack
from edge_sim.conversation import load_conversation

Codec = tuple[str, str]  # name and setting, as edge_sim.hardware has them


class NoSpeech(ValueError):  # noqa: N818 - an error by its base class
    """There is no utterance in the audio."""


@dataclass(frozen=True, slots=True)
class Payloads:
    """The utterances of a conversation, encoded once for each codec setting that the fleet uses."""

    of: Mapping[Codec, Sequence[Envelope]]

    def envelope(self, codec: Codec, place: int) -> Envelope:
        """The utterance at a place in the conversation, which begins again at its end."""
        envelopes = self.of[codec]
        return envelopes[place % len(envelopes)]


def utterances(files: Sequence[Path] = ()) -> list[Float32]:
    """The speech in audio files, split at pauses; the turns of the sample conversation where there are none.

    Returns:
        float32, shape (samples,) each, 16 kHz.

    Raises:
        amser.client.weights.WeightsMissing: the sample conversation was not fetched.
        OSError, amser.errors.SignalError: a file or the voice activity detector cannot be read.
        NoSpeech: as named.
    """
    if not files:
        return [speech.waveform for speech in load_conversation(stored("sample-conversation", "sample.wav").parent)]
    # Not above: the threads of onnxruntime do not survive that Locust forks its workers once a locustfile is imported
    from amser.client.segmentation import SpeechDetector, default_model

    detector = SpeechDetector(default_model())
    found = []
    for file in files:
        try:
            waveform = read(file)
        except SignalError as error:
            raise AudioError(f"{file}: {error.cause}", error.limit) from None
        for start, end in detector.utterances(waveform):
            found.append(waveform[round(start * SAMPLE_RATE) : round(end * SAMPLE_RATE)])
    if not found:
        raise NoSpeech("no speech in the audio")
    return found


def prepare(waveforms: Sequence[Float32], settings: Iterable[Codec], language: str | None = None) -> Payloads:
    """Encodes each utterance with each codec setting.

    Args:
        waveforms: float32, shape (samples,) each, 16 kHz.
        settings: names of codecs and their settings.
        language: ISO 639 code that is spoken; None has it detected.

    Raises:
        amser.errors.SignalError, ValueError: speech or a setting that cannot be used.
    """
    of = {}
    for name, text in dict.fromkeys(settings):
        chosen = codecs.by_name(name).read_setting(text)
        device = Device(
            DeviceSettings(codec=name, rate=chosen.rate, step=chosen.step, factors=chosen.factors, language=language)
        )
        now = datetime.now(UTC)
        of[name, text] = [unpack(device.encode(waveform, now).envelope) for waveform in waveforms]
    return Payloads(of)


def body(envelope: Envelope, device_id: str, utterance_id: UUID, captured_at: datetime) -> bytes:
    """The bytes of a prepared utterance as said by this device at this time."""
    return pack(replace(envelope, device_id=device_id, utterance_id=utterance_id, captured_at=captured_at))
