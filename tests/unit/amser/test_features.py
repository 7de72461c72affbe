"""Waveform → log-Mel: equal to Whisper's own, to a plain reading of the papers, and clear about what it refuses."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
from numpy.typing import NDArray
from whisper import audio as whisper_audio

from amser import features
from amser.features import (
    HOP_LENGTH,
    PROFILES,
    SAMPLE_RATE,
    AudioError,
    AudioNotFinite,
    AudioTooShort,
    EmptyAudio,
    UnsupportedAudio,
    clamp_to_floor,
    log_mel,
    resample,
    silence_value,
    to_mono,
    validate,
)

Waveform = NDArray[np.float32]


def noise(seconds: float, amplitude: float = 0.1) -> Waveform:
    samples = np.random.default_rng(7).standard_normal(round(seconds * SAMPLE_RATE))
    return (amplitude * samples).astype(np.float32)


def sine(hertz: float, rate: int, seconds: float = 1.0) -> Waveform:
    return np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate).astype(np.float32)


@pytest.mark.parametrize("bands", [80, 128])
def test_the_whisper_profiles_equal_openai_whisper_on_real_speech(speech: list[Waveform], bands: int) -> None:
    for waveform in speech:
        expected = whisper_audio.log_mel_spectrogram(waveform, bands).numpy()
        actual = log_mel(waveform, f"whisper{bands}")
        assert actual.dtype == np.float32
        assert actual.shape == expected.shape
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("bands", [80, 128])
def test_the_mel_filters_equal_the_table_that_whisper_ships(bands: int) -> None:
    expected = whisper_audio.mel_filters("cpu", bands).numpy()
    np.testing.assert_allclose(features._mel_filters(bands), expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("samples", [1600, 1759, 1760, 1761, 256 * 160, 257 * 160])
@pytest.mark.parametrize("profile", PROFILES)
def test_there_is_one_frame_for_each_whole_hop(samples: int, profile: str) -> None:
    mel = log_mel(noise(3.0)[:samples], profile)
    assert mel.shape == (PROFILES[profile].bands, samples // HOP_LENGTH)


def test_the_paper_profile_equals_its_definition_written_out(speech: list[Waveform]) -> None:
    waveform = speech[0][: SAMPLE_RATE // 2]
    np.testing.assert_allclose(log_mel(waveform, "paper"), paper_log_mel(waveform), rtol=0, atol=1e-4)


def test_the_paper_profile_differs_from_whispers(speech: list[Waveform]) -> None:
    assert np.abs(log_mel(speech[0], "paper") - log_mel(speech[0])).mean() > 0.05


def paper_log_mel(waveform: Waveform) -> NDArray[np.float64]:
    """R2 of the papers, sample by sample in float64: pre-emphasis, Hamming, DFT by its sum, triangles, log."""
    emphasized = [float(waveform[0])]
    emphasized += [float(waveform[t]) - 0.97 * float(waveform[t - 1]) for t in range(1, len(waveform))]
    mirrored = emphasized[200:0:-1] + emphasized + emphasized[-2:-202:-1]
    hamming = [0.54 - 0.46 * math.cos(2 * math.pi * n / 400) for n in range(400)]
    dft = np.exp(-2j * np.pi * np.outer(np.arange(201), np.arange(400)) / 400)
    columns = []
    for frame in range(len(waveform) // 160):
        windowed = [mirrored[160 * frame + n] * hamming[n] for n in range(400)]
        columns.append(np.abs(dft @ np.array(windowed)) ** 2)
    # 1 kHz is mel 15; each factor of 6.4 above it is 27 mels.
    hertz = [200 * m / 3 if m < 15 else 1000 * 6.4 ** ((m - 15) / 27) for m in mel_points(82)]
    filters = np.zeros((80, 201))
    for band in range(80):
        low, centre, high = hertz[band : band + 3]
        for k in range(201):
            height = min((40 * k - low) / (centre - low), (high - 40 * k) / (high - centre))
            filters[band, k] = max(height, 0) * 2 / (high - low)
    decades = np.log10(np.maximum(filters @ np.array(columns).T, 1e-10))
    floored: NDArray[np.float64] = (np.maximum(decades, decades.max() - 8) + 4) / 4
    return floored


def mel_points(count: int) -> list[float]:
    highest = 15 + 27 * math.log(8) / math.log(6.4)  # 8 kHz
    return [highest * i / (count - 1) for i in range(count)]


@pytest.mark.parametrize("profile", PROFILES)
def test_clamping_later_equals_clamping_at_once(profile: str) -> None:
    waveform = np.concatenate([noise(0.5), np.zeros(8000, np.float32)])
    unclamped = log_mel(waveform, profile, clamp=False)
    clamped = log_mel(waveform, profile)
    assert unclamped.min() == pytest.approx(-1.5)
    assert clamped.min() == pytest.approx(unclamped.max() - 2.0)
    np.testing.assert_array_equal(clamp_to_floor(unclamped), clamped)


@pytest.mark.parametrize("loudness", [1.0, 1e-5], ids=["speech", "speech 100 dB quieter"])
def test_the_silence_value_is_what_whisper_holds_in_zero_padding(speech: list[Waveform], loudness: float) -> None:
    waveform = speech[0] * np.float32(loudness)
    padded = whisper_audio.log_mel_spectrogram(waveform, padding=SAMPLE_RATE).numpy()
    assert silence_value(log_mel(waveform)) == pytest.approx(float(padded[0, -1]), abs=1e-4)


def test_digital_silence_is_minus_one_and_a_half_everywhere() -> None:
    np.testing.assert_allclose(log_mel(np.zeros(SAMPLE_RATE, np.float32)), -1.5, atol=1e-6)


@pytest.mark.parametrize("profile", PROFILES)
def test_the_waveform_is_left_as_it_was(profile: str) -> None:
    waveform = noise(0.5)
    before = waveform.copy()
    log_mel(waveform, profile)
    np.testing.assert_array_equal(waveform, before)


def test_an_unknown_profile_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'mfcc'.*whisper80, whisper128, paper"):
        log_mel(noise(1.0), "mfcc")


@pytest.mark.parametrize(
    ("waveform", "error", "message"),
    [
        (np.zeros(0, np.float32), EmptyAudio, "no samples; accepted: 0.1 s or more"),
        (noise(0.02), AudioTooShort, "lasts 0.02 s; accepted: 0.1 s or more"),
        (noise(0.1)[:-1], AudioTooShort, "lasts 0.09994 s; accepted"),
        (np.append(noise(0.5), np.float32("nan")), AudioNotFinite, r"sample 8000 \(0.500 s\) is nan; accepted: finite"),
        (np.append(noise(0.5), np.float32("-inf")), AudioNotFinite, "sample 8000 .* is -inf"),
        (np.full(1600, 1e300), AudioNotFinite, "sample 0 .* is inf"),
        (np.zeros((1600, 2), np.float32), UnsupportedAudio, r"shape \(1600, 2\)"),
        (np.zeros(1600, np.int16), UnsupportedAudio, "int16; accepted: floating point"),
    ],
)
def test_unusable_audio_is_refused_with_cause_and_limit(
    waveform: Waveform, error: type[AudioError], message: str
) -> None:
    with pytest.raises(error, match=message):
        log_mel(waveform)


def test_a_tenth_of_a_second_is_enough() -> None:
    assert validate(noise(0.1)).size == 1600
    assert log_mel(noise(0.1)).shape == (80, features.MINIMUM_FRAMES)


def test_errors_survive_a_process_border() -> None:
    error = pickle.loads(pickle.dumps(AudioTooShort("the audio lasts 0.020 s", "0.1 s or more")))
    assert isinstance(error, AudioTooShort)
    assert (error.cause, error.limit) == ("the audio lasts 0.020 s", "0.1 s or more")


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        (np.array([-32768, 0, 16384], np.int16), [-1.0, 0.0, 0.5]),
        (np.array([-(2**31), 0, 2**30], np.int32), [-1.0, 0.0, 0.5]),
        (np.array([0, 128, 192], np.uint8), [-1.0, 0.0, 0.5]),
        (np.array([-1.0, 0.25], np.float64), [-1.0, 0.25]),
        (np.array([[0.5, -0.5], [1.0, 0.5]], np.float32), [0.0, 0.75]),
        (np.array([[16384, 0], [-32768, -32768]], np.int16), [0.25, -1.0]),
    ],
)
def test_any_pcm_becomes_mono_at_full_scale_one(samples: NDArray[np.generic], expected: list[float]) -> None:
    mono = to_mono(samples)
    assert mono.dtype == np.float32
    np.testing.assert_array_equal(mono, np.array(expected, np.float32))


@pytest.mark.parametrize(
    "samples",
    [np.zeros(10, np.int64), np.zeros(10, np.uint16), np.zeros((2, 2, 2)), np.zeros((10, 0)), np.float32(1.0)],
    ids=["int64", "uint16", "three axes", "no channels", "a scalar"],
)
def test_samples_without_one_meaning_are_refused(samples: NDArray[np.generic]) -> None:
    with pytest.raises(UnsupportedAudio, match="the samples"):
        to_mono(samples)


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000])
def test_resampling_keeps_a_tone(rate: int) -> None:
    tone = resample(sine(440, rate), rate)
    assert tone.dtype == np.float32
    assert tone.size == SAMPLE_RATE
    middle = slice(1000, -1000)  # the filter has no past at the edges
    np.testing.assert_allclose(tone[middle], sine(440, SAMPLE_RATE)[middle], atol=2e-3)


def test_resampling_removes_what_would_alias() -> None:
    tone = resample(sine(15_000, 48_000), 48_000)
    assert np.abs(tone[1000:-1000]).max() < 2e-3


def test_resampling_at_the_same_rate_changes_nothing() -> None:
    np.testing.assert_array_equal(resample(noise(0.1), SAMPLE_RATE), noise(0.1))


@pytest.mark.parametrize("rate", [-16_000, 0, 3_999, 192_001, 4_294_967_295])
def test_a_rate_that_no_recording_has_is_refused_before_a_filter_is_made(rate: int) -> None:
    with pytest.raises(UnsupportedAudio, match="4000 to 192000 Hz"):
        resample(noise(0.1), rate)
