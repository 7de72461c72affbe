"""A limit of speech slows a recording down, whatever its length, and does not refuse it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from recordings import audio_file

from amser.features import SAMPLE_RATE
from deployments.access.denied import Denied
from deployments.access.gate import Gate, Visit
from deployments.access.limits import OwnBuckets
from deployments.access.settings import AuthSettings, CorsSettings, Limits, LimitSettings
from deployments.gateway.clients import client_of
from deployments.gateway.recordings import answering
from deployments.gateway.recordings.jobs import Asked
from deployments.gateway.recordings.recognition import Recordings, charge
from deployments.replica.deadline import after
from deployments.settings import Settings


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


async def test_silence_is_paid_for_as_speech_is_and_in_parts() -> None:
    """Two hours of it cost a key nothing."""
    paid: list[float] = []

    async def heard(seconds: float) -> None:
        paid.append(seconds)

    await charge(heard, 70.5)
    await charge(heard, 0.0)
    assert paid == [30.0, 30.0, 10.5]


async def test_a_recording_in_which_nobody_speaks_is_paid_for() -> None:
    paid: list[float] = []

    async def heard(seconds: float) -> None:
        paid.append(seconds)

    silence = audio_file(np.zeros(5 * SAMPLE_RATE, np.float32), "wav", "pcm_s16le")
    answering: Any = None  # there is nothing to recognise
    recordings = Recordings(Settings.model_validate({"auth": "none"}), answering)
    asked = Asked(language=None, emotions=(), strict=False, webhook=None, client="somebody")
    answer = await recordings.recognize(silence, asked.preferences(), "somebody", heard=heard)
    assert (answer.segments, sum(paid)) == ([], pytest.approx(5.0, abs=0.1))
