"""What crosses between processes: read by the version before and after, and late by no clock but the reader's own."""

from __future__ import annotations

import asyncio
import pickle
import subprocess
import sys
from dataclasses import fields, replace
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from ray.exceptions import RayTaskError

from amser.wire import Envelope
from deployments import pipeline
from deployments.gateway.utterances.answers import refusal
from deployments.replica import calls
from deployments.replica.calls import KIND, VERSION, Call, OtherVersion, RemoteStage, from_plain, to_plain
from deployments.replica.deadline import NEVER, after, remaining
from deployments.replica.execution import Timed
from models.messages import Emotion, Mel, TextFeatures, TokenFeatures, Transcript, Word

OF_VERSION_1 = Path(__file__).parents[2] / "data" / "messages" / "version-1.pickle"
TOKENS = TokenFeatures(("hello",), np.arange(4, dtype=np.float32)[None])
SENT = [
    Envelope(
        codec="svd-f16",
        profile="whisper80",
        frames=100,
        seconds=1.0,
        language="en",
        device_id="a device",
        utterance_id=UUID(int=7),
        captured_at=datetime(2026, 11, 27, tzinfo=UTC),
        payload=bytes(360),
    ),
    Mel(np.arange(160, dtype=np.float16).reshape(80, 2), -1.5, 1.0, None, "klt", None),
    Transcript("hello", "en", -0.2, "doubtful", 0.4, ("language_mismatch",)),
    TOKENS,
    TextFeatures("en", TOKENS, TOKENS),
    Timed(Emotion("happy", {"happy": 0.75, "sad": 0.25}, 0.7, ("short",), ("text",)), 12.5),
    ("happy", "sad"),
    "hello",
    None,
]
WORDS = Transcript("Good day.", "en", -0.2, words=(Word("Good", 0.1, 0.3, 0.9), Word(" day.", 0.3, 0.6, 0.8)))


class Echo(RemoteStage):
    """A stage that answers with the message that it was given, and says how many seconds it had."""

    def __init__(self) -> None:
        self.asked = 0

    async def echo(self, message: Any, deadline: float = NEVER) -> Timed[Any]:
        self.asked += 1
        return Timed(message, remaining(deadline))


def crossed(call: Call) -> Call:
    arrived: Call = pickle.loads(pickle.dumps(call))
    return arrived


def assert_same(one: Any, other: Any) -> None:
    assert type(one) is type(other)
    if isinstance(one, np.ndarray):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    elif hasattr(one, "__dataclass_fields__"):
        for each in fields(one):
            assert_same(getattr(one, each.name), getattr(other, each.name))
    else:
        assert one == other


def without(message: Any, name: str) -> dict[str, Any]:
    plain: dict[str, Any] = to_plain(message)
    return {key: value for key, value in plain.items() if key != name}


@pytest.mark.parametrize("message", [*SENT, WORDS], ids=lambda message: type(message).__name__)
async def test_a_message_arrives_as_it_was_sent_and_so_does_the_answer(message: Any) -> None:
    call = crossed(Call([to_plain(message)], after(60)))
    answer = from_plain(pickle.loads(pickle.dumps(await Echo().call("echo", call))))
    assert_same(answer.value, message)
    assert answer.compute_ms == pytest.approx(60, abs=5)


async def test_who_waits_for_ever_sets_no_deadline() -> None:
    answer = from_plain(await Echo().call("echo", crossed(Call(["hello"]))))
    assert answer.compute_ms == NEVER


def test_nothing_that_crosses_is_a_class_of_ours_but_the_call() -> None:
    """Then nothing can change under a process of another version: all it has to know are names of fields."""
    pickled = pickle.dumps(Call([to_plain(message) for message in [*SENT, WORDS]]), protocol=2)
    assert pickled.count(b"deployments.") == 1
    assert pickled.count(b"models.") == pickled.count(b"amser.") == 0


def test_what_version_1_wrote_is_read() -> None:
    """The file holds `[Call(SENT, 60 s, {"traceparent": "00-ab"})]` and `to_plain(SENT)`. When VERSION is raised, the
    file of the new version takes its place."""
    call, answers = pickle.loads(OF_VERSION_1.read_bytes())
    assert call.version == VERSION
    assert call.context == {"traceparent": "00-ab"}
    assert remaining(call.deadline) == pytest.approx(60, abs=5)
    for read in ([from_plain(each) for each in call.arguments], [from_plain(each) for each in answers]):
        assert len(read) == len(SENT)
        for one, other in zip(read, SENT, strict=True):
            assert_same(one, other)


