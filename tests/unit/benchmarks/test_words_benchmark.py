"""`benchmarks.words`: how texts are scored, which sounds are played, and the command on real speech."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import recordings

from amser.features import SAMPLE_RATE
from benchmarks import words
from benchmarks.measuring.bootstrap import interval
from benchmarks.measuring.command import CannotBegin
from benchmarks.measuring.manifest import ManifestError
from benchmarks.measuring.noise import Condition, Recordings
from benchmarks.measuring.transmission import Kept
from benchmarks.measuring.words import figures
from benchmarks.measuring.words.listening import Heard
from benchmarks.measuring.words.padded import PaddedReference
from benchmarks.measuring.words.recorded import clips_twice, in_noise, joined_clips, of_readers
from benchmarks.measuring.words.scoring import loops, takes, units, without_grouping
from benchmarks.measuring.words.sentences import SINGLE_WORDS
from benchmarks.measuring.words.sounds import KINDS, LEVELS, SECONDS, recordings_of, sounds, synthesised
from benchmarks.measuring.words.spoken import LONGEST_REPEATED, Voice, repeats, sentences
from benchmarks.measuring.words.utterance import Utterance, joined, thinned
from models.messages import Transcript
from models.weights import cache_folder, model_path
from models.whisper.ctranslate2_engine import CTranslate2Engine
from training.short_context.clips import read_clips
from training.short_context.sounds import recordings_in

SPEECH = recordings.DATA / "speech" / "librispeech.tsv"
NOISE = recordings.DATA / "noise" / "esc10.tsv"


def silence() -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.zeros(SAMPLE_RATE, np.float32)


def said(text: str, speaker: str = "a", language: str = "en", **more: Any) -> Utterance:
    return Utterance("made", silence, text, speaker, language, **more)


def heard(text: str, likelihood: float = -0.2, seconds: float = 2.0, **more: Any) -> Heard:
    return Heard(Transcript(text, "en", likelihood, **more), seconds)


# --- Texts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said_in_words", "written"),
    [
        ("Five five five, zero one two three.", "555-0123"),
        ("Five five five, zero one two three.", "5, 5, 5, 0, 1, 2, 3."),
        ("Twenty one.", "21"),
        ("Twelve thousand three hundred and forty five.", "12,345"),
        ("It was nineteen eighty four.", "It was 1984."),
        ("The code is seven three nine four.", "The code is 7 3 9 4."),
        ("That costs three dollars and fifty cents.", "That costs $3.50"),
        ("It is twelve percent.", "It is 12%."),
        ("A M S E R", "A-M-S-E-R."),
        ("A M S E R", "AMSER"),
        ("Echo foxtrot two five.", "Echo Foxtrot 25"),
    ],
)
def test_numbers_and_spelled_words_are_the_same_however_they_are_written(said_in_words: str, written: str) -> None:
    assert without_grouping(said_in_words) == without_grouping(written)


@pytest.mark.parametrize(
    ("text", "other"), [("Twenty one.", "22"), ("A M S E R", "AMSEL"), ("seven three nine four", "7395"), ("one", "")]
)
def test_other_numbers_and_letters_stay_others(text: str, other: str) -> None:
    assert without_grouping(text) != without_grouping(other)


SENTENCE = "He could wait no longer."


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("Nothing of the kind was said here.", 0),
        (SENTENCE, 1),
        ("He could wait no longer. He could wait no longer.", 2),
        ("He could wait no longer, he could hate no longer", 2),
        ("He could wait. No.", 1),
        ("he could wait no longer " * 8, 8),
        ("And then he could wait no longer, because he could wait no longer.", 2),
    ],
)
def test_takes_of_a_sentence_are_counted_though_words_differ(text: str, count: int) -> None:
    assert takes(text, SENTENCE) == count


def test_takes_of_a_word_are_counted() -> None:
    assert takes("Stop. Stop. Stop!", "Stop.") == 3
    assert takes("Go. Stop.", "Stop.") == 1


@pytest.mark.parametrize(
    ("text", "is_loop"),
    [
        ("", False),
        ("No, no, no.", False),
        ("He could wait no longer. He could wait no longer.", False),
        ("I was the man who was the man who was the man who was the man who was", True),
        ("ааааааааааааааааааааааааааа", True),
        ("그리고 그리고 그리고 그리고 그리고 그리고 그리고", True),
        ("MY DEAR GIRL JOHN BEGAN RUTH TOLLIVER HER VOICE SHAKING", False),
    ],
)
def test_a_loop_says_the_same_thing_three_times_in_a_row(text: str, is_loop: bool) -> None:
    assert loops(text) is is_loop


def test_agreement_counts_words_and_characters_where_there_are_no_blanks() -> None:
    assert units("Zażółć, gęślą jaźń!", "pl") == "zażółć gęślą jaźń"
    assert units("안녕하세요. 반갑습니다", "ko") == "안녕하세요 반갑습니다"
    assert units("今日は。 天気", "ja") == "今 日 は 天 気"


# --- Figures ----------------------------------------------------------------------------------------------------------


def test_word_errors_and_silence_of_utterances() -> None:
    row = figures.of_words(
        [said("THE OLD MAN SLEPT"), said("GOOD DAY", "b"), said("YES", "b")],
        [heard("the old man sleeps"), heard("Good day."), heard("", seconds=0.6, speech="none")],
    )
    assert row["wer"] == round(100 * 2 / 7, 2)
    assert row["wer_low"] <= row["wer"] <= row["wer_high"]
    assert row["exact"] == pytest.approx(100 / 3, abs=0.01)
    assert (row["utterances"], row["empty"], row["over_a_second"], row["empty_over_a_second"]) == (3, 1, 2, 0)
    assert (row["loops"], row["doubtful"]) == (0, 0)


def test_missing_takes_and_takes_that_nobody_said() -> None:
    twice = said(f"{SENTENCE} {SENTENCE}", sentence=SENTENCE, takes=2)
    texts = (f"{SENTENCE} {SENTENCE}", SENTENCE, " ".join([SENTENCE] * 5), "")
    row = figures.of_repeats([twice] * 4, [heard(text) for text in texts])
    assert (row["whole"], row["takes"], row["takes_missing"], row["too_many"], row["empty"]) == (1, 8, 3, 1, 1)


def test_clips_of_different_words_have_no_takes() -> None:
    assert "takes" not in figures.of_repeats([said("good day")], [heard("Good day.")])


def test_agreement_is_judged_where_the_reference_can_be_believed() -> None:
    utterances = [said("", speaker, "pl") for speaker in "aabbc"]
    loop = "i znowu i znowu i znowu i znowu i znowu"
    reference = [
        heard("dzień dobry panu"),
        heard("nie wiem czego"),
        heard("zupełnie coś innego", likelihood=-0.9),
        heard(loop),
        heard(""),
    ]
    texts = [heard("Dzień dobry, panu!"), heard("nie wiem"), heard("tak"), heard(loop), heard("nic", speech="doubtful")]
    row = figures.of_agreement(utterances, texts, reference)
    assert (row["utterances"], row["sane"]) == (5, 2)
    assert row["agreement"] == pytest.approx(100 * 5 / 6, abs=0.01)
    assert row["agreement_low"] <= row["agreement"] <= row["agreement_high"] <= 100
    assert row["agreement_of_all"] == pytest.approx(100 * 15 / 19, abs=0.01)  # of 19 words 4 are others
    assert (row["reference_loops"], row["reference_empty"], row["reference_unlikely"]) == (1, 1, 1)
    assert (row["loops"], row["loops_of_all"], row["doubtful"]) == (0, 1, 0)


def test_agreement_without_a_reference_to_believe_is_unknown() -> None:
    row = figures.of_agreement([said("")], [heard("text")], [heard("words", likelihood=-2.0)])
    assert (row["agreement"], row["agreement_low"], row["sane"], row["agreement_of_all"]) == (None, None, 0, 0.0)


def test_false_speech_is_any_text_and_its_longest_is_told() -> None:
    texts = [heard("", speech="none"), heard("Thank you."), heard("so it is what it is", speech="doubtful"), heard("")]
    row = figures.of_sounds(texts)
    assert (row["utterances"], row["false_speech"], row["false_speech_percent"], row["surely"]) == (4, 2, 50.0, 1)
    assert (row["most_words"], row["most_characters"]) == (6, 19)
    assert row["speech"] == {"none": 1, "doubtful": 1, "yes": 2}


def test_false_silence_is_counted_over_all_sets_of_a_system() -> None:
    def row(name: str, utterances: int, empty: int, long: int, empty_long: int) -> dict[str, Any]:
        system = {"weights": "w", "context": "short", "hint": "told"}
        counts = {"utterances": utterances, "empty": empty, "over_a_second": long, "empty_over_a_second": empty_long}
        return {"set": name, **system, **counts}

    rows = [row("word", 60, 5, 10, 2), row("librispeech", 40, 1, 40, 1), row("nemo", 75, 3, 70, 2)]
    (summary,) = figures.false_silence(rows)
    assert (summary["over_a_second"], summary["empty_over_a_second"]) == (110, 3)
    assert (summary["single_words"], summary["empty_single_words"]) == (60, 5)


def test_intervals_draw_speakers_with_all_their_utterances() -> None:
    errors, count = np.array([10, 10, 0, 0]), np.full(4, 10)
    assert interval(errors, count, ["a", "a", "b", "b"]) == (0.0, 100.0)
    one_speaker = interval(np.tile(errors, 25), np.tile(count, 25), ["a"] * 100)
    assert 35 < one_speaker[0] < 50 < one_speaker[1] < 65
    assert interval(np.array([1, 1]), np.array([10, 10]), ["a", "b"]) == (10.0, 10.0)


# --- Sounds and sentences ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_sound_depends_on_its_kind_length_level_and_seed_alone(kind: str) -> None:
    sound = synthesised(kind, 1.0, -45, 3)
    assert (sound.dtype, sound.shape) == (np.float32, (SAMPLE_RATE,))
    assert np.array_equal(sound, synthesised(kind, 1.0, -45, 3))
    assert not np.array_equal(sound, synthesised(kind, 1.0, -45, 4))
    assert np.abs(synthesised(kind, 1.0, 0, 3)).max() <= 1
    assert 20 * np.log10(np.sqrt(np.square(sound).mean())) == pytest.approx(-45, abs=0.1)
    assert len(synthesised(kind, 0.3, -45, 0)) == 4800


def test_the_set_of_sounds_has_every_kind_at_every_length_and_level() -> None:
    made = sounds([])
    assert {each.kind for each in made} == {*KINDS, "silence"}
    assert sum(each.kind == "hum" for each in made) == len(SECONDS) * len(LEVELS) * 2
    assert all(each.text == "" for each in made)
    silent = [each.load() for each in made if each.kind == "silence"]
    assert [len(each) / SAMPLE_RATE for each in silent] == list(SECONDS)
    assert not any(each.any() for each in silent)


def test_recordings_of_noise_are_those_that_taught_nothing_cut_or_repeated() -> None:
    files = recordings_of(NOISE, [5])
    assert len(files) == 4
    assert set(files) == set(recordings_in(recordings.DATA / "noise" / "esc10")[4::5])
    assert len(recordings_of(NOISE, [1, 2, 3, 4, 5])) == 20
    recorded, again = ([each for each in sounds(files) if each.kind == "recording"] for _ in range(2))
    assert len(recorded) == 4 * len(SECONDS) * 2
    assert [len(each.load()) / SAMPLE_RATE for each in recorded[:12:2]] == list(SECONDS)
    assert np.array_equal(recorded[4].load(), again[4].load())
    assert not np.array_equal(recorded[4].load(), recorded[5].load())
    with pytest.raises(ManifestError, match="no recording is in the folds 31"):
        recordings_of(NOISE, [31])


def test_the_voice_says_the_same_in_every_run_and_another_take_otherwise() -> None:
    voice = Voice()
    first, second = voice("Stop."), voice("Stop.", 1)
    assert np.array_equal(first, Voice()("Stop."))
    assert not np.array_equal(first, Voice(1)("Stop."))
    assert len(first) != len(second) or not np.array_equal(first, second)
    assert np.abs(first).max() == pytest.approx(0.5, abs=1e-3)


def test_sentences_are_single_words_numbers_spellings_code_words_and_pauses() -> None:
    made = sentences(Voice())
    places = figures.by_kind(made)
    assert {kind: len(own) for kind, own in places.items()} == {
        **{"word": 60, "number": 24, "spelled": 16, "code words": 16, "pauses": 12}
    }
    assert len(set(SINGLE_WORDS)) == 60
    spelled = made[places["spelled"][0]]
    assert spelled.text == "A M S E R"
    paused = made[places["pauses"][0]].load()
    assert len(paused) > 2 * SAMPLE_RATE
    quiet = np.flatnonzero(np.abs(paused) > 0)
    assert np.diff(quiet).max() >= SAMPLE_RATE  # a second at least


def test_repeats_are_as_often_in_the_text_as_they_are_said() -> None:
    made = repeats(Voice())
    assert sum(each.kind.startswith("twice") for each in made) == 100
    often = [each for each in made if each.kind == "3 to 8 times"]
    assert {each.takes for each in often} >= {3, 5, 8}
    for each in often[:4]:
        assert takes(each.text, each.sentence) == each.takes
        assert len(each.load()) <= LONGEST_REPEATED * SAMPLE_RATE


# --- Recordings -------------------------------------------------------------------------------------------------------


def test_readers_are_those_of_the_folds_that_training_has() -> None:
    judged = of_readers(SPEECH, [5])
    clips = read_clips([SPEECH])
    assert {each.speaker for each in judged} == {clip.speaker for clip in clips if clip.fold == 5}
    assert {each.speaker for each in judged}.isdisjoint(clip.speaker for clip in clips if clip.fold != 5)
    assert len(judged) == 4
    assert all(each.text and each.kind == "librispeech" and each.language == "en" for each in judged)
    with pytest.raises(CannotBegin, match="nobody is in the folds 9; --readers"):
        of_readers(SPEECH, [9])


def test_a_clip_twice_and_clips_joined() -> None:
    def ones(count: int, text: str, speaker: str) -> Utterance:
        return Utterance("clips", lambda: np.ones(count * SAMPLE_RATE, np.float32), text, speaker)

    clips = [ones(3, "one", "a"), ones(4, "two", "a"), ones(9, "three", "a"), ones(5, "four", "b")]
    twice = clips_twice(clips)
    assert [(each.text, each.sentence, each.takes) for each in twice] == [
        *(("one one", "one", 2), ("two two", "two", 2), ("four four", "four", 2))
    ]
    assert [len(each.load()) / SAMPLE_RATE for each in twice] == [6.5, 9.0, 10.5]
    (together,) = joined_clips(clips, 0)
    assert sorted(together.text.split()) == ["one", "three", "two"]
    assert 16.6 <= len(together.load()) / SAMPLE_RATE <= 20
    assert joined_clips(clips, 0)[0].text == together.text
    assert len(joined([np.ones(10, np.float32)] * 3, [0.5, 0.25])) == 30 + 12000


def test_noise_depends_on_the_name_of_the_recording() -> None:
    noise = Recordings(recordings_of(NOISE, [5]))
    first, second = of_readers(SPEECH, [5])[:2]
    loud = in_noise(first, Condition.parse("noise-5db"), noise)
    assert np.array_equal(loud.load(), in_noise(first, Condition.parse("noise-5db"), noise).load())
    assert not np.array_equal(loud.load(), first.load())
    assert in_noise(second, Condition.parse("clean"), noise) is second


def test_every_kth_is_kept() -> None:
    assert thinned(list(range(10)), 4) == [0, 3, 6, 9]
    assert thinned(list(range(10)), None) == list(range(10))
    assert thinned([], 4) == []


# --- The command ------------------------------------------------------------------------------------------------------


def test_a_missing_manifest_and_unknown_weights_are_said_in_a_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("AMSER_DATA", raising=False)
    rows = str(tmp_path / "rows.json")
    for arguments, why in (
        (
            ["--only", "agreement"],
            "no manifest: set AMSER_DATA to a folder that holds emotion/ravdess.tsv, or",
        ),
        (["--weights", "whisper-huge"], "no model is called 'whisper-huge'"),
        (
            ["--only", "recordings", "--speech", str(SPEECH), "--conditions", "noise-5db"],
            "--conditions needs",
        ),
    ):
        with pytest.raises(SystemExit) as ended:
            words.main([*arguments, "--json", rows])
        assert ended.value.code == 2
        assert capsys.readouterr().err.startswith(f"benchmarks.words: {why}")
    with pytest.raises(SystemExit):
        words.main(["--conditions", "babble-5db", "--json", rows])
    assert "'babble-5db'" in capsys.readouterr().err


@pytest.mark.slow
def test_recordings_and_agreement_are_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "weights").symlink_to(cache_folder() / "weights")
    monkeypatch.setenv("AMSER_CACHE", str(tmp_path))  # nothing is kept from other runs
    monkeypatch.delenv("AMSER_DATA", raising=False)
    manifests = ["--speech", str(SPEECH), "--agreement", str(SPEECH), "--conditions", "clean", "--codec", "none"]
    files = ["--json", str(tmp_path / "rows.json"), "--texts", str(tmp_path / "texts.jsonl")]
    words.main(["--only", "recordings", "agreement", "--limit", "1", *manifests, *files])
    rows = json.loads((tmp_path / "rows.json").read_text())
    recorded = [row for row in rows if row["part"] == "recordings"]
    assert [(row["context"], row["hint"]) for row in recorded] == [
        ("short", "told"),
        ("reference", "told"),
        ("short", "detected"),
        ("reference", "detected"),
        ("short", "wrong"),
    ]
    assert all(row["wer"] <= 20 and row["empty"] == 0 and row["utterances"] == 1 for row in recorded[:4])
    agreed = [row for row in rows if row["part"] == "agreement"]
    assert [(row["hint"], row["sane"]) for row in agreed] == [("told", 1), ("detected", 1)]
    assert all(row["agreement"] >= 80 for row in agreed)
    (silent, _) = [row for row in rows if row["part"] == "false silence"]
    assert (silent["over_a_second"], silent["empty_over_a_second"], silent["single_words"]) == (2, 0, 0)
    assert {row["reference_weights"] for row in rows} == {"whisper-base"}
    texts = [json.loads(line) for line in (tmp_path / "texts.jsonl").read_text().splitlines()]
    assert len(texts) == 9  # those of the reference, too
    assert {"said", "text", "speech", "weights", "context"} <= texts[0].keys()
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_what_the_reference_writes_is_kept(tmp_path: Path) -> None:
    mel = recordings.mel_of(of_readers(SPEECH, [5])[0].load())
    kept = Kept(tmp_path / "kept.sqlite")

    def never() -> Any:
        raise AssertionError("the text is there")

    first = PaddedReference("whisper-base", lambda: CTranslate2Engine(model_path("whisper-base")), kept)
    (text,) = first.transcribe([mel])
    assert len(text.text.split()) > 4
    assert PaddedReference("whisper-base", never, kept).transcribe([mel]) == [text]
