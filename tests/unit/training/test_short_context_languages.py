"""Phrases in many languages: what is chosen, how it is spoken, and what is said where a voice is missing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from training.corpora.manifest import ManifestError
from training.short_context import languages
from training.short_context.clips import waveform_of
from training.short_context.languages import MORE, Phrase, phrases_in_languages, speak_languages

needs_espeak = pytest.mark.skipif(not shutil.which(languages.ESPEAK), reason="eSpeak NG is not installed")


def test_each_language_has_its_phrases_and_those_that_are_spoken_well_have_more() -> None:
    phrases = phrases_in_languages(4, seed=0)
    counted = {code: sum(phrase.language == code for phrase in phrases) for code in ("de", "ko", "fi", "fr")}
    assert counted == {"de": 4 * MORE, "ko": 4, "fi": 4, "fr": 4 * MORE}
    assert len({phrase.language for phrase in phrases}) == 52
    assert all(phrase.text.strip() for phrase in phrases)
    assert phrases == phrases_in_languages(4, seed=0)
    assert phrases != phrases_in_languages(4, seed=1)


def test_languages_that_are_left_out_teach_nothing() -> None:
    left_out = {phrase.language for phrase in phrases_in_languages(1, seed=0, left_out=True)}
    assert left_out == set(languages.LEFT_OUT)
    assert not left_out & {phrase.language for phrase in phrases_in_languages(1, seed=0)}


def test_a_language_without_spaces_is_not_cut_into_words() -> None:
    from spacy.lang.zh import examples, stop_words

    texts = {phrase.text for phrase in phrases_in_languages(30, seed=0) if phrase.language == "zh"}
    whole = set(examples.sentences)
    assert texts & whole
    assert all(set(text.split()) <= stop_words.STOP_WORDS for text in texts - whole)


@needs_espeak
def test_phrases_are_spoken_by_both_voices_and_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    phrases = [Phrase("de", "Guten Morgen", number) for number in range(3)] + [Phrase("sv", "God morgon", 0)]
    clips = speak_languages(phrases, tmp_path, workers=1)
    assert [(clip.corpus, clip.language, clip.text) for clip in clips] == [
        (f"languages-{phrase.language}", phrase.language, phrase.text) for phrase in phrases
    ]
    seconds = [len(waveform_of(clip)) / 16_000 for clip in clips]
    assert all(0.3 < length < 3.0 for length in seconds)
    assert len(set(seconds[:3])) == 3  # each time at another pace
    assert {file.suffix for file in tmp_path.iterdir()} == {".flac"}
    monkeypatch.setattr(languages, "_start", lambda _: pytest.fail("spoken again"))
    assert speak_languages(phrases, tmp_path, workers=1) == clips


@needs_espeak
def test_a_language_that_espeak_lacks_is_left_out(tmp_path: Path) -> None:
    phrases = [Phrase("xx", "Nobody speaks it", 0), Phrase("de", "Danke", 0)]
    assert [clip.language for clip in speak_languages(phrases, tmp_path, workers=1)] == ["de"]
    assert len(speak_languages(phrases, tmp_path, workers=1)) == 1


@pytest.mark.parametrize(
    ("missing", "said"),
    [("ESPEAK", "apt-get install"), ("KOKORO", r"pip install 'amser\[train\]'")],
)
def test_a_voice_that_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str, said: str
) -> None:
    if missing == "KOKORO":
        monkeypatch.setattr(languages, "ESPEAK", "ls")
    monkeypatch.setattr(languages, missing, "a_voice_that_nobody_installed")
    with pytest.raises(ManifestError, match=said):
        speak_languages([Phrase("de", "Danke", 0)], tmp_path, workers=1)
