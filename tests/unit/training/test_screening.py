"""Recordings that cannot be used are told apart, counted and named; the rest of the corpus goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from recordings import Waveform, noise, silence

from training.corpora.manifest import Corpus, ManifestError, Record
from training.data import screening
from training.data.screening import NOT_FINITE, SILENT, TOO_LONG, TOO_SHORT, UNREADABLE, fault_of, screen, summary_of
from training.data.waveform_augmentation import WaveformAugmentation

RATE = 16_000
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(waveform: Waveform, name: str = "a.wav", rate: int = RATE, subtype: str = "PCM_16") -> Path:
        soundfile.write(tmp_path / name, waveform, rate, subtype=subtype)
        return tmp_path / name

    return write


def corpus_of(*files: Path) -> Corpus:
    return Corpus("small", tuple(Record(file.stem, file, "sad", "s", 1, "", "en") for file in files), {}, "CC0")


@pytest.mark.parametrize("rate", [8_000, 16_000, 48_000])
def test_speech_of_a_tenth_of_a_second_to_thirty_seconds_is_usable(write: Write, rate: int) -> None:
    for seconds in (0.1, 3.0, 30.0):
        assert fault_of(write(noise(seconds * rate / RATE), rate=rate)) is None


@pytest.mark.parametrize(
    ("seconds", "fault"), [(0.09, TOO_SHORT), (0.0, TOO_SHORT), (30.1, TOO_LONG), (90.0, TOO_LONG)]
)
@pytest.mark.parametrize("rate", [8_000, 48_000])
def test_what_is_shorter_or_longer_is_not_at_any_sample_rate(
    write: Write, seconds: float, fault: str, rate: int
) -> None:
    assert fault_of(write(noise(seconds * rate / RATE), rate=rate)) == fault


@pytest.mark.parametrize(
    "waveform",
    [silence(1.0), np.full(RATE, 0.25, np.float32), (np.arange(RATE) % 2 / 32768).astype(np.float32)],
    ids=["zeros", "constant", "one bit of noise"],
)
def test_digital_silence_is_not_speech(write: Write, waveform: Waveform) -> None:
    assert fault_of(write(waveform)) == SILENT


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_value_that_is_not_finite_makes_a_recording_unusable(write: Write, value: float) -> None:
    waveform = noise(1.0)
    waveform[77] = value
    assert fault_of(write(waveform, subtype="FLOAT")) == NOT_FINITE


def test_files_that_hold_no_sound_are_unreadable(tmp_path: Path, write: Write) -> None:
    (tmp_path / "text.wav").write_text("no sound")
    (tmp_path / "empty.wav").touch()
    (tmp_path / "folder.wav").mkdir()
    for name in ("text", "empty", "folder", "absent"):
        assert fault_of(tmp_path / f"{name}.wav") == UNREADABLE
    assert fault_of(write(noise(1.0), rate=1_000)) == UNREADABLE  # hertz that no log-Mel is made of


def test_a_corpus_goes_on_without_unusable_recordings_and_names_the_first_of_each_kind(
    tmp_path: Path, write: Write
) -> None:
    good = [write(noise(1.0), f"good{number}.wav") for number in range(3)]
    broken = [tmp_path / f"broken{number}.wav" for number in range(5)]
    for file in broken:
        file.write_text("no sound")
    long = write(noise(31.0), "long.wav")
    screened = screen(corpus_of(good[0], *broken, good[1], long, good[2]))
    assert [record.audio for record in screened.records] == good
    assert screened.licence == "CC0"
    assert screened.unusable == {TOO_LONG: ("long",), UNREADABLE: tuple(file.stem for file in broken)}
    assert summary_of(screened) == (
        "6 of 9 recordings left out: 1 longer than 30 s (long), 5 unreadable (broken0, broken1, broken2, …)"
    )


def test_a_corpus_without_faults_stays_as_it_is(write: Write) -> None:
    corpus = corpus_of(write(noise(1.0)))
    assert screen(corpus) == corpus
    assert summary_of(corpus) == ""


def test_a_noise_recording_that_cannot_be_read_is_left_out(
    tmp_path: Path, write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    write(noise(1.0), "street.wav")
    (tmp_path / "broken.wav").write_text("no sound")
    augmentation = WaveformAugmentation(pitch=0, stretch=0, noise=1, gain=0, background=tmp_path)
    for seed in range(8):
        assert np.isfinite(augmentation(noise(1.0), seed)).all()
    assert "broken.wav is left out" in caplog.text


def test_a_corpus_without_a_usable_recording_is_an_error(tmp_path: Path, write: Write) -> None:
    (tmp_path / "text.wav").write_text("no sound")
    corpus = corpus_of(write(silence(1.0)), tmp_path / "text.wav")
    expected = "small has no usable recording: 2 of 2 recordings left out: 1 silent (a), 1 unreadable (text)"
    with pytest.raises(ManifestError) as refused:
        screen(corpus)
    assert str(refused.value) == expected


def test_what_was_found_out_about_many_recordings_is_kept_until_one_changes(
    write: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AMSER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(screening, "KEPT_FROM", 2)
    corpus = corpus_of(write(noise(0.2)), write(silence(1.0), "b.wav"), write(noise(0.3), "c.wav"))
    first = screen(corpus)
    assert first.unusable == {SILENT: ("b",)}
    with monkeypatch.context() as patch:
        patch.setattr(screening, "fault_of", lambda file: pytest.fail(f"{file} was read again"))
        assert screen(corpus) == first
    write(noise(0.05), "c.wav")
    assert screen(corpus).unusable == {SILENT: ("b",), TOO_SHORT: ("c",)}
