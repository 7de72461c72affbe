"""Changes of the channel: each does what it says to real speech, and old settings give what they gave."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from recordings import DATA, Waveform

from amser.features import SAMPLE_RATE, log_mel
from training.data.reverberation import impulse_response
from training.data.waveform_augmentation import WaveformAugmentation

SEEDS = range(12)
CHANNEL: dict[str, Any] = {"reverberation": 1.0, "equalizer": 1.0, "telephone": 1.0, "far": 1.0}


def only(**fields: Any) -> WaveformAugmentation:
    """Changes of the channel alone."""
    return WaveformAugmentation(**{"pitch": 0.0, "stretch": 0.0, "noise": 0.0, "gain": 0.0} | fields)


def decibels_between(waveform: Waveform, low: float, high: float) -> float:
    power = np.abs(np.fft.rfft(waveform)) ** 2
    frequency = np.fft.rfftfreq(len(waveform), 1 / SAMPLE_RATE)
    return float(10 * np.log10(power[(frequency >= low) & (frequency < high)].sum() + 1e-12))


def level(waveform: Waveform) -> float:
    return float(20 * np.log10(np.sqrt(np.square(waveform).mean())))


@pytest.fixture
def clip(speech: list[Waveform]) -> Waveform:
    return speech[0][: 3 * SAMPLE_RATE]


def test_a_seed_gives_the_same_channel_and_another_seed_another(clip: Waveform) -> None:
    augment = only(**CHANNEL)
    first = [augment(clip, seed) for seed in SEEDS]
    for one, other in zip(first, [only(**CHANNEL)(clip, seed) for seed in SEEDS], strict=True):
        np.testing.assert_array_equal(one, other)
    assert len({each.tobytes() for each in first}) == len(SEEDS)


def test_a_telephone_passes_its_band_alone(clip: Waveform) -> None:
    for seed in SEEDS:
        heard = only(telephone=1.0)(clip, seed)
        assert decibels_between(heard, 500, 2500) > decibels_between(clip, 500, 2500) - 3
        assert decibels_between(heard, 5500, 8000) < decibels_between(clip, 5500, 8000) - 15
        assert decibels_between(heard, 20, 80) < decibels_between(clip, 20, 80) - 20


def test_an_equaliser_changes_bands_by_about_what_it_may(clip: Waveform) -> None:
    bands = [(100, 200), (300, 600), (1000, 2000), (3000, 5000)]
    changes = np.array(
        [
            [decibels_between(heard, *band) - decibels_between(clip, *band) for band in bands]
            for heard in (only(equalizer=1.0)(clip, seed) for seed in SEEDS)
        ]
    )
    assert np.abs(changes).max() < 18  # where two bands overlap, and all is made quieter where it would clip
    assert (changes.max(axis=0) - changes.min(axis=0) > 4).all()


def test_a_distant_voice_is_quieter(clip: Waveform) -> None:
    changes = [level(only(far=1.0)(clip, seed)) - level(clip) for seed in SEEDS]
    assert min(changes) > -35.1
    assert max(changes) < 0.1
    assert max(changes) - min(changes) > 15


def test_a_room_fills_the_pauses_and_keeps_length_and_level(clip: Waveform) -> None:
    dry = log_mel(clip).max(axis=0)
    for seed in SEEDS:
        heard = only(reverberation=1.0, reverberation_seconds=(0.8, 0.8), direct_decibels=(-6.0, -6.0))(clip, seed)
        assert len(heard) == len(clip)
        assert level(heard) == pytest.approx(level(clip), abs=0.1)
        wet = log_mel(heard).max(axis=0)
        assert np.percentile(wet, 10) - np.median(wet) > np.percentile(dry, 10) - np.median(dry)


@pytest.mark.parametrize("seconds", [0.15, 0.4, 0.9])
@pytest.mark.parametrize("ratio", [-6.0, 12.0])
def test_an_impulse_response_has_its_decay_and_its_ratio(seconds: float, ratio: float) -> None:
    response = impulse_response(seconds, ratio, SAMPLE_RATE, np.random.default_rng(3)).astype(np.float64)
    assert 10 * np.log10(response[0] ** 2 / np.square(response[1:]).sum()) == pytest.approx(ratio, abs=0.01)
    remaining = 10 * np.log10(np.cumsum(np.square(response[1:])[::-1])[::-1] + 1e-30)
    falls = np.flatnonzero(remaining < remaining[0] - 5)[0], np.flatnonzero(remaining < remaining[0] - 25)[0]
    assert 3 * (falls[1] - falls[0]) / SAMPLE_RATE == pytest.approx(seconds, rel=0.15)  # T20, times three


def test_speech_through_all_of_it_is_fit_for_a_log_mel(speech: list[Waveform]) -> None:
    augment = WaveformAugmentation(
        **CHANNEL, noise=1.0, gaussian_snr=(0.0, 30.0), background=DATA / "noise" / "esc10", background_snr=(0.0, 30.0)
    )
    for seed, waveform in enumerate(speech[:8]):
        heard = augment(waveform[: 4 * SAMPLE_RATE], seed)
        assert heard.dtype == np.float32
        assert np.abs(heard).max() <= 1
        assert np.isfinite(log_mel(heard)).all()
    assert not only(**CHANNEL)(np.zeros(SAMPLE_RATE, np.float32), 0).any()


def test_without_them_the_other_changes_stay_those_of_the_seed(clip: Waveform) -> None:
    plain = WaveformAugmentation(pitch=0, stretch=0, noise=1, gain=1)
    others = WaveformAugmentation(pitch=0, stretch=0, noise=1, gain=1, far_decibels=(-20.0, -10.0))
    for seed in SEEDS:
        np.testing.assert_array_equal(plain(clip, seed), others(clip, seed))


@pytest.mark.parametrize(
    "wrong",
    [{"telephone": 1.2}, {"far_decibels": (0.0, -35.0)}, {"reverberation_seconds": (0.0, 0.5)}, {"equalizer": -0.1}],
)
def test_settings_without_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="probabilities|greater"):
        only(**wrong)


def test_the_key_names_every_setting_of_the_channel() -> None:
    keys = [str(only(**change).key()) for change in ({}, {"telephone": 0.5}, {"direct_decibels": (0.0, 6.0)})]
    assert len(set(keys)) == 3
