"""Scenarios: those of the package can be run, and what is wrong in one's own is named by file and field."""

from __future__ import annotations

from pathlib import Path

import pytest

from load_tests.fleet.arrivals import Burst, Constant
from load_tests.fleet.scenario import (
    BadScenario,
    Misbehaviour,
    load_scenario,
    scenario_names,
)

ARRIVALS = "arrivals: {kind: constant, seconds: 10, rate: 2}\n"


def own(folder: Path, text: str) -> str:
    file = folder / "own.yaml"
    file.write_text(text)
    return str(file)


def test_the_scenarios_of_the_package() -> None:
    expected = {
        "steady",
        "ramp",
        "spike",
        "diurnal",
        "mixed-devices",
        "bad-clients",
        "lossy-link",
        "soak",
        "soak-bad-clients",
    }
    assert set(scenario_names()) == expected
    for name in expected:
        scenario = load_scenario(name)
        assert scenario.name == name
        assert scenario.description.endswith(".")


def test_what_some_of_them_say() -> None:
    assert load_scenario("spike").arrivals == Burst(60, 2, 8, 25, 10)
    assert load_scenario("soak").seconds == 1800
    assert load_scenario("bad-clients").misbehaviour[Misbehaviour.BROKEN] == 0.1
    assert load_scenario("lossy-link").link.loss == 0.1


def test_a_rate_a_length_and_a_fleet_from_the_command_line() -> None:
    adjusted = load_scenario("spike").adjusted(rate=4, seconds=30, devices=7)
    assert adjusted.arrivals == Burst(30, 4, 16, 12.5, 5)
    assert adjusted.devices == 7


@pytest.mark.parametrize("wrong", [{"rate": 0}, {"seconds": -1}, {"devices": 0}, {"rate": float("nan")}])
def test_a_number_that_is_none_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(BadScenario, match=f"steady: {next(iter(wrong))} is"):
        load_scenario("steady").adjusted(**wrong)  # type: ignore[arg-type]


def test_ones_own_is_read_from_its_path(tmp_path: Path) -> None:
    scenario = load_scenario(own(tmp_path, "description: Mine.\nstrict: true\ndeadline_ms: 900\n" + ARRIVALS))
    assert scenario.name == "own"
    assert scenario.arrivals == Constant(10, 2)
    assert (scenario.strict, scenario.deadline_ms) == (True, 900)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("description: A.\n", "own.yaml: arrivals: Field required"),
        ("description: A.\nspeed: 3\n" + ARRIVALS, "own.yaml: speed: Extra inputs"),
        ("description: A.\nmix: {phone: 0.5}\n" + ARRIVALS, "own.yaml: mix: the shares add up to 0.5"),
        ("description: A.\nmix: {fridge: 1}\n" + ARRIVALS, "own.yaml: mix: no device fridge; there are phone"),
        ("description: A.\nmisbehaviour: {rude: 1}\n" + ARRIVALS, r"own.yaml: misbehaviour.rude"),
        ("description: A.\nlink: {loss: 1}\n" + ARRIVALS, "own.yaml: link.loss: Input should be less than 1"),
        ("description: A.\narrivals: {kind: never}\n", "own.yaml: arrivals: .*never"),
        ("description: A.\narrivals: {kind: constant, seconds: 9, rate: -1}\n", "own.yaml: arrivals.constant.rate"),
        ("description: A.\narrivals: {kind: constant, seconds: 9, rate: 1, x: 1}\n", "own.yaml: arrivals.constant.x"),
        ("description: A.\narrivals: {kind: replay, file: no.csv}\n", "own.yaml: .*no.csv"),
        ("- a list\n", "own.yaml: is no mapping"),
        ("a: [\n", "own.yaml: while parsing"),
    ],
)
def test_what_is_wrong_is_named_by_file_and_field(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BadScenario, match=message):
        load_scenario(own(tmp_path, text))


def test_an_unknown_name_lists_those_there_are() -> None:
    with pytest.raises(BadScenario, match="no scenario 'nix'; there are bad-clients, .*steady"):
        load_scenario("nix")


def test_a_replay_is_beside_its_scenario(tmp_path: Path) -> None:
    (tmp_path / "calls.csv").write_text("seconds\n1\n3\n")
    scenario = load_scenario(own(tmp_path, "description: A.\narrivals: {kind: replay, file: calls.csv}\n"))
    assert scenario.seconds == 3
    assert scenario.adjusted(seconds=6).seconds == pytest.approx(6)
