"""From a form of OpenAI's API to its transcription: the same reading, limits, admission and pipeline as elsewhere."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Sequence, Set
from dataclasses import asdict
from typing import Final

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from amser.audio import AudioWarning
from deployments.gateway.clients import client_of
from deployments.gateway.openai.documents import (
    NOBODY,
    Delta,
    EmotionField,
    Piece,
    Transcribed,
    done,
    transcription,
    verbose,
)
from deployments.gateway.openai.parameters import ALIAS, Asked, read_parameters, without_word_times
from deployments.gateway.openai.subtitles import srt, vtt
from deployments.gateway.preferences import read_language
from deployments.gateway.problems import refusal_of
from deployments.gateway.uploads.bodies import FILE, FORM, check_encoding, read_upload
from deployments.gateway.utterances.answering import Answering
from deployments.gateway.utterances.answers import server_timing
from deployments.gateway.utterances.reading import AudioReader, check_media_type
from deployments.pipeline import Recognition
from deployments.replica.deadline import remaining
from deployments.settings import Settings
from deployments.telemetry.request_ids import REQUEST_ID_HEADER
from deployments.telemetry.requests import RequestRecord
from models.messages import Emotion

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
OVERHEAD: Final = 65_536  # bytes of a form beyond its file


class Transcriptions:
    """Answers transcription requests, in a replica of the gateway.

    Args:
        settings: of the whole application.
        answering: of utterances.
        audio: reads recordings.
        languages: codes that the recogniser knows.

    Attributes:
        models: ids of the recogniser; requests may name each.
    """

    def __init__(
        self,
        settings: Settings,
        answering: Answering,
        audio: AudioReader,
        languages: Set[str],
    ) -> None:
        self.models = (settings.recognizer.weights, ALIAS)
        self._answering, self._audio, self._languages = answering, audio, languages

    async def respond(self, request: Request) -> Response:
        """The transcription, in the form that the request asks for, or the problem document."""
        return await self._answering.responded(request, ROUTE, self._respond)

    async def _respond(self, request: Request, record: RequestRecord) -> Response:
        preferences = self._answering.preferences(request)
        check_media_type(request, FORM, f"{FORM} with a part `{FILE}`")
        check_encoding(request.headers)
        largest = self._audio.largest + OVERHEAD
        body = await self._answering.body(request, largest, preferences)
        form, preferences = await read_upload(request, body, largest), preferences.from_body()
        asked = read_parameters(form.fields, self.models)
        without_word_times(asked)
        language = read_language(asked.language, self._languages)
        with self._answering.one_inside():
            async with asyncio.timeout(remaining(preferences.deadline)):
                read = await self._audio.utterance(form.content, language)
            envelope, size = read.envelope, len(form.content)
            record.received(read.codec, size)
            visit = self._answering.visit()
            await visit.hears(None, size, envelope.seconds)
            recognition = await self._answering.recognize(envelope, preferences, visit.client or client_of(request))
        made = _transcribed(recognition, read.warnings)
        record.recognized(made.emotion.label, made.emotion.uncertain, made.seconds, made.degraded)
        record.answered(made.degraded, None)
        timings_ms = {stage: round(value, 2) for stage, value in asdict(recognition.timings).items()}
        timings = server_timing(timings_ms, recognition.queues)
        return _response(made, asked, {"Server-Timing": timings, **ids(record)})


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
    """Server-sent events (WHATWG HTML); a delta is what a piece of the recording adds to the text."""
    for delta in _deltas(made):
        yield _event(Delta(delta=delta))
    yield _event(done(made))


def _deltas(made: Transcribed) -> Iterator[str]:
    for number, piece in enumerate(made.pieces):
        yield f" {piece.text}" if number else piece.text


def _event(document: BaseModel) -> str:
    content = document.model_dump()
    return f"event: {content['type']}\ndata: {json.dumps(content, ensure_ascii=False)}\n\n"


def _transcribed(recognition: Recognition, warnings: Sequence[AudioWarning]) -> Transcribed:
    """One utterance, as a recording of one piece.

    Raises:
        Refusal: there was no time for the words.
    """
    transcript, seconds = recognition.transcript, recognition.mel.seconds
    if transcript is None:  # the emotion alone is no transcription
        cause = "there was no time for the words, or the recogniser is not available at the moment"
        raise refusal_of("overloaded", cause, retry_after_s=1)
    emotion = emotion_field(recognition.emotion)
    certainty, silence = transcript.average_log_probability, 1 - transcript.speech_probability
    piece = Piece(0.0, seconds, transcript.text, certainty, silence, emotion)
    return Transcribed(
        text=transcript.text,
        seconds=seconds,
        language=transcript.language,
        pieces=() if transcript.speech == "none" else (piece,),
        emotion=emotion,
        speech=transcript.speech,
        degraded=recognition.left_out,
        warnings=(*transcript.warnings, *warnings),
    )


def emotion_field(emotion: Emotion | None) -> EmotionField:
    """The extension of ours, of what the network says; None where nobody speaks."""
    if emotion is None:
        return NOBODY
    return EmotionField(
        label=emotion.label,
        confidence=round(emotion.confidence, 4),
        uncertain=emotion.uncertain,
        doubts=list(emotion.doubts),
        probabilities={name: round(value, 4) for name, value in emotion.probabilities.items()},
    )
