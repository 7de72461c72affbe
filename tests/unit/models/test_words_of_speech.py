"""Every word that was said, and no other: inputs that once went wrong, with the right answers, as they are served."""

from __future__ import annotations

import numpy as np
import pytest
from recordings import Waveform, mel_of, noise, rows, silence, speakers, waveform_of
from synthetic_voice import say

from amser.features import SAMPLE_RATE
from models.messages import Mel, Transcript
from models.weights import model_path
from models.whisper.ctranslate2_engine import CTranslate2Engine
from models.whisper.recognizer import WhisperRecognizer
from training.data.extraction import CodecSetting, compressed_mel

SERVED = "whisper-base-short"
WORDS = ("continue", "stop", "hello", "seven", "kitchen", "tomorrow", "maybe", "cancel", "music")
SENTENCE = "He could wait no longer."
STANDARD = CodecSetting.parse("klt:standard")


@pytest.fixture(scope="module")
def recognizer() -> WhisperRecognizer:
    return WhisperRecognizer(CTranslate2Engine(model_path(SERVED)))


def heard(recognizer: WhisperRecognizer, waveform: Waveform, language: str | None = "en") -> Transcript:
    return recognizer.transcribe([mel_of(waveform, language)])[0]


def plain(text: str) -> str:
    return " ".join("".join(sign for sign in text.lower() if sign.isalpha() or sign == " ").split())


def test_a_sentence_said_twice_is_written_twice(recognizer: WhisperRecognizer) -> None:
    assert plain(heard(recognizer, waveform_of("cases/said-twice.ogg")).text) == plain(f"{SENTENCE} {SENTENCE}")


@pytest.mark.parametrize("pause", [0.5, 1.0, 2.0])
def test_both_takes_of_a_sentence_are_written(recognizer: WhisperRecognizer, pause: float) -> None:
    said = say(SENTENCE)
    transcript = heard(recognizer, np.concatenate([said, silence(pause), said]))
    assert plain(transcript.text).count("wait no longer") == 2


def test_a_sentence_said_eight_times_is_written_about_as_often(recognizer: WhisperRecognizer) -> None:
    said = np.concatenate([say("Please close the door."), silence(0.5)])
    transcript = heard(recognizer, np.tile(said, 8))
    assert 7 <= plain(transcript.text).count("close the door") <= 9  # one may be lost or added (docs/benchmarks.md)
    assert transcript.speech == "yes"


@pytest.mark.parametrize("word", WORDS)
def test_a_single_word_is_enough_without_a_hint(recognizer: WhisperRecognizer, word: str) -> None:
    transcript = heard(recognizer, say(f"{word.capitalize()}."), None)
    assert (transcript.language, transcript.speech) == ("en", "yes")
    assert plain(transcript.text) in (word, "")  # a number may be a digit
    assert transcript.text


@pytest.mark.parametrize("seed", range(6))
def test_nothing_is_invented_in_white_noise(recognizer: WhisperRecognizer, seed: int) -> None:
    samples = 0.1 * np.random.default_rng(seed).standard_normal(29 * SAMPLE_RATE)
    transcript = heard(recognizer, samples.astype(np.float32))
    assert (transcript.text, transcript.speech) == ("", "none")
    assert transcript.speech_probability < 0.5


@pytest.mark.slow
def test_nothing_is_invented_in_recorded_sounds_and_their_compressed_copies(recognizer: WhisperRecognizer) -> None:
    mels: list[Mel] = []
    for row in rows("noise/esc10.tsv"):
        waveform = waveform_of(row["path"])
        mels += [mel_of(waveform), mel_of(waveform[:SAMPLE_RATE], None), compressed_mel(waveform, STANDARD)]
    assert [transcript.text for transcript in recognizer.transcribe(mels)] == [""] * len(mels)


@pytest.mark.parametrize("hint", ["de", "pl", "zh", "jw", "he"])
def test_a_hint_that_the_speech_contradicts_gives_way_with_a_warning(recognizer: WhisperRecognizer, hint: str) -> None:
    row = speakers(1)[0]
    transcript, without = (heard(recognizer, waveform_of(row["path"]), code) for code in (hint, None))
    assert transcript.text == without.text
    assert transcript.language == "en"
    assert (transcript.warnings, without.warnings) == (("language_mismatch",), ())


def test_a_hint_that_is_right_is_never_doubted(recognizer: WhisperRecognizer) -> None:
    mels = [mel_of(waveform_of(row["path"]), "en") for row in speakers(5)]
    assert [transcript.warnings for transcript in recognizer.transcribe(mels)] == [()] * len(mels)


def test_clean_speech_is_speech_for_sure(recognizer: WhisperRecognizer) -> None:
    mels = [mel_of(waveform_of(row["path"])) for row in speakers(5)]
    transcripts = recognizer.transcribe(mels)
    assert all(transcript.speech == "yes" and transcript.speech_probability > 0.9 for transcript in transcripts)


def test_a_word_in_noise_is_decoded_rather_than_thrown_away(recognizer: WhisperRecognizer) -> None:
    said = say("The weather is fine today.")
    loud = np.sqrt(np.mean(said**2)) * 10 ** (-5 / 20)
    transcript = heard(recognizer, said + noise(len(said) / SAMPLE_RATE, 1.0)[: len(said)] * loud)
    assert transcript.text
    assert transcript.speech != "none"
