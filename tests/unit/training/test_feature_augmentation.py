"""Changes to a log-Mel and to encoder states: within their ranges, and still possible speech."""

from __future__ import annotations

import numpy as np
import pytest

from training.data.augmentation import MelAugmentation, StateAugmentation

NO_CHANGE = {"gain": 0, "crop": 0, "tempo": 0, "band_shift": 0, "time_masks": 0, "band_masks": 0, "noise": 0}


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)


def test_augmentation_that_is_turned_off_changes_nothing(random: np.random.Generator) -> None:
    mel = random.normal(0, 0.2, (80, 100)).astype(np.float32)
    np.testing.assert_allclose(MelAugmentation(**NO_CHANGE)(mel, random), mel, atol=1e-6)


@pytest.mark.parametrize("frames", [1, 2, 30, 200, 3000])
def test_augmentation_keeps_a_log_mel_usable(frames: int, random: np.random.Generator) -> None:
    augment = MelAugmentation(noise=1.0)
    for _ in range(20):
        mel = augment(random.normal(0, 0.3, (80, frames)).astype(np.float16), random)
        assert mel.dtype == np.float32
        assert mel.shape[0] == 80
        assert max(1, int(frames * 0.7)) <= mel.shape[1] <= frames * 1.13 + 1
        assert np.isfinite(mel).all()


def test_augmentation_leaves_the_features_it_was_given(random: np.random.Generator) -> None:
    mel = random.normal(0, 0.2, (80, 100)).astype(np.float32)
    before = mel.copy()
    MelAugmentation(noise=1.0)(mel, random)
    np.testing.assert_array_equal(mel, before)


def test_gain_is_in_decibels(random: np.random.Generator) -> None:
    mel = np.zeros((80, 100), np.float32)
    augment = MelAugmentation(**NO_CHANGE | {"gain": 4})
    gains = [float(augment(mel, random)[0, 0]) for _ in range(200)]
    assert 0.09 < max(gains) <= 0.1  # 4 dB on the scale (log10 power + 4) / 4
    assert -0.1 <= min(gains) < -0.09


@pytest.mark.parametrize("rows", [0, 1, 2, 7, 100, 750])
def test_states_are_cut_at_their_ends_and_masked_within(rows: int, random: np.random.Generator) -> None:
    states = np.repeat(np.arange(1, rows + 1, dtype=np.float16)[:, None], 5, axis=1)
    before = states.copy()
    augment = StateAugmentation(crop=0.3, mask=0.2)
    for _ in range(50):
        changed = augment(states, random)
        assert changed.dtype == np.float16
        assert min(rows, max(1, int(0.7 * rows))) <= len(changed) <= rows
        masked = ~changed.any(axis=1)
        assert masked.sum() <= 0.2 * len(changed)
        assert np.abs(np.diff(masked.astype(int))).sum() <= 2  # one run
        numbers = changed[~masked, 0]
        offset = numbers - np.flatnonzero(~masked)
        assert len(set(offset)) <= 1  # what stays is where it was, in order
        np.testing.assert_array_equal(states, before)


def test_states_stay_as_they_are_where_nothing_is_to_be_cut_or_masked(random: np.random.Generator) -> None:
    states = random.standard_normal((40, 5)).astype(np.float16)
    np.testing.assert_array_equal(StateAugmentation(crop=0, mask=0)(states, random), states)