def test_a_field_that_a_newer_version_added_is_ignored() -> None:
    newer = to_plain(Timed(SENT[2], 1.0))
    newer["value"] |= {"speaker": "somebody", "punctuated": {KIND: "Punctuation", "marks": 3}}
    assert_same(from_plain(newer), Timed(SENT[2], 1.0))


def test_a_field_that_an_older_version_did_not_know_has_its_default() -> None:
    older = without(SENT[2], "speech_probability")
    assert_same(from_plain(older), replace(SENT[2], speech_probability=1.0))


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (without(SENT[1], "silence"), "Mel came without silence"),
        ({KIND: "Punctuation", "marks": 3}, "no message is called 'Punctuation'"),
        (to_plain(SENT[0]) | {"codec": "wavelet"}, "Envelope is none in version 1: no codec 'wavelet'"),
    ],
    ids=["a field is gone", "a new message", "a codec that the gateway knows"],
)
async def test_what_cannot_be_understood_is_no_fault_of_the_client(message: Any, says: str) -> None:
    stage = Echo()
    with pytest.raises(OtherVersion, match=says):
        await stage.call("echo", Call([message]))
    assert stage.asked == 0


async def test_a_call_of_another_version_is_refused_before_anything_is_computed() -> None:
    stage = Echo()
    with pytest.raises(OtherVersion, match="a call of version 2 to a stage of version 1"):
        await stage.call("echo", crossed(Call(["hello"], version=2)))
    assert stage.asked == 0


def handle_to(*replicas: RemoteStage) -> Any:
    """A handle whose router asks one replica after the other; errors arrive as Ray brings them."""
    turn = iter(replicas)

    async def ask(method: str, call: Call) -> Any:
        try:
            return await next(turn).call(method, crossed(call))
        except OtherVersion as error:
            raise RayTaskError("call", "…", error).as_instanceof_cause() from None

    return SimpleNamespace(call=SimpleNamespace(remote=lambda *call: asyncio.ensure_future(ask(*call))))


class OfVersion2(Echo):
    async def call(self, method: str, call: Call) -> Any:
        return await super().call(method, replace(call, version=call.version + 1))


async def test_a_stage_of_another_version_is_asked_again_until_one_of_this_version_is_there() -> None:
    old, new = OfVersion2(), Echo()
    echo = pipeline._elsewhere(handle_to(old, old, new), "echo")
    assert (await echo("hello", deadline=after(60))).value == "hello"
    assert (old.asked, new.asked) == (0, 1)


async def test_where_none_of_this_version_comes_the_client_is_told_to_come_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pipeline, "OTHER_VERSION_S", 0.15)
    echo = pipeline._elsewhere(handle_to(*[OfVersion2()] * 100), "echo")
    with pytest.raises(OtherVersion) as caught:
        await echo("hello", deadline=after(60))
    refused = refusal(caught.value, 25.0, 2)
    assert refused is not None
    assert refused.status == HTTPStatus.SERVICE_UNAVAILABLE
    assert refused.retry_after_s == 2


ON_ANOTHER_MACHINE = """
import pickle, sys, time
wall, since_boot = time.time, time.monotonic
time.time = lambda: wall() + 3600  # its clock is an hour ahead
time.monotonic = lambda: since_boot() + 1e6  # and it was started long before
from deployments.replica.deadline import remaining
print(remaining(pickle.loads(sys.stdin.buffer.read()).deadline))
"""


@pytest.mark.parametrize("within_s", [60.0, -1.0], ids=["in time", "passed"])
def test_a_deadline_means_the_same_on_a_machine_whose_clock_is_an_hour_off(within_s: float) -> None:
    sent = pickle.dumps(Call(["hello"], after(within_s)))
    there = subprocess.run([sys.executable, "-c", ON_ANOTHER_MACHINE], input=sent, capture_output=True, check=True)
    assert float(there.stdout) == pytest.approx(within_s, abs=0.5)


def test_time_spent_waiting_for_a_replica_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray pickles a call when a replica has room for it, and not when it is made."""
    call = Call(["hello"], after(60))
    now = calls.remaining(0)
    monkeypatch.setattr(calls, "remaining", lambda deadline: deadline + now - 20)
    assert remaining(crossed(call).deadline) == pytest.approx(40, abs=5)
