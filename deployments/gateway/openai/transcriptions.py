"""From a form of OpenAI's API to its transcription: the same reading, limits, admission and pipeline as elsewhere."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Set
from dataclasses import asdict, replace
from typing import Final

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from amser.audio import AudioTooLong
from deployments.access.gate import Visit
from deployments.gateway.clients import client_of
from deployments.gateway.openai.documents import Delta, Transcribed, done, transcription, verbose
from deployments.gateway.openai.parameters import ALIAS, Asked, read_parameters
from deployments.gateway.openai.subtitles import srt, vtt
from deployments.gateway.openai.transcribed import of_recording, of_utterance
from deployments.gateway.preferences import Preferences, read_language
from deployments.gateway.problems import Refusal, refusal_of
from deployments.gateway.recordings.answering import ANY_CODEC as RECORDING
from deployments.gateway.recordings.answering import ROUTE as RECORDINGS
from deployments.gateway.recordings.answering import within
from deployments.gateway.recordings.recognition import Recordings
from deployments.gateway.uploads.bodies import FILE, FORM, check_encoding, read_upload
from deployments.gateway.utterances.answering import Answering
from deployments.gateway.utterances.answers import server_timing
from deployments.gateway.utterances.reading import AudioReader, check_media_type
from deployments.replica.deadline import remaining
from deployments.settings import Settings
from deployments.telemetry.request_ids import REQUEST_ID_HEADER
from deployments.telemetry.requests import RequestRecord

ROUTE: Final = "/v1/audio/transcriptions"
OPENAI_ID_HEADER: Final = "X-Request-Id"  # clients of OpenAI keep it with answers and errors
TEXT: Final = "text/plain; charset=utf-8"
MEDIA_TYPES: Final = {
    "json": "application/json",
    "verbose_json": "application/json",
    "text": TEXT,
    "srt": "application/x-subrip; charset=utf-8",
    "vtt": "text/vtt; charset=utf-8",
}
EVENTS: Final = "text/event-stream"
LONGEST_S: Final = 600.0  # of a recording; no machine was seen that recognises more by the deadline
OVERHEAD: Final = 65_536  # bytes of a form beyond its file


class Transcriptions:
    """Answers transcription requests, in a replica of the gateway.

    Args:
        settings: of the whole application.
        answering: of utterances.
        audio: reads utterances.
        recordings: recognises what is longer than one.
        languages: codes that the recogniser knows.

    Attributes:
        models: ids of the recogniser; requests may name each.
    """

    def __init__(
        self,
        settings: Settings,
        answering: Answering,
        audio: AudioReader,
        recordings: Recordings,
        languages: Set[str],
    ) -> None:
        self.models = (settings.recognizer.weights, ALIAS)
        self._answering, self._audio, self._recordings, self._languages = answering, audio, recordings, languages

    async def respond(self, request: Request) -> Response:
        """The transcription, in the form that the request asks for, or the problem document."""
        return await self._answering.responded(request, ROUTE, self._respond)

    async def _respond(self, request: Request, record: RequestRecord) -> Response:
        preferences = self._answering.preferences(request)
        check_media_type(request, FORM, f"{FORM} with a part `{FILE}`")
        check_encoding(request.headers)
        largest = self._audio.largest + OVERHEAD
        body = await self._answering.body(request, largest, preferences)
        preferences = preferences.from_body()
        visit = self._answering.visit()
        client, headers = visit.client or client_of(request), ids(record)
        with self._answering.one_inside():
            try:
                async with asyncio.timeout(remaining(preferences.deadline)):
                    form = await read_upload(request, body, largest)
                    size = len(form.content)
                    asked = read_parameters(form.fields, self.models)
                    preferences = replace(preferences, words=asked.words)
                    language = read_language(asked.language, self._languages)
                    read = await self._audio.utterance(form.content, language)
            except AudioTooLong:
                record.received(RECORDING, size)
                try:
                    made = await self._recording(form.content, preferences, client, language, visit)
                except TimeoutError:
                    record.missed_deadline()
                    raise _too_long(f"what is recognised within {preferences.within_s:g} s") from None
            else:
                record.received(read.codec, size)
                await visit.hears(None, size, read.envelope.seconds)
                recognition = await self._answering.recognize(read.envelope, preferences, client)
                made = of_utterance(recognition, read.warnings)
                timings_ms = {stage: round(value, 2) for stage, value in asdict(recognition.timings).items()}
                headers["Server-Timing"] = server_timing(timings_ms, recognition.queues)
        record.recognized(made.emotion.label, made.emotion.uncertain, made.seconds, made.degraded)
        record.answered(made.degraded, None)
        return _response(made, asked, headers)

    async def _recording(
        self, content: bytes, preferences: Preferences, client: str, language: str | None, visit: Visit
    ) -> Transcribed:
        """Of a recording that is cut at its pauses, within the deadline: OpenAI's API has no jobs."""
        heard = within(visit, preferences.deadline)
        try:
            async with asyncio.timeout(remaining(preferences.deadline)):
                answer = await self._recordings.recognize(
                    content, preferences, client, language, heard=heard, longest_s=LONGEST_S
                )
        except AudioTooLong as error:
            raise _too_long(error.limit) from None
        return of_recording(answer)


def _too_long(limit: str | None) -> Refusal:
    """Sent again, it would take as long again: of a kind that is not."""
    return refusal_of(
        "too-long", f"the recording takes longer than the answer may; {RECORDINGS} makes a job of it", limit
    )


def ids(record: RequestRecord) -> dict[str, str]:
    """The id of the request, under our name and under OpenAI's."""
    return {REQUEST_ID_HEADER: record.request_id, OPENAI_ID_HEADER: record.request_id}


def _response(made: Transcribed, asked: Asked, headers: dict[str, str]) -> Response:
    if asked.stream:
        return StreamingResponse(_events(made), headers=headers, media_type=EVENTS)
    if asked.format == "text":
        content = made.text + "\n"
    elif asked.format == "srt":
        content = srt(made.pieces)
    elif asked.format == "vtt":
        content = vtt(made.pieces)
    elif asked.format == "verbose_json":
        words, segments = "word" in asked.granularities, "segment" in asked.granularities
        content = verbose(made, words=words, segments=segments).model_dump_json()
    else:
        content = transcription(made).model_dump_json()
    return Response(content, headers=headers, media_type=MEDIA_TYPES[asked.format])


async def _events(made: Transcribed) -> AsyncIterator[str]:
    """Server-sent events (WHATWG HTML)."""
    for delta in deltas(made):
        yield _event(Delta(delta=delta))
    yield _event(done(made))


def deltas(made: Transcribed) -> Iterator[str]:
    """What each piece adds to the text; together they are the text."""
    for number, text in enumerate(piece.text for piece in made.pieces if piece.text):
        yield f" {text}" if number else text


def _event(document: BaseModel) -> str:
    content = document.model_dump()
    return f"event: {content['type']}\ndata: {json.dumps(content, ensure_ascii=False)}\n\n"
