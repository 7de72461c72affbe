"""ONNX Runtime computes what CTranslate2 does: the same texts, a draft changes none, and the voice comes with them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from recordings import mel_of, noise, speakers, waveform_of

from amser.features import trim_pauses
from models.messages import Mel
from models.weights import model_path
from models.whisper.ctranslate2_engine import CTranslate2Engine
from models.whisper.engine import States
from models.whisper.onnx.engine import OnnxEngine
from models.whisper.recognizer import WhisperRecognizer
from models.whisper.voice import VoiceEncoder

CLIPS = 6


@pytest.fixture(scope="module")
def engine() -> OnnxEngine:
    return OnnxEngine(model_path("whisper-base-short"))


@pytest.fixture(scope="module")
def exact() -> CTranslate2Engine:
    return CTranslate2Engine(model_path("whisper-base-short"), compute_type="float32")


@pytest.fixture(scope="module")
def mels() -> list[Mel]:
    return [mel_of(waveform_of(row["path"])) for row in speakers(CLIPS)]


def states_of(engine: CTranslate2Engine, mel: Mel) -> States:
    """Of the speech and half a second of silence: (1, n, width)."""
    whole = np.pad(mel.values, ((0, 0), (0, 50 + mel.frames % 2)), constant_values=mel.silence)
    return engine.encode(whole.astype(np.float32)).states[None]


def test_it_writes_and_believes_what_ctranslate2_does_in_32_bits(
    engine: OnnxEngine, exact: CTranslate2Engine, mels: list[Mel]
) -> None:
    for mel in mels:
        each = states_of(exact, mel)
        (ours,), (theirs,) = (decoder.decode(each, ["en"], 100) for decoder in (engine, exact))
        assert ours.tokens == theirs.tokens
        assert ours.text == theirs.text
        assert ours.average_log_probability == pytest.approx(theirs.average_log_probability, abs=0.04)
        assert ours.no_speech_probability == pytest.approx(theirs.no_speech_probability, abs=0.01)
        (heard,), (known,) = (decoder.language_probabilities(each) for decoder in (engine, exact))
        assert heard == pytest.approx(known, abs=0.01)


def test_texts_of_a_batch_are_those_of_each_alone(engine: OnnxEngine, mels: list[Mel]) -> None:
    """Rows end at different times and leave the batch."""
    recognizer = WhisperRecognizer(engine, batch_size=CLIPS)
    like = [replace(mel, values=mel.values[:, :300], seconds=3.0) for mel in mels]
    together = recognizer.first_pass(like)
    assert [heard.decoded.text for heard in together] == [recognizer.first_pass([mel])[0].decoded.text for mel in like]
    assert len({len(heard.decoded.tokens) for heard in together}) > 1


def test_the_states_are_those_of_ctranslate2_in_32_bits(
    engine: OnnxEngine, exact: CTranslate2Engine, mels: list[Mel]
) -> None:
    """Closer than CTranslate2's own in 8 bits, which differ by a tenth."""
    for mel in mels:
        ours, theirs = states_of(engine, mel), states_of(exact, mel)
        assert np.linalg.norm(ours - theirs) < 0.12 * np.linalg.norm(theirs)


def test_the_voice_comes_with_the_words(engine: OnnxEngine, mels: list[Mel]) -> None:
    """Without pauses, which move the positions, it is what the voice's own encoder makes, but for 8 bits."""
    voice, recognizer = VoiceEncoder(model_path("whisper-base")), WhisperRecognizer(engine)
    for mel in mels:
        speech = replace(mel, values=trim_pauses(mel.values))
        alone, shared = voice.encode(speech), recognizer.transcribe([speech])[0].voice
        assert shared is not None
        assert shared.shape == alone.shape
        assert np.corrcoef(shared.ravel().astype(float), alone.ravel().astype(float))[0, 1] > 0.98


def test_the_voice_is_that_of_the_speech_between_the_pauses(engine: OnnxEngine, mels: list[Mel]) -> None:
    paused = replace(mels[0], values=np.pad(mels[0].values, ((0, 0), (80, 60)), constant_values=mels[0].silence))
    voices = [WhisperRecognizer(engine).transcribe([mel])[0].voice for mel in (mels[0], paused)]
    assert voices[0] is not None
    assert voices[1] is not None
    assert voices[0].shape == voices[1].shape


