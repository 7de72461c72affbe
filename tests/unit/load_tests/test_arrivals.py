"""Schedules are Poisson processes whose rate is the profile's, and the same for the same seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from scipy import stats

from load_tests.fleet import arrivals
from load_tests.fleet.arrivals import (
    BadReplay,
    Burst,
    Constant,
    Diurnal,
    NoRate,
    Ramp,
    RateProfile,
    Replay,
    at_rate,
    schedule,
)

UNLIKELY = 1e-4  # of a test that fails although all is well: the seeds are fixed, so it does not
PROFILES: list[RateProfile] = [
    Constant(1000.0, 5.0),
    Ramp(1000.0, 0.0, 10.0),
    Burst(1000.0, 2.0, 50.0, 400.0, 60.0),
    Diurnal(1000.0, 5.0, 1.9),
]


def integral(profile: RateProfile, until: float) -> float:
    t = np.linspace(0, until, 200_001)
    return float(np.trapezoid(profile.rate_at(t), t))


@pytest.mark.parametrize("profile", PROFILES)
def test_the_expected_arrivals_are_the_integral_of_the_rate(profile: RateProfile) -> None:
    for share in (0.25, 0.43, 1.0):
        until = share * profile.seconds
        assert profile.expected(np.array([until]))[0] == pytest.approx(integral(profile, until), rel=1e-3)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_number_of_arrivals_is_poisson_in_each_tenth(profile: RateProfile, seed: int) -> None:
    edges = np.linspace(0, profile.seconds, 11)
    counts = np.histogram(schedule(profile, seed), edges)[0]
    means = np.diff(profile.expected(edges))
    assert (stats.poisson.cdf(counts, means) > UNLIKELY).all()
    assert (stats.poisson.sf(counts - 1, means) > UNLIKELY).all()


@pytest.mark.parametrize("profile", PROFILES)
def test_gaps_are_exponential_in_expected_arrivals(profile: RateProfile) -> None:
    gaps = np.diff(profile.expected(schedule(profile, 7)))
    assert stats.kstest(gaps, "expon").pvalue > UNLIKELY


def test_counts_of_many_seeds_vary_as_a_poisson_distribution_does() -> None:
    counts = np.array([schedule(Constant(20.0, 5.0), seed).size for seed in range(400)])
    assert counts.mean() == pytest.approx(100, abs=2)
    assert counts.var() == pytest.approx(100, rel=0.25)


@pytest.mark.parametrize("profile", PROFILES)
def test_a_seed_is_a_schedule(profile: RateProfile) -> None:
    times = schedule(profile, 5)
    np.testing.assert_array_equal(times, schedule(profile, 5))
    assert times.size != schedule(profile, 6).size or (times != schedule(profile, 6)).any()
    assert (np.diff(times) >= 0).all()
    assert times.dtype == np.float64
    assert times[0] >= 0
    assert times[-1] <= profile.seconds


def test_a_spike_is_where_it_should_be() -> None:
    times = schedule(Burst(60.0, 2.0, 200.0, 25.0, 10.0), 1)
    inside = ((times >= 25) & (times < 35)).sum()
    assert inside == pytest.approx(2000, abs=180)
    assert times.size - inside == pytest.approx(100, abs=40)


def test_a_day_is_busiest_at_noon_and_has_its_mean() -> None:
    day = Diurnal(600.0, 2.0, 1.9)
    np.testing.assert_allclose(day.rate_at(np.array([0.0, 300.0, 600.0])), [0.2, 3.8, 0.2])
    assert day.expected(np.array([600.0]))[0] == pytest.approx(1200)


def test_a_million_arrivals_take_seconds_at_most() -> None:
    assert schedule(Constant(1000.0, 1000.0), 1).size == pytest.approx(1_000_000, rel=0.01)


def test_a_profile_without_arrivals_has_an_empty_schedule_and_cannot_be_scaled() -> None:
    assert schedule(Constant(10.0, 0.0), 1).size == 0
    with pytest.raises(NoRate):
        at_rate(Constant(10.0, 0.0), 3.0)


def test_a_rate_scales_the_whole_shape() -> None:
    assert at_rate(Burst(60.0, 2.0, 8.0, 25.0, 10.0), 3.0) == Burst(60.0, 3.0, 12.0, 25.0, 10.0)
    assert at_rate(Ramp(60.0, 0.0, 10.0), 10.0) == Ramp(60.0, 0.0, 20.0)


def test_another_length_stretches_the_shape() -> None:
    assert Burst(60.0, 2.0, 8.0, 24.0, 12.0).lasting(30.0) == Burst(30.0, 2.0, 8.0, 12.0, 6.0)


def test_a_profile_refuses_what_is_no_rate() -> None:
    with pytest.raises(ValidationError):
        Constant(10.0, -1.0)
    with pytest.raises(ValidationError):
        Constant(0.0, 1.0)


def replay(folder: Path, text: str) -> Replay:
    file = folder / "arrivals.csv"
    file.write_text(text)
    return Replay(file=file)


def test_a_file_is_replayed_in_the_order_of_its_seconds(tmp_path: Path) -> None:
    profile = replay(tmp_path, "device,seconds\n7,2.5\n3,1\n7,4\n")
    np.testing.assert_array_equal(schedule(profile, 1), [1.0, 2.5, 4.0])
    devices = profile.rows[1]
    assert devices is not None
    assert devices.tolist() == [3, 7, 7]
    assert profile.seconds == 4.0


def test_a_replay_at_twice_the_rate_takes_half_the_time(tmp_path: Path) -> None:
    profile = replay(tmp_path, "seconds\n1\n2\n4\n")
    faster = at_rate(profile, 2 * profile.base)
    np.testing.assert_allclose(faster.times, [0.5, 1.0, 2.0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("time\n1\n", "line 1: needs a column `seconds`"),
        ("seconds\n1\nsoon\n", "line 3: 'soon' is no number"),
        ("seconds\n1\n-2\n", "line 3: '-2' is no number"),
        ("seconds\nnan\n", "line 2: 'nan' is no number"),
        ("seconds,device\n1,1\n2,x\n", "line 3: 'x' is no number of a device"),
        ("seconds,device\n1\n", "line 2: None is no number of a device"),
        ("seconds\n", "has no arrival"),
    ],
)
def test_a_bad_row_is_named_by_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BadReplay, match=message):
        _ = replay(tmp_path, text).rows


def test_a_file_of_too_many_rows_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrivals, "MOST_ROWS", 2)
    with pytest.raises(BadReplay, match="line 4: more than 2 rows"):
        _ = replay(tmp_path, "seconds\n1\n2\n3\n").rows
