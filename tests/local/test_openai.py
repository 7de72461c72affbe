"""The official client of OpenAI against the real application: answers, formats, events, and errors."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from access import add_key
from over_http import assert_problem
from recordings import DATA, audio_file, noise, rows, silence, speakers, waveform_of
from served import serving

from amser.features import SAMPLE_RATE
from deployments.access.settings import AuthSettings
from deployments.settings import FlowSettings, IdempotencySettings, Settings

FILE = DATA / speakers(1)[0]["path"]


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    path = tmp_path_factory.mktemp("keys") / "keys.json"
    return {
        "file": str(path),
        "right": add_key(path),
        "slow": add_key(path, requests_per_minute=1),
        "read": add_key(path, "read"),
    }


@pytest.fixture(scope="module")
def url(tokens: dict[str, str]) -> Iterator[str]:
    settings = Settings(
        profile="fused",
        auth=AuthSettings(mode="keys", file=Path(tokens["file"])),
        idempotency=IdempotencySettings(store="none"),
        flow=FlowSettings(admission=False),
    )
    with serving(settings) as (address, _):
        yield address


@pytest.fixture(scope="module")
def client(url: str, tokens: dict[str, str]) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key=tokens["right"], max_retries=0) as opened:
        yield opened


@pytest.fixture(scope="module")
def whole(url: str, tokens: dict[str, str]) -> dict[str, Any]:
    """What our own route says of the file."""
    headers = {"Authorization": f"Bearer {tokens['right']}"}
    response = httpx.post(f"{url}/v1/emotion/audio?language=en", content=FILE.read_bytes(), headers=headers, timeout=60)
    answer: dict[str, Any] = response.json()
    return answer


def test_json_has_the_words_and_the_emotion(client: openai.OpenAI, whole: dict[str, Any]) -> None:
    with FILE.open("rb") as file:
        answer = client.audio.transcriptions.create(file=file, model="whisper-1", language="en")
    assert answer.text == whole["transcript"]["text"]
    assert answer.usage.type == "duration"
    assert answer.usage.seconds == pytest.approx(whole["input"]["seconds"], abs=0.01)
    own = {name: whole[name] for name in ("confidence", "uncertain", "doubts", "probabilities")}
    assert answer.emotion == {"label": whole["emotion"], **own}
    assert (answer.speech, answer.degraded, answer.warnings) == ("yes", [], [])
    assert answer._request_id


@pytest.mark.slow
def test_every_recording_gets_the_words_and_the_emotion_of_an_upload(
    client: openai.OpenAI, url: str, tokens: dict[str, str]
) -> None:
    headers = {"Authorization": f"Bearer {tokens['right']}"}
    for row in rows("speech/librispeech.tsv"):
        content = (DATA / row["path"]).read_bytes()
        upload = httpx.post(f"{url}/v1/emotion/audio", content=content, headers=headers, timeout=60).json()
        answer = client.audio.transcriptions.create(file=("speech.flac", content), model="whisper-1")
        assert answer.text == upload["transcript"]["text"], row["path"]
        assert (answer.emotion["label"], answer.emotion["probabilities"]) == (
            upload["emotion"],
            upload["probabilities"],
        )


async def test_the_asynchronous_client_gets_the_same(url: str, tokens: dict[str, str], whole: dict[str, Any]) -> None:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=tokens["right"], max_retries=0) as client:
        both = await asyncio.gather(
            *(
                client.audio.transcriptions.create(file=FILE, model=model)
                for model in ("whisper-1", "whisper-base-short")
            )
        )
        events = await client.audio.transcriptions.create(file=FILE, model="whisper-1", stream=True)
        streamed = [event async for event in events]
    assert [each.text for each in both] == [whole["transcript"]["text"]] * 2
    assert streamed[-1].text == whole["transcript"]["text"]


def test_verbose_json_has_segments(client: openai.OpenAI, whole: dict[str, Any]) -> None:
    answer = client.audio.transcriptions.create(file=FILE, model="whisper-1", response_format="verbose_json")
    assert (answer.text, answer.language, answer.words) == (whole["transcript"]["text"], "en", None)
    assert answer.duration == pytest.approx(whole["input"]["seconds"], abs=0.01)
    (segment,) = answer.segments
    assert (segment.id, segment.start, segment.end, segment.text) == (0, 0.0, answer.duration, answer.text)
    assert segment.avg_logprob == pytest.approx(whole["transcript"]["average_log_probability"], abs=0.001)
    assert segment.no_speech_prob == pytest.approx(1 - whole["speech_probability"], abs=0.001)
    assert segment.emotion["label"] == whole["emotion"]


def test_words_have_times_where_they_are_asked_for(client: openai.OpenAI, whole: dict[str, Any]) -> None:
    answer = client.audio.transcriptions.create(
        file=FILE, model="whisper-1", response_format="verbose_json", timestamp_granularities=["word"]
    )
    assert answer.segments is None
    assert " ".join(word.word for word in answer.words) == whole["transcript"]["text"]
    assert all(0 <= word.start <= word.end <= answer.duration for word in answer.words)


def test_a_recording_that_is_longer_than_an_utterance_is_cut_at_its_pauses(client: openai.OpenAI) -> None:
    said = speakers(5)
    pause = np.zeros(2 * SAMPLE_RATE, np.float32)
    spoken = np.concatenate([each for row in said for each in (waveform_of(row["path"]), pause)])
    copies = -(-round(31 * SAMPLE_RATE) // spoken.size)
    content = audio_file(np.tile(spoken, copies), "wav", "pcm_s16le")
    answer = client.audio.transcriptions.create(
        file=("long.wav", content),
        model="whisper-1",
        response_format="verbose_json",
        timestamp_granularities=["word", "segment"],
    )
    assert answer.duration == pytest.approx(copies * spoken.size / SAMPLE_RATE, abs=0.1)
    assert len(answer.segments) >= copies
    assert answer.words[-1].end > 30 > answer.words[0].end
    assert " ".join(word.word for word in answer.words) == answer.text
    told = client.audio.transcriptions.create(file=("long.wav", content), model="whisper-1", response_format="srt")
    assert told.count("-->") >= len(answer.segments)


def test_text_is_text(client: openai.OpenAI, whole: dict[str, Any]) -> None:
    answer = client.audio.transcriptions.create(file=FILE, model="whisper-1", response_format="text")
    assert answer == whole["transcript"]["text"] + "\n"


@pytest.mark.parametrize("form", ["srt", "vtt"])
def test_captions_have_all_words(client: openai.OpenAI, whole: dict[str, Any], form: Any) -> None:
    answer = client.audio.transcriptions.create(file=FILE, model="whisper-1", response_format=form)
    assert isinstance(answer, str)
    assert ("WEBVTT" in answer) is (form == "vtt")
    shown = [
        line for line in answer.splitlines() if line and "-->" not in line and line != "WEBVTT" and not line.isdigit()
    ]
    assert " ".join(shown) == whole["transcript"]["text"]


def test_events_end_with_all_of_it(client: openai.OpenAI, whole: dict[str, Any]) -> None:
    *deltas, last = client.audio.transcriptions.create(file=FILE, model="whisper-1", stream=True)
    assert {event.type for event in deltas} == {"transcript.text.delta"}
    assert "".join(event.delta for event in deltas) == last.text == whole["transcript"]["text"]
    assert (last.type, last.emotion["label"]) == ("transcript.text.done", whole["emotion"])


def test_silence_has_no_words_and_no_emotion(client: openai.OpenAI) -> None:
    quiet = ("quiet.wav", audio_file(silence(2), "wav", "pcm_s16le"))
    answer = client.audio.transcriptions.create(file=quiet, model="whisper-1", response_format="verbose_json")
    assert (answer.text, answer.segments, answer.speech) == ("", [], "none")
    assert answer.emotion["label"] is None
    assert list(client.audio.transcriptions.create(file=quiet, model="whisper-1", stream=True))[0].text == ""


def test_our_headers_and_parameters_count_too(client: openai.OpenAI) -> None:
    answer = client.audio.transcriptions.create(
        file=FILE, model="whisper-1", extra_query={"emotions": "happy,sad"}, extra_headers={"Prefer": "handling=strict"}
    )
    assert set(answer.emotion["probabilities"]) == {"happy", "sad"}


def test_the_models_are_listed(client: openai.OpenAI) -> None:
    page = client.models.list()
    assert {model.id for model in page.data} == {"whisper-1", "whisper-base-short"}
    assert set(page.stages) == {"mel", "asr", "text_embedding", "text_encoder", "fusion"}
    assert {stage["device"] for stage in page.stages.values()} <= {"cpu", "cuda"}
    assert client.models.retrieve("whisper-1").owned_by == "amser"


# --- Errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "kind", "parameter"),
    [
        ({"prompt": "Umbrella"}, openai.BadRequestError, "prompt"),
        ({"temperature": 0.5}, openai.BadRequestError, "temperature"),
        ({"response_format": "diarized_json"}, openai.BadRequestError, "response_format"),
        ({"include": ["logprobs"]}, openai.BadRequestError, "include"),
        ({"timestamp_granularities": ["word"]}, openai.BadRequestError, "timestamp_granularities"),
        ({"model": "gpt-transcribe"}, openai.NotFoundError, "model"),
        ({"language": "xx"}, openai.UnprocessableEntityError, "language"),
        ({"extra_body": {"best_of": 5}}, openai.BadRequestError, "best_of"),
    ],
)
def test_what_is_not_done_raises(
    client: openai.OpenAI, wrong: dict[str, Any], kind: type[openai.APIStatusError], parameter: str
) -> None:
    with pytest.raises(kind) as caught:
        client.audio.transcriptions.create(**({"file": FILE, "model": "whisper-1"} | wrong))
    error = caught.value
    assert (error.param, error.type) == (parameter, "invalid_request_error")
    assert "accepted:" in str(error)
    assert error.request_id
    assert_problem(error.response, error.status_code)  # for everybody else it is what every refusal is


def test_a_file_that_is_none_raises(client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        client.audio.transcriptions.create(file=("x.wav", b"this is no recording" * 9), model="whisper-1")
    assert (caught.value.status_code, caught.value.code) == (415, "unsupported-audio")


def test_a_file_that_is_too_large_raises(client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        client.audio.transcriptions.create(file=("x.wav", bytes(11_000_000)), model="whisper-1")
    assert (caught.value.status_code, caught.value.code) == (413, "too-large")


def test_the_deadline_raises(client: openai.OpenAI) -> None:
    with pytest.raises(openai.InternalServerError) as caught:
        client.audio.transcriptions.create(file=FILE, model="whisper-1", extra_headers={"Amser-Deadline-Ms": "1"})
    assert (caught.value.status_code, caught.value.code) == (504, "deadline")


@pytest.mark.parametrize(
    ("key", "kind", "code"),
    [
        ("amser_wrong", openai.AuthenticationError, "invalid_api_key"),
        ("read", openai.PermissionDeniedError, "forbidden"),
        ("slow", openai.RateLimitError, "rate_limit_exceeded"),
    ],
)
def test_what_the_gate_refuses_raises(
    url: str, tokens: dict[str, str], key: str, kind: type[openai.APIStatusError], code: str
) -> None:
    recording = ("x.wav", audio_file(noise(0.3), "wav", "pcm_s16le"))
    with openai.OpenAI(base_url=f"{url}/v1", api_key=tokens.get(key, key), max_retries=0) as client:
        if key == "slow":
            client.audio.transcriptions.create(file=recording, model="whisper-1")
        with pytest.raises(kind) as caught:
            client.audio.transcriptions.create(file=recording, model="whisper-1")
    assert caught.value.code == code
    assert ("retry-after" in caught.value.response.headers) is (key == "slow")


def test_a_model_that_is_not_here_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="gpt-4o") as caught:
        client.models.retrieve("gpt-4o")
    assert caught.value.code == "model_not_found"


def test_routes_of_openai_that_are_not_here_are_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="no such route"):
        client.audio.translations.create(file=FILE, model="whisper-1")


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (b"", {"Content-Type": "audio/wav"}, 415),
        (b"", {"Content-Type": "multipart/form-data"}, 400),
        (b"--x\r\n", {"Content-Type": "multipart/form-data; boundary=x"}, 400),
        (b"not a form", {"Content-Type": "multipart/form-data; boundary=x"}, 400),
        (b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n--x--\r\n',
         {"Content-Type": "multipart/form-data; boundary=x"}, 400),
        (b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\nno file\r\n--x--\r\n',
         {"Content-Type": "multipart/form-data; boundary=x"}, 400),
    ],
)  # fmt: skip
def test_what_is_no_form_is_told_what_to_send(
    url: str, tokens: dict[str, str], content: bytes, headers: dict[str, str], status: int
) -> None:
    response = httpx.post(
        f"{url}/v1/audio/transcriptions",
        content=content,
        headers={**headers, "Authorization": f"Bearer {tokens['right']}"},
    )
    assert assert_problem(response, status, "file")["error"]["message"]
