"""`amser.client` against the real application: the same words and emotion, however an utterance comes there."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from recordings import DATA, audio_file, noise, speakers, waveform_of
from served import serving

from amser.client import Answer, AsyncClient, Client, DeviceSettings, Refused
from amser.features import SAMPLE_RATE
from deployments.settings import FlowSettings, IdempotencySettings, Settings

SPEECH = DATA / speakers(1)[0]["path"]
PATIENT = {"answer_timeout_s": 120.0, "give_up_s": 240.0}  # where the machine is busy with other tests


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    settings = Settings(
        profile="fused",
        auth="none",
        idempotency=IdempotencySettings(store="none"),
        flow=FlowSettings(admission=False),
    )
    with serving(settings) as (url, _):
        yield url


def said(answer: Answer) -> tuple[str, str | None]:
    return answer.text, answer.emotion


def test_every_way_of_sending_gets_the_same_words_and_emotion(url: str) -> None:
    speech = waveform_of(speakers(1)[0]["path"])
    with Client(DeviceSettings(url=url, codec="mel-f16", **PATIENT)) as client:
        uploaded = client.transcribe(SPEECH)
        answers = [
            client.recognize(SPEECH),
            client.recognize(speech),
            client.recognize(audio_file(speech, "flac", "flac")),
            *(each.answer for each in client.batch([SPEECH, speech])),
        ]
    assert len(uploaded.text.split()) > 3
    assert {said(answer) for answer in answers if answer} == {said(uploaded)}
    assert len(answers) == 5


def test_words_have_their_times_where_they_are_asked_for(url: str) -> None:
    speech = waveform_of(speakers(1)[0]["path"])
    settings = DeviceSettings(url=url, codec="mel-f16", frontend="numpy", words=True, **PATIENT)
    with Client(settings) as client, Client(DeviceSettings(url=url, codec="mel-f16", **PATIENT)) as plain:
        answers = [
            client.recognize(speech),
            client.transcribe(SPEECH),
            *(each.answer for each in client.batch([speech])),
        ]
        job = client.submit(SPEECH)
        assert plain.recognize(speech).words == ()
    for answer in filter(None, answers):
        assert " ".join(word.text for word in answer.words) == answer.text
        assert answer.words == answers[0].words
        assert 0 < answer.words[0].start < answer.words[-1].end <= speech.size / SAMPLE_RATE
    assert job.result is not None  # where no jobs are kept, a recording is answered at once
    words = [word.text for segment in job.result.segments for word in segment.words]
    assert words == job.result.text.split()
    assert words


def test_a_compressed_utterance_takes_a_hundredth_of_its_samples(url: str) -> None:
    with Client(DeviceSettings(url=url, **PATIENT)) as client:
        answer = client.recognize(SPEECH)
    assert answer.bytes_sent < 0.015 * answer.pcm_bytes
    assert answer.emotion in answer.probabilities


def test_a_batch_of_good_and_bad_items_over_an_event_loop(url: str) -> None:
    async def ask() -> None:
        async with AsyncClient(DeviceSettings(url=url, language="en", **PATIENT)) as client:
            sources = [waveform_of(speakers(1)[0]["path"])[: 2 * SAMPLE_RATE], b"no audio", noise(0.5)]
            outcomes, upload = await asyncio.gather(client.batch(sources), client.transcribe(SPEECH))
        assert outcomes[0].answer is not None
        assert outcomes[0].answer.language == "en"
        assert outcomes[1].failure is not None
        assert outcomes[2].answer is not None
        assert upload.text

    asyncio.run(ask())


def test_a_language_that_the_recogniser_lacks_is_refused_by_its_type(url: str) -> None:
    with Client(DeviceSettings(url=url, language="yue", **PATIENT)) as client:
        with pytest.raises(Refused) as refused:
            client.recognize(waveform_of(speakers(1)[0]["path"])[:SAMPLE_RATE])
        (outcome,) = client.batch([waveform_of(speakers(1)[0]["path"])[:SAMPLE_RATE]])
    assert refused.value.type == "/problems/unknown-language"
    assert isinstance(outcome.failure, Refused)
    assert outcome.failure.type == "/problems/unknown-language"
