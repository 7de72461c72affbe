"""What composing six deployments costs: the same work distributed and fused, in Serve's default and throughput modes.

    python -m benchmarks.composition

Clients send the turns of the sample conversation and wait for each answer (closed loop). CPU is that of every process
of the cluster; the clients' own is left out.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import numpy as np
from rich.table import Table

from amser.client.device import Device, DeviceSettings
from amser.client.exchange.failures import SendFailed
from benchmarks.measuring import command
from benchmarks.measuring.cluster import CONFIGS, cpu_seconds, require_models, running
from benchmarks.measuring.console import output, status, table
from benchmarks.measuring.report import write_rows
from deployments.local_cluster import LocalCluster
from edge_sim.conversation import load_conversation
from load_tests.commands import count, positive
from models.weights import model_path

MODES = ("default", "throughput")
WARM_UP_S = 4.0
Row = dict[str, Any]


def measure(cluster: LocalCluster, clients: int, seconds: float) -> Row:
    """Requests a second, latency and CPU of `clients` that send for `seconds`."""
    _drive(cluster.url, clients, WARM_UP_S)
    cpu_before = cpu_seconds(cluster)
    started = time.perf_counter()
    latencies, failures = _drive(cluster.url, clients, seconds)
    elapsed = time.perf_counter() - started
    cpu = cpu_seconds(cluster) - cpu_before
    return {
        "clients": clients,
        "requests_per_second": round(len(latencies) / elapsed, 3),
        "p50_ms": round(float(np.percentile(latencies, 50)), 1),
        "p99_ms": round(float(np.percentile(latencies, 99)), 1),
        "cpu_ms": round(1000 * cpu / len(latencies), 1),
        "requests": len(latencies),
        "failures": failures,
    }


def _drive(url: str, clients: int, seconds: float) -> tuple[list[float], int]:
    """Milliseconds of each answer, and how many requests failed."""
    speech = load_conversation(model_path(command.CONVERSATION))
    deadline = time.perf_counter() + seconds
    latencies: list[float] = []
    failed: list[SendFailed] = []
    lock = threading.Lock()

    def client(number: int) -> None:
        with Device(DeviceSettings(device_id=f"client-{number}", url=url, language="en")) as device:
            prepared = [device.encode(turn.waveform, datetime.now(UTC)) for turn in speech]
            for utterance in itertools.islice(itertools.cycle(prepared), number, None):
                if time.perf_counter() >= deadline:
                    return
                sent = time.perf_counter()
                try:
                    device.send(utterance)
                except SendFailed as error:
                    failed.append(error)
                    continue
                with lock:
                    latencies.append(1000 * (time.perf_counter() - sent))

    with ThreadPoolExecutor(clients) as pool:
        try:
            for future in [pool.submit(client, number) for number in range(clients)]:
                future.result()
        finally:
            deadline = 0.0  # after Ctrl-C nothing more is sent
    if not latencies:
        raise command.NothingMeasured(f"no request was answered; the first failure: {failed[0] if failed else 'none'}")
    return latencies, len(failed)


def rows_table(rows: Sequence[Row]) -> Table:
    """The rows as they are printed."""
    made = table(
        "Composition: what six deployments cost",
        ("profile", "mode", "clients", "requests\na second", "p50 ms", "p99 ms", "CPU ms", "failures"),
        words=2,
    )
    columns = ("profile", "mode", "clients", "requests_per_second", "p50_ms", "p99_ms", "cpu_ms", "failures")
    for row in rows:
        made.add_row(*(str(row[column]) for column in columns))
    return made


@command.benchmark("composition")
def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = command.parser("composition", __doc__)
    add = parser.add_argument
    add("--clients", type=count, nargs="+", default=[1, 8], metavar="N", help="that send at once (default: 1 8)")
    add("--seconds", type=positive, default=20.0, metavar="S", help="of each row (default: %(default)g)")
    add("--rounds", type=count, default=2, metavar="N", help="of each row; the median is kept (default: %(default)s)")
    command.add_log(parser, "composition")
    options = command.parse(parser, arguments)
    require_models(command.CONVERSATION)

    console, rows = output(), list[Row]()
    for profile, mode in itertools.product(CONFIGS, MODES):
        with running(profile, options.log, throughput=mode == "throughput") as cluster:
            for clients in options.clients:
                with status(f"{profile}, {mode}, {clients} clients: {options.rounds} × {options.seconds:g} s"):
                    measured = [measure(cluster, clients, options.seconds) for _ in range(options.rounds)]
                measured.sort(key=lambda row: float(row["requests_per_second"]))
                rows.append({"profile": profile, "mode": mode, **measured[len(measured) // 2]})
                console.print(f"{profile}, {mode}, {clients} clients: {rows[-1]['requests_per_second']} a second")
                write_rows(options.json, rows, seconds=options.seconds)
    console.print(rows_table(rows))


if __name__ == "__main__":
    main()
