"""A run from end to end: histograms and reports that are merged, the command line, and the fleet inside Locust."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from answering import answering, seen
from gevent import monkey

from load_tests.__main__ import main
from load_tests.fleet.distributed import Merged, Reporting, part_of, parts
from load_tests.fleet.generator import LoadGenerator, Part
from load_tests.fleet.monitor import (
    APPLICATIONS,
    UNKNOWN,
    ClusterState,
    Dashboard,
    memory_mb,
    running_replicas,
)
from load_tests.fleet.payloads import prepare
from load_tests.fleet.run import run_scenario
from load_tests.fleet.scenario import load_scenario
from load_tests.report.latency import LatencyHistogram
from load_tests.report.record import Sample, Snapshot, read_run

ROOT = Path(__file__).resolve().parents[3]
SECONDS = np.random.default_rng(1).lognormal(-1, 1, 3001)


@pytest.fixture
def unused_url() -> Iterator[str]:
    """Where nothing listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{unused.getsockname()[1]}"


def test_percentiles_have_three_digits() -> None:
    latencies = LatencyHistogram(SECONDS)
    assert len(latencies) == SECONDS.size
    for percent in (50, 95, 99, 99.9):
        exact = np.percentile(SECONDS, percent, method="inverted_cdf")
        assert latencies.percentile(percent) == pytest.approx(exact, rel=1e-3)


def test_histograms_that_were_encoded_are_merged_without_loss() -> None:
    whole, merged = LatencyHistogram(SECONDS), LatencyHistogram()
    for part in np.array_split(SECONDS, 4):
        merged.add(LatencyHistogram.decoded(LatencyHistogram(part).encoded()))
    assert len(merged) == len(whole)
    assert [merged.percentile(p) for p in range(0, 101)] == [whole.percentile(p) for p in range(0, 101)]


def test_what_is_longer_than_an_hour_counts_as_one() -> None:
    assert LatencyHistogram([7200.0]).percentile(50) == pytest.approx(3600, rel=1e-3)


def reporting(index: int, of: int) -> Reporting:
    """A worker that has done its part of a fleet of ten."""
    scenario = load_scenario("steady").adjusted(devices=10)
    payloads = prepare([np.random.default_rng(1).normal(0, 0.1, 16_000).astype(np.float32)], [("klt", "standard")])
    generator = LoadGenerator(scenario, payloads, "http://127.0.0.1:1", part=Part(index, of))
    for number, seconds in enumerate(SECONDS[index::of]):
        fields: dict[str, Any] = {"degraded": ("text_encoder",), "timings_ms": {"asr": 3.0}, "retry_after_s": None}
        generator.statistics.add(
            Sample(number, number, number + float(seconds), 200, "ok", 1, "phone", "lte", **fields)
        )
    generator.statistics.late_starts = index + 1
    return Reporting(generator, [Snapshot(2.01 + 2 * k + 0.1 * index, {}, 5, 0.25) for k in range(3)])


def test_a_master_merges_what_its_workers_report() -> None:
    merged = Merged()
    workers = {f"worker-{index}": reporting(index, 3) for index in range(3)}
    for finished in (False, True):  # the second report has nothing new
        for name, worker in workers.items():
            assert not merged.is_finished(3)
            merged.add(name, msgpack.unpackb(msgpack.packb(worker.report(finished))))
    assert merged.is_finished(3)
    assert len(merged.samples) == SECONDS.size
    assert merged.samples[0] == Sample(
        0, 0, float(SECONDS[0]), 200, "ok", 1, "phone", "lte", degraded=("text_encoder",), timings_ms={"asr": 3.0}
    )
    assert merged.late_starts == 1 + 2 + 3
    assert merged.latencies.percentile(99) == LatencyHistogram(SECONDS).percentile(99)
    assert [(snapshot.in_flight, snapshot.generator_cpu) for snapshot in merged.snapshots] == [(15, 0.75)] * 3


def test_workers_begin_together_with_a_part_each() -> None:
    messages = parts(["a", "b"], time.time() + 1.0)
    assert [part_of(message)[0] for message in messages.values()] == [Part(0, 2), Part(1, 2)]
    assert all(0.5 < part_of(message)[1] <= 1.0 for message in messages.values())


