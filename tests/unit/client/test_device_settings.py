"""The device's settings: step, cells and front end; rate control; the connection that is kept between utterances."""

from __future__ import annotations

import io
import json
import socket
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import yaml
from numpy.typing import NDArray
from stand_in import ANSWER, Response, stand_in
from tenacity import wait_none

from amser import codecs
from amser.client import device as device_module
from amser.client.command_line import main
from amser.client.device import Device, DeviceSettings
from amser.client.exchange import retries
from amser.client.exchange.connection import KEPT_ALIVE_S
from amser.client.frontend import FRONTENDS, UnknownFrontend, UnsupportedProfile
from amser.client.rate_control import Bounds, Conditions
from amser.client.spool import Spool
from amser.codecs.klt import COARSEST, PROFILES
from amser.features import SAMPLE_RATE, log_mel
from amser.rate_hint import RateHint, Reason
from amser.wire import decode_mel, unpack

Waveform = NDArray[np.float32]

CAPTURED = datetime(2025, 11, 22, 1, 2, 3, tzinfo=UTC)
LOW, STANDARD, ROBUST = (PROFILES[name] for name in ("low", "standard", "robust"))


def step_of(envelope: bytes) -> int | None:
    unpacked = unpack(envelope)
    return codecs.payload_step(unpacked.codec, unpacked.payload)


def syllables(noise: float) -> Waveform:
    """Two seconds of a tone that comes and goes, over white noise."""
    t = np.arange(2 * SAMPLE_RATE) / SAMPLE_RATE
    said = 0.3 * np.sin(2 * np.pi * 440 * t) * (np.sin(2 * np.pi * 1.5 * t) > 0)
    return (said + noise * np.random.default_rng(0).standard_normal(t.size)).astype(np.float32)


QUIET, NOISY = syllables(0.0005), syllables(0.2)

# --- Encoding ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("step", "index"), [("low", LOW), ("robust", ROBUST), (13, 13), ("13", 13), (None, STANDARD)])
def test_the_step_is_the_one_that_was_set(step: int | str | None, index: int) -> None:
    utterance = Device(DeviceSettings(codec="klt", step=step)).encode(QUIET, CAPTURED)
    assert step_of(utterance.envelope) == index


def test_a_finer_step_comes_closer_and_costs_more() -> None:
    coarse, fine = (
        Device(DeviceSettings(codec="klt", step=step)).encode(QUIET, CAPTURED).envelope for step in ("low", "robust")
    )
    errors = [np.abs(decode_mel(unpack(each)) - log_mel(QUIET)).mean() for each in (coarse, fine)]
    assert errors[1] < 0.5 * errors[0]
    assert len(fine) > 2 * len(coarse)


def test_interpolation_takes_its_cells() -> None:
    sizes = {factors: len(unpack(_interpolated(factors)).payload) for factors in (None, (4, 2), (8, 4))}
    assert sizes == {None: 2 + 2 * 40 * 50, (4, 2): 2 + 2 * 40 * 50, (8, 4): 2 + 2 * 20 * 25}


def _interpolated(factors: tuple[int, int] | None) -> bytes:
    return Device(DeviceSettings(codec="interpolation", factors=factors)).encode(QUIET, CAPTURED).envelope


