"""The two forms in which an utterance arrives: compressed by a device, or as an audio file."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field, replace
from typing import Protocol

from starlette.requests import Request

from amser import wire
from amser.audio import AudioWarning
from deployments.gateway.preferences import LANGUAGE, read_language
from deployments.gateway.problems import refusal_of
from deployments.gateway.uploads.bodies import check_encoding, media_type_of, read_upload
from deployments.gateway.uploads.decoding import Decoders
from deployments.gateway.uploads.envelopes import envelope_of
from deployments.replica.execution import ModelThread
from deployments.settings import RequestSettings


@dataclass(frozen=True, slots=True)
class Read:
    """What a request says.

    Attributes:
        envelope: the utterance.
        codec: or the audio format that it came in.
        warnings: of decoding.
        fields: parameters that stand in a form and not in the query.
    """

    envelope: wire.Envelope
    codec: str
    warnings: tuple[AudioWarning, ...] = ()
    fields: Mapping[str, str] = field(default_factory=dict)


class Reader(Protocol):
    """Makes an envelope of a request.

    Attributes:
        largest: bytes of a body.
        is_of_device: whether a device made the envelope, so that its ids mean something.
    """

    largest: int
    is_of_device: bool

    def check(self, request: Request) -> None:
        """Refuses a request whose head says already that it cannot be read (`problems.Refusal`)."""

    async def read(self, request: Request, body: bytes) -> Read:
        """The utterance in a body.

        Raises:
            amser.errors.SignalError: it cannot be used.
            deployments.gateway.problems.Refusal: the language is not known.
        """


def check_media_type(request: Request, wanted: str, limit: str | None = None) -> None:
    """Refuses a request whose body is said to be something else; `limit` says in words what is taken.

    Raises:
        deployments.gateway.problems.Refusal: 415.
    """
    media_type = media_type_of(request.headers)
    if media_type != wanted:
        raise refusal_of(
            "unsupported-media-type", f"the content type is {media_type or 'missing'!r:.100}", limit or wanted
        )


class EnvelopeReader:
    """Of what a device compressed.

    Args:
        settings: limits.
        languages: codes that the recogniser knows.
    """

    is_of_device = True

    def __init__(self, settings: RequestSettings, languages: Set[str]) -> None:
        self.largest = settings.max_bytes
        self._limits, self._languages = settings.limits, languages

    def check(self, request: Request) -> None:
        """See `Reader`."""
        check_media_type(request, wire.MEDIA_TYPE)
        if encoding := request.headers.get("content-encoding"):
            raise refusal_of("unsupported-encoding", f"the content encoding is {encoding!r:.100}", "none")

    async def read(self, request: Request, body: bytes) -> Read:
        """See `Reader`."""
        del request  # an envelope says it all
        envelope = wire.unpack(body, self._limits)
        return Read(replace(envelope, language=read_language(envelope.language, self._languages)), envelope.codec)


class AudioReader:
    """Of an audio file, whose log-Mel is computed here.

    Args:
        settings: limits.
        languages: codes that the recogniser knows.
        decoders: processes that decode.
    """

    is_of_device = False

    def __init__(self, settings: RequestSettings, languages: Set[str], decoders: Decoders) -> None:
        self.largest = settings.max_audio_bytes
        self._max_frames, self._languages, self._decoders = settings.max_frames, languages, decoders
        self._log_mel = ModelThread("log-mel")

    def check(self, request: Request) -> None:
        """See `Reader`: the first bytes of the body tell which format it has, not the head."""
        check_encoding(request.headers)

    async def read(self, request: Request, body: bytes) -> Read:
        """See `Reader`."""
        upload = await read_upload(request, body, self.largest)
        fields = {name: values[-1] for name, values in upload.fields.items()}
        language = read_language(request.query_params.get(LANGUAGE, fields.get(LANGUAGE)), self._languages)
        return replace(await self.utterance(upload.content, language), fields=fields)

    async def utterance(self, content: bytes, language: str | None) -> Read:
        """The utterance in an audio file.

        Args:
            content: of the file.
            language: that the speaker is known to speak, as the recogniser calls it.

        Raises:
            amser.errors.SignalError: it cannot be used.
            deployments.gateway.uploads.decoding.DecoderUnavailable: no worker decodes it.
        """
        heard = await self._decoders.decode(content)
        envelope = (await self._log_mel.run(envelope_of, heard.waveform, language, self._max_frames)).value
        return Read(envelope, heard.format, heard.warnings)
