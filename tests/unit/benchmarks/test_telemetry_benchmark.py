"""What the benchmark of telemetry makes of its rounds."""

from __future__ import annotations

import pytest

from benchmarks.measuring.closed_loop import Pass, Reply
from benchmarks.measuring.command import NothingMeasured
from benchmarks.telemetry.__main__ import costs_table, ratio, row

WHOLE = {0: Reply("hello"), 1: Reply("there")}


def test_a_round_has_both_figures_of_both_clusters() -> None:
    passes = {"on": Pass(4.0, (), WHOLE, 0.5, 0.0), "off": Pass(2.0, (), WHOLE, 0.4, 0.0)}
    assert row(3, passes) == {
        "round": 3,
        "first": "on",
        "on_requests_per_second": 0.5,
        "off_requests_per_second": 1.0,
        "on_cpu_ms": 250.0,
        "off_cpu_ms": 200.0,
    }


@pytest.mark.parametrize("poor", [Reply("hello", degraded=True), Reply(failure="429")])
def test_work_that_was_not_the_same_is_no_measurement(poor: Reply) -> None:
    passes = {"off": Pass(2.0, (), WHOLE, 0.4, 0.0), "on": Pass(2.0, (), WHOLE | {1: poor}, 0.4, 0.0)}
    with pytest.raises(NothingMeasured, match="1 requests 'on' got no whole answer"):
        row(1, passes)


def test_the_ratio_is_the_geometric_mean_of_the_rounds() -> None:
    rows = [{"on_cpu_ms": 100 * by, "off_cpu_ms": 100.0, "on_requests_per_second": 1, "off_requests_per_second": 1}
            for by in (0.5, 2.0, 1.0, 1.0)]  # fmt: skip
    mean, low, high = ratio(rows, "cpu_ms")
    assert mean == pytest.approx(1.0)
    assert 0.5 <= low < 1 < high <= 2
    assert costs_table(rows).row_count == 2
