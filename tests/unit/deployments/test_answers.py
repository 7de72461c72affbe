"""What an error of the pipeline means for the client, where no request over HTTP brings it about."""

from __future__ import annotations

import pytest
from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError

from amser import wire
from deployments.gateway.admission import Overloaded
from deployments.gateway.answers import refusal, server_timing
from deployments.replica.deadline import DeadlinePassed


@pytest.mark.parametrize(("within_s", "limit"), [(25.0, "25 s"), (0.5, "0.5 s"), (0.001, "0.001 s")])
def test_a_deadline_that_passed_is_504_and_names_the_limit_that_applied(within_s: float, limit: str) -> None:
    refused = refusal(TimeoutError(), within_s, retry_after_s=1)
    assert refused is not None
    assert (refused.status, refused.limit, refused.retry_after_s) == (504, limit, None)


def test_a_full_stage_is_429_with_a_time_to_wait() -> None:
    refused = refusal(BackPressureError(num_queued_requests=9, max_queued_requests=8), within_s=25, retry_after_s=3)
    assert refused is not None
    assert (refused.status, refused.retry_after_s) == (429, 3)


def test_a_stage_that_died_is_503_with_a_time_to_wait() -> None:
    refused = refusal(RayActorError(), within_s=25, retry_after_s=2)
    assert refused is not None
    assert (refused.status, refused.retry_after_s) == (503, 2)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (wire.Malformed("cut off"), 400),
        (wire.TooLarge("too many frames", "3000"), 413),
        (wire.Unsupported("version 9", "1"), 415),
        (wire.Unusable("rank 90", "80"), 422),
    ],
)
def test_what_the_wire_refuses_keeps_its_cause_and_limit(error: wire.WireError, status: int) -> None:
    refused = refusal(error, within_s=25, retry_after_s=1)
    assert refused is not None
    assert (refused.status, refused.cause, refused.limit) == (status, error.cause, error.limit)
    assert refused.problem("id").model_dump()["status"] == status


def test_our_own_faults_are_not_the_clients() -> None:
    assert refusal(KeyError("a bug"), within_s=25, retry_after_s=1) is None


def test_server_timing_names_each_stage_and_the_wait_before_it() -> None:
    timing = server_timing({"asr": 12.5, "total": 20.0}, {"asr": 3.456})
    assert timing == "asr;dur=12.5, total;dur=20, asr-queue;dur=3.46"


def test_a_request_that_cannot_be_answered_in_time_is_told_when_it_can() -> None:
    refused = refusal(Overloaded(7), within_s=25, retry_after_s=1)
    assert refused is not None
    assert (refused.status, refused.retry_after_s) == (429, 7)


def test_a_deadline_that_passed_at_a_stage_is_504() -> None:
    refused = refusal(DeadlinePassed("the deadline passed before a model was free"), within_s=25, retry_after_s=1)
    assert refused is not None
    assert refused.status == 504
