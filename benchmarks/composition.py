"""What composing six deployments costs: the same work distributed and fused, in Serve's default and throughput modes.

    python -m benchmarks.composition --json FILE

Clients send the turns of the sample conversation and wait for each answer (closed loop). CPU is that of every process
of the cluster; the clients' own is left out.
"""

from __future__ import annotations

import argparse
import itertools
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from amser.client.device import Device, DeviceSettings, SendFailed
from benchmarks.measuring.report import write_rows
from deployments.local_cluster import DEFAULT_CONFIG, LocalCluster
from edge_sim.conversation import load_conversation
from models.weights import model_path

CONFIGS = {"distributed": DEFAULT_CONFIG, "fused": DEFAULT_CONFIG.with_name("serve_config.fused.yaml")}
MODES = ("default", "throughput")
WARM_UP_S = 4.0


def measure(cluster: LocalCluster, clients: int, seconds: float) -> dict[str, object]:
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
    speech = load_conversation(model_path("sample-conversation"))
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
        for future in [pool.submit(client, number) for number in range(clients)]:
            future.result()
    if not latencies:
        raise SystemExit(f"no request was answered; the first failure: {failed[0] if failed else 'none'}")
    return latencies, len(failed)


def cpu_seconds(cluster: LocalCluster) -> float:
    """That all processes of a cluster have used so far."""
    total = 0.0
    for process in cluster.processes():
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    return total


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.composition", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--json", type=Path, required=True, help="where the rows go")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--seconds", type=float, default=20.0, help="for each row")
    parser.add_argument("--rounds", type=int, default=2, help="times that each row is measured; the median is kept")
    parser.add_argument("--log", type=Path, default=Path("runs/composition.log"), help="what Ray prints")
    options = parser.parse_args(arguments)

    console = Console()
    rows: list[dict[str, object]] = []
    for profile, mode in itertools.product(CONFIGS, MODES):
        with LocalCluster(CONFIGS[profile], log=options.log, http_port=0, throughput=mode == "throughput") as cluster:
            cluster.wait_until_ready()
            for clients in options.clients:
                measured = [measure(cluster, clients, options.seconds) for _ in range(options.rounds)]
                measured.sort(key=lambda row: float(str(row["requests_per_second"])))
                rows.append({"profile": profile, "mode": mode, **measured[len(measured) // 2]})
                console.print(rows[-1])
                write_rows(options.json, rows, command="benchmarks.composition", seconds=options.seconds)
    columns = ("profile", "mode", "clients", "requests_per_second", "p50_ms", "p99_ms", "cpu_ms", "failures")
    table = Table(*columns, title="Composition")
    for row in rows:
        table.add_row(*(str(row[column]) for column in columns))
    console.print(table)


if __name__ == "__main__":
    main()
