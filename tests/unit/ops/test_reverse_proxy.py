"""nginx with ops/nginx/nginx.conf, in front of a server that writes down what reaches it."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from deployments.local_cluster import LOOPBACK, free_port

CONFIGURATION = Path(__file__).resolve().parents[3] / "ops" / "nginx" / "nginx.conf"
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
pytestmark = pytest.mark.skipif(NGINX is None or shutil.which("openssl") is None, reason="nginx is not installed")
ROUTE = "/v1/emotion"


@dataclass
class Gateway:
    """What reached the server behind: connections, and the headers and size of each request."""

    port: int = 0
    connections: int = 0
    requests: list[tuple[dict[str, str], int]] = field(default_factory=list)


@dataclass(frozen=True)
class Proxy:
    """The ports of nginx, and who is behind."""

    https: int
    http: int
    gateway: Gateway

    def client(self, address: str = LOOPBACK) -> httpx.Client:
        """One that comes from an address of this machine's."""
        transport = httpx.HTTPTransport(verify=False, local_address=address)
        return httpx.Client(base_url=f"https://{LOOPBACK}:{self.https}", transport=transport, timeout=10)


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    folder, gateway = tmp_path_factory.mktemp("nginx"), Gateway()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            gateway.connections += 1
            super().setup()

        def do_POST(self) -> None:  # noqa: N802 - the name that http.server looks for
            body = self.rfile.read(int(self.headers["Content-Length"]))
            gateway.requests.append((dict(self.headers.items()), len(body)))
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer((LOOPBACK, 0), Handler)
    gateway.port = server.server_port
    threading.Thread(target=server.serve_forever, daemon=True).start()
    ports = Proxy(free_port(), free_port(), gateway)
    with ExitStack() as stack:
        stack.callback(server.server_close)
        stack.callback(server.shutdown)
        process = start(folder, ports)
        stack.callback(process.wait)
        stack.callback(process.terminate)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and not listens(ports.https):
            assert process.poll() is None, (folder / "error.log").read_text()
            time.sleep(0.05)
        yield ports