@pytest.mark.parametrize("frontend", FRONTENDS)
def test_the_front_end_is_the_one_that_was_set(frontend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def noted(*arguments: Any, **named: Any) -> Any:
        asked.append(named["frontend"])
        return real(*arguments, **named)

    real = device_module.log_mel
    monkeypatch.setattr(device_module, "log_mel", noted)
    utterance = Device(DeviceSettings(codec="mel-f16", frontend=frontend)).encode(QUIET, CAPTURED)
    assert asked == [frontend]
    assert np.abs(decode_mel(unpack(utterance.envelope)) - log_mel(QUIET)).max() < 2e-3  # of half precision


def test_a_front_end_that_cannot_be_used_is_told_from_the_first_utterance() -> None:
    with pytest.raises(UnknownFrontend):
        Device(DeviceSettings(frontend="fft")).encode(QUIET, CAPTURED)
    with pytest.raises(UnsupportedProfile, match="numpy computes every profile"):
        Device(DeviceSettings(profile="paper")).encode(QUIET, CAPTURED)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"codec": "mp3"}, "no codec 'mp3'"),
        ({"codec": "svd-f16", "step": "low"}, "svd-f16 has no step, but rank, rate"),
        ({"codec": "klt", "rate": 0.5}, "klt has no rate, but step"),
        ({"codec": "klt", "step": "loud"}, "klt has no step 'loud'; accepted: low, standard, robust, or an index"),
        ({"codec": "klt", "step": COARSEST + 1}, f"klt has no step {COARSEST + 1}"),
        ({"codec": "interpolation", "step": "auto"}, "interpolation has no step, but factors"),
    ],
)
def test_a_setting_that_the_codec_does_not_have_is_refused_at_once(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DeviceSettings(**wrong)


# --- Rate control -----------------------------------------------------------------------------------------------------


def test_noise_gets_a_finer_step() -> None:
    phone = Device(DeviceSettings(codec="klt", step="auto"))
    assert step_of(phone.encode(QUIET, CAPTURED).envelope) == LOW
    assert step_of(phone.encode(NOISY, CAPTURED).envelope) == ROBUST
    assert phone.choice is not None
    assert phone.choice.step == ROBUST
    assert "dB above the noise" in phone.choice.reason


def test_the_link_and_the_bounds_have_their_say() -> None:
    phone = Device(DeviceSettings(codec="klt", step="auto", bounds=Bounds(4, 40)))
    phone.conditions = Conditions(uplink_bit_s=1_000)
    assert step_of(phone.encode(NOISY, CAPTURED).envelope) == 40
    assert Device(DeviceSettings(codec="klt", step="robust")).choice is None


def test_the_last_hint_decides_the_next_step() -> None:
    hinted = [Response(headers={"Amser-Rate-Hint": value}) for value in ("step=20;reason=noise", "loud", "step=18")]
    with (
        stand_in(*hinted, Response()) as cluster,
        Device(DeviceSettings(url=cluster.url, codec="klt", step="auto")) as phone,
    ):
        steps, hints = [], []
        for _ in range(4):
            utterance = phone.encode(QUIET, CAPTURED)
            steps.append(step_of(utterance.envelope))
            phone.send(utterance)
            hints.append(phone.hint)
    assert steps == [LOW, 20, 20, 18]
    assert hints == [RateHint(20, Reason.NOISE), RateHint(20, Reason.NOISE), RateHint(18), RateHint(18)]


def test_a_step_that_was_set_is_not_talked_out_of() -> None:
    with (
        stand_in(Response(headers={"Amser-Rate-Hint": "step=10;reason=noise"})) as cluster,
        Device(DeviceSettings(url=cluster.url, codec="klt", step="low")) as phone,
    ):
        phone.send(phone.encode(NOISY, CAPTURED))
        assert step_of(phone.encode(NOISY, CAPTURED).envelope) == LOW


# --- The connection ---------------------------------------------------------------------------------------------------


def test_the_device_closes_before_the_cluster_does() -> None:
    for name in ("serve_config.yaml", "serve_config.fused.yaml"):
        config = yaml.safe_load((Path(__file__).parents[3] / name).read_text())
        assert 5 < KEPT_ALIVE_S < config["http_options"]["keep_alive_timeout_s"]


def test_the_connection_outlives_a_pause_in_the_talk(monkeypatch: pytest.MonkeyPatch) -> None:
    """httpcore reads the clock when a connection falls idle and again before it is used."""
    passed_s = [0.0]
    monotonic = device_module.time.monotonic
    monkeypatch.setattr("httpcore._sync.http11.time.monotonic", lambda: monotonic() + passed_s[0])
    with stand_in() as cluster, Device(DeviceSettings(url=cluster.url)) as phone:
        utterance = phone.encode(QUIET, CAPTURED)
        for pause_s in (0.0, KEPT_ALIVE_S - 5, KEPT_ALIVE_S + 5):
            passed_s[0] += pause_s
            phone.send(utterance)
    first, second, third = (request.connection for request in cluster.received)
    assert first == second != third


@pytest.mark.parametrize("reads", [False, True], ids=["before", "while"])
def test_a_kept_connection_that_the_cluster_closes_costs_no_utterance(
    reads: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closed before the next request, nothing is lost; closed while it travels, it is sent again with the same id."""
    monkeypatch.setattr(retries, "BACKOFF", wait_none())
    with closing_server(reads) as (url, received, closed), Device(DeviceSettings(url=url)) as phone:
        first = phone.send(phone.encode(QUIET, CAPTURED))
        second_utterance = phone.encode(NOISY, CAPTURED)
        assert reads or closed.wait(10)
        second = phone.send(second_utterance)
    assert (first.attempts, second.attempts) == (1, 2 if reads else 1)
    assert len(received) == (3 if reads else 2)
    for head in received[1:]:
        assert str(second_utterance.utterance_id) in head


class closing_server:  # noqa: N801 - used as a function
    """Answers the first request of each connection, says that it keeps it, and closes it: at once, or when the second
    request is there."""

    def __init__(self, reads_second: bool) -> None:
        self._reads_second = reads_second
        self._received: list[str] = []
        self._closed = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))

    def __enter__(self) -> tuple[str, list[str], threading.Event]:
        threading.Thread(target=self._serve, daemon=True).start()
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}", self._received, self._closed

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _serve(self) -> None:
        content = json.dumps(ANSWER).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as stream:
                self._request(stream)
                connection.sendall(head.encode() + content)
                if self._reads_second:
                    self._request(stream)
            self._closed.set()

    def _request(self, stream: io.BufferedReader) -> None:
        lines = []
        while (line := stream.readline()) not in (b"\r\n", b""):
            lines.append(line.decode())
        length = next((int(line.split(":")[1]) for line in lines if line.lower().startswith("content-length")), 0)
        stream.read(length)
        if lines:
            self._received.append("".join(lines))


# --- The command line -------------------------------------------------------------------------------------------------


@pytest.fixture
def send(tmp_path: Path) -> Callable[..., int]:
    soundfile.write(tmp_path / "call.wav", QUIET, SAMPLE_RATE)
    return lambda url, *more: main(["send", str(tmp_path / "call.wav"), "--no-split", "--url", url, *more])


@pytest.mark.parametrize(
    ("step", "index"), [("low", LOW), ("standard", PROFILES["standard"]), ("robust", ROBUST), ("auto", LOW), ("7", 7)]
)
def test_send_takes_a_step(send: Callable[..., int], step: str, index: int) -> None:
    with stand_in() as cluster:
        assert send(cluster.url, "--codec", "klt", "--step", step) == 0
    assert step_of(cluster.received[0].body) == index


def test_send_takes_cells(send: Callable[..., int]) -> None:
    with stand_in() as cluster:
        assert send(cluster.url, "--codec", "interpolation", "--cells", "8x4") == 0
    envelope = unpack(cluster.received[0].body)
    assert (envelope.codec, envelope.payload[:2]) == ("interpolation", bytes((8, 4)))


def test_a_step_travels_through_a_spool(send: Callable[..., int], tmp_path: Path) -> None:
    path = tmp_path / "call.spool"
    with socket.create_server(("127.0.0.1", 0)) as probe:
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("amser.client.delivery.BACKOFF_S", 0.01)
        assert send(url, "--codec", "klt", "--step", "12", "--spool", str(path)) == 3
    with Spool(path) as spool:
        utterance = spool.utterance(spool.waiting()[0].utterance_id)
    assert utterance is not None
    assert step_of(utterance.envelope) == 12


@pytest.mark.parametrize(
    "wrong",
    [
        ["--codec", "svd-f16", "--step", "low"],
        ["--codec", "klt", "--step", "loud"],
        ["--codec", "klt", "--step", str(COARSEST + 1)],
        ["--codec", "klt", "--rate", "0.5"],
        ["--codec", "interpolation", "--cells", "4"],
        ["--codec", "interpolation", "--cells", "0x2"],
        ["--codec", "klt", "--cells", "4x2"],
    ],
)
def test_wrong_usage_has_exit_code_2(send: Callable[..., int], wrong: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        send("http://127.0.0.1:1", *wrong)
    assert ended.value.code == 2
