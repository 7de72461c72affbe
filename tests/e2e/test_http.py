"""What a client gets over HTTP: words and an emotion for speech, a problem document for everything else."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import struct
import time
from collections.abc import Iterator
from dataclasses import replace
from uuid import UUID

import google_crc32c
import httpx
import jiwer
import numpy as np
import openai
import pytest
import soundfile
from audio_bombs import BOMBS, STATUS_OF_A_BOMB
from over_http import CLASSES, assert_problem, connect, raw_request, send, send_audio, two_seconds
from recordings import DATA, Waveform, audio_file, envelope_of, silence, speakers, waveform_of
from threadpoolctl import threadpool_limits

from amser import wire
from amser.features import SAMPLE_RATE
from deployments.local_cluster import LocalCluster
from models.mel import reconstruct
from models.weights import model_path
from models.whisper.onnx.engine import OnnxEngine
from models.whisper.recognizer import WhisperRecognizer

STAGES = {"queue", "mel", "asr", "text_embedding", "text_encoder", "fusion", "total"}
CODEC_OFFSET, VERSION_OFFSET, FRAMES_OFFSET = 5, 4, 8  # docs/wire.md


@pytest.fixture(scope="module")
def clip() -> Waveform:
    return two_seconds()


@pytest.fixture(scope="module")
def good(clip: Waveform) -> bytes:
    return wire.pack(envelope_of(clip))


@pytest.fixture
def still_answers(client: httpx.Client, good: bytes) -> Iterator[None]:
    """After the test, the next good request is answered as if nothing had happened."""
    yield
    assert send(client, good).status_code == 200


def patched(data: bytes, offset: int, content: bytes) -> bytes:
    """An envelope with other bytes at one place, and the checksum to match."""
    body = data[:offset] + content + data[offset + len(content) : -4]
    return body + struct.pack("<I", google_crc32c.value(body))


def test_an_envelope_gets_words_and_an_emotion(client: httpx.Client, clip: Waveform) -> None:
    body = wire.pack(envelope_of(clip, rate=0.125))
    response = send(client, body)
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    answer = response.json()
    assert list(answer) == [
        "request_id", "emotion", "probabilities", "confidence", "uncertain", "doubts", "speech",
        "speech_probability", "transcript", "input", "timings_ms", "models", "degraded", "warnings",
    ]  # fmt: skip
    assert str(UUID(answer["request_id"])) == response.headers["amser-request-id"]
    assert set(answer["probabilities"]) == CLASSES
    assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-3)
    assert answer["emotion"] == max(answer["probabilities"], key=answer["probabilities"].get)
    assert answer["confidence"] == answer["probabilities"][answer["emotion"]]
    assert answer["uncertain"] is bool(answer["doubts"])
    assert set(answer["doubts"]) <= {"low_confidence"}
    assert set(answer["transcript"]) == {"text", "language", "average_log_probability"}
    assert answer["transcript"]["language"] == "en"
    assert answer["transcript"]["text"]
    assert -2 < answer["transcript"]["average_log_probability"] < 0
    assert answer["input"] == {"codec": "svd-f16", "bytes": len(body), "seconds": 2.0, "rank": 10}
    assert answer["models"].keys() >= {"asr", "text_encoder", "fusion"}
    assert answer["models"]["asr"].startswith("whisper-base")
    assert answer["speech"] == "yes"
    assert 0.5 < answer["speech_probability"] <= 1
    assert (answer["degraded"], answer["warnings"]) == ([], [])


def test_the_timings_of_the_answer_are_in_the_header_too(client: httpx.Client, good: bytes) -> None:
    response = send(client, good)
    timings = response.json()["timings_ms"]
    header = re.findall(r"(?:^|, )(\w+);dur=([\d.e+-]+)", response.headers["server-timing"])
    assert {name: float(value) for name, value in header} == pytest.approx(timings, rel=1e-4)
    assert set(timings) == STAGES
    assert all(value >= 0 for value in timings.values())
    assert timings["total"] >= timings["asr"] + timings["fusion"]


def test_the_words_over_http_are_those_of_the_recogniser_in_process(client: httpx.Client) -> None:
    """Word error rate included: the texts are equal."""
    recognizer = WhisperRecognizer(OnnxEngine(model_path("whisper-base-short")), batch_size=4)
    said, over_http, in_process = [], [], []
    for row in speakers(5):
        body = wire.pack(envelope_of(waveform_of(row["path"]), rate=0.25))
        over_http.append(send(client, body).json()["transcript"]["text"])
        with threadpool_limits(1):  # as in a replica: BLAS adds in another order with more, and a doubtful word turns
            (transcript,) = recognizer.transcribe([reconstruct(wire.unpack(body), wire.Limits())])
        in_process.append(transcript.text)
        said.append(row["text"].lower())
    assert over_http == in_process
    plain = [re.sub(r"[^\w' ]", "", text.lower()) for text in over_http]
    assert jiwer.wer(said, plain) < 0.2


def test_an_utterance_that_is_sent_again_gets_the_first_answer(client: httpx.Client, clip: Waveform) -> None:
    body = wire.pack(envelope_of(clip))
    first, second = (send(client, body, **{"Cache-Control": ""}) for _ in range(2))
    assert second.content == first.content
    assert [each.headers.get("amser-replay") for each in (first, second)] == [None, "stored"]


@pytest.mark.parametrize("codec", ["mel-f16", "svd-f16", "svd-i8"])
def test_every_codec_is_read(client: httpx.Client, clip: Waveform, codec: str) -> None:
    answer = send(client, wire.pack(envelope_of(clip, codec, rate=0.25))).json()
    assert answer["input"]["codec"] == codec
    assert answer["input"]["rank"] == (None if codec == "mel-f16" else 20)
    assert len(answer["transcript"]["text"].split()) >= 3


def test_an_audio_file_gets_the_words_of_its_log_mel(client: httpx.Client) -> None:
    path = speakers(1)[0]["path"]
    flac = (DATA / path).read_bytes()
    by_audio = send_audio(client, flac)
    by_envelope = send(client, wire.pack(envelope_of(waveform_of(path), "mel-f16"))).json()
    assert by_audio.status_code == 200
    answer = by_audio.json()
    assert answer["transcript"] == by_envelope["transcript"]
    assert answer["probabilities"] == pytest.approx(by_envelope["probabilities"], abs=1e-3)
    assert answer["input"] == {**by_envelope["input"], "codec": "flac", "bytes": len(flac)}
    assert "server-timing" in by_audio.headers


@pytest.mark.parametrize("route", ["/v1/emotion", "/v1/emotion/audio"])
def test_a_client_may_restrict_the_emotions(client: httpx.Client, good: bytes, route: str) -> None:
    body = good if route == "/v1/emotion" else (DATA / speakers(1)[0]["path"]).read_bytes()
    headers = {"Content-Type": wire.MEDIA_TYPE}
    answer = client.post(f"{route}?emotions=angry,happy,neutral,sad", content=body, headers=headers).json()
    assert list(answer["probabilities"]) == ["angry", "happy", "neutral", "sad"]
    assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-3)
    refused = client.post(f"{route}?emotions=angry,bored", content=body, headers=headers)
    problem = assert_problem(refused, 422, "2 or more, each once, of angry, disgust, fear, happy")
    assert problem["parameter"] == "emotions"


@pytest.mark.parametrize(("container", "codec", "rate"), [("mp3", "libmp3lame", 16_000), ("ipod", "aac", 16_000)])
def test_lossy_audio_gets_words_too(
    client: httpx.Client, clip: Waveform, container: str, codec: str, rate: int
) -> None:
    response = send_audio(client, audio_file(clip, container, codec, rate))
    assert response.status_code == 200
    assert len(response.json()["transcript"]["text"].split()) >= 3


@pytest.mark.parametrize("language", ["EN", "en-US", "en_GB", "eng", "", "auto"])
def test_a_language_is_understood_as_people_write_it(client: httpx.Client, clip: Waveform, language: str) -> None:
    response = send_audio(client, audio_file(clip, "wav", "pcm_s16le"), f"?language={language}")
    assert response.json()["transcript"]["language"] == "en"


def test_the_language_is_detected_where_none_is_given(client: httpx.Client, clip: Waveform) -> None:
    answer = send(client, wire.pack(envelope_of(clip, language=None))).json()
    assert answer["transcript"]["language"] == "en"
    assert answer["transcript"]["text"]


def test_silence_is_answered_without_words_and_emotion(client: httpx.Client) -> None:
    for response in (
        send(client, wire.pack(envelope_of(silence(2), language=None))),
        send_audio(client, audio_file(silence(2), "wav", "pcm_s16le"), query=""),
    ):
        assert response.status_code == 200
        answer = response.json()
        assert (answer["speech"], answer["transcript"]["text"]) == ("none", "")
        assert (answer["emotion"], answer["doubts"]) == (None, ["no_speech"])


@pytest.mark.usefixtures("still_answers")
class TestBadEnvelopes:
    def test_truncated(self, client: httpx.Client, good: bytes) -> None:
        for kept in (20, 60, len(good) - 1):
            assert_problem(send(client, good[:kept]), 400)

    def test_nothing(self, client: httpx.Client) -> None:
        assert_problem(send(client, b""), 400)

    def test_corrupt(self, client: httpx.Client, good: bytes) -> None:
        flipped = bytearray(good)
        flipped[len(good) // 2] ^= 0x10
        assert "corrupt" in assert_problem(send(client, bytes(flipped)), 400)["detail"]

    def test_another_version(self, client: httpx.Client, good: bytes) -> None:
        assert_problem(send(client, patched(good, VERSION_OFFSET, b"\x09")), 415, limit="1")

    def test_an_unknown_codec(self, client: httpx.Client, good: bytes) -> None:
        assert_problem(send(client, patched(good, CODEC_OFFSET, b"\x63")), 415, limit="svd-f16")

    def test_another_format(self, client: httpx.Client) -> None:
        assert_problem(send(client, b'{"text": "this is no envelope at all"}'), 415, limit="AMSR")

    def test_a_profile_that_the_recogniser_does_not_read(self, client: httpx.Client, clip: Waveform) -> None:
        body = wire.pack(envelope_of(clip, profile="whisper128", rate=0.1))
        assert_problem(send(client, body), 415, limit="whisper80")

    def test_too_long(self, client: httpx.Client) -> None:
        envelope = envelope_of(silence(30.5), rate=0.1)
        assert_problem(send(client, wire.pack(envelope)), 413, limit="3000")

    def test_a_rank_too_high(self, client: httpx.Client, clip: Waveform) -> None:
        assert_problem(send(client, wire.pack(envelope_of(clip, rate=0.6))), 422, limit="40")

    def test_twenty_milliseconds(self, client: httpx.Client, good: bytes) -> None:
        assert_problem(send(client, patched(good, FRAMES_OFFSET, struct.pack("<I", 2))), 422, limit="0.1 s")

    def test_a_language_that_the_recogniser_does_not_know(self, client: httpx.Client, clip: Waveform) -> None:
        assert_problem(send(client, wire.pack(envelope_of(clip, language="zz"))), 422, limit="de, el, en, es")

    def test_a_language_that_later_models_know_and_this_one_does_not(
        self, client: httpx.Client, clip: Waveform
    ) -> None:
        problem = assert_problem(send(client, wire.pack(envelope_of(clip, language="yue"))), 422, limit="yo, zh")
        assert "'yue'" in problem["detail"]
        assert problem["parameter"] == "language"

    def test_values_that_are_not_finite(self, client: httpx.Client, clip: Waveform) -> None:
        """Found by a stage in another process, and still the sender's fault."""
        envelope = envelope_of(clip, "mel-f16")
        payload = np.full(len(envelope.payload) // 2, np.nan, np.float16).tobytes()
        assert_problem(send(client, wire.pack(replace(envelope, payload=payload))), 422)

    def test_a_body_over_the_limit(self, client: httpx.Client) -> None:
        assert_problem(send(client, bytes(1_048_577)), 413, limit="1048576 bytes")

    def test_a_body_over_the_limit_that_does_not_say_how_long_it_is(self, client: httpx.Client) -> None:
        pieces = (bytes(65_536) for _ in range(20))
        response = client.post("/v1/emotion", content=pieces, headers={"Content-Type": wire.MEDIA_TYPE})
        assert_problem(response, 413, limit="1048576 bytes")

    @pytest.mark.parametrize("media_type", ["application/json", "audio/wav", ""])
    def test_another_content_type(self, client: httpx.Client, good: bytes, media_type: str) -> None:
        assert_problem(send(client, good, media_type), 415, limit=wire.MEDIA_TYPE)


@pytest.mark.usefixtures("still_answers")
class TestRecordings:
    """Small files as recorders, browsers and synthesisers write them (tests/data/cases.tsv)."""

    @pytest.mark.parametrize(
        "name",
        [
            "adts.aac",
            "antiphase.flac",
            "id3-tag.flac",
            "junk-after-last-frame.mp3",
            "mediarecorder.webm",
            "rate-changes.mp3",
            "amr-wb.awb",
            "speex.spx",
        ],
    )
    def test_the_words_are_recognised(self, client: httpx.Client, name: str) -> None:
        text = send_audio(client, (DATA / "cases" / name).read_bytes()).json()["transcript"]["text"]
        times = 2 if name == "rate-changes.mp3" else 1
        assert text.lower().count("read it over carefully") == times

    def test_forms_and_gzip_get_the_answer_of_the_file(self, client: httpx.Client) -> None:
        content = (DATA / "cases" / "mediarecorder.webm").read_bytes()
        plain = send_audio(client, content).json()
        form = client.post("/v1/emotion/audio", files={"file": ("a.webm", content)}, data={"language": "en"})
        packed = client.post(
            "/v1/emotion/audio?language=en", content=gzip.compress(content), headers={"Content-Encoding": "gzip"}
        )
        for answer in (form.json(), packed.json()):
            assert (answer["transcript"], answer["emotion"]) == (plain["transcript"], plain["emotion"])
        assert packed.json()["input"]["bytes"] < plain["input"]["bytes"] + 100

    def test_a_damaged_frame_is_said(self, client: httpx.Client) -> None:
        content = bytearray((DATA / "cases" / "said-twice.ogg").read_bytes())
        content[len(content) // 2] ^= 0x55
        answer = send_audio(client, bytes(content)).json()
        assert answer["warnings"] == ["audio_damaged"]
        assert answer["transcript"]["text"].lower().count("wait no longer") == 2

    def test_what_espeak_writes_to_a_pipe(self, client: httpx.Client) -> None:
        answer = send_audio(client, (DATA / "cases" / "espeak-stdout.wav").read_bytes()).json()
        assert answer["transcript"]["text"].lower().startswith("hi")

    def test_eight_channels_of_speech_are_mixed_down(self, client: httpx.Client, clip: Waveform) -> None:
        content = io.BytesIO()
        soundfile.write(content, np.stack([clip] * 8, axis=1), SAMPLE_RATE, format="FLAC")
        mono = send_audio(client, audio_file(clip, "flac", "flac")).json()["transcript"]["text"]
        assert mono
        assert send_audio(client, content.getvalue()).json()["transcript"]["text"] == mono

    @pytest.mark.parametrize(
        ("name", "status", "limit"),
        [
            ("eight-channels-52-bytes.wav", 422, "0.1 s"),
            ("list-chunk-claims-2GB.wav", 400, "28 that the file has left"),
        ],
    )
    def test_what_holds_no_speech_is_refused(self, client: httpx.Client, name: str, status: int, limit: str) -> None:
        assert_problem(send_audio(client, (DATA / "cases" / name).read_bytes()), status, limit)


@pytest.mark.usefixtures("still_answers")
class TestBadAudio:
    def test_a_text_file_called_wav(self, client: httpx.Client) -> None:
        assert_problem(send_audio(client, b"Dear diary, today I called a letter speech.wav.\n" * 9), 415, limit="WAV")

    def test_twenty_milliseconds(self, client: httpx.Client, clip: Waveform) -> None:
        response = send_audio(client, audio_file(clip[: SAMPLE_RATE // 50], "wav", "pcm_s16le"))
        assert_problem(response, 422, limit="0.1 s")

    def test_no_sound_at_all(self, client: httpx.Client) -> None:
        assert_problem(send_audio(client, audio_file(silence(0.0001), "wav", "pcm_s16le")), 422)

    def test_cut_off(self, client: httpx.Client, clip: Waveform) -> None:
        content = audio_file(clip, "wav", "pcm_s16le")
        assert send_audio(client, content[: len(content) // 2]).json()["warnings"] == ["audio_cut"]
        assert_problem(send_audio(client, content[:40]), 400)

    def test_too_long(self, client: httpx.Client) -> None:
        assert_problem(send_audio(client, audio_file(silence(31), "flac", "flac")), 413, limit="30 s")

    def test_a_body_over_the_limit(self, client: httpx.Client) -> None:
        assert_problem(send_audio(client, bytes(10_485_761)), 413, limit="10485760 bytes")

    def test_another_container(self, client: httpx.Client, clip: Waveform) -> None:
        assert_problem(send_audio(client, audio_file(clip, "voc", "pcm_u8")), 415, limit="FLAC")

    @pytest.mark.parametrize(("content", "error"), BOMBS.values(), ids=BOMBS)
    def test_a_bomb(self, client: httpx.Client, content: bytes, error: str) -> None:
        assert_problem(send_audio(client, content), STATUS_OF_A_BOMB[error])

    @pytest.mark.parametrize("language", ["English", "e1", "zz", "yue"])
    def test_a_language_that_is_none(self, client: httpx.Client, clip: Waveform, language: str) -> None:
        response = send_audio(client, audio_file(clip, "wav", "pcm_s16le"), f"?language={language}")
        problem = assert_problem(response, 422, limit="yo, zh")
        assert language in problem["detail"]
        assert problem["parameter"] == "language"


@pytest.mark.usefixtures("still_answers")
class TestBadClients:
    def test_one_that_sends_too_slowly_is_told_so(self, cluster: LocalCluster, good: bytes) -> None:
        with connect(cluster) as connection:
            connection.sendall(raw_request(len(good), good[:50]))
            answer = b""
            while b'"status"' not in answer:
                piece = connection.recv(65_536)
                assert piece, f"the connection was closed after {answer!r}"
                answer += piece
        head, _, document = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 408")
        assert b"application/problem+json" in head
        problem = json.loads(document[document.index(b"{") : document.rindex(b"}") + 1])
        assert problem["status"] == 408
        assert problem["type"] == "/problems/body-too-slow"
        assert problem["limit"].startswith("4000 bytes a second after the first 2 s")

    def test_one_that_vanishes_while_it_sends(self, cluster: LocalCluster, good: bytes) -> None:
        for _ in range(5):
            with connect(cluster) as connection:
                connection.sendall(raw_request(len(good), good[: len(good) // 2]))

    def test_one_that_leaves_before_the_answer(self, cluster: LocalCluster, good: bytes) -> None:
        for _ in range(5):
            with connect(cluster) as connection:
                connection.sendall(raw_request(len(good), good))
                time.sleep(0.05)


def test_the_models_are_named(client: httpx.Client) -> None:
    listed = client.get("/v1/models").json()
    assert [each["id"] for each in listed["data"]] == ["whisper-base-short", "whisper-1"]
    models = listed["stages"]
    assert set(models) == {"mel", "asr", "text_embedding", "text_encoder", "fusion"}
    assert models["text_encoder"]["model"] == "all-minilm-l6-v2"
    assert all(model["device"] in ("cpu", "cuda") for model in models.values())


async def test_a_client_of_openai_gets_the_same_words(cluster: LocalCluster, client: httpx.Client) -> None:
    recording = audio_file(two_seconds(), "flac", "flac")
    words = send_audio(client, recording).json()["transcript"]["text"]
    base = {"base_url": f"{cluster.url}/v1", "api_key": "none is needed", "max_retries": 0}
    ours = {"file": ("speech.flac", recording), "model": "whisper-1", "language": "en"}
    with openai.OpenAI(**base) as plain:
        assert plain.audio.transcriptions.create(**ours).text == words
        assert (
            plain.audio.transcriptions.create(**ours, stream=True)
            .response.headers["content-type"]
            .startswith("text/event-stream")
        )
        with pytest.raises(openai.BadRequestError, match="accepted: no `prompt`"):
            plain.audio.transcriptions.create(**ours, prompt="Umbrella")
        with pytest.raises(openai.APIStatusError) as caught:  # refused by Ray's proxy
            plain.audio.transcriptions.create(file=("x.wav", bytes(17_000_000)), model="whisper-1")
        assert (caught.value.status_code, caught.value.code) == (413, "too-large")
    async with openai.AsyncOpenAI(**base) as concurrent:
        *_, last = [event async for event in await concurrent.audio.transcriptions.create(**ours, stream=True)]
    assert (last.type, last.text) == ("transcript.text.done", words)


def test_replicas_are_not_behind_everything_else_on_the_machine(cluster: LocalCluster) -> None:
    """Ray starts its workers with niceness 15 where nobody says otherwise."""
    replicas = [process for process in cluster.processes() if "ServeReplica" in " ".join(process.cmdline())]
    assert replicas
    assert {process.nice() for process in replicas} == {os.nice(0)}


def test_health_and_readiness_are_told_apart(client: httpx.Client) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ready", "stages": "5"}


def test_the_api_documents_itself(client: httpx.Client) -> None:
    assert client.get("/docs").status_code == 200
    paths = client.get("/openapi.json").json()["paths"]
    assert set(paths) >= {"/v1/emotion", "/v1/emotion/audio", "/v1/models", "/healthz", "/readyz"}
    route = paths["/v1/emotion"]["post"]
    assert set(route["requestBody"]["content"]) == {wire.MEDIA_TYPE}
    assert {each["name"] for each in route["parameters"]} == {
        "emotions", "words", "Amser-Deadline-Ms", "Amser-Request-Id", "Prefer",
    }  # fmt: skip
    assert {"200", "400", "408", "413", "415", "422", "429", "503", "504"} <= set(route["responses"])
