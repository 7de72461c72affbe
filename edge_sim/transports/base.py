# ruff: noqa: N818 - the names of the errors say what happened; their base class says that it is an error
"""What every transport offers, and where the cluster takes it."""

from __future__ import annotations

from typing import Final, Protocol, runtime_checkable

from amser.errors import SignalError
from amser.features import Float32

ROUTE_OF_AUDIO: Final = "/v1/emotion/audio"
ROUTE_OF_FEATURES: Final = "/v1/emotion"


class UnknownTransport(SignalError):
    """No transport has this name."""


class UnknownSetting(SignalError):
    """The transport has no such setting."""


class Transport(Protocol):
    """One way to bring an utterance from a device to the recogniser, at one setting."""

    @property
    def name(self) -> str:
        """What configurations and reports call it."""

    @property
    def setting(self) -> str:
        """What is turned to trade bytes for fidelity: a bit rate ("16k"), a rate of the codec ("0.125")."""

    @property
    def media_type(self) -> str:
        """The Content-Type of the payload."""

    @property
    def route(self) -> str:
        """The path of the cluster that takes the payload."""

    def encode(self, waveform: Float32) -> bytes:
        """The body of the request that a device sends.

        Args:
            waveform: float32, shape (samples,), mono, 16 kHz, full scale ±1.

        Raises:
            amser.features.AudioError: empty, too short or not finite.
        """

    def as_log_mel(self, payload: bytes) -> Float32:
        """What the recogniser gets: float32, shape (80, frames), profile `whisper80`.

        Raises:
            amser.errors.SignalError: the payload is damaged.
        """

    def elementary_bytes(self, payload: bytes) -> int:
        """Bytes of the codec alone, without the container or envelope around it.

        Raises:
            amser.errors.SignalError: the payload is none of this transport.
        """


@runtime_checkable
class AudioTransport(Transport, Protocol):
    """A transport that sends audio: `isinstance` tells it from one that sends features."""

    def decode(self, payload: bytes) -> Float32:
        """The audio: float32, shape (samples,), mono, 16 kHz, aligned with what was encoded and as long.

        Raises:
            amser.audio.UnreadableAudio: the payload is damaged.
        """
