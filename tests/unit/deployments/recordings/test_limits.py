"""A limit of speech slows a recording down, whatever its length, and does not refuse it."""

from __future__ import annotations

from typing import Any

import pytest

from deployments.access.denied import Denied
from deployments.access.gate import Gate, Visit
from deployments.access.limits import OwnBuckets
from deployments.access.settings import AuthSettings, CorsSettings, Limits, LimitSettings
from deployments.gateway.clients import client_of
from deployments.gateway.recordings import answering
from deployments.replica.deadline import after


async def test_segments_wait_where_together_they_are_more_than_a_minute_may_have(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What earlier segments had drawn was drawn again: the recording was refused as too large."""
    now_s = 1000.0
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        nonlocal now_s
        slept.append(seconds)
        now_s += seconds

    limits = LimitSettings(key=Limits(audio_s_per_minute=60))
    gate = Gate(AuthSettings(mode="none"), limits, CorsSettings(), None, client_of, OwnBuckets(lambda: now_s))
    visit = Visit(None, gate, "somebody", limits)
    monkeypatch.setattr(answering.asyncio, "sleep", sleep)
    heard: Any = answering.within(visit)
    for _ in range(6):
        await heard(30.0)
    assert sum(slept) == pytest.approx(120, abs=6)  # 180 s at 60 a minute, of which 60 are there at once
    with pytest.raises(Denied) as denied:  # whose wait is longer than the time that is left
        await answering.within(visit, after(5.0))(30.0)
    assert denied.value.kind == "limit-speech"
