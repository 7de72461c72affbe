"""Of several channels those that speak become one: whatever the others hold, and in whichever polarity."""

from __future__ import annotations

import numpy as np
import pytest
from recordings import Waveform, hum, noise, rows, speakers, waveform_of

from amser.channels import FEWEST_FRAMES, LEAST_MOVEMENT, mix_down, movement, spectrum_of
from amser.features import SAMPLE_RATE, resample, to_mono

STEADY = ("rain", "sea_waves", "helicopter")  # of ESC-10


@pytest.fixture(scope="module")
def clip() -> Waveform:
    return waveform_of(speakers(1)[0]["path"])


@pytest.fixture(scope="module")
def second_clip() -> Waveform:
    return waveform_of(speakers(2)[1]["path"])


def as_loud_as(waveform: Waveform, other: Waveform, decibels: float = 0.0) -> Waveform:
    """A waveform so many decibels above another, and as long."""
    repeated = np.resize(waveform, len(other))
    scale = np.sqrt(np.square(other).mean() / np.square(repeated).mean()) * 10 ** (decibels / 20)
    return (scale * repeated).astype(np.float32)


def stereo(left: Waveform, right: Waveform) -> Waveform:
    return np.stack([left, right], axis=1)


def chords(seconds: float) -> Waveform:
    """A triad of ten harmonics each, another root every second."""
    time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    roots = np.array([220.0, 247.0, 196.0, 262.0])[time.astype(int) % 4]
    tones = [
        np.sin(2 * np.pi * roots * interval * harmonic * time) / harmonic
        for interval in (1, 1.26, 1.5)
        for harmonic in range(1, 11)
    ]
    return (0.05 * np.sum(tones, axis=0)).astype(np.float32)


def disturbances() -> dict[str, Waveform]:
    recorded = {row["path"]: row["label"] for row in rows("noise/esc10.tsv") if row["label"] in STEADY}
    return {
        "white noise": noise(3),
        "hum": hum(3),
        "chords": chords(4),
        "a constant": np.ones(1000, np.float32),
        "clipped noise": np.sign(noise(3)),
        **{f"{label} {path}": waveform_of(path) for path, label in recorded.items()},
    }


def correlation(one: Waveform, other: Waveform) -> float:
    return float(np.corrcoef(one, other)[0, 1])


def test_equal_channels_keep_every_bit(clip: Waveform) -> None:
    np.testing.assert_array_equal(mix_down(stereo(clip, clip), SAMPLE_RATE), clip)


def test_ordinary_stereo_is_the_mean_to_the_last_bit(clip: Waveform) -> None:
    """A voice to the left of two microphones 10 cm apart, in a room with a little noise of its own."""
    both = stereo(clip, 0.7 * np.roll(clip, 4)) + 0.001 * noise(len(clip) / SAMPLE_RATE)[: len(clip), None]
    np.testing.assert_array_equal(mix_down(both, SAMPLE_RATE), both.mean(axis=1, dtype=np.float32))


@pytest.mark.parametrize("decibels", [-10, 0, 20])
def test_speech_is_heard_alone_whatever_is_beside_it(clip: Waveform, decibels: float) -> None:
    for name, disturbance in disturbances().items():
        beside = as_loud_as(disturbance, clip, decibels)
        for both in (stereo(clip, beside), stereo(beside, clip)):
            np.testing.assert_array_equal(mix_down(both, SAMPLE_RATE), clip, err_msg=name)


def test_speech_beside_silence_keeps_its_level(clip: Waveform) -> None:
    np.testing.assert_array_equal(mix_down(stereo(clip, np.zeros_like(clip)), SAMPLE_RATE), clip)


def test_speech_in_noise_is_not_taken_for_noise(clip: Waveform, second_clip: Waveform) -> None:
    noisy = clip + as_loud_as(noise(3), clip, -10)
    both = stereo(noisy, np.resize(second_clip, len(clip)))
    np.testing.assert_array_equal(mix_down(both, SAMPLE_RATE), both.mean(axis=1, dtype=np.float32))


def test_two_people_in_a_channel_each_are_both_heard(clip: Waveform, second_clip: Waveform) -> None:
    """One speaks after the other, as on the telephone."""
    left = np.concatenate([clip, np.zeros_like(second_clip)])
    right = np.concatenate([np.zeros_like(clip), second_clip])
    mono = mix_down(stereo(left, right), SAMPLE_RATE)
    np.testing.assert_allclose(mono, np.concatenate([clip, second_clip]) / 2, atol=1e-7)