def test_running_replicas_are_told_apart_from_those_that_start() -> None:
    replicas = [{"state": "RUNNING", "actor_id": "a"}, {"state": "STARTING"}, {"state": "RUNNING", "actor_id": "c"}]
    document = {"applications": {"amser": {"deployments": {"Ingress": {"replicas": replicas}, "Roberta": {}}}}}
    assert running_replicas(document) == {"Ingress": ["a", "c"], "Roberta": []}


def test_the_memory_of_a_deployment_is_that_of_its_replicas_as_far_as_it_is_known() -> None:
    actors = {"a": {"processStats": {"memoryInfo": {"rss": 3_000_000}}}, "b": {"processStats": None}}
    actors["c"] = {"processStats": {"memoryInfo": {"rss": 500_000}}}
    replicas = {"Ingress": ["a", "c"], "Roberta": ["b", "gone"]}
    assert memory_mb(replicas, {"data": {"actors": actors}}) == {"Ingress": 3.5}


def test_replicas_are_counted_though_nothing_is_known_of_their_memory() -> None:
    running = {"Roberta": {"replicas": [{"state": "RUNNING", "actor_id": "a"}]}}

    class WithoutActors(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == APPLICATIONS else 500)
            self.end_headers()
            self.wfile.write(json.dumps({"applications": {"amser": {"deployments": running}}}).encode())

    with HTTPServer(("127.0.0.1", 0), WithoutActors) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        seen_by_it = Dashboard(f"http://127.0.0.1:{server.server_port}").read()
        server.shutdown()
    assert seen_by_it == ClusterState({"Roberta": 1}, {})


def test_a_dashboard_that_is_not_there_knows_nothing() -> None:
    assert Dashboard("http://127.0.0.1:1").read() == UNKNOWN


def test_importing_the_runner_leaves_the_process_unpatched() -> None:
    assert run_scenario.__module__ == "load_tests.fleet.run"
    assert not monkey.is_module_patched("socket")


def test_runs_follow_each_other_in_one_process() -> None:
    progress: list[float] = []
    with answering() as url:
        for seed in (1, 2):
            run = run_scenario(
                "mixed-devices", url, rate=30, seconds=1, seed=seed, progress=lambda at: progress.append(at.elapsed_s)
            )
            assert run.seed == seed
            assert {sample.outcome for sample in run.samples} == {"ok"}
            assert {sample.hardware for sample in run.samples} == {"phone", "speaker", "ear-bud", "lora-sensor"}
            assert all(sample.joules > 0 and sample.bytes_up > 0 for sample in run.samples)
            assert run.snapshots
    assert len(progress) >= 4


def test_a_run_writes_its_record_and_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with answering() as url:
        short = ["--rate", "20", "--seconds", "1"]
        assert main(["run", "steady", "--url", url, *short, "--json", "--report", str(tmp_path)]) == 0
    summary = json.loads(capsys.readouterr().out)
    run = read_run(tmp_path)
    assert summary["ok"] == len(run.samples) > 10
    assert (tmp_path / "report.html").is_file()


@pytest.mark.parametrize(("status", "delay_s", "code"), [(500, 0.0, 1), (429, 0.0, 0), (200, 2.2, 3)])
def test_exit_codes_tell_a_failure_from_a_refusal_and_a_missed_objective(
    status: int, delay_s: float, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with answering(delay_s, status) as url:
        assert main(["run", "steady", "--url", url, "--rate", "9", "--seconds", "0.5"]) == code
    assert "goodput" in capsys.readouterr().out


@pytest.mark.parametrize("command", [["run", "steady"], ["capacity", "--slo-p99-ms", "500"]])
def test_a_url_without_a_cluster_is_said_in_a_line_before_anything_is_encoded(
    command: list[str], unused_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "--url", unused_url]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"load_tests: there is no cluster at {unused_url}: connection refused; start one (")
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    "command",
    [["run", "steady", "--report"], *(["capacity", "--slo-p99-ms", "9", each] for each in ("--json", "--plot"))],
)
def test_results_that_cannot_be_written_are_refused_before_the_work(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    with answering() as url:
        assert main([*command, str(tmp_path / "file" / "result.png"), "--url", url]) == 1
        assert seen(url)["attempts"] == {}
    assert "Not a directory" in capsys.readouterr().err


def test_audio_that_cannot_be_read_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.wav").write_text("no audio")
    with answering() as url:
        assert main(["run", "steady", "--url", url, "--audio", str(tmp_path / "notes.wav")]) == 1
    assert capsys.readouterr().err.startswith(f"load_tests: {tmp_path / 'notes.wav'}: the file is no audio")


def test_a_plot_of_an_unknown_format_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with answering() as url, pytest.raises(SystemExit, match="2"):
        main(["capacity", "--slo-p99-ms", "9", "--plot", "plot.txt", "--url", url])
    assert ".svg, .png or .pdf" in capsys.readouterr().err


def test_a_scenario_that_does_not_exist_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["run", "nix"])
    assert "there are bad-clients" in capsys.readouterr().err


