"""A cluster that wants keys and speaks TLS, as devices, apps and strangers see it; and what it writes to its logs."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
import yaml
from access import add_key, bearer, remove_key, self_signed
from over_http import assert_problem, send, two_seconds
from recordings import Waveform, envelope_of, speakers, waveform_of

from amser import wire
from amser.client.device import Device, DeviceSettings
from amser.client.exchange.failures import Refused, Unreachable
from amser.features import SAMPLE_RATE
from deployments.local_cluster import DEFAULT_CONFIG, LocalCluster

STARTED_OR_NOT_WITHIN_S = 180.0  # each attempt imports torch anew, which takes slow cores ten seconds
FOLLOWS_WITHIN_S = 5.0  # a change of the file of keys; a replica looks once a second

pytestmark = pytest.mark.slow  # a cluster of its own, which has keys and TLS


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys") / "keys.json"


@pytest.fixture(scope="module")
def key(keys: Path) -> str:
    return add_key(keys)


@pytest.fixture(scope="module")
def guarded(keys: Path, key: str) -> Iterator[LocalCluster]:
    """All stages in one replica."""
    assert key  # an application without one does not start
    certificate, private = self_signed(keys.parent)
    config = yaml.safe_load(DEFAULT_CONFIG.with_name("serve_config.fused.yaml").read_text())
    config["http_options"] |= {"ssl_certfile": str(certificate), "ssl_keyfile": str(private)}
    path = keys.parent / "serve_config.yaml"
    path.write_text(yaml.safe_dump(config))
    auth = {"mode": "keys", "file": str(keys)}
    log = keys.parent / "cluster.log"
    with LocalCluster(path, log=log, num_gpus=0, http_port=0, overrides={"auth": auth}) as running:
        running.wait_until_ready()
        yield running


@pytest.fixture(scope="module")
def asking(guarded: LocalCluster) -> Iterator[httpx.Client]:
    trusted = ssl.create_default_context(cafile=guarded.certificate)
    with httpx.Client(base_url=guarded.url, verify=trusted, timeout=60) as opened:
        yield opened


@pytest.fixture(scope="module")
def speech() -> Waveform:
    return two_seconds()


def test_a_device_with_a_key_and_the_certificate_is_answered(guarded: LocalCluster, key: str, speech: Waveform) -> None:
    settings = DeviceSettings(url=guarded.url, key=key, ca=Path(str(guarded.certificate)))
    with Device(settings) as device:
        assert device.send(device.encode(speech, datetime.now(UTC))).text


def test_a_device_without_them_is_told_so(guarded: LocalCluster, key: str, speech: Waveform) -> None:
    stranger = DeviceSettings(url=guarded.url, ca=Path(str(guarded.certificate)))
    with Device(stranger) as device, pytest.raises(Refused, match="401 No valid key; this needs a valid key"):
        device.send(device.encode(speech, datetime.now(UTC)))
    untrusting = DeviceSettings(url=guarded.url, key=key, attempts=1)
    with Device(untrusting) as device, pytest.raises(Unreachable, match=r"(?i)certificate verify failed"):
        device.send(device.encode(speech, datetime.now(UTC)))


def test_a_stranger_is_refused_before_a_byte_of_the_body_is_read(guarded: LocalCluster) -> None:
    address = urlsplit(guarded.url)
    trusted = ssl.create_default_context(cafile=guarded.certificate)
    with (
        socket.create_connection((address.hostname, address.port), timeout=10) as plain,
        trusted.wrap_socket(plain, server_hostname="127.0.0.1") as connection,
    ):
        head = f"POST /v1/emotion HTTP/1.1\r\nHost: localhost\r\nContent-Type: {wire.MEDIA_TYPE}\r\n"
        connection.sendall(f"{head}Content-Length: 1000000\r\n\r\n".encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 401 ")


def test_responses_over_tls_say_so_to_browsers(asking: httpx.Client) -> None:
    headers = asking.get("/healthz").headers
    assert headers["strict-transport-security"] == "max-age=31536000"
    assert headers["x-content-type-options"] == "nosniff"


def test_keys_come_and_go_without_a_restart(asking: httpx.Client, key: str, keys: Path) -> None:
    second = add_key(keys)
    until(asking, second, 200)
    assert asking.get("/v1/models", headers=bearer(key)).status_code == 200  # both of one owner
    remove_key(keys, second)
    until(asking, second, 401)
    assert asking.get("/v1/models", headers=bearer(key)).status_code == 200


def until(asking: httpx.Client, token: str, status: int) -> None:
    deadline = time.monotonic() + FOLLOWS_WITHIN_S
    while (found := asking.get("/v1/models", headers=bearer(token)).status_code) != status:
        assert time.monotonic() < deadline, found
        time.sleep(0.2)


def test_what_is_over_a_limit_passes_when_retry_after_says(asking: httpx.Client, keys: Path) -> None:
    token = add_key(keys, requests_per_minute=30)
    until(asking, token, 200)
    answers = [asking.get("/v1/models", headers=bearer(token)) for _ in range(40)]
    refused = next(answer for answer in answers if answer.status_code != 200)
    problem = assert_problem(refused, 429, "30 requests a minute")
    assert "key has asked for as much as it may" in problem["detail"]
    wait_s = int(refused.headers["retry-after"])
    assert 1 <= wait_s <= 2
    time.sleep(wait_s)
    assert asking.get("/v1/models", headers=bearer(token)).status_code == 200


def test_an_application_that_wants_keys_and_has_none_does_not_start_and_says_what_to_do(
    guarded: LocalCluster, asking: httpx.Client, tmp_path: Path
) -> None:
    (running,) = guarded._config["applications"]
    auth = {"mode": "keys", "file": str(tmp_path / "none.json")}
    other = {**running, "name": "other", "route_prefix": "/other", "args": {**running["args"], "auth": auth}}
    applications = f"{guarded.dashboard}/api/serve/applications/"
    assert httpx.put(applications, json={**guarded._config, "applications": [running, other]}, timeout=60).is_success
    deadline = time.monotonic() + STARTED_OR_NOT_WITHIN_S
    while (said := httpx.get(applications, timeout=10).json()["applications"]["other"])["status"] != "DEPLOY_FAILED":
        assert time.monotonic() < deadline, said
        time.sleep(0.5)
    assert f"make a key: python -m deployments.access create OWNER --file {tmp_path}/none.json" in said["message"]
    assert asking.get("/readyz").status_code == 200


def test_no_key_and_no_words_are_in_any_log(guarded: LocalCluster, asking: httpx.Client, key: str) -> None:
    """The last one: the cluster ends here."""
    sentence = waveform_of(speakers(1)[0]["path"])[: 8 * SAMPLE_RATE]
    words = send(asking, wire.pack(envelope_of(sentence)), **bearer(key)).json()["transcript"]["text"]
    assert len(words) > 20
    assert guarded._folder is not None
    of_ray = [*guarded._folder.glob("session_*/logs/**/*.*")]  # of every process, the proxy and the controller too
    logs = "".join(file.read_text(errors="replace") for file in of_ray if file.is_file())
    guarded.__exit__(None, None, None)
    logs += guarded.log.read_text(errors="replace")
    assert "--- replica_" in logs  # what replicas wrote is there
    assert "the file of keys has changed" in logs
    assert key.split("_", 2)[2] not in logs
    assert words not in logs