def test_one_word_beside_a_long_talk_is_heard(clip: Waveform, second_clip: Waveform) -> None:
    long_talk = np.resize(clip, 25 * SAMPLE_RATE)
    word = np.zeros_like(long_talk)
    word[10 * SAMPLE_RATE :][: SAMPLE_RATE // 2] = second_clip[SAMPLE_RATE // 2 : SAMPLE_RATE]
    mono = mix_down(stereo(long_talk, word), SAMPLE_RATE)
    np.testing.assert_allclose(mono, (long_talk + word) / 2, atol=1e-7)


@pytest.mark.parametrize("level", [1.0, 0.3])
@pytest.mark.parametrize("own_noise", [-30.0, -10.0, 0.0])
def test_opposite_phase_does_not_cancel_in_noise_of_its_own(clip: Waveform, level: float, own_noise: float) -> None:
    first, second = np.random.default_rng(1).standard_normal((2, len(clip))).astype(np.float32)
    left, right = clip + as_loud_as(first, clip, own_noise), -clip + as_loud_as(second, clip, own_noise)
    assert abs(correlation(mix_down(stereo(left, level * right), SAMPLE_RATE), clip)) > 0.7


@pytest.mark.parametrize("common", [noise(3), hum(3), np.ones(1000, np.float32)], ids=["noise", "hum", "a constant"])
@pytest.mark.parametrize("decibels", [-10.0, 0.0, 10.0])
def test_opposite_phase_is_heard_in_noise_of_equal_phase(clip: Waveform, common: Waveform, decibels: float) -> None:
    added = as_loud_as(common, clip, decibels)
    mono = mix_down(stereo(added + clip, added - clip), SAMPLE_RATE)
    assert abs(correlation(mono, clip)) > 0.99


def test_equal_phase_in_noise_is_not_inverted(clip: Waveform) -> None:
    noisy = clip + as_loud_as(noise(3), clip)
    both = stereo(noisy, 0.9 * noisy)
    np.testing.assert_array_equal(mix_down(both, SAMPLE_RATE), both.mean(axis=1, dtype=np.float32))


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_a_broken_channel_does_not_count(clip: Waveform, broken: float) -> None:
    other = clip.copy()
    other[100] = broken
    np.testing.assert_array_equal(mix_down(stereo(clip, other), SAMPLE_RATE), clip)
    assert not np.isfinite(mix_down(stereo(other, other), SAMPLE_RATE)).all()


@pytest.mark.parametrize("place", [0, 3, 7])
def test_speech_in_one_of_eight_noisy_channels_is_heard_alone(clip: Waveform, place: int) -> None:
    channels = np.random.default_rng(2).standard_normal((len(clip), 8)).astype(np.float32)
    channels[:, place] = clip
    np.testing.assert_array_equal(mix_down(channels, SAMPLE_RATE), clip)


def test_one_channel_of_four_in_opposite_phase_does_not_weaken_the_others(clip: Waveform) -> None:
    channels = np.stack([clip, clip, -clip, clip], axis=1)
    np.testing.assert_allclose(np.abs(mix_down(channels, SAMPLE_RATE)), np.abs(clip), atol=1e-7)


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000])
def test_the_choice_is_the_same_at_every_rate(clip: Waveform, rate: int) -> None:
    speech = resample(clip, SAMPLE_RATE, rate)
    beside = as_loud_as(noise(4), speech, 10)
    np.testing.assert_array_equal(to_mono(stereo(beside, speech), rate), speech)


def test_levels_do_not_matter_to_the_choice(clip: Waveform) -> None:
    beside = as_loud_as(noise(3), clip)
    for scale in (1e-6, 1e30):
        scaled = np.float32(scale) * clip
        np.testing.assert_array_equal(mix_down(stereo(scaled, beside), SAMPLE_RATE), scaled)


def test_less_than_half_a_second_is_averaged(clip: Waveform) -> None:
    both = stereo(clip, as_loud_as(noise(3), clip))[SAMPLE_RATE:][: round(0.4 * SAMPLE_RATE)]
    np.testing.assert_array_equal(mix_down(both, SAMPLE_RATE), both.mean(axis=1, dtype=np.float32))
    assert movement(spectrum_of(both[:, 0], SAMPLE_RATE), SAMPLE_RATE) == LEAST_MOVEMENT


def test_the_spectrum_of_speech_moves_and_that_of_noise_does_not() -> None:
    spoken = [waveform_of(row["path"]) for row in speakers(12)]
    assert min(movement(spectrum_of(each, SAMPLE_RATE), SAMPLE_RATE) for each in spoken) > 3
    assert movement(spectrum_of(noise(5), SAMPLE_RATE), SAMPLE_RATE) < 1
    assert len(spectrum_of(noise(0.5), SAMPLE_RATE)) == FEWEST_FRAMES
