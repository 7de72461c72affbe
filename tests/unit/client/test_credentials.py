"""A client's key and the certificates it trusts: where they come from, where they go, and where they are not shown."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from access import self_signed
from spooled import fill
from stand_in import Response, stand_in

from amser.client.command_line import main
from amser.client.credentials import NoKey, checked_key, given_key
from amser.client.delivery import Delivery
from amser.client.device import Device, DeviceSettings
from amser.client.spool import Spool
from amser.features import SAMPLE_RATE

pytest_plugins = ["spooled"]

KEY = "amser_k3f9a2b1_" + "s" * 43
SOUND = np.sin(np.arange(SAMPLE_RATE) / 5).astype(np.float32)


def sound(device: Device) -> str:
    return device.send(device.encode(SOUND, datetime.now(UTC))).text


def test_a_device_shows_its_key_with_every_request_and_nowhere_else() -> None:
    with stand_in() as cluster:
        settings = DeviceSettings(url=cluster.url, key=f" {KEY}\n")
        with Device(settings) as device:
            assert sound(device) == "Good morning."
            sound(device)
        with Device(DeviceSettings(url=cluster.url)) as device:
            sound(device)
    shown = [request.headers.get("Authorization") for request in cluster.received]
    assert shown == [f"Bearer {KEY}", f"Bearer {KEY}", None]
    assert KEY not in f"{settings!r} {settings}"


@pytest.mark.parametrize("wrong", ["", "  ", "two words", "line\nbreak", "ключ", "x" * 201])
def test_what_cannot_be_a_key_is_refused_without_being_shown(wrong: str) -> None:
    with pytest.raises(ValueError, match="the key is none") as refused:
        DeviceSettings(key=wrong)
    assert not wrong.strip() or wrong not in str(refused.value)


def test_a_key_comes_from_a_file_before_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    assert given_key(file, {"AMSER_KEY": "amser_other"}) == KEY
    assert given_key(None, {"AMSER_KEY": f"{KEY} "}) == checked_key(KEY)
    assert given_key(None, {}) is None
    assert given_key(None, {"AMSER_KEY": ""}) is None
    with pytest.raises(NoKey, match="cannot be read: No such file"):
        given_key(tmp_path / "nowhere")


def test_the_authority_of_a_cluster_has_to_be_one(tmp_path: Path) -> None:
    DeviceSettings(url="https://127.0.0.1", ca=self_signed(tmp_path)[0])
    (tmp_path / "empty.pem").write_text("")
    for wrong in (tmp_path / "empty.pem", tmp_path / "nowhere.pem"):
        with pytest.raises(ValueError, match=f"{wrong.name} holds no certificates"):
            DeviceSettings(url="https://127.0.0.1", ca=wrong)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("status", [401, 403, 421])
def test_a_spool_keeps_what_a_cluster_refuses_for_its_key(
    status: int,
    spool: Spool,
    path: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fill(spool, 2)
    spool.close()
    monkeypatch.setenv("AMSER_KEY", KEY)
    command = ["deliver", "--spool", str(path), "--url"]
    with stand_in(*[Response(status, {"title": "No", "detail": "not with this key"})] * 3) as cluster:
        assert main([*command, cluster.url]) == 3
        told = capsys.readouterr().err
        assert f"2 utterances are kept in the spool: {status} No; not with this key" in told
        assert KEY not in told
        (tmp_path / "key").write_text("amser_right")
        assert main([*command, cluster.url, "--key-file", str(tmp_path / "key")]) == 0
    assert [request.headers["Authorization"] for request in cluster.received[-2:]] == ["Bearer amser_right"] * 2


@pytest.mark.usefixtures("impatient")
def test_what_is_over_a_limit_is_delivered_when_the_cluster_says(spool: Spool) -> None:
    fill(spool, 2)
    over = Response(429, {"title": "Too Many Requests", "type": "/problems/limit-requests"}, {"Retry-After": "1"})
    with stand_in(Response(), over) as cluster, Delivery(DeviceSettings(url=cluster.url)) as sending:
        assert [result.failure for result in sending.until_empty(spool)] == [None, None]
    assert cluster.received[2].at - cluster.received[1].at >= 1


def test_a_wrong_key_file_is_wrong_usage(tmp_path: Path, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["deliver", "--spool", str(path), "--key-file", str(tmp_path / "nowhere")])
    assert ended.value.code == 2
    assert "nowhere cannot be read" in capsys.readouterr().err