def test_ctrl_c_shows_what_was_measured() -> None:
    with answering() as url:
        process = subprocess.Popen(
            [sys.executable, "-m", "load_tests", "run", "steady", "--url", url, "--rate", "30"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(600):
            if len(seen(url)["attempts"]) > 5:
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "answered" in output
    assert "Traceback" not in errors


def ports() -> list[str]:
    """Options that let a master and its workers meet at an unused port."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = str(unused.getsockname()[1])
    return ["--master-bind-port", port, "--master-port", port]


def locust(*arguments: str) -> tuple[int, str]:
    """Its exit code and all that it printed; its workers end with it."""
    command = [sys.executable, "-m", "locust", "-f", "load_tests/locustfile.py", "--headless", "--only-summary"]
    process = subprocess.Popen(
        [*command, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        return process.wait(60), process.communicate()[0]
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def test_locust_runs_a_closed_loop_of_patient_devices() -> None:
    with answering(delay_s=0.1) as url:
        code, output = locust("-u", "3", "-r", "3", "-t", "2s", "--host", url)
        attempts = len(seen(url)["attempts"])
    assert code == 0, output
    assert 20 < attempts <= 66
    assert "0(0.00%)" in output


@pytest.mark.parametrize("processes", [1, 2])
def test_locust_says_that_there_is_no_cluster_in_place_of_empty_tables(processes: int, unused_url: str) -> None:
    several = ["--processes", "2", *ports()] if processes == 2 else []
    started = time.monotonic()
    code, output = locust("-u", "2", "--host", unused_url, *several)
    assert code == 1
    assert f"there is no cluster at {unused_url}: connection refused" in output
    assert "Traceback" not in output
    assert time.monotonic() - started < 30


def test_without_a_host_locust_takes_the_cluster_of_this_machine() -> None:
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", 8000)) == 0:
            pytest.skip("something else listens at port 8000")
    code, output = locust("-u", "1", "-t", "1s")
    assert code == 1
    assert "there is no cluster at http://127.0.0.1:8000" in output


def test_locusts_page_says_that_there_is_no_cluster(unused_url: str) -> None:
    port = ports()[1]
    command = [sys.executable, "-m", "locust", "-f", "load_tests/locustfile.py", "--web-host", "127.0.0.1"]
    process = subprocess.Popen(
        [*command, "--web-port", port, "--host", unused_url, "--autostart", "-t", "5s", "--autoquit", "0"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert f"there is no cluster at {unused_url}" in process.communicate(timeout=60)[0]
    finally:
        process.kill()


def test_two_locust_processes_share_a_scenario_out(tmp_path: Path) -> None:
    own = tmp_path / "short.yaml"
    own.write_text("description: Short.\narrivals: {kind: constant, seconds: 2, rate: 30}\ndevices: 40\n")
    with answering() as url:
        _, output = locust(
            "--scenario", str(own), "--processes", "2", *ports(), "--report", str(tmp_path), "--host", url
        )
        attempts = len(seen(url)["attempts"])
    run = read_run(tmp_path)
    assert run.about["workers"] == 2
    assert len(run.samples) == attempts > 40
    assert {sample.outcome for sample in run.samples} == {"ok"}
    assert "terminate called" not in output
