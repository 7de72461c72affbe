"""The headers by which a client says until when it waits, and whether a partial answer will do."""

from __future__ import annotations

import pytest

from deployments.gateway.preferences import Preferences, read_preferences
from deployments.gateway.problems import Refusal
from deployments.replica.deadline import remaining


def read(headers: dict[str, str]) -> Preferences:
    return read_preferences(headers, longest_s=25)


def test_without_a_header_an_answer_may_take_as_long_as_any() -> None:
    preferences = read({})
    assert preferences.within_s == 25
    assert remaining(preferences.deadline) == pytest.approx(25, abs=1)
    assert not preferences.strict


@pytest.mark.parametrize(("asked", "seconds"), [("3000", 3), ("1", 0.001), ("900000", 25)])
def test_a_deadline_can_be_nearer_and_never_further(asked: str, seconds: float) -> None:
    preferences = read({"amser-deadline-ms": asked})
    assert preferences.within_s == seconds
    assert remaining(preferences.deadline) == pytest.approx(seconds, abs=0.5)


@pytest.mark.parametrize("asked", ["0", "-1", "2.5", "soon", "", "9" * 5000, "１２"])
def test_a_deadline_that_is_none_is_refused(asked: str) -> None:
    with pytest.raises(Refusal) as refused:
        read({"amser-deadline-ms": asked})
    assert refused.value.status == 400
    assert refused.value.limit == "a whole number of milliseconds above 0"


@pytest.mark.parametrize(
    ("asked", "strict"),
    [
        ("handling=strict", True),
        ("respond-async, Handling=Strict", True),
        ("handling=lenient", False),
        ("handling=stricter", False),
    ],
)
def test_a_client_may_prefer_all_or_nothing(asked: str, strict: bool) -> None:
    assert read({"prefer": asked}).strict is strict
