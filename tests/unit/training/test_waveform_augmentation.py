"""Augmented waveforms: the same for the same seed, within their ranges, fit for the log-Mel whatever came in."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from recordings import DATA, Waveform, noise, silence

from amser.features import SAMPLE_RATE, AudioError, log_mel
from training.data.waveform_augmentation import WaveformAugmentation

UNCHANGED = {"pitch": 0.0, "stretch": 0.0, "noise": 0.0, "gain": 0.0}
SEEDS = range(20)


def only(**fields: object) -> WaveformAugmentation:
    """One change alone."""
    return WaveformAugmentation(**UNCHANGED | fields)  # type: ignore[arg-type]


def voice(seconds: float = 1.5, pitch: float = 140.0) -> Waveform:
    """A steady vowel: harmonics of a pitch in hertz that fall off as a voice does."""
    time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    tones = [np.sin(2 * np.pi * pitch * harmonic * time) / harmonic**1.5 for harmonic in range(1, 20)]
    return (0.2 * np.sum(tones, axis=0)).astype(np.float32)


def pitch_of(waveform: Waveform) -> float:
    """Hertz of the loudest partial below 400 Hz."""
    middle = waveform[len(waveform) // 4 : -len(waveform) // 4]
    power = np.abs(np.fft.rfft(middle * np.hanning(len(middle)), 1 << 18))
    frequency = np.fft.rfftfreq(1 << 18, 1 / SAMPLE_RATE)
    return float(frequency[np.argmax(np.where(frequency < 400, power, 0))])


def snr(clean: Waveform, noisy: Waveform) -> float:
    """Decibels of the waveform over what was added to it."""
    return float(10 * np.log10(np.square(clean).mean() / np.square(noisy - clean).mean()))


@pytest.fixture
def background(tmp_path: Path) -> Path:
    """Two recordings at other rates than ours: one longer than speech, one shorter."""
    folder = tmp_path / "background"
    (folder / "street").mkdir(parents=True)
    soundfile.write(folder / "long.flac", np.repeat(noise(4.0), 2), 32_000)
    soundfile.write(folder / "street" / "short.wav", noise(0.3), 44_100)
    (folder / "readme.txt").write_text("not a recording")
    return folder


def test_a_seed_gives_the_same_sound_whatever_was_drawn_before(background: Path) -> None:
    augment = WaveformAugmentation(background=background)
    random.seed(1)
    first = [augment(voice(0.5), seed) for seed in SEEDS]
    random.seed(2)
    np.random.seed(3)
    again = [WaveformAugmentation(background=background)(voice(0.5), seed) for seed in reversed(SEEDS)]
    for one, other in zip(first, reversed(again), strict=True):
        np.testing.assert_array_equal(one, other)


def test_other_seeds_give_other_sounds() -> None:
    augment = WaveformAugmentation(pitch=1, stretch=1, noise=1, gain=1)
    sounds = {augment(voice(0.5), seed).tobytes() for seed in SEEDS}
    assert len(sounds) == len(SEEDS)


def test_the_global_generators_stay_as_they_were(background: Path) -> None:
    random.seed(5)
    np.random.seed(5)
    expected = (random.random(), np.random.random())
    random.seed(5)
    np.random.seed(5)
    WaveformAugmentation(pitch=1, stretch=1, noise=1, gain=1, background=background)(voice(), 0)
    assert (random.random(), np.random.random()) == expected


def test_the_input_stays_as_it_was_and_without_changes_comes_back_as_a_copy() -> None:
    given = voice()
    before = given.copy()
    unchanged = only()(given, 0)
    WaveformAugmentation(pitch=1, stretch=1, noise=1, gain=1)(given, 0)
    np.testing.assert_array_equal(given, before)
    np.testing.assert_array_equal(unchanged, before)
    assert not np.shares_memory(unchanged, given)


def test_gaussian_noise_has_the_snr_it_says() -> None:
    ratios = [snr(voice(), only(noise=1.0)(voice(), seed)) for seed in SEEDS]
    assert min(ratios) > 14.8
    assert max(ratios) < 40.2
    assert max(ratios) - min(ratios) > 10
    papers = only(noise=1.0, gaussian_snr=(30.0, 30.0))
    assert snr(voice(), papers(voice(), 0)) == pytest.approx(30, abs=0.2)


def test_background_noise_has_the_snr_it_says_and_takes_turns_with_gaussian(background: Path) -> None:
    augment = only(noise=1.0, background=background, background_snr=(8.0, 12.0), gaussian_snr=(30.0, 40.0))
    ratios = [snr(voice(), augment(voice(), seed)) for seed in SEEDS]
    recordings = [ratio for ratio in ratios if ratio < 20]
    assert 0 < len(recordings) < len(ratios)
    assert min(recordings) > 7.5
    assert max(recordings) < 12.5


@pytest.mark.parametrize("semitones", [-2.0, 2.0])
def test_a_shift_moves_the_pitch_and_keeps_the_tempo(semitones: float) -> None:
    shifted = only(pitch=1.0, semitones=(semitones, semitones))(voice(), 0)
    assert len(shifted) == len(voice())
    assert pitch_of(shifted) / pitch_of(voice()) == pytest.approx(2 ** (semitones / 12), rel=0.01)


def test_a_stretch_changes_the_length_and_keeps_the_pitch() -> None:
    augment = only(stretch=1.0)
    stretched = [augment(voice(), seed) for seed in SEEDS]
    factors = [len(voice()) / len(sound) for sound in stretched]
    assert min(factors) >= 0.849
    assert max(factors) <= 1.181
    assert min(factors) < 0.95 < 1.05 < max(factors)
    assert [pitch_of(sound) for sound in stretched] == pytest.approx([pitch_of(voice())] * len(stretched), rel=0.01)


def test_gain_is_within_its_range_and_ends_at_full_scale() -> None:
    quiet = 0.1 * voice()
    decibels = [20 * np.log10(np.abs(only(gain=1.0)(quiet, seed)).max() / np.abs(quiet).max()) for seed in SEEDS]
    assert min(decibels) > -8.01
    assert max(decibels) < 8.01
    assert max(decibels) - min(decibels) > 6
    loud = voice() / np.abs(voice()).max()
    louder = only(gain=1.0, decibels=(8.0, 8.0))(loud, 0)
    np.testing.assert_allclose(louder, loud, atol=1e-6)  # the same shape: made quieter, not clipped


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_comes_in_a_log_mel_can_be_made_of_what_comes_out(seed: int, background: Path) -> None:
    augment = WaveformAugmentation(pitch=1, stretch=1, noise=1, gain=1, background=background)
    for given in (silence(1.0), silence(0.1), noise(0.1), voice(0.1), voice(1.0), np.full(1600, 1.0, np.float32)):
        changed = augment(given, seed)
        assert changed.dtype == np.float32
        assert len(changed) >= max(1600, len(given) / 1.19)
        assert np.isfinite(changed).all()
        assert np.abs(changed).max() <= 1
        assert np.isfinite(log_mel(changed)).all()
    assert not augment(silence(1.0), seed).any()


def test_nothing_is_longer_than_thirty_seconds() -> None:
    slower = only(stretch=1.0, rates=(0.85, 0.85))
    assert len(slower(noise(29.0), 0)) == 30 * SAMPLE_RATE
    assert len(only()(noise(31.0), 0)) == 30 * SAMPLE_RATE


@pytest.mark.parametrize(
    "given", [silence(0), silence(0.05), np.zeros((2, 1600), np.float32), np.full(1600, np.nan, np.float32)]
)
def test_what_no_log_mel_can_be_made_of_is_refused(given: Waveform) -> None:
    with pytest.raises(AudioError):
        WaveformAugmentation()(given, 0)


def test_a_background_without_recordings_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no folder .*absent"):
        WaveformAugmentation(background=tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no recordings .*empty"):
        WaveformAugmentation(background=tmp_path / "empty")


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: WaveformAugmentation(pitch=1.5),
        lambda: WaveformAugmentation(semitones=(2.0, -2.0)),
        lambda: WaveformAugmentation(gaussian_snr=(40.0, 15.0)),
    ],
)
def test_settings_without_sense_are_refused_at_once(wrong: Callable[[], WaveformAugmentation]) -> None:
    with pytest.raises(ValueError, match="probabilities|greater"):
        wrong()


def test_the_key_changes_with_settings_and_recordings_and_not_with_where_they_are(
    background: Path, tmp_path: Path
) -> None:
    keys = [
        json.dumps(augment.key(), sort_keys=True)
        for augment in (
            WaveformAugmentation(),
            WaveformAugmentation(pitch=0.4),
            WaveformAugmentation(background=background),
        )
    ]
    assert len(set(keys)) == 3
    moved = background.rename(tmp_path / "elsewhere")
    assert json.dumps(WaveformAugmentation(background=moved).key(), sort_keys=True) == keys[2]
    soundfile.write(moved / "third.wav", noise(0.2), SAMPLE_RATE)
    key = WaveformAugmentation(background=moved).key()
    assert json.dumps(key, sort_keys=True) != keys[2]
    assert key["background"]["files"] == 3  # type: ignore[index]


def test_real_speech_stays_speech_among_real_noise(speech: list[Waveform]) -> None:
    augment = WaveformAugmentation(background=DATA / "noise" / "esc10")
    for seed, waveform in enumerate(speech):
        given = waveform[: 5 * SAMPLE_RATE]
        before, after = log_mel(given), log_mel(augment(given, seed))
        # Where speech is loud it still is: the loudness of frames, brought to one length, goes together.
        loudness = before.max(axis=0)
        position = np.linspace(0, after.shape[1] - 1, len(loudness))
        stretched = np.interp(position, np.arange(after.shape[1]), after.max(axis=0))
        assert np.corrcoef(loudness, stretched)[0, 1] > 0.6
