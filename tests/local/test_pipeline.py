"""The application in Serve's local testing mode, no Ray running: the answer is that of the pipeline in this process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from ray import serve
from recordings import DATA, envelope_of, silence, speakers, waveform_of

from amser import rate_hint, wire
from amser.codecs.klt import PROFILES
from amser.features import SAMPLE_RATE
from amser.rate_hint import RateHint, Reason
from deployments.access.settings import AuthSettings
from deployments.app import build
from deployments.gateway import ingress
from deployments.gateway.problems import PROBLEM_TYPE
from deployments.gateway.utterances.answers import Answer
from deployments.pipeline import Recognition, Stages, recognize
from deployments.replica.execution import Timed
from deployments.settings import Settings
from deployments.stages.assembly import build_local_stages
from models.emotion.checkpoint_info import DEFAULT_CHECKPOINT
from models.emotion.classifier import EmotionClassifier
from models.mel import reconstruct
from models.messages import Mel, Transcript
from models.text.context_encoder import ContextEncoder
from models.text.word_vectors import WordVectors
from models.weights import model_path
from models.whisper.onnx.engine import OnnxEngine
from models.whisper.recognizer import WhisperRecognizer
from models.whisper.voice import VoiceEncoder

MODELS = ("whisper-base", "whisper-base-short", "spacy-en-core-web-md", "all-minilm-l6-v2")


@pytest.fixture(scope="module")
def settings() -> Settings:
    for name in MODELS:
        model_path(name)
    return Settings(auth=AuthSettings(mode="none"))


@pytest.fixture(scope="module")
def envelopes() -> list[wire.Envelope]:
    speech = [envelope_of(waveform_of(row["path"])[: 3 * SAMPLE_RATE]) for row in speakers(2)]
    return [*speech, envelope_of(silence(1))]


@pytest.fixture(scope="module")
def application(settings: Settings) -> Any:
    """A handle of the application's ingress."""
    return serve.run(build(settings), name="amser", _local_testing_mode=True)


@pytest.fixture(scope="module")
def in_process(envelopes: list[wire.Envelope]) -> list[Recognition]:
    """The pipeline over the models themselves, with no deployment around them."""
    whisper, hears_short, vectors, minilm = (model_path(name) for name in MODELS)
    recognizer, voice = WhisperRecognizer(OnnxEngine(hears_short)), VoiceEncoder(whisper)
    words, context = WordVectors(vectors), ContextEncoder(minilm)
    classifier = EmotionClassifier(DEFAULT_CHECKPOINT, None)

    def heard(mel: Mel, transcript: Transcript | None) -> NDArray[np.float16]:
        given = transcript and transcript.voice
        return voice.encode(mel) if given is None else given

    async def describe() -> dict[str, dict[str, str]]:
        return {}

    stages = Stages(
        reconstruct=timed(lambda envelope: reconstruct(envelope, wire.Limits())),
        transcribe=timed(lambda mel, _: recognizer.transcribe([mel])[0]),
        embed=timed(words.embed),
        contextualize=timed(lambda text, _: context.encode([text])[0]),
        classify=timed(lambda mel, *rest: classifier.classify(mel, heard(mel, rest[1]), *rest[:-1])),
        describe=describe,
    )

    async def run() -> list[Recognition]:
        return [await recognize(envelope, stages) for envelope in envelopes]

    return asyncio.run(run())


def timed(model: Callable[..., Any]) -> Callable[..., Awaitable[Timed[Any]]]:
    async def call(*arguments: Any) -> Timed[Any]:
        return Timed(model(*arguments), 1.0)

    return call


class Body:
    """As much of a request as the ingress reads."""

    client = None

    def __init__(self, content: bytes, media_type: str = wire.MEDIA_TYPE, **query: str) -> None:
        self._content = content
        self.query_params = query
        self.headers = {"content-type": media_type, "content-length": str(len(content))}

    async def stream(self) -> Any:
        yield self._content


