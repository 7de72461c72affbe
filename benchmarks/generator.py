"""What the load generator costs: thousands of devices in one process, against a stand-in that answers after a second.

    python -m benchmarks.generator

Each device speaks once a minute in the mean, on its own connection, which it keeps for 55 s: at any time about 60 % of
the fleet have one open. A minute of warming up, in which the connections are made, is not measured.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

import numpy as np
import psutil
from rich.table import Table

from benchmarks.measuring import command
from benchmarks.measuring.console import output, run_status, table
from benchmarks.measuring.report import write_rows
from edge_sim.protocol import ANSWER_BODY, ANSWER_HEADER
from load_tests.commands import count, not_negative, positive
from load_tests.fleet.run import run_scenario

PERIOD_S: Final = 60.0  # between two utterances of a device
ANSWER_AFTER_S: Final = 1.0
FLEETS: Final = (1000, 5000, 10_000)
COLUMNS: Final = {
    "devices": "devices",
    "requests_per_second": "requests\na second",
    "connections": "connections",
    "generator_cores": "cores",
    "cpu_ms_per_request": "CPU ms\na request",
    "p99_late_ms": "p99\nlate, ms",
    "late_starts": "late",
    "failures": "failures",
    "rss_mb": "MB",
}
BACKLOG: Final = 4096  # connections that may wait to be accepted
ANSWER: Final = ANSWER_HEADER.replace(b"content-length: ", b"content-length: %d" % len(ANSWER_BODY)) + ANSWER_BODY


class _Answering(asyncio.Protocol):
    """Reads a request, and answers after a second."""

    def __init__(self) -> None:
        self._read = b""
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._read += data
        head, found, body = self._read.partition(b"\r\n\r\n")
        if found and len(body) >= int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0]):
            self._read = b""
            asyncio.get_running_loop().call_later(ANSWER_AFTER_S, self._answer)

    def _answer(self) -> None:
        if not self._transport.is_closing():
            self._transport.write(ANSWER)


async def answer() -> None:
    """Prints its port and serves until it is ended."""
    server = await asyncio.get_running_loop().create_server(_Answering, "127.0.0.1", 0, backlog=BACKLOG)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextmanager
def answering() -> Iterator[str]:
    """URL of a stand-in for the cluster, in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.generator", "--answer"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.wait()


def row(devices: int, warm_up_s: float, seconds: float, seed: int) -> dict[str, Any]:
    """One line of the table."""
    with answering() as url, run_status(f"{devices:,} devices") as show:
        run = run_scenario(
            "steady",
            url,
            rate=devices / PERIOD_S,
            seconds=warm_up_s + seconds,
            devices=devices,
            seed=seed,
            progress=show,
        )
    samples = [each for each in run.samples if each.scheduled_s >= warm_up_s]
    late_s = [each.sent_s - each.scheduled_s for each in samples if each.sent_s is not None]
    # Those that begin after the warm-up, and end before the last answers are waited for
    cores = float(
        np.mean([snapshot.generator_cpu for snapshot in run.snapshots[1:] if warm_up_s < snapshot.at_s <= run.seconds])
    )
    rate = len(samples) / seconds
    return {
        "devices": devices,
        "requests_per_second": round(rate, 2),
        "connections": run.about["connections"],
        "generator_cores": round(cores, 4),
        "cpu_ms_per_request": round(1000 * cores / rate, 3),
        "p99_late_ms": round(1000 * float(np.percentile(late_s, 99)), 3),
        "late_starts": run.late_starts,
        "failures": sum(not each.ok for each in run.samples),
        "rss_mb": round(psutil.Process().memory_info().rss / 2**20),
    }


def rows_table(rows: Sequence[dict[str, Any]]) -> Table:
    """The rows as they are printed."""
    made = table("Load generator", tuple(COLUMNS.values()), words=0)
    for each in rows:
        made.add_row(*(str(each[column]) for column in COLUMNS))
    return made


@command.benchmark("generator")
def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = command.parser("generator", __doc__)
    add = parser.add_argument
    add("--devices", type=count, nargs="+", default=FLEETS, metavar="N", help="of each fleet (default: %(default)s)")
    add("--seconds", type=positive, default=60.0, metavar="S", help="that are measured (default: %(default)g)")
    add("--warm-up", type=not_negative, default=60.0, metavar="S", help="seconds before them (default: %(default)g)")
    add("--seed", type=int, default=0, metavar="N", help="of schedule and fleet (default: %(default)s)")
    add("--answer", action="store_true", help=argparse.SUPPRESS)
    options = command.parse(parser, arguments)
    if options.answer:
        with suppress(KeyboardInterrupt):
            asyncio.run(answer())
        return
    command.require_weights([command.CONVERSATION])
    rows = []
    for devices in options.devices:
        rows.append(row(devices, options.warm_up, options.seconds, options.seed))
        write_rows(options.json, rows, seconds=options.seconds, answer_after_s=ANSWER_AFTER_S)
    output().print(rows_table(rows))


if __name__ == "__main__":
    main()
