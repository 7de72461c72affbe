"""The dashboard drawn: every panel is asked for, and what shows nothing is named."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs

import httpx
import pytest

from benchmarks.plots.dashboard import draw, query, shortly

SILENT = "ray_amser_limited_total"  # of which this Prometheus has nothing


@pytest.fixture
def prometheus() -> Iterator[str]:
    """One that has a line of two points, and a hole, for every question but one."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # noqa: N802 - the name that http.server looks for
            asked = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            start, expression = float(asked["start"][0]), asked["query"][0]
            assert "$__" not in expression
            points = [[start, "1"], [start + 5, "NaN"], [start + 10, "3"]]
            result = [] if SILENT in expression else [{"metric": {"stage": "asr"}, "values": points}]
            content = json.dumps({"status": "success", "data": {"resultType": "matrix", "result": result}}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_picture_is_drawn_and_the_panel_without_data_is_named(prometheus: str, tmp_path: Path) -> None:
    assert draw(prometheus, time.time() - 60, tmp_path / "dashboard.png") == ["Limits reached"]
    assert (tmp_path / "dashboard.png").read_bytes().startswith(b"\x89PNG")


def test_a_series_has_the_name_of_its_labels_and_no_holes(prometheus: str) -> None:
    with httpx.Client(base_url=prometheus) as client:
        found = query(client, {"expr": "rate(x[$__rate_interval])", "legendFormat": "{{stage}} p95"}, 1000.0)
    assert found == [("asr p95", [0.0, 10.0], [1.0, 3.0])]


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (0.123, "percentunit", "12.3 %"), (0.25, "s", "250 ms"), (3, "s", "3 s"), (2.1e9, "bytes", "2.1 GB"),
        (1500, "Bps", "1.5 kB/s"), (12.5, "reqps", "12.5/s"), (4, "none", "4"), (2500, "none", "2,500"),
    ],
)  # fmt: skip
def test_values_carry_their_unit(value: float, unit: str, shown: str) -> None:
    assert shortly(value, unit) == shown