def test_the_pipeline_understands_speech(in_process: list[Recognition]) -> None:
    *speech, quiet = in_process
    assert all(len(recognition.transcript.text.split()) > 2 for recognition in speech)
    assert (quiet.transcript.speech, quiet.transcript.text, quiet.emotion) == ("none", "", None)
    for recognition in speech:
        assert recognition.transcript.speech == "yes"
        assert sum(recognition.emotion.probabilities.values()) == pytest.approx(1)


def test_the_stages_and_the_waiting_make_up_the_total(in_process: list[Recognition]) -> None:
    for recognition in in_process:
        timings = recognition.timings
        branches = max(timings.text_embedding, timings.text_encoder)
        parts = timings.queue + timings.mel + timings.asr + branches + timings.fusion
        assert parts == pytest.approx(timings.total)


def test_local_testing_mode_gives_the_answer_of_the_pipeline(
    application: Any, envelopes: list[wire.Envelope], in_process: list[Recognition]
) -> None:
    for envelope, expected in zip(envelopes, in_process, strict=True):
        body = wire.pack(envelope)
        response = application.emotion.remote(Body(body)).result()
        assert response.status_code == 200, response.body
        answer = Answer.model_validate_json(response.body)
        assert answer.transcript.text == expected.transcript.text
        assert answer.speech == expected.transcript.speech
        assert answer.uncertain is bool(answer.doubts)
        assert answer.input.bytes == len(body)
        if expected.emotion is None:
            assert answer.emotion is None
            continue
        assert answer.emotion == expected.emotion.label
        assert answer.probabilities == pytest.approx(
            expected.emotion.probabilities, abs=0.03
        )  # served in bfloat16 where the processor has it
        assert set(answer.doubts) - {"low_confidence"} == set(expected.emotion.doubts) - {"low_confidence"}


@pytest.mark.parametrize(("codec", "step"), [("klt", "low"), ("klt", "robust"), ("interpolation", None)])
def test_the_codecs_without_a_rank_are_understood(
    application: Any, in_process: list[Recognition], codec: str, step: str | None
) -> None:
    """The same three seconds as the first envelope's."""
    speech = waveform_of(speakers(1)[0]["path"])[: 3 * SAMPLE_RATE]
    body = wire.pack(envelope_of(speech, codec, step=step))
    response = application.emotion.remote(Body(body)).result()
    assert response.status_code == 200, response.body
    document = json.loads(response.body)
    received = {"codec": codec, "bytes": len(body), "seconds": 3.0, "rank": None}
    assert document["input"] == (received if step is None else {**received, "step": PROFILES[step]})
    assert document["transcript"]["text"].split()[:3] == in_process[0].transcript.text.split()[:3]
    hint = rate_hint.parse(response.headers.get(rate_hint.HEADER, ""))
    # Clean speech: `low` is as coarse as is asked for, `robust` is more than it needs, and cells have no step
    assert hint == (RateHint(PROFILES["robust"] + 4, Reason.CLEAR) if step == "robust" else None)


def test_a_codec_without_steps_has_none_in_its_answer(application: Any, envelopes: list[wire.Envelope]) -> None:
    response = application.emotion.remote(Body(wire.pack(envelopes[0]))).result()
    assert json.loads(response.body)["input"].keys() == {"codec", "bytes", "seconds", "rank"}
    assert rate_hint.HEADER not in response.headers


def test_a_payload_of_another_basis_is_refused(application: Any) -> None:
    envelope = envelope_of(silence(1), "klt")
    version = envelope.payload[0] + 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("amser.codecs.klt.BASIS_VERSION", version)
        body = wire.pack(replace(envelope, payload=bytes([version]) + envelope.payload[1:]))
    response = application.emotion.remote(Body(body)).result()
    assert response.status_code == 400
    assert json.loads(response.body)["detail"] == f"the payload has basis version {version}"


def test_local_testing_mode_refuses_what_http_refuses(application: Any) -> None:
    response = application.emotion.remote(Body(b"AMSR\x01 and then nothing")).result()
    assert response.status_code == 400
    assert response.media_type == PROBLEM_TYPE


