"""The device: what it reads, what it sends, and what it does where the cluster is full, gone or silent.

The cluster is a real HTTP server on loopback that plays given responses.
"""

from __future__ import annotations

import socket
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from fractions import Fraction
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import av
import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from opentelemetry.sdk.trace import TracerProvider
from stand_in import ANSWER, Response, stand_in
from tenacity import RetryCallState, Retrying, wait_none

from amser.audio import UnreadableAudio, read
from amser.client.device import Device, DeviceSettings
from amser.client.exchange import retries
from amser.client.exchange.failures import AnswerTimedOut, Refused, UnexpectedAnswer, Unreachable
from amser.client.exchange.utterances import Utterance
from amser.codecs import rank_for_rate
from amser.features import SAMPLE_RATE, AudioTooShort, EmptyAudio, log_mel
from amser.wire import MEDIA_TYPE, decode_mel, unpack

Waveform = NDArray[np.float32]

CAPTURED = datetime(2025, 11, 22, 1, 2, 3, tzinfo=UTC)
CODECS = {"wav": "pcm_s16le", "flac": "flac", "mp3": "libmp3lame", "ogg": "libopus", "m4a": "aac"}
FULL = Response(429, {"title": "Too Many Requests", "detail": "the cluster is full"}, {"Retry-After": "0"})


