"""What a client of OpenAI may ask for, and the documents and captions that it gets."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from deployments.gateway.openai.documents import (
    NOBODY,
    EmotionField,
    Piece,
    SpokenWord,
    Transcribed,
    done,
    transcription,
    verbose,
)
from deployments.gateway.openai.parameters import ALIAS, FORMATS, Asked, read_parameters
from deployments.gateway.openai.subtitles import captions, srt, vtt
from deployments.gateway.openai.transcribed import of_recording
from deployments.gateway.openai.transcriptions import deltas
from deployments.gateway.problems import Refusal, refusal_of
from deployments.gateway.problems.openai_error import is_for_openai
from deployments.gateway.recordings.documents import Segment, failed, whole
from deployments.gateway.utterances.answers import WordAnswer

MODELS = ("whisper-base-short", ALIAS)
SAD = EmotionField(label="sad", confidence=0.8, uncertain=False, doubts=[], probabilities={"sad": 0.8, "angry": 0.2})


def spoken(*words: tuple[str, float, float]) -> tuple[SpokenWord, ...]:
    return tuple(SpokenWord(text, start, end, 0.9) for text, start, end in words)


WORDS = spoken((" Good", 0.5, 0.8), (" morning.", 0.8, 1.6), (" Is", 1.7, 1.9), (" it", 1.9, 2.0), (" late?", 2.0, 2.4))
PIECE = Piece(0.25, 2.75, "Good morning. Is it late?", -0.25, 0.0123456, SAD, WORDS)
ANSWER = Transcribed("Good morning. Is it late?", 3.0, "en", (PIECE,), SAD, "yes", ("text",))
SILENCE = Transcribed("", 3.0, "en", (), NOBODY, "none")


SEGMENT = Segment(
    start=1.0, end=3.0, text="We have an iPhone 15", language="en", emotion="sad", confidence=0.8,
    probabilities={"sad": 0.8, "angry": 0.2}, uncertain=False, doubts=[], speech="yes", degraded=[],
    average_log_probability=-0.2, speech_probability=0.9,
)  # fmt: skip


# --- Recordings of several segments -----------------------------------------------------------------------------------


def test_a_recording_is_the_sum_of_its_segments() -> None:
    doubtful = SEGMENT.model_copy(
        update={"start": 4.0, "end": 5.0, "text": "", "speech": "doubtful", "uncertain": True, "doubts": ["no_words"]}
    )
    made = of_recording(whole([SEGMENT, doubtful], 6.0, ["audio_cut"], None))
    assert (made.text, made.speech, made.warnings) == ("We have an iPhone 15", "yes", ("audio_cut",))
    assert (made.emotion.label, made.emotion.uncertain, made.emotion.doubts) == ("sad", False, [])
    assert "".join(deltas(made)) == made.text
    alone = of_recording(whole([doubtful], 6.0, [], None))
    assert (alone.speech, alone.emotion.uncertain, alone.emotion.doubts) == ("doubtful", True, ["no_words"])
    assert of_recording(whole([], 6.0, [], None)).speech == "none"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("We have an iPhone 15", ["We", "have", "an", "iPhone", "15"]),
        ("我们 有iPhone 15。", ["我们", "有", "iPhone", "15。"]),
    ],
)
def test_the_words_of_a_segment_join_to_its_text(text: str, words: list[str]) -> None:
    timed = [WordAnswer(text=word, start=number, end=number + 1, confidence=1) for number, word in enumerate(words)]
    made = of_recording(whole([SEGMENT.model_copy(update={"text": text, "words": timed})], 6.0, [], None))
    assert "".join(word.text for word in made.pieces[0].words) == text


def test_a_transcription_with_a_hole_is_none() -> None:
    problem = refusal_of("stage-unavailable", "a stage is down").problem(None)
    for hole, kind in (
        (failed(4.0, 5.0, problem), "stage-unavailable"),
        (SEGMENT.model_copy(update={"text": "", "degraded": ["asr", "text"]}), "overloaded"),
    ):
        with pytest.raises(Refusal) as refused:
            of_recording(whole([SEGMENT, hole], 6.0, [], None))
        assert refused.value.kind.slug == kind


# --- Parameters -------------------------------------------------------------------------------------------------------


def test_a_request_without_wishes_gets_json() -> None:
    assert read_parameters({}, MODELS) == Asked()
    assert not Asked().words


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("form", FORMATS)
def test_each_model_and_format_is_taken(model: str, form: str) -> None:
    asked = read_parameters({"model": [model], "response_format": [form], "language": ["en"]}, MODELS)
    assert (asked.format, asked.language) == (form, "en")
    assert asked.words is (form in ("srt", "vtt"))


@pytest.mark.parametrize("name", ["timestamp_granularities", "timestamp_granularities[]"])
def test_granularities_are_read_with_and_without_brackets(name: str) -> None:
    both = read_parameters({"response_format": ["verbose_json"], name: ["word", "segment"]}, MODELS)
    assert both.granularities == {"word", "segment"}
    only = read_parameters({"response_format": ["verbose_json"], name: ["word"]}, MODELS)
    assert only.granularities == {"word"}
    assert only.words


def test_what_changes_nothing_is_taken() -> None:
    """Clients send their defaults."""
    fields = {"prompt": [" "], "temperature": ["0.0"], "chunking_strategy": ["auto"], "stream": ["false"]}
    assert read_parameters(fields, MODELS) == Asked()


@pytest.mark.parametrize(
    ("fields", "parameter"),
    [
        ({"prompt": ["Umbrella Corp."]}, "prompt"),
        ({"temperature": ["0.4"]}, "temperature"),
        ({"temperature": ["nan"]}, "temperature"),
        ({"temperature": ["hot"]}, "temperature"),
        ({"response_format": ["diarized_json"]}, "response_format"),
        ({"response_format": ["xml"]}, "response_format"),
        ({"stream": ["yes please"]}, "stream"),
        ({"stream": ["true"], "response_format": ["srt"]}, "stream"),
        ({"timestamp_granularities[]": ["word"]}, "timestamp_granularities"),
        ({"timestamp_granularities[]": ["letter"], "response_format": ["verbose_json"]}, "timestamp_granularities"),
        ({"include[]": ["logprobs"]}, "include"),
        ({"keywords[]": ["Umbrella"]}, "keywords"),
        ({"languages[]": ["en", "de"]}, "languages"),
        ({"known_speaker_names[]": ["Ann"]}, "known_speaker_names"),
        ({"chunking_strategy": ['{"type": "server_vad"}']}, "chunking_strategy"),
        ({"chunking_strategy[type]": ["server_vad"]}, "chunking_strategy[type]"),
        ({"language": ["en", "de"]}, "language"),
        ({"best_of": ["5"]}, "best_of"),
        ({"x" * 1000: ["5"]}, "x" * 60),
    ],
)
def test_what_is_not_done_is_refused_by_its_name(fields: dict[str, list[str]], parameter: str) -> None:
    with pytest.raises(Refusal) as caught:
        read_parameters(fields, MODELS)
    refused = caught.value
    assert (refused.kind.slug, refused.parameter) == ("bad-parameter", parameter)
    assert refused.limit
    assert len(refused.cause) < 200


def test_a_model_that_is_not_here_is_not_found() -> None:
    with pytest.raises(Refusal) as caught:
        read_parameters({"model": ["gpt-4o-transcribe"]}, MODELS)
    assert (caught.value.status, caught.value.kind.slug) == (404, "unknown-model")
    assert caught.value.limit == "whisper-base-short or whisper-1"


# --- Documents --------------------------------------------------------------------------------------------------------


def test_json_has_the_text_and_the_emotion() -> None:
    assert transcription(ANSWER).model_dump() == {
        "text": "Good morning. Is it late?",
        "usage": {"type": "duration", "seconds": 3.0},
        "emotion": SAD.model_dump(),
        "speech": "yes",
        "degraded": ["text"],
        "warnings": [],
    }


def test_verbose_json_lists_what_is_asked_for() -> None:
    document = verbose(ANSWER, words=True, segments=True).model_dump()
    assert (document["task"], document["language"], document["duration"]) == ("transcribe", "en", 3.0)
    assert document["words"][1] == {"word": "morning.", "start": 0.8, "end": 1.6, "confidence": 0.9}
    (segment,) = document["segments"]
    assert segment["compression_ratio"] == pytest.approx(len(PIECE.text) / 33, abs=0.02)
    assert segment | {"compression_ratio": 0} == {
        "id": 0, "seek": 25, "start": 0.25, "end": 2.75, "text": PIECE.text, "tokens": [], "temperature": 0.0,
        "avg_logprob": -0.25, "no_speech_prob": 0.0123, "compression_ratio": 0, "emotion": SAD.model_dump(),
    }  # fmt: skip
    assert "words" not in verbose(ANSWER, words=False, segments=True).model_dump()
    assert "segments" not in verbose(ANSWER, words=True, segments=False).model_dump()


def test_silence_has_no_emotion_and_no_segments() -> None:
    document = verbose(SILENCE, words=True, segments=True).model_dump()
    assert (document["text"], document["segments"], document["words"]) == ("", [], [])
    assert document["emotion"] == {
        "label": None, "confidence": 0.0, "uncertain": True, "doubts": ["no_speech"], "probabilities": {},
    }  # fmt: skip


def test_the_last_event_has_all_of_it() -> None:
    assert done(ANSWER).model_dump() == {"type": "transcript.text.done", **transcription(ANSWER).model_dump()}


# --- Captions ---------------------------------------------------------------------------------------------------------


def test_captions_end_with_sentences() -> None:
    assert srt([PIECE]) == (
        "1\n00:00:00,500 --> 00:00:01,600\nGood morning.\n\n2\n00:00:01,700 --> 00:00:02,400\nIs it late?\n\n"
    )
    assert vtt([PIECE]).startswith("WEBVTT\n\n00:00:00.500 --> 00:00:01.600\nGood morning.\n\n")


def test_captions_end_with_pauses() -> None:
    words = spoken(("well", 0, 0.4), ("then", 1.2, 1.5))
    assert [each.text for each in captions([replace(PIECE, words=words)])] == ["well", "then"]


def test_captions_can_be_read_while_they_stand() -> None:
    words = spoken(*((" word", 0.4 * index, 0.4 * index + 0.4) for index in range(100)))
    slow = spoken(*((" word", 2.0 * index, 2.0 * index + 2.0) for index in range(10)))
    for shown in (captions([replace(PIECE, words=words)]), captions([replace(PIECE, words=slow)])):
        made = list(shown)
        assert all(len(each.text) <= 84 and each.end - each.start <= 7 for each in made)
        assert sum(len(each.text.split()) for each in made) in (10, 100)


def test_words_of_a_language_without_blanks_are_joined() -> None:
    words = tuple(SpokenWord(text, start, start + 1, 1.0) for text, start in ((" 今日", 0.0), ("は", 1.0)))
    assert [each.text for each in captions([replace(PIECE, words=words)])] == ["今日は"]


def test_without_times_of_words_a_segment_is_a_caption() -> None:
    late = replace(PIECE, start=3661.5, end=3662.0, text=" a\n--> <b> & c ", words=())
    assert srt([late]) == "1\n01:01:01,500 --> 01:01:02,000\na -> <b> & c\n\n"
    assert vtt([late]) == "WEBVTT\n\n01:01:01.500 --> 01:01:02.000\na -&gt; &lt;b&gt; &amp; c\n\n"


def test_silence_has_no_captions() -> None:
    assert srt(SILENCE.pieces) == ""
    assert vtt(SILENCE.pieces) == "WEBVTT\n\n"


# --- Errors -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Expected:
    slug: str
    type: str
    code: str
    retry: str


@pytest.mark.parametrize(
    "expected",
    [
        Expected("unauthorized", "invalid_request_error", "invalid_api_key", "false"),
        Expected("unknown-model", "invalid_request_error", "model_not_found", "false"),
        Expected("too-large", "invalid_request_error", "too-large", "false"),
        Expected("body-too-slow", "invalid_request_error", "body-too-slow", "false"),
        Expected("limit-requests", "rate_limit_exceeded", "rate_limit_exceeded", "true"),
        Expected("overloaded", "rate_limit_exceeded", "overloaded", "true"),
        Expected("internal", "server_error", "internal", "false"),
        Expected("deadline", "server_error", "deadline", "true"),
    ],
    ids=lambda expected: expected.slug,
)
def test_a_refusal_is_read_by_clients_of_openai(expected: Expected) -> None:
    response = refusal_of(expected.slug, "it is so", "something else").response("1", path="/v1/models")
    assert response.headers["x-should-retry"] == expected.retry
    assert b'"error":{"message":"it is so; accepted: something else"' in bytes(response.body)
    assert f'"type":"{expected.type}","param":null,"code":"{expected.code}"'.encode() in bytes(response.body)


def test_devices_do_not_pay_for_it() -> None:
    assert b'"error"' not in bytes(refusal_of("too-large", "it is so").response("1", path="/v1/emotion").body)
    assert is_for_openai("/prefix/v1/audio/transcriptions")
    assert not any(map(is_for_openai, ("/v1/emotion/audio", "/healthz", "/problems/unknown-model")))
