"""Service times and what is planned from them: synthetic costs where a value is to follow, measured ones elsewhere."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest

from load_tests.commands import plan as plan_command
from load_tests.simulation.application import AFTER, DEPLOYMENTS, build
from load_tests.simulation.planning import Demand, NoPlan, Offer, plan, predict
from load_tests.simulation.service_times import (
    MEASURED,
    Cost,
    ServiceTime,
    ServiceTimes,
    Serving,
    read,
    write,
)
from load_tests.simulation.stage import Request

SPEECH_S = 2.0


def request(speech_s: float, tokens: float) -> Request:
    return Request(0, 0.0, 1.0, speech_s, tokens, {})


def synthetic(asr_ms: float = 100.0, overhead_ms: float = 60.0) -> ServiceTimes:
    """Every utterance alike, and every stage but the recogniser without cost."""
    exact = (1.0, 1.0)
    stages = {name: ServiceTime({"all": Cost()}, exact) for name in DEPLOYMENTS}
    stages["asr"] = ServiceTime({"all": Cost(item=asr_ms)}, exact)
    serving = {name: Serving() for name in DEPLOYMENTS}
    serving["asr"] = Serving(gpu=0.5)
    overhead = {"distributed": overhead_ms, "fused": overhead_ms / 6}
    return ServiceTimes(stages, serving, 1.0, overhead, "synthetic", ((SPEECH_S, 8),), ((SPEECH_S, 8),) * 8, {})


def demand(rate: float, slo_p99_ms: float = 1000.0) -> Demand:
    return Demand(round(rate * 3600), 1.0, SPEECH_S, slo_p99_ms, peak_factor=1.0)


def test_a_batch_costs_what_its_terms_say() -> None:
    cost = Cost(call=1, item=10, second=100, longest_token=1000, token=0.1, padded_token=0.01)
    assert cost.milliseconds([1.5, 0.5], [3, 7]) == pytest.approx(1 + 20 + 200 + 7000 + 1.0 + 0.14)


def test_what_is_drawn_is_the_fitted_cost_times_a_measured_residual() -> None:
    time = ServiceTime({"encode": Cost(item=10), "decode": Cost(call=2, second=4)}, (0.5, 1.0, 3.0))
    batch = [request(1.0, 5), request(2.0, 9)]
    drawn = [time.service(speed_up=2.0)(batch, random) for random in [Random(1)] for _ in range(4000)]
    alone_s = (20 + 2 + 12) / 1000 / 2
    assert min(drawn) >= 0.5 * alone_s
    assert max(drawn) <= 3.0 * alone_s
    assert np.median(drawn) == pytest.approx(alone_s, rel=0.05)
    assert np.mean(drawn) == pytest.approx(alone_s * time.mean_residual, rel=0.05)
    assert time.mean_residual == pytest.approx((0.75 + 2.0) / 2)


def test_service_times_are_read_as_they_were_written(tmp_path: Path) -> None:
    file = tmp_path / "times.json"
    write(synthetic(), file)
    assert read(file) == synthetic()


def test_a_file_without_service_times_says_how_to_measure_them(tmp_path: Path) -> None:
    file = tmp_path / "times.json"
    file.write_text("{}")
    with pytest.raises(ValueError, match=r"python -m benchmarks\.service_times"):
        read(file)


def test_what_was_measured_covers_every_stage_and_speech_of_the_wanted_length() -> None:
    times = read(MEASURED)
    assert times.stages.keys() == times.serving.keys() == DEPLOYMENTS.keys() == AFTER.keys() | {"ingress"}
    assert all(stage.mean_ms(3.0, 10) > 0 for stage in times.stages.values())
    speech = times.speech(20_000, 3.0, seed=1)
    assert speech.mean() == pytest.approx(3.0, rel=0.05)
    tokens = times.tokens(speech, seed=1)
    assert 2.0 < tokens.sum() / speech.sum() < 8.0  # English is spoken at three to five a second
    assert np.corrcoef(speech, tokens)[0, 1] > 0.7


def test_the_distributed_profile_shares_the_overhead_among_its_hops() -> None:
    distributed, fused = build(synthetic(), "distributed"), build(synthetic(), "fused")
    assert [each.name for each in distributed.deployments] == list(DEPLOYMENTS.values())
    assert sum(each.hop_s for each in distributed.deployments) == pytest.approx(0.060)
    (together,) = fused.deployments
    assert [stage.name for stage in together.stages] == list(DEPLOYMENTS)
    assert together.hop_s == pytest.approx(0.010)


def test_a_lone_request_takes_its_stages_and_the_hops_on_its_way() -> None:
    """The two text branches run side by side, so five of six hops are in a row."""
    lone = predict(0.01, 10_000, "distributed", service_times=synthetic())
    assert lone.p50_ms == pytest.approx(100 + 5 * 10, rel=1e-6)
    assert predict(0.01, 10_000, "fused", service_times=synthetic()).p50_ms == pytest.approx(110, rel=1e-6)


def test_latency_and_load_grow_with_the_rate() -> None:
    low, high = (predict(rate, 600, "distributed", service_times=synthetic()) for rate in (2.0, 8.0))
    assert low.p99_ms < high.p99_ms
    assert low.utilization == pytest.approx(2 * 0.160 / 2, rel=0.1)
    assert high.utilization == pytest.approx(8 * 0.160 / 2, rel=0.1)
    assert high.busy["WhisperASR"] > low.busy["WhisperASR"] >= 0.2 * 0.9
    assert predict(2.0, 600, "distributed", service_times=synthetic()) == low


def test_a_prediction_without_time_for_answers_says_how_many_there_were() -> None:
    overloaded = predict(40.0, 60, "distributed", service_times=synthetic(), deadline_s=2.0)
    assert overloaded.answered < 0.5
    assert overloaded.p99_ms < 4000


def test_a_plan_has_the_cores_and_threads_of_its_load_and_keeps_the_objective() -> None:
    found = plan(demand(50.0), Offer(cores_per_node=4), synthetic())
    assert found.prediction.p99_ms <= 1000
    assert found.nodes * 4 >= 50 * 0.160
    assert found.replicas["WhisperASR"] >= 50 * 0.100
    assert found.prediction.utilization == pytest.approx(50 * 0.160 / (4 * found.nodes), rel=0.05)
    assert found.cost_per_hour == pytest.approx(found.nodes * 4 * Offer().price_core_hour)
    assert found.cost_per_million == pytest.approx(found.cost_per_hour / (50 * 3600) * 1e6)


def test_a_tighter_objective_takes_more() -> None:
    loose, tight = (plan(demand(50.0, slo), Offer(cores_per_node=4), synthetic()) for slo in (1000.0, 350.0))
    assert tight.prediction.p99_ms <= 350
    assert (tight.nodes, tight.replicas["WhisperASR"]) > (loose.nodes, loose.replicas["WhisperASR"])


@pytest.mark.slow
def test_a_large_cluster_is_planned_in_cells_and_grows_in_proportion() -> None:
    slow = synthetic(asr_ms=400.0)
    small, large = (plan(demand(rate, 3000.0), Offer(cores_per_node=4), slow) for rate in (40.0, 320.0))
    assert (small.cells, large.cells) == (1, 2)
    assert large.nodes == pytest.approx(8 * small.nodes, rel=0.2)
    assert large.replicas["WhisperASR"] == pytest.approx(8 * small.replicas["WhisperASR"], rel=0.2)


def test_gpus_take_their_share_of_the_replicas_and_make_stages_faster() -> None:
    offer = Offer(gpus_per_node=1, gpu_speed_up={"asr": 10.0})
    found = plan(demand(50.0), offer, synthetic())
    assert found.gpus * 2 >= found.replicas["WhisperASR"] >= 1
    assert found.gpus <= found.nodes
    assert found.prediction.p50_ms < 100
    assert found.cost_per_hour > found.gpus * offer.price_gpu_hour


def test_no_cluster_is_planned_for_what_even_an_empty_one_does_not_keep() -> None:
    with pytest.raises(NoPlan, match="p99 of an empty cluster is 150 ms"):
        plan(demand(10.0, slo_p99_ms=100.0), Offer(), synthetic())


@pytest.mark.parametrize("wrong", [{"devices": 0}, {"speech_s": -1.0}, {"peak_factor": 0.0}])
def test_a_demand_of_nothing_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        replace(demand(1.0), **wrong)  # type: ignore[arg-type]


def command(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    plan_command.add_to(parser.add_subparsers(required=True))
    options = parser.parse_args(["plan", *arguments])
    return int(options.run(options))


def test_the_command_prints_replicas_costs_and_what_it_assumed(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--devices", "2_000", "--slo-p99-ms", "3000") == 0
    printed = capsys.readouterr().out
    assert "2,000 devices, 8.3 requests a second at the peak" in printed
    assert all(name in printed for name in DEPLOYMENTS.values())
    assert "Assumed:" in printed
    assert "prices are examples" in printed


def test_the_command_prints_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--devices", "2000", "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["prediction"]["p99_ms"] <= 3000
    assert printed["replicas"].keys() == set(DEPLOYMENTS.values())
    assert len(printed["assumptions"]) >= 6


def test_validation_shows_the_error_of_each_percentile(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    times, rows = tmp_path / "times.json", tmp_path / "rows.json"
    write(synthetic(), times)
    measured = {"rate": 0.01, "measured_p50_ms": 100.0, "measured_p95_ms": 150.0, "measured_p99_ms": 300.0}
    rows.write_text(json.dumps([measured]))
    assert command("--validate", str(rows), "--service-times", str(times), "--json") == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["predicted_p50_ms"] == 150.0
    assert [row[f"error_p{each}_ms_percent"] for each in (50, 95, 99)] == [50.0, 0.0, -50.0]


def test_validation_of_something_else_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = tmp_path / "rows.json"
    rows.write_text('[{"rate": 1}]')
    assert command("--validate", str(rows)) == 1
    assert "measured_p50_ms" in capsys.readouterr().err