@pytest.fixture
def no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves of every wait only what the server asked for."""
    monkeypatch.setattr(retries, "BACKOFF", wait_none())


@pytest.fixture
def utterance() -> Utterance:
    return Device(DeviceSettings()).encode(chirp(1.0), CAPTURED)


def chirp(seconds: float, rate: int = SAMPLE_RATE) -> Waveform:
    """A sweep from 200 Hz to 2 kHz: every band and frame differs from the next."""
    t = np.arange(round(seconds * rate)) / rate
    return (0.5 * np.sin(2 * np.pi * (200 * t + 900 * t**2 / seconds))).astype(np.float32)


def write(path: Path, channels: list[Waveform], rate: int) -> Path:
    """An audio file in the format of its suffix."""
    layout = "mono" if len(channels) == 1 else "stereo"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(CODECS[path.suffix[1:]], rate=rate, layout=layout)
        frame = av.AudioFrame.from_ndarray(np.stack(channels), format="fltp", layout=layout)
        frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
        frames = av.AudioResampler(stream.format, layout, rate, stream.frame_size or None).resample(frame)
        container.mux([packet for part in [*frames, None] for packet in stream.encode(part)])
    return path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# --- Reading ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", CODECS)
def test_every_format_gives_mono_at_16_khz(tmp_path: Path, suffix: str) -> None:
    left, mixed = chirp(1.0, 48_000), 0.75 * chirp(1.0)
    waveform = read(write(tmp_path / f"stereo.{suffix}", [left, 0.5 * left], 48_000))
    assert waveform.dtype == np.float32
    assert waveform.size / SAMPLE_RATE == pytest.approx(1.0, abs=0.1)  # MP3, AAC and Opus add some silence
    gain = np.correlate(waveform, mixed, mode="full").max() / np.sum(mixed**2)
    assert gain == pytest.approx(1.0, abs=0.06)


def test_a_name_that_looks_like_an_address_is_a_file_all_the_same(tmp_path: Path) -> None:
    write(tmp_path / "call.wav", [chirp(0.5)], SAMPLE_RATE).rename(tmp_path / "http:call.wav")
    assert read(tmp_path / "http:call.wav").size == SAMPLE_RATE // 2


@pytest.mark.parametrize("name", ["notes.wav", "list.m3u8"])
def test_a_text_or_a_playlist_is_no_audio(tmp_path: Path, name: str) -> None:
    target = write(tmp_path / "call.wav", [chirp(0.5)], SAMPLE_RATE)
    (tmp_path / name).write_text(f"#EXTM3U\n#EXTINF:1,\n{target}\n#EXT-X-ENDLIST\n")
    with pytest.raises(UnreadableAudio, match="no audio that can be read; accepted: WAV, FLAC, MP3, OGG, M4A"):
        read(tmp_path / name)


def test_a_file_that_is_cut_off_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    path = write(tmp_path / "call.flac", [chirp(3.0)], SAMPLE_RATE)
    whole, content = read(path), path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    heard = read(path)
    assert 0.3 * whole.size < heard.size < 0.7 * whole.size
    np.testing.assert_array_equal(heard, whole[: heard.size])
    path.write_bytes(content[:40])
    with pytest.raises(UnreadableAudio, match="cannot be decoded"):
        read(path)


def test_too_little_audio_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "call.wav", [chirp(0.02)], SAMPLE_RATE)
    with pytest.raises(AudioTooShort, match=r"the audio lasts 0\.02 s"):
        read(path)
    soundfile.write(path, np.zeros(0), SAMPLE_RATE)
    with pytest.raises(EmptyAudio):
        read(path)


# --- Encoding ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", ["mel-f16", "svd-f16", "svd-i8"])
def test_what_is_encoded_unpacks_to_the_same_speech(codec: str) -> None:
    waveform = chirp(1.0)
    phone = Device(DeviceSettings("phone-7", codec=codec, rate=0.5, language="en"))
    utterance = phone.encode(waveform, CAPTURED)
    envelope = unpack(utterance.envelope)
    assert (envelope.codec, envelope.device_id, envelope.language) == (codec, "phone-7", "en")
    assert (envelope.utterance_id, envelope.captured_at) == (utterance.utterance_id, CAPTURED)
    assert envelope.seconds == utterance.seconds == 1.0
    assert utterance.pcm_bytes == 32_000
    assert np.abs(decode_mel(envelope) - log_mel(waveform)).mean() < 0.03


@pytest.mark.parametrize("codec", ["interpolation", "klt"])
def test_a_codec_without_a_rate_is_sent_at_its_default(codec: str) -> None:
    phone = Device(DeviceSettings(codec=codec))
    utterance = phone.encode(chirp(1.0), CAPTURED)
    envelope = unpack(utterance.envelope)
    assert envelope.codec == codec
    assert len(utterance.envelope) < len(Device(DeviceSettings(codec="svd-f16")).encode(chirp(1.0), CAPTURED).envelope)
    assert np.corrcoef(decode_mel(envelope).ravel(), log_mel(chirp(1.0)).ravel())[0, 1] > 0.8
    with pytest.raises(ValueError, match=f"{codec} has no rate"):
        DeviceSettings(codec=codec, rate=0.5)


def test_the_envelope_names_the_codec_that_wrote_it() -> None:
    phone = Device(DeviceSettings(codec="svd-f16", rate=1.0))  # factors of full rank are larger than the Mel
    assert unpack(phone.encode(chirp(0.5), CAPTURED).envelope).codec == "mel-f16"


def test_the_rate_decides_the_bytes() -> None:
    sizes = [
        len(Device(DeviceSettings(codec="svd-f16", rate=rate)).encode(chirp(2.0), CAPTURED).envelope)
        for rate in (None, 0.125, 0.25)
    ]
    assert sizes[0] == sizes[1]
    assert sizes[2] - sizes[1] == 2 * (rank_for_rate(0.25, 80, 200) - rank_for_rate(0.125, 80, 200)) * (80 + 200)


def test_the_time_on_the_device_is_measured() -> None:
    started = time.perf_counter()
    utterance = Device(DeviceSettings()).encode(chirp(5.0), CAPTURED)
    assert 0 < utterance.device_ms <= 1000 * (time.perf_counter() - started)


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://host", "http://"])
def test_a_url_that_is_none_of_a_cluster_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="is no URL"):
        DeviceSettings(url=url)


# --- Sending ----------------------------------------------------------------------------------------------------------


def test_an_answer_carries_words_emotion_and_costs(utterance: Utterance) -> None:
    with stand_in(Response(after_s=0.05)) as cluster, Device(DeviceSettings(url=f"{cluster.url}/")) as phone:
        answer = phone.send(utterance)
    request = cluster.received[0]
    assert request.path == "/v1/emotion"
    assert request.body == utterance.envelope
    assert request.headers["Content-Type"] == MEDIA_TYPE
    assert UUID(request.headers["Amser-Utterance-Id"]) == utterance.utterance_id
    assert (answer.emotion, answer.text, answer.language) == ("happy", "Good morning.", "en")
    assert answer.probabilities == {"happy": 0.85, "neutral": 0.15}
    assert (answer.confidence, answer.uncertain, answer.doubts) == (0.85, False, ())
    assert answer.timings_ms == {"asr": 31.0, "total": 40.5}
    assert (answer.degraded, answer.raw) == ((), ANSWER)
    assert (answer.bytes_sent, answer.pcm_bytes) == (len(utterance.envelope), 32_000)
    assert answer.device_ms == utterance.device_ms
    assert 50 <= answer.answer_ms < 5_000
    assert answer.attempts == 1


def test_an_answer_carries_the_doubts_about_it(utterance: Utterance) -> None:
    doubtful = {**ANSWER, "confidence": 0.41, "uncertain": True, "doubts": ["low_confidence", "short"]}
    with stand_in(Response(body=doubtful)) as cluster, Device(DeviceSettings(url=cluster.url)) as phone:
        answer = phone.send(utterance)
    assert (answer.confidence, answer.uncertain, answer.doubts) == (0.41, True, ("low_confidence", "short"))


def test_a_device_may_restrict_its_answers_to_some_emotions(utterance: Utterance) -> None:
    with stand_in() as cluster:
        settings = DeviceSettings(url=cluster.url, emotions=("angry", "happy", "neutral", "sad"))
        with Device(settings) as phone:
            phone.send(utterance)
    (request,) = cluster.received
    assert parse_qs(urlsplit(request.path).query) == {"emotions": ["angry,happy,neutral,sad"]}
    assert urlsplit(request.path).path == "/v1/emotion"


@pytest.mark.parametrize("emotions", [("angry",), ("angry", "angry"), ("angry", "happy", "angry"), ("angry", "")])
def test_emotions_that_leave_no_choice_are_refused(emotions: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="name two or more, each once"):
        DeviceSettings(emotions=emotions)


def test_the_connection_is_kept(utterance: Utterance) -> None:
    with stand_in() as cluster, Device(DeviceSettings(url=cluster.url)) as phone:
        for _ in range(3):
            phone.send(utterance)
    assert len({request.connection for request in cluster.received}) == 1


@pytest.mark.usefixtures("no_backoff")
@pytest.mark.parametrize("status", [408, 429, 503, 504])
def test_a_cluster_that_has_no_time_is_asked_again_after_what_it_asked_for(utterance: Utterance, status: int) -> None:
    full = Response(status, {"title": "Full"}, {"Retry-After": "1"})
    with stand_in(full) as cluster, Device(DeviceSettings(url=cluster.url)) as phone:
        answer = phone.send(utterance)
    first, second = cluster.received
    assert 1.0 <= second.at - first.at < 2.0
    assert first.headers["Amser-Utterance-Id"] == second.headers["Amser-Utterance-Id"]
    assert answer.attempts == 2
    assert answer.answer_ms >= 1000


@pytest.mark.usefixtures("no_backoff")
def test_retry_after_may_be_a_date(utterance: Utterance) -> None:
    in_two_seconds = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)  # whole seconds: 1 to 2
    full = Response(503, {}, {"Retry-After": in_two_seconds})
    with stand_in(full) as cluster, Device(DeviceSettings(url=cluster.url)) as phone:
        phone.send(utterance)
    first, second = cluster.received
    assert 0.5 <= second.at - first.at < 3.0


def test_devices_that_are_refused_together_do_not_come_back_together() -> None:
    waits = [retries.BACKOFF(_state(attempt)) for attempt in (1, 2, 3, 9) for _ in range(50)]
    first, second, third, ninth = (waits[at : at + 50] for at in range(0, 200, 50))
    assert len(set(first)) > 40
    assert max(first) <= 0.5 < max(second) <= 1.0 < max(third) <= 2.0 < max(ninth) <= retries.LONGEST_BACKOFF_S


def _state(attempt: int) -> RetryCallState:
    state = RetryCallState(retry_object=Retrying(), fn=None, args=(), kwargs={})
    state.attempt_number = attempt
    return state


@pytest.mark.usefixtures("no_backoff")
@pytest.mark.parametrize("status", [408, 429, 503, 504])
def test_without_a_wait_that_it_asked_for_the_cluster_is_asked_again_at_once(utterance: Utterance, status: int) -> None:
    with stand_in(Response(status, b"later")) as cluster, Device(DeviceSettings(url=cluster.url)) as phone:
        assert phone.send(utterance).attempts == 2
    assert {request.body for request in cluster.received} == {utterance.envelope}


def test_a_link_that_is_too_slow_for_a_body_is_not_given_the_same_body_again(utterance: Utterance) -> None:
    slow = Response(408, {"type": "/problems/body-too-slow", "title": "Body too slow"})
    with (
        stand_in(slow) as cluster,
        Device(DeviceSettings(url=cluster.url)) as phone,
        pytest.raises(Refused, match="408 Body too slow") as refused,
    ):
        phone.send(utterance)
    assert len(cluster.received) == 1
    assert refused.value.kind == "body-too-slow"


@pytest.mark.usefixtures("no_backoff")
def test_a_deadline_that_is_missed_every_time_is_told_as_such_and_not_for_ever(utterance: Utterance) -> None:
    """A third attempt would have 0.2 s where the cluster takes 0.5 s to say 504: the device would cut it off."""
    late = Response(504, {"title": "Gateway Timeout", "detail": "no answer within 0.5 s"}, after_s=0.5)
    with (
        stand_in(*[late] * 9) as cluster,
        Device(DeviceSettings(url=cluster.url, give_up_s=1.2)) as phone,
        pytest.raises(Refused, match="504 Gateway Timeout; no answer within 0.5 s"),
    ):
        phone.send(utterance)
    assert len(cluster.received) == 2


@pytest.mark.usefixtures("no_backoff")
def test_a_cluster_that_stays_full_is_left_alone_after_a_few_attempts(utterance: Utterance) -> None:
    with (
        stand_in(*[FULL] * 9) as cluster,
        Device(DeviceSettings(url=cluster.url, attempts=3)) as phone,
        pytest.raises(Refused, match="429 Too Many Requests; the cluster is full") as refused,
    ):
        phone.send(utterance)
    assert len(cluster.received) == 3
    assert refused.value.status == 429


@pytest.mark.usefixtures("no_backoff")
def test_a_wait_beyond_the_total_time_is_not_begun(utterance: Utterance) -> None:
    later = Response(503, {"title": "Service Unavailable"}, {"Retry-After": "3600"})
    started = time.monotonic()
    with (
        stand_in(later) as cluster,
        Device(DeviceSettings(url=cluster.url)) as phone,
        pytest.raises(Refused) as refused,
    ):
        phone.send(utterance)
    assert time.monotonic() - started < 5
    assert (len(cluster.received), refused.value.retry_after_s) == (1, 3600)


def test_a_traced_device_sends_the_context_of_the_span_that_it_is_in(utterance: Utterance) -> None:
    tracer = TracerProvider().get_tracer("app")
    with stand_in(*(Response() for _ in range(3))) as cluster:
        with Device(DeviceSettings(url=cluster.url, traced=True)) as phone:
            with tracer.start_as_current_span("spoken") as span:
                phone.send(utterance)
            phone.send(utterance)
        with Device(DeviceSettings(url=cluster.url)) as phone, tracer.start_as_current_span("spoken"):
            phone.send(utterance)
    inside, outside, untraced = (
        {name.lower(): value for name, value in received.headers.items()} for received in cluster.received
    )
    context = span.get_span_context()
    version, trace, parent, flags = inside["traceparent"].split("-")
    assert (version, trace, parent) == ("00", f"{context.trace_id:032x}", f"{context.span_id:016x}")
    assert int(flags, 16) & 1  # sampled
    assert "traceparent" not in {**outside, **untraced}


def test_a_refusal_carries_the_problem_and_is_not_retried(utterance: Utterance) -> None:
    problem = {
        "type": "about:blank",
        "title": "Unprocessable Content",
        "status": 422,
        "detail": "the payload has rank 90",
        "limit": "1 to 80",
    }
    with (
        stand_in(Response(422, problem, {"Content-Type": "application/problem+json"})) as cluster,
        Device(DeviceSettings(url=cluster.url)) as phone,
        pytest.raises(Refused) as refused,
    ):
        phone.send(utterance)
    assert len(cluster.received) == 1
    error = refused.value
    assert (error.status, error.title, error.detail) == (422, "Unprocessable Content", "the payload has rank 90")
    assert error.problem == problem
    assert str(error) == "422 Unprocessable Content; the payload has rank 90; accepted: 1 to 80"


def test_a_refusal_without_a_problem_document_is_still_told(utterance: Utterance) -> None:
    with (
        stand_in(Response(502, b"<h1>oops</h1>")) as cluster,
        Device(DeviceSettings(url=cluster.url)) as phone,
        pytest.raises(Refused, match="502 Bad Gateway") as refused,
    ):
        phone.send(utterance)
    assert (refused.value.detail, refused.value.problem) == ("", {})


@pytest.mark.usefixtures("no_backoff")
def test_a_connection_that_breaks_is_tried_again(utterance: Utterance) -> None:
    gone = Response(hangs_up=True)
    with stand_in(gone, gone) as cluster, Device(DeviceSettings(url=cluster.url)) as phone:
        assert phone.send(utterance).attempts == 3


@pytest.mark.usefixtures("no_backoff")
def test_a_cluster_that_is_not_there_is_unreachable(utterance: Utterance) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with Device(DeviceSettings(url=url)) as phone, pytest.raises(Unreachable, match=url):
        phone.send(utterance)


def test_a_cluster_that_never_answers_times_out_and_is_not_asked_again(utterance: Utterance) -> None:
    started = time.monotonic()
    with (
        stand_in(Response(after_s=60)) as cluster,
        Device(DeviceSettings(url=cluster.url, answer_timeout_s=0.3)) as phone,
        pytest.raises(AnswerTimedOut, match=r"no answer within 0\.3 s"),
    ):
        phone.send(utterance)
    assert 0.3 <= time.monotonic() - started < 3
    assert len(cluster.received) == 1


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"hello", {}),
        ({"emotion": "happy"}, {}),
        (["happy"], {}),
        (b"[" * 100_000, {}),
        (b"no gzip", {"Content-Encoding": "gzip"}),
    ],
)
def test_something_else_than_an_answer_is_not_taken_for_one(
    utterance: Utterance, body: object, headers: dict[str, str]
) -> None:
    with (
        stand_in(Response(200, body, headers)) as cluster,
        Device(DeviceSettings(url=cluster.url)) as phone,
        pytest.raises(UnexpectedAnswer),
    ):
        phone.send(utterance)
