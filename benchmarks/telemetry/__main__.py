"""Throughput and CPU time with metrics, log lines and traces, of those without: two clusters, asked in turns.

    python -m benchmarks.telemetry --manifest SPEECH.tsv

Every request is traced (`sampling: 1`), a hundred times what is the default, and a receiver takes the spans. A round
sends the same clips to both clusters, one after the other; which is first alternates. Rounds can be added to those of
an earlier run.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

import numpy as np
from rich.table import Table

from benchmarks.measuring import command, manifest
from benchmarks.measuring.bootstrap import draws
from benchmarks.measuring.closed_loop import Pass, measure
from benchmarks.measuring.cluster import require_models, running
from benchmarks.measuring.command import NothingMeasured
from benchmarks.measuring.console import output, status, table
from benchmarks.measuring.report import write_rows
from benchmarks.serving import envelopes_to, read_clips
from load_tests.commands import count

OFF: Final = {"telemetry": {"metrics": False, "log": False, "traces": None}}
FIGURES: Final = {"requests_per_second": "requests a second", "cpu_ms": "CPU ms a request"}


def on(endpoint: str) -> dict[str, Any]:
    """Settings with everything that there is."""
    return {"telemetry": {"metrics": True, "log": True, "traces": {"endpoint": endpoint, "sampling": 1}}}


@contextmanager
def receiver() -> Iterator[str]:
    """The URL of a server that takes spans and forgets them."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # noqa: N802 - the base class's name
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1/traces"
    finally:
        server.shutdown()
        server.server_close()


def row(number: int, passes: Mapping[str, Pass]) -> dict[str, Any]:
    """What one round says.

    Raises:
        NothingMeasured: the work was not the same: a request was not answered, or in part.
    """
    made: dict[str, Any] = {"round": number, "first": next(iter(passes))}
    for name, done in passes.items():
        poor = sum(bool(reply.failure) or reply.degraded for reply in done.replies.values())
        if poor:
            raise NothingMeasured(f"round {number}: {poor} requests {name!r} got no whole answer")
        made[f"{name}_requests_per_second"] = len(done.replies) / done.elapsed_s
        made[f"{name}_cpu_ms"] = 1000 * done.cpu_s / len(done.replies)
    return made


def ratio(rows: Sequence[Mapping[str, Any]], figure: str) -> tuple[float, float, float]:
    """A figure with telemetry, of that without: the geometric mean of the rounds, and its 95 % interval."""
    logs = np.log([each[f"on_{figure}"] / each[f"off_{figure}"] for each in rows])
    low, high = np.quantile(draws(len(logs)) @ logs / len(logs), [0.025, 0.975])
    return float(np.exp(logs.mean())), float(np.exp(low)), float(np.exp(high))


def costs_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """The rows as they are printed."""
    made = table(f"Telemetry, {len(rows)} rounds", ("", "off", "on", "on / off", "95 % interval"))
    for figure, name in FIGURES.items():
        off, of_on = (np.median([each[f"{which}_{figure}"] for each in rows]) for which in ("off", "on"))
        mean, low, high = ratio(rows, figure)
        made.add_row(name, f"{off:.2f}", f"{of_on:.2f}", f"{mean:.3f}", f"{low:.3f} to {high:.3f}")
    return made


@command.benchmark("telemetry")
def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    options = command.parse(_parser(), arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # what was started is ended then too
    recordings = manifest.recordings_of(options)
    require_models()
    clips = read_clips(recordings, options.limit)
    console = output()
    rows: list[dict[str, Any]] = json.loads(options.json.read_text()) if options.add and options.json.exists() else []
    about = {"clips": len(clips), "clients": options.clients, "speech_s": round(sum(clip.seconds for clip in clips), 2)}
    with (
        receiver() as endpoint,
        running("fused", options.log, overrides=OFF, num_gpus=0) as off,
        running("fused", options.log, overrides=on(endpoint), num_gpus=0) as with_all,
    ):
        clusters = {"off": off, "on": with_all}
        asked = {name: envelopes_to(each.url, clips) for name, each in clusters.items()}
        for name, each in clusters.items():  # warm
            measure(each, asked[name], range(len(clips)), options.clients)
        for number in range(len(rows) + 1, len(rows) + 1 + options.rounds):
            order = ("off", "on") if number % 2 else ("on", "off")
            with status(f"round {number}"):
                passes = {
                    name: measure(clusters[name], asked[name], range(len(clips)), options.clients) for name in order
                }
            rows.append(row(number, passes))
            write_rows(options.json, rows, **about)
    console.print(costs_table(rows))


def _parser() -> argparse.ArgumentParser:
    parser = command.parser("telemetry", __doc__)
    manifest.add_options(parser, (manifest.PATH,), ("speaker", "seconds"))
    add = parser.add_argument
    add("--limit", type=count, default=16, metavar="N", help="clips, spread over lengths and speakers (%(default)s)")
    add("--clients", type=count, default=4, metavar="N", help="that send at once (%(default)s)")
    add("--rounds", type=count, default=20, metavar="N", help="of both clusters (%(default)s)")
    add("--add", action="store_true", help="to the rounds that the file of rows has")
    command.add_log(parser, "telemetry")
    return parser


if __name__ == "__main__":
    main()
