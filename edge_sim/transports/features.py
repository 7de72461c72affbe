"""Log-Mel through a codec of `amser.codecs`, in the envelope of `amser.wire`: what the AMSER papers propose."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final
from uuid import uuid4

from amser import codecs
from amser.features import SAMPLE_RATE, Float32, log_mel
from amser.wire import MEDIA_TYPE, Envelope, decode_mel, pack, unpack
from edge_sim.transports.base import ROUTE_OF_FEATURES, UnknownSetting, UnknownTransport

RATES: Final = MappingProxyType(
    {rate: {"rate": float(rate)} for rate in ("0.05", "0.0625", "0.125", "0.1875", "0.25", "0.5")}
)
# Of each codec: what its settings mean to `codecs.encode`.
SETTINGS: Final[Mapping[str, Mapping[str, Mapping[str, Any]]]] = MappingProxyType(
    {"svd-f16": RATES, "svd-i8": RATES, "mel-f16": MappingProxyType({"16-bit": {}})}
)


class Features:
    """A transport that sends a compressed log-Mel, `whisper80`.

    Args:
        codec: a name in `SETTINGS`, which is also the transport's.
        setting: r / k of an SVD, for a codec with factors; one of `SETTINGS[codec]`.
        device_id: what the envelope names as the sender.

    Raises:
        UnknownTransport, UnknownSetting: as named.
    """

    media_type: Final = MEDIA_TYPE
    route: Final = ROUTE_OF_FEATURES

    def __init__(self, codec: str, setting: str, device_id: str = "device-1") -> None:
        if codec not in SETTINGS:
            raise UnknownTransport(f"no features are sent by {codec!r}", ", ".join(SETTINGS))
        if setting not in SETTINGS[codec]:
            raise UnknownSetting(f"{codec} has no setting {setting!r}", ", ".join(SETTINGS[codec]))
        self.name = codec
        self.setting = setting
        self._options = SETTINGS[codec][setting]
        self._device_id = device_id

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {self.setting!r})"

    def encode(self, waveform: Float32) -> bytes:
        """See `Transport.encode`. The envelope carries a new utterance id and the time, so no two are the same."""
        mel = log_mel(waveform)
        encoded = codecs.encode(mel, self.name, **self._options)
        envelope = Envelope(
            codec=encoded.codec,
            profile="whisper80",
            frames=mel.shape[1],
            seconds=waveform.size / SAMPLE_RATE,
            language=None,
            device_id=self._device_id,
            utterance_id=uuid4(),
            captured_at=datetime.now(UTC),
            payload=encoded.payload,
        )
        return pack(envelope)

    def as_log_mel(self, payload: bytes) -> Float32:
        """See `Transport.as_log_mel`. Raises amser.wire.WireError for what the cluster refuses."""
        return decode_mel(unpack(payload))

    def elementary_bytes(self, payload: bytes) -> int:
        """Bytes of the codec's payload, without the envelope."""
        return len(unpack(payload).payload)