def start(folder: Path, proxy: Proxy) -> subprocess.Popen[bytes]:
    """nginx with the example, but for its ports and places."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        + ["-days", "1", "-subj", "/CN=localhost", "-keyout", key, "-out", certificate],
        check=True,
        capture_output=True,
    )
    temporary = "".join(f"{kind}_temp_path {kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    text = CONFIGURATION.read_text(encoding="utf-8")
    for ours, here in (
        ("/etc/nginx/tls/CERTIFICATE.PEM", str(certificate)),
        ("/etc/nginx/tls/KEY.PEM", str(key)),
        ("/run/nginx.pid", str(folder / "nginx.pid")),
        ("/dev/stderr", str(folder / "error.log")),
        ("/dev/stdout", str(folder / "access.log")),
        ("server 127.0.0.1:8000", f"server {LOOPBACK}:{proxy.gateway.port}"),
        ("listen 127.0.0.1:8443", f"listen {LOOPBACK}:{proxy.https}"),
        ("listen 127.0.0.1:8080", f"listen {LOOPBACK}:{proxy.http}"),
        ("http {\n", "http {\n" + temporary),
    ):
        assert text.count(ours) == 1
        text = text.replace(ours, here)
    (folder / "nginx.conf").write_text(text, encoding="utf-8")
    assert NGINX is not None
    owner = "user root; " if os.geteuid() == 0 else ""  # whose folder this is
    common = [NGINX, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")]
    checked = subprocess.run([*common, "-t"], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    return subprocess.Popen([*common, "-g", f"daemon off; {owner}"])


def listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection((LOOPBACK, port), timeout=1):
        return True
    return False


def unfinished(proxy: Proxy, stack: ExitStack, address: str) -> ssl.SSLSocket:
    """A request of which the headers and a little of the body have been sent."""
    plain = socket.create_connection((LOOPBACK, proxy.https), timeout=10, source_address=(address, 0))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    secured = stack.enter_context(context.wrap_socket(plain))
    secured.sendall(f"POST {ROUTE} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nab".encode())
    return secured


def test_clients_that_send_slowly_take_no_connection_of_the_gateway(proxy: Proxy) -> None:
    with ExitStack() as stack:
        slow = [unfinished(proxy, stack, f"127.0.1.{number}") for number in range(1, 61)]
        time.sleep(0.5)
        for each in slow:
            each.sendall(b"c")
        before = proxy.gateway.connections, len(proxy.gateway.requests)
        time.sleep(0.5)
        assert (proxy.gateway.connections, len(proxy.gateway.requests)) == before == (0, 0)
        neighbour = stack.enter_context(proxy.client("127.0.2.1"))
        assert neighbour.post(ROUTE, content=b"x" * 3000).status_code == 200
        # One that sends the rest after all is answered: slow is not refused
        slow[0].sendall(b"d" * 997)
        assert slow[0].recv(100).startswith(b"HTTP/1.1 200")
        assert [size for _, size in proxy.gateway.requests] == [3000, 1000]


def test_an_address_has_so_many_connections_and_no_more(proxy: Proxy) -> None:
    with ExitStack() as stack:
        for _ in range(32):
            unfinished(proxy, stack, "127.0.3.1")
        time.sleep(0.3)
        refused = stack.enter_context(proxy.client("127.0.3.1")).post(ROUTE, content=b"x")
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert refused.headers["content-type"] == "application/problem+json"
        assert json.loads(refused.content)["status"] == 429
        assert stack.enter_context(proxy.client("127.0.3.2")).post(ROUTE, content=b"x").status_code == 200


def test_a_body_that_no_gateway_would_take_stays_outside(proxy: Proxy) -> None:
    before = len(proxy.gateway.requests)
    with proxy.client("127.0.4.1") as client:
        refused = client.post(ROUTE, content=b"x" * 12_000_000)
    assert (refused.status_code, json.loads(refused.content)["status"]) == (413, 413)
    assert len(proxy.gateway.requests) == before


def test_the_largest_audio_file_gets_through_whole(proxy: Proxy) -> None:
    with proxy.client("127.0.4.2") as client:
        assert client.post(ROUTE, content=b"x" * 10_485_760).status_code == 200
    assert proxy.gateway.requests[-1][1] == 10_485_760


def test_a_recording_is_larger_than_an_audio_file(proxy: Proxy) -> None:
    with proxy.client("127.0.4.3") as client:
        assert client.post("/v1/recordings", content=b"x" * 12_000_000).status_code == 200
    assert proxy.gateway.requests[-1][1] == 12_000_000


def test_a_socket_is_asked_for_where_it_is_served_and_nowhere_else(proxy: Proxy) -> None:
    asks = {"Connection": "Upgrade", "Upgrade": "websocket"}
    with proxy.client("127.0.4.4") as client:
        client.post("/v1/stream", content=b"x", headers=asks)
        headers, _ = proxy.gateway.requests[-1]
        assert (headers["Upgrade"], headers["Connection"]) == ("websocket", "upgrade")
        client.post(ROUTE, content=b"x", headers=asks)
        assert "Upgrade" not in proxy.gateway.requests[-1][0]


def test_the_gateway_learns_the_clients_address_and_not_what_the_client_says_of_it(proxy: Proxy) -> None:
    with proxy.client("127.0.5.1") as client:
        client.post(ROUTE, content=b"x", headers={"X-Forwarded-For": "203.0.113.9", "Authorization": "Bearer k"})
    headers, _ = proxy.gateway.requests[-1]
    assert headers["X-Forwarded-For"] == "127.0.5.1"
    assert headers["X-Forwarded-Proto"] == "https"
    assert headers["Authorization"] == "Bearer k"


def test_plain_http_is_sent_to_https_with_its_method(proxy: Proxy) -> None:
    answer = httpx.post(f"http://{LOOPBACK}:{proxy.http}{ROUTE}", content=b"x")
    assert (answer.status_code, answer.headers["location"]) == (308, f"https://{LOOPBACK}{ROUTE}")


def test_a_gateway_that_is_not_there_is_a_503_with_a_time_to_come_back(tmp_path: Path) -> None:
    alone = Proxy(free_port(), free_port(), Gateway(port=free_port()))
    process = start(tmp_path, alone)
    try:
        while not listens(alone.https):
            time.sleep(0.05)
        with alone.client() as client:
            answer = client.post(ROUTE, content=b"x", headers={"Authorization": "Bearer secret"})
    finally:
        process.terminate()
        process.wait()
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert json.loads(answer.content)["status"] == 503
    logged = (tmp_path / "access.log").read_text() + (tmp_path / "error.log").read_text()
    assert "secret" not in logged
    assert json.loads(re.sub(r"\n.*", "", (tmp_path / "access.log").read_text()))["path"] == ROUTE
