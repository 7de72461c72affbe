"""A receiver of OpenTelemetry spans: a real HTTP server in a thread that reads OTLP, as a collector would."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass
class Receiver:
    """Attributes:
    endpoint: URL that takes spans.
    spans: all that came, as protocol messages.
    raw: the requests, as they came.
    """

    endpoint: str
    spans: list[Any] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)

    def wait_for(self, name: str, trace_id: str, timeout_s: float = 20) -> list[Any]:
        """The spans of a trace, once one of this name has come."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            found = [span for span in list(self.spans) if span.trace_id.hex() == trace_id]
            if any(span.name == name for span in found):
                return found
            time.sleep(0.1)
        raise AssertionError(f"no span {name!r} of trace {trace_id} within {timeout_s:g} s")


@contextmanager
def receiver() -> Iterator[Receiver]:
    """One that listens on loopback until the end of the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # noqa: N802 - the base class's name
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            received.raw.append(body)
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                for scope in resource.scope_spans:
                    received.spans.extend(scope.spans)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    received = Receiver(f"http://127.0.0.1:{server.server_port}/v1/traces")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield received
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
