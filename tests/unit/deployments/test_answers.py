"""What an error of the pipeline means for the client, where no request over HTTP brings it about."""

from __future__ import annotations

import json
from typing import get_args

import numpy as np
import pytest
from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError

from amser import wire
from deployments.gateway.utterances.admission import Overloaded
from deployments.gateway.utterances.answers import Answer, answer, refusal, server_timing
from deployments.pipeline import Recognition, Timings
from deployments.replica.deadline import DeadlinePassed
from models.messages import Doubt, Emotion, Mel, Speech, Transcript


@pytest.mark.parametrize(("within_s", "limit"), [(25.0, "25 s"), (0.5, "0.5 s"), (0.001, "0.001 s")])
def test_a_deadline_that_passed_is_504_and_names_the_limit_that_applied(within_s: float, limit: str) -> None:
    refused = refusal(TimeoutError(), within_s, retry_after_s=1)
    assert refused is not None
    assert (refused.status, refused.limit, refused.retry_after_s) == (504, limit, None)


def test_a_full_stage_is_429_with_a_time_to_wait() -> None:
    refused = refusal(BackPressureError(num_queued_requests=9, max_queued_requests=8), within_s=25, retry_after_s=3)
    assert refused is not None
    assert (refused.status, refused.retry_after_s) == (429, 3)


def test_a_stage_that_died_is_503_with_a_time_to_wait() -> None:
    refused = refusal(RayActorError(), within_s=25, retry_after_s=2)
    assert refused is not None
    assert (refused.status, refused.retry_after_s) == (503, 2)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (wire.Malformed("cut off"), 400),
        (wire.TooLarge("too many frames", "3000"), 413),
        (wire.Unsupported("version 9", "1"), 415),
        (wire.Unusable("rank 90", "80"), 422),
    ],
)
def test_what_the_wire_refuses_keeps_its_cause_and_limit(error: wire.WireError, status: int) -> None:
    refused = refusal(error, within_s=25, retry_after_s=1)
    assert refused is not None
    assert (refused.status, refused.cause, refused.limit) == (status, error.cause, error.limit)
    assert refused.problem("id").model_dump()["status"] == status


def test_our_own_faults_are_not_the_clients() -> None:
    assert refusal(KeyError("a bug"), within_s=25, retry_after_s=1) is None


def test_server_timing_names_each_stage_and_the_wait_before_it() -> None:
    timing = server_timing({"asr": 12.5, "total": 20.0}, {"asr": 3.456})
    assert timing == "asr;dur=12.5, total;dur=20, asr-queue;dur=3.46"


def test_a_request_that_cannot_be_answered_in_time_is_told_when_it_can() -> None:
    refused = refusal(Overloaded(7), within_s=25, retry_after_s=1)
    assert refused is not None
    assert (refused.status, refused.retry_after_s) == (429, 7)


def test_a_deadline_that_passed_at_a_stage_is_504() -> None:
    refused = refusal(DeadlinePassed("the deadline passed before a model was free"), within_s=25, retry_after_s=1)
    assert refused is not None
    assert refused.status == 504


WORDS = Transcript("Good morning.", "en", -0.21, "yes", 0.98765)


def answered(
    emotion: Emotion | None, transcript: Transcript | None = WORDS, left_out: tuple[str, ...] = ()
) -> dict[str, object]:
    """The document that a client gets of it."""
    mel = Mel(np.zeros((80, 40), np.float16), -1.0, 0.4, "en", "klt", None)
    timings = Timings(0, 1, 2, 3, 4, 5, 15)
    recognition = Recognition(mel, transcript, emotion, left_out, timings, {})
    document = answer(recognition, "id", codec="klt", received=99, step=22, models={})
    return dict(json.loads(document.model_dump_json()))


def test_an_answer_says_how_sure_it_is_and_why_not() -> None:
    document = answered(Emotion("happy", {"happy": 0.51236, "sad": 0.48764}, 0.51236, ("low_confidence", "short")))
    assert list(document)[:6] == ["request_id", "emotion", "probabilities", "confidence", "uncertain", "doubts"]
    assert document["confidence"] == 0.5124
    assert document["uncertain"] is True
    assert document["doubts"] == ["low_confidence", "short"]


def test_an_answer_without_doubts_is_certain() -> None:
    document = answered(Emotion("happy", {"happy": 0.9, "sad": 0.1}, 0.9))
    assert (document["confidence"], document["uncertain"], document["doubts"]) == (0.9, False, [])


@pytest.mark.parametrize("speech", ["doubtful", "yes"])
def test_an_answer_says_whether_somebody_speaks_and_how_probably(speech: Speech) -> None:
    document = answered(
        Emotion("happy", {"happy": 1.0}, 1.0), Transcript("Good morning.", "en", -0.21, speech, 0.65432)
    )
    assert (document["speech"], document["speech_probability"]) == (speech, 0.6543)
    assert document["transcript"] == {"text": "Good morning.", "language": "en", "average_log_probability": -0.21}
    assert document["warnings"] == []


def test_where_nobody_speaks_no_emotion_is_claimed() -> None:
    document = answered(None, Transcript("", "en", 0.0, "none", 0.01))
    assert (document["speech"], document["speech_probability"]) == ("none", 0.01)
    assert (document["emotion"], document["probabilities"], document["confidence"]) == (None, {}, 0.0)
    assert (document["uncertain"], document["doubts"]) == (True, ["no_speech"])
    assert document["transcript"] == {"text": "", "language": "en", "average_log_probability": 0.0}
    assert document["degraded"] == []


def test_without_the_recogniser_speech_is_not_known() -> None:
    document = answered(Emotion("happy", {"happy": 1.0}, 1.0), None, ("asr", "text"))
    assert (document["speech"], document["speech_probability"], document["warnings"]) == (None, None, [])
    assert document["transcript"] == {"text": "", "language": "und", "average_log_probability": 0.0}
    assert document["degraded"] == ["asr", "text"]


def test_an_answer_warns_of_a_language_that_the_speech_contradicts() -> None:
    document = answered(
        Emotion("happy", {"happy": 1.0}, 1.0), Transcript("Guten Tag", "de", -0.2, warnings=("language_mismatch",))
    )
    assert document["warnings"] == ["language_mismatch"]


def test_the_documentation_names_every_value() -> None:
    fields = Answer.model_json_schema()["properties"]
    assert fields["emotion"]["anyOf"] == [{"type": "string"}, {"type": "null"}]
    assert fields["speech"]["anyOf"] == [{"enum": ["none", "doubtful", "yes"], "type": "string"}, {"type": "null"}]
    assert fields["speech_probability"]["anyOf"] == [{"type": "number"}, {"type": "null"}]
    assert fields["doubts"]["items"]["enum"] == list(get_args(Doubt))
    assert fields["warnings"]["items"] == {
        "enum": ["language_mismatch", "audio_damaged", "audio_cut"], "type": "string",
    }  # fmt: skip
    assert Answer.__doc__ is not None
    assert all(f"`{doubt}`" in Answer.__doc__ for doubt in get_args(Doubt))