def test_a_client_may_restrict_the_emotions(application: Any, envelopes: list[wire.Envelope]) -> None:
    response = application.emotion.remote(Body(wire.pack(envelopes[0]), emotions="sad,happy,angry")).result()
    assert response.status_code == 200, response.body
    document = json.loads(response.body)
    assert list(document["probabilities"]) == ["angry", "happy", "sad"]
    assert sum(document["probabilities"].values()) == pytest.approx(1, abs=1e-3)
    assert document["confidence"] == document["probabilities"][document["emotion"]]


def test_emotions_that_are_not_known_are_refused_with_those_that_are(application: Any) -> None:
    response = application.emotion.remote(Body(b"not even read", emotions="bored,sad")).result()
    assert response.status_code == 422
    document = json.loads(response.body)
    assert document["limit"] == "2 or more, each once, of angry, disgust, fear, happy, neutral, sad, surprise"


@pytest.mark.parametrize("language", ["en", "eng"])
def test_the_language_of_an_envelope_is_understood_as_people_write_it(
    application: Any, envelopes: list[wire.Envelope], in_process: list[Recognition], language: str
) -> None:
    body = wire.pack(replace(envelopes[0], language=language))
    document = json.loads(application.emotion.remote(Body(body)).result().body)
    assert document["transcript"]["language"] == "en"
    assert document["transcript"]["text"] == in_process[0].transcript.text


@pytest.mark.parametrize("language", ["EN", "en-US", "auto", ""])
def test_the_language_of_a_file_is_understood_as_people_write_it(application: Any, language: str) -> None:
    content = (DATA / speakers(1)[0]["path"]).read_bytes()
    response = application.emotion_of_audio.remote(Body(content, "audio/flac", language=language)).result()
    assert response.status_code == 200, response.body
    assert json.loads(response.body)["transcript"]["language"] == "en"


@pytest.mark.parametrize("language", ["yue", "tlh"])
def test_a_language_that_the_model_lacks_is_refused_with_those_that_it_has(
    application: Any, envelopes: list[wire.Envelope], language: str
) -> None:
    in_envelope = application.emotion.remote(Body(wire.pack(replace(envelopes[0], language=language)))).result()
    in_query = application.emotion_of_audio.remote(Body(b"not even read", language=language)).result()
    for response in (in_envelope, in_query):
        document = json.loads(response.body)
        assert (response.status_code, document["parameter"]) == (422, "language")
        assert document["detail"] == f"the recogniser does not know the language '{language}'"
        assert document["limit"].startswith("af, am, ar, as, az, ba, be,")


def test_of_silence_no_emotion_is_claimed(application: Any, envelopes: list[wire.Envelope]) -> None:
    document = json.loads(application.emotion.remote(Body(wire.pack(envelopes[-1]))).result().body)
    assert (document["speech"], document["emotion"], document["probabilities"]) == ("none", None, {})
    assert (document["uncertain"], document["doubts"], document["degraded"]) == (True, ["no_speech"], [])
    assert document["timings_ms"]["asr"] > 0
    assert document["timings_ms"]["fusion"] == 0


def test_the_ingress_knows_the_limits_of_the_settings() -> None:
    assert Settings().requests.limits == wire.Limits()
    assert {400, 401, 403, 408, 413, 415, 421, 422, 429, 500, 503, 504} <= set(ingress._PROBLEMS)


def test_the_stages_of_the_fused_profile_reckon_with_the_prior_too(
    application: Any, envelopes: list[wire.Envelope]
) -> None:
    async def fused() -> Recognition:
        stages = build_local_stages(Settings(profile="fused", emotion_prior="conversation"))
        return await recognize(envelopes[0], stages, emotions=("happy", "neutral"))

    expected = asyncio.run(fused()).emotion
    response = application.emotion.remote(Body(wire.pack(envelopes[0]), emotions="happy,neutral")).result()
    balanced = json.loads(response.body)["probabilities"]
    odds = [each["neutral"] / each["happy"] for each in (balanced, expected.probabilities)]
    assert odds[1] / odds[0] == pytest.approx(4710 / 1743, rel=0.05)  # an answer's probabilities are rounded
    assert expected.confidence == max(expected.probabilities.values())
