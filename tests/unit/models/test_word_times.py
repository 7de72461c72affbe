"""When each word was said: against sentences whose beginnings and ends are known, and for texts of every kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from recordings import mel_of, speakers, waveform_of
from synthetic_voice import say

from amser.features import SAMPLE_RATE
from models.messages import Transcript
from models.weights import model_path
from models.whisper.engine import TokenTime
from models.whisper.engines import load_engine
from models.whisper.recognizer import WhisperRecognizer
from models.whisper.served import EngineName
from models.whisper.word_times import words_of

SENTENCES = ("The garden was quiet in the morning.", "Nobody had seen the letters.", "We walked home along the river.")
PAUSE_S = 0.8
NEAR_S = 0.12  # that the edge of a sentence is found within; half of them are within 0.01 s


def recognizer(engine: EngineName) -> WhisperRecognizer:
    return WhisperRecognizer(load_engine(engine, model_path("whisper-base-short")))


def edges_of(waveform: np.ndarray) -> tuple[float, float]:
    """Seconds at which a voice without noise begins and ends."""
    loud = np.flatnonzero(np.abs(waveform) > 0.02 * np.abs(waveform).max())
    return loud[0] / SAMPLE_RATE, loud[-1] / SAMPLE_RATE


@pytest.mark.parametrize("engine", ["ctranslate2", "openai-whisper"])
def test_sentences_begin_and_end_where_they_were_put(engine: EngineName) -> None:
    voices = [say(sentence) for sentence in SENTENCES]
    pause = np.zeros(round(PAUSE_S * SAMPLE_RATE), np.float32)
    edges, at = [], PAUSE_S
    for voice in voices:
        begin, end = edges_of(voice)
        edges.append((at + begin, at + end))
        at += voice.size / SAMPLE_RATE + PAUSE_S
    spoken = np.concatenate([pause, *(part for voice in voices for part in (voice, pause))])
    (heard,) = recognizer(engine).transcribe([replace(mel_of(spoken), word_times=True)])
    assert heard.text == " ".join(SENTENCES)
    last = 0
    for sentence, (begin, end) in zip(SENTENCES, edges, strict=True):
        words = heard.words[last : last + len(sentence.split())]
        last += len(words)
        assert words[0].start == pytest.approx(begin, abs=NEAR_S), sentence
        assert words[-1].end == pytest.approx(end, abs=NEAR_S), sentence


def test_words_join_to_the_text_in_order_and_change_nothing_else() -> None:
    mels = [mel_of(waveform_of(row["path"])) for row in speakers(6)]
    model = recognizer("ctranslate2")
    for plain, heard, mel in zip(
        model.transcribe(mels), model.transcribe([replace(mel, word_times=True) for mel in mels]), mels, strict=True
    ):
        assert replace(heard, words=()) == plain
        assert plain.words == ()
        assert "".join(word.text for word in heard.words) == heard.text
        times = [time for word in heard.words for time in (word.start, word.end)]
        assert times == sorted(times)
        assert times[-1] <= mel.seconds + 0.02
        assert all(0 <= word.confidence <= 1 for word in heard.words)


def test_where_nobody_speaks_there_are_no_words() -> None:
    (heard,) = recognizer("ctranslate2").transcribe(
        [replace(mel_of(np.zeros(SAMPLE_RATE, np.float32)), word_times=True)]
    )
    assert isinstance(heard, Transcript)
    assert (heard.text, heard.words) == ("", ())


def said(pieces: Sequence[bytes], language: str) -> list[tuple[str, float, float]]:
    """The words of tokens that hold these bytes, half a second each."""
    times = [TokenTime(0.5 * number, 0.5 * number + 0.5, 0.9) for number in range(len(pieces))]
    loud = np.ones((80, 50 * len(pieces)), np.float16)
    words = words_of(
        range(len(pieces)),
        times,
        language,
        lambda run: b"".join(pieces[each] for each in run).decode("utf-8", "replace"),
        loud,
    )
    return [(word.text, word.start, word.end) for word in words]


def test_punctuation_belongs_to_the_word_before_it() -> None:
    pieces = [b" Well", b",", b" (", b"no", b"body", b")", b" -", b" knows", b"..."]
    assert said(pieces, "en") == [("Well,", 0.0, 1.0), (" (nobody) -", 1.5, 3.5), (" knows...", 3.5, 4.5)]


def test_characters_of_several_tokens_are_whole() -> None:
    first, second = " 你".encode(), "好".encode()
    pieces = [first[:2], first[2:], second[:1], second[1:], "。".encode()]
    assert said(pieces, "zh") == [("你", 0.0, 1.0), ("好。", 1.0, 2.5)]
    assert said([b" caf", "é".encode()[:1], "é".encode()[1:], b" noir"], "fr") == [
        ("café", 0.0, 1.5),
        (" noir", 1.5, 2.0),
    ]


def test_a_pause_is_no_part_of_a_word() -> None:
    loud = np.full((80, 200), -1.0, np.float16)
    loud[:, 30:60] = loud[:, 120:150] = 1.0
    times = [TokenTime(0.0, 0.9, 0.5), TokenTime(0.9, 2.0, 0.7)]
    texts = [" one", " two"]
    words = words_of([0, 1], times, "en", lambda run: "".join(texts[each] for each in run), loud)
    assert [(word.start, word.end) for word in words] == [(0.3, 0.6), (1.2, 1.5)]
    assert [word.confidence for word in words] == [0.5, 0.7]
