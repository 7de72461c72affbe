"""A language on a device: as people write it, and what becomes of a recording whose language the cluster refuses."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from uuid import UUID

import pytest
from recordings import DATA, envelope_of, speakers, waveform_of
from spooled import asked
from stand_in import ANSWER, Received, Response, StandIn, stand_in

from amser.client.command_line import main
from amser.client.commands.codec_options import spoken_language
from amser.client.delivery import Delivery
from amser.client.device import Device, DeviceSettings
from amser.client.exchange.utterances import Utterance
from amser.client.spool import Spool
from amser.languages import UnknownLanguage
from amser.wire import Envelope, pack, unpack
from deployments.gateway.preferences import read_language
from deployments.gateway.problems import Refusal
from models.weights import model_path
from models.whisper.vocabulary import languages

pytest_plugins = ["spooled"]
CAPTURED = datetime(2025, 11, 22, 1, 2, 3, tzinfo=UTC)


class Gateway(StandIn):
    """Answers an envelope if its language is one of whisper-base's, read as the cluster reads it.

    `reads` False: only as the model spells it, and a refusal does not say what it is about (version 0.4).
    """

    def __init__(self, reads: bool) -> None:
        self._reads = reads
        self._known = languages(model_path("whisper-base"))
        super().__init__([])

    def play(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers["Content-Length"]))
        self.received.append(Received(request.path, dict(request.headers), body, 0.0, request.client_address))
        status, document = self._answer(unpack(body))
        content = json.dumps(document).encode()
        request.send_response(status)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)

    def _answer(self, envelope: Envelope) -> tuple[int, dict[str, object]]:
        if not self._reads:
            is_known = envelope.language in {None, *self._known}
            return (200, ANSWER) if is_known else (422, {"title": "Unprocessable Entity", "detail": "unknown language"})
        try:
            read_language(envelope.language, self._known)
        except Refusal as refused:
            return refused.status, refused.problem("id").model_dump(exclude_none=True)
        return 200, ANSWER


@contextmanager
def gateway(reads: bool = True) -> Iterator[Gateway]:
    server = Gateway(reads)
    try:
        yield server
    finally:
        server.close()


def spoken(spool: Spool, *hints: str | None) -> list[Envelope]:
    """One envelope of real speech for each hint, put into the spool as an old device did: whatever the hint is."""
    waveform = waveform_of(speakers(1)[0]["path"])
    envelopes = [envelope_of(waveform, language=hint) for hint in hints]
    for each in envelopes:
        spool.put(Utterance(pack(each), each.utterance_id, each.seconds, 1.0), datetime.now(UTC))
    return envelopes


# --- Before anything is sent ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "code"), [("EN", "en"), ("en-US", "en"), ("eng", "en"), ("nb", "no"), ("auto", None), ("", None)]
)
def test_a_device_sends_the_code_of_what_was_written(written: str, code: str | None) -> None:
    waveform = waveform_of(speakers(1)[0]["path"])
    utterance = Device(DeviceSettings(language=written)).encode(waveform, CAPTURED)
    assert unpack(utterance.envelope).language == code


def test_a_device_refuses_what_names_no_language_before_it_hears_anything() -> None:
    with pytest.raises(UnknownLanguage, match="the language is 'klingonese'; accepted: a code such as en or pt-BR"):
        DeviceSettings(language="klingonese")


def test_the_command_line_takes_a_language_as_people_write_it(tmp_path: Path) -> None:
    speech = str(DATA / speakers(1)[0]["path"])
    with stand_in() as cluster:
        assert main(["send", speech, "--no-split", "--url", cluster.url, "--language", "en_US"]) == 0
    assert unpack(cluster.received[0].body).language == "en"
    output = tmp_path / "speech.amser"
    assert main(["encode", speech, "-o", str(output), "--language", "Auto"]) == 0
    assert unpack(output.read_bytes()).language is None


def test_an_option_says_what_to_write() -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="the language is 'English'; accepted: a code such as en"):
        spoken_language("English")


# --- What waits in a spool --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reads", [True, False], ids=["this version", "version 0.4"])
def test_a_recording_is_never_given_up_for_its_language(spool: Spool, reads: bool) -> None:
    envelopes = spoken(spool, "eng", "yue", "en", None)
    with gateway(reads) as cluster, Delivery(DeviceSettings(url=cluster.url)) as sending:
        results = list(sending.until_empty(spool))
    assert {result.utterance_id for result in results} == {each.utterance_id for each in envelopes}
    assert all(result.answer is not None for result in results)
    assert (len(results), spool.waiting()) == (4, [])
    again = {"yue"} if reads else {"eng", "yue"}
    attempts = {each.utterance_id: 2 if each.language in again else 1 for each in envelopes}
    assert {result.utterance_id: result.attempts for result in results} == attempts
    assert {result.utterance_id: result.answer.attempts for result in results if result.answer} == attempts


def test_it_is_sent_again_as_it_was_but_for_its_language(spool: Spool) -> None:
    (envelope,) = spoken(spool, "yue")
    with gateway() as cluster, Delivery(DeviceSettings(url=cluster.url)) as sending:
        (result,) = sending.until_empty(spool)
    assert asked(cluster) == [envelope.utterance_id] * 2
    first, second = (request.body for request in cluster.received)
    assert first == pack(envelope)
    assert second == pack(replace(envelope, language=None))
    assert result.utterance_id == envelope.utterance_id


def test_what_was_refused_for_its_language_waits_without_it(spool: Spool, path: Path) -> None:
    """Also where the device ends, or loses the link, before it is sent again."""
    (envelope,) = spoken(spool, "yue")
    with gateway() as cluster, Delivery(DeviceSettings(url=cluster.url)) as sending:
        assert list(sending.batch(spool)) == []
        assert (sending.failures, sending.wait_s(spool)) == (0, 0.0)
    spool.close()
    with Spool(path) as reopened:
        (waiting,) = reopened.waiting()
        kept = reopened.utterance(waiting.utterance_id)
    assert (waiting.utterance_id, waiting.attempts) == (envelope.utterance_id, 1)
    assert kept is not None
    assert kept.envelope == pack(replace(envelope, language=None))
    assert waiting.bytes == len(kept.envelope)


def test_what_is_refused_without_its_language_too_is_refused_for_good(spool: Spool) -> None:
    envelopes = spoken(spool, "en", "en")
    hot = Response(422, {"title": "Unprocessable Entity", "detail": "the values are not finite"})
    with stand_in(hot, Response(), hot) as cluster, Delivery(DeviceSettings(url=cluster.url)) as sending:
        results = list(sending.until_empty(spool))
    failures = [result.failure for result in results]
    assert sorted(failures, key=str) == ["422 Unprocessable Entity; the values are not finite", None]
    assert len(cluster.received) == 3
    assert set(asked(cluster)) == {each.utterance_id for each in envelopes}


def test_one_without_a_language_that_is_refused_for_its_language_is_kept(spool: Spool) -> None:
    """A cluster that contradicts itself is given the time to be mended."""
    (envelope,) = spoken(spool, None)
    odd = Response(422, {"title": "Unprocessable Entity", "parameter": "language"})
    with stand_in(*[odd] * 9) as cluster, Delivery(DeviceSettings(url=cluster.url)) as sending:
        assert list(sending.batch(spool)) == []
        assert sending.failures == 1
    assert [each.utterance_id for each in spool.waiting()] == [envelope.utterance_id]


def test_replacing_one_that_does_not_wait_makes_none(spool: Spool) -> None:
    spool.replace(Utterance(b"AMSR", UUID(int=7), 1.0, 1.0))
    assert spool.waiting() == []
