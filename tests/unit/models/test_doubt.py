"""Each reason not to act on an emotion, alone and together."""

from __future__ import annotations

import numpy as np
import pytest
from recordings import mel_of, silence, speakers, waveform_of

from amser.features import SAMPLE_RATE
from models.emotion.doubt import doubts_about, has_words, speech_seconds
from models.messages import Mel, Transcript

WORDS = Transcript("Kids are talking by the door.", "en", -0.2)


@pytest.fixture(scope="module")
def speech() -> Mel:
    return mel_of(waveform_of(speakers(1)[0]["path"])[: 3 * SAMPLE_RATE])


def doubts(
    mel: Mel, transcript: Transcript | None = WORDS, confidence: float = 0.9, languages: tuple[str, ...] = ("en", "pl")
) -> tuple[str, ...]:
    return doubts_about(confidence, mel, transcript, sure_from=0.6, voice_languages=languages)


def test_seconds_of_confident_speech_in_a_known_language_leave_no_doubt(speech: Mel) -> None:
    assert doubts(speech) == ()


@pytest.mark.parametrize(("confidence", "expected"), [(0.59, ("low_confidence",)), (0.6, ()), (1.0, ())])
def test_confidence_below_the_threshold_is_a_doubt(speech: Mel, confidence: float, expected: tuple[str, ...]) -> None:
    assert doubts(speech, confidence=confidence) == expected


@pytest.mark.parametrize(("seconds", "expected"), [(0.4, ("short",)), (1.5, ())])
def test_less_than_a_second_of_speech_is_a_doubt(seconds: float, expected: tuple[str, ...]) -> None:
    start = SAMPLE_RATE  # amid the words
    waveform = waveform_of(speakers(1)[0]["path"])[start : start + round(seconds * SAMPLE_RATE)]
    assert doubts(mel_of(waveform)) == expected


def test_pauses_around_a_short_word_make_it_no_longer() -> None:
    word = waveform_of(speakers(1)[0]["path"])[SAMPLE_RATE : SAMPLE_RATE + 6400]
    pause = silence(2)
    mel = mel_of(np.concatenate((pause, word, pause)))
    assert mel.seconds == pytest.approx(4.4)
    assert speech_seconds(mel) == pytest.approx(0.6, abs=0.05)  # 0.4 s, and 0.1 s on either side
    assert doubts(mel) == ("short",)


@pytest.mark.parametrize(
    "text", ["", "...", " ♪ ", "[Music]", "(laughs) [sighs", "*coughs*", "♪ Oh, what a night ♪", "[BLANK_AUDIO]", "_"]
)
def test_a_text_without_words_is_a_doubt(speech: Mel, text: str) -> None:
    assert not has_words(text)
    assert doubts(speech, Transcript(text, "en", 0.0)) == ("no_words",)


@pytest.mark.parametrize("text", ["No.", "(laughs) No!", "7", "Żółć", "我很高兴"])
def test_a_single_word_is_none(speech: Mel, text: str) -> None:
    assert has_words(text)
    assert doubts(speech, Transcript(text, "en", -0.2)) == ()


def test_a_language_that_the_voice_was_not_taught_is_a_doubt(speech: Mel) -> None:
    foreign = Transcript("Guten Tag", "de", -0.2)
    assert doubts(speech, foreign) == ("language",)
    assert doubts(speech, foreign, languages=("de",)) == ()
    assert doubts(speech, foreign, languages=()) == ()  # what was taught is not known


@pytest.mark.parametrize(
    ("transcript", "expected"),
    [
        (Transcript("", "nn", 0.0, "none", 0.01), ("no_speech",)),
        (Transcript("Thank you.", "en", -0.4, "doubtful", 0.4), ("doubtful_speech",)),
        (Transcript("", "en", 0.0, "doubtful", 0.4), ("doubtful_speech", "no_words")),
        (Transcript("", "en", 0.0, "yes", 0.9), ("no_words",)),
    ],
)
def test_whether_somebody_speaks_is_doubted_apart_from_the_words(
    speech: Mel, transcript: Transcript, expected: tuple[str, ...]
) -> None:
    assert doubts(speech, transcript) == expected


def test_without_a_transcript_neither_words_nor_language_are_doubted(speech: Mel) -> None:
    assert doubts(speech, None) == ()
    assert doubts(speech, None, confidence=0.3) == ("low_confidence",)


def test_all_reasons_are_given() -> None:
    scrap = mel_of(waveform_of(speakers(1)[0]["path"])[SAMPLE_RATE : SAMPLE_RATE + 6400])
    found = doubts(scrap, Transcript("", "ja", 0.0, "doubtful", 0.4), confidence=0.3)
    assert found == ("low_confidence", "short", "doubtful_speech", "no_words", "language")
