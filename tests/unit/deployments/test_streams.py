"""Stable words, pauses and sessions of streams, without a network."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from amser import wire
from amser.codecs import decode
from amser.codecs.klt import HEADER, StreamDecoder, StreamEncoder
from deployments.gateway.problems import Refusal
from deployments.gateway.streams.messages import Start
from deployments.gateway.streams.pauses import Pauses
from deployments.gateway.streams.sessions import Sessions
from deployments.gateway.streams.socket import read_message
from deployments.gateway.streams.speech import PcmSpeech
from deployments.gateway.streams.stability import StablePrefix
from deployments.replica.execution import ModelThread
from deployments.settings import StreamSettings


def test_words_that_two_looks_agree_upon_stay() -> None:
    prefix = StablePrefix()
    assert prefix.look("So it", "en") == ("", "So it")
    assert prefix.look("So it was that", "en")[0] == "So it "
    assert prefix.look("Sow it was that day.", "en")[0].startswith("So it ")
    stable, text = prefix.look("So it was that day, then", "en")
    assert text.startswith(stable)
    assert stable.startswith("So it was that ")


def test_a_pause_is_heard_in_noise_too() -> None:
    chance = np.random.default_rng(0)
    for noise in (-1.0, 0.4):
        pauses = Pauses()
        pauses.push((noise + 0.02 * chance.standard_normal(50)).astype(np.float32))
        assert pauses.quiet_s == 0
        pauses.push(np.full(100, 1.2, np.float32))
        assert pauses.quiet_s == 0
        pauses.push((noise + 0.02 * chance.standard_normal(60)).astype(np.float32))
        assert pauses.quiet_s == pytest.approx(0.6)


def test_what_a_stream_has_read_is_what_the_codec_reads_bit_for_bit() -> None:
    mel = np.random.default_rng(0).normal(0, 0.3, (80, 203)).astype(np.float32)
    encoder = StreamEncoder()
    payload = encoder.push(mel) + encoder.finish()
    decoder = StreamDecoder()
    for start in range(0, len(payload), 100):
        decoder.push(payload[start : start + 100])
    assert len(payload) > HEADER
    np.testing.assert_array_equal(decoder.whole(203), decode("klt", payload, bands=80, frames=203))


def _start(**fields: object) -> Start:
    return Start.model_validate({"type": "start", "format": "pcm16", **fields})


async def test_a_session_goes_on_for_its_own_client_alone_until_its_time_is_over() -> None:
    now = [0.0]
    sessions = Sessions(StreamSettings(kept_s=10), lambda: now[0])
    session = sessions.add("one", _start(), partial(PcmSpeech, wire.Limits(), ModelThread("test")))
    session.take(bytes(3200))
    session.take(bytes(3200))
    sessions.leave(session)
    assert await sessions.resume("other", _start(session=session.id)) is None
    assert await sessions.resume("one", _start(session=session.id, first=3)) is None  # a message is missing
    assert await sessions.resume("one", _start(session=session.id)) is session
    assert session.next == 2
    session.answered(2, {"type": "final"})
    sessions.leave(session)
    assert await sessions.resume("one", _start(session=session.id)) is session  # its answer was lost, and is kept
    sessions.leave(session)
    now[0] = 11.0
    assert await sessions.resume("one", _start(session=session.id)) is None


def test_messages_that_are_none_are_refused() -> None:
    for text in ("", "[]", '{"type":"end"}', '{"type":"end","at":-1}', '{"type":"start","format":"mp3"}'):
        with pytest.raises(Refusal) as refused:
            read_message(text)
        assert refused.value.kind.slug == "bad-message"