@pytest.mark.parametrize(("seconds", "encoded"), [(0.5, 1200), (6.0, 1200), (9.0, 1800), (20.0, 3000)])
def test_a_second_pass_costs_by_the_speech_and_not_30_s(
    engine: OnnxEngine, monkeypatch: pytest.MonkeyPatch, seconds: float, encoded: int
) -> None:
    """A doubtful "Hello" took as long as 30 s of speech: a second and a half."""
    lengths: list[int] = []
    encode = engine.encode
    monkeypatch.setattr(engine, "encode", lambda log_mel: lengths.append(log_mel.shape[1]) or encode(log_mel))  # type: ignore[func-returns-value]
    recognizer, mel = WhisperRecognizer(engine), mel_of(noise(seconds))
    (first,) = recognizer.first_pass([mel])
    recognizer.second_pass(mel, first)
    assert lengths[1:] == [encoded] == [recognizer.second_frames(mel)]


def test_a_second_pass_keeps_the_voice_of_the_first(engine: OnnxEngine, mels: list[Mel]) -> None:
    recognizer = WhisperRecognizer(engine)
    (first,) = recognizer.first_pass(mels[:1])
    unsure = replace(first, probability=0.0)
    assert recognizer.second_pass(mels[0], unsure).voice is first.voice


def test_words_have_their_times(engine: OnnxEngine, mels: list[Mel]) -> None:
    """CTranslate2 aligns, and is loaded by the first text."""
    (transcript,) = WhisperRecognizer(engine).transcribe([replace(mels[0], word_times=True)])
    assert " ".join(word.text.strip() for word in transcript.words) == transcript.text
    assert 0 <= transcript.words[0].start < transcript.words[-1].end <= mels[0].seconds


@pytest.mark.parametrize("share", [0.5, 0.8, 1.0])
def test_a_draft_changes_no_text(engine: OnnxEngine, mels: list[Mel], share: float) -> None:
    recognizer = WhisperRecognizer(engine)
    for mel in mels:
        frames = int(share * mel.frames)
        part = replace(mel, values=mel.values[:, :frames], seconds=frames / 100)
        draft = recognizer.transcribe([part])[0].tokens
        plain, drafted = (recognizer.transcribe([replace(mel, draft=each)])[0] for each in ((), draft))
        assert (drafted.text, drafted.tokens) == (plain.text, plain.tokens)
        assert drafted.average_log_probability == pytest.approx(plain.average_log_probability, abs=0.02)


def test_a_draft_of_something_else_changes_no_text(engine: OnnxEngine, mels: list[Mel]) -> None:
    recognizer = WhisperRecognizer(engine)
    first, other = mels[0], recognizer.transcribe([mels[1]])[0]
    plain = recognizer.transcribe([first])[0]
    assert recognizer.transcribe([replace(first, draft=other.tokens * 20)])[0].text == plain.text


def test_a_draft_saves_steps_of_the_decoder(
    engine: OnnxEngine, mels: list[Mel], monkeypatch: pytest.MonkeyPatch
) -> None:
    recognizer, plain_step = WhisperRecognizer(engine), engine._next
    steps: list[int] = []

    def counted(*asked: Any, **named: Any) -> Any:
        steps.append(1)
        return plain_step(*asked, **named)

    monkeypatch.setattr(engine, "_next", counted)
    heard = [recognizer.transcribe([mel])[0].tokens for mel in mels]
    without = len(steps)
    steps.clear()
    for mel, draft in zip(mels, heard, strict=True):
        recognizer.transcribe([replace(mel, draft=draft)])
    assert without > sum(map(len, heard))
    assert len(steps) < without / 2


def test_a_text_without_an_end_is_cut(engine: OnnxEngine, mels: list[Mel]) -> None:
    assert len(engine.decode(states_of(engine, mels[0]), ["en"], 3)[0].tokens) == 3
