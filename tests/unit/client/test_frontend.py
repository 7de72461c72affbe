"""The device's front ends: equal to `amser.features` and to Whisper, whole or in pieces; clear about what is amiss."""

from __future__ import annotations

import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from whisper import audio as whisper_audio

from amser import features
from amser.client import frontend
from amser.client.frontend import (
    ASRFRONT_PROFILES,
    DEFAULT_FRONTEND,
    FRONTENDS,
    FrontendMissing,
    StreamingLogMel,
    UnknownFrontend,
    UnsupportedProfile,
    log_mel,
    require,
)
from amser.features import HOP_LENGTH, PROFILES, SAMPLE_RATE, AudioNotFinite, AudioTooShort, EmptyAudio, clamp_to_floor

Waveform = NDArray[np.float32]

BOUND = 1e-4  # in Whisper's scale, which spans about 3.3
# Eight decades below a pure tone float32 holds round-off: NumPy is up to 4e-4 from float64 there, asrfront up to 2e-4.
TONE_BOUND = 1e-3
COMPUTED = [("asrfront", profile) for profile in ASRFRONT_PROFILES] + [("numpy", profile) for profile in PROFILES]


def made_up(samples: int, seed: int = 7) -> Waveform:
    """A tone that stops halfway, over noise that grows from nothing: more than eight decades from loud to quiet."""
    time_s = np.arange(samples) / SAMPLE_RATE
    noise = np.random.default_rng(seed).standard_normal(samples) * np.linspace(0, 1, samples) ** 4
    tone = np.sin(2 * np.pi * 440 * time_s) * (time_s < time_s[-1] / 2)
    return np.asarray(0.5 * tone + 1e-3 * noise, np.float32)


SIGNALS = {
    "tone and noise": made_up(40_000),
    "silence": np.zeros(8_000, np.float32),
    "speech, then digital silence": np.append(made_up(8_000), np.zeros(8_000, np.float32)),
    "a click": np.eye(1, 16_000, 5_000, dtype=np.float32)[0],
    "full scale": np.sign(made_up(16_000)),
    "too quiet to reach the floor": np.float32(1e-5) * made_up(16_000),
    "a constant": np.full(16_000, 0.5, np.float32),
}


def streamed(waveform: Waveform, sizes: list[int], profile: str, name: str) -> Waveform:
    """Pieces of these sizes, over and over, until the waveform ends."""
    stream = StreamingLogMel(profile, frontend=name)
    mels, position, turn = [], 0, 0
    while position < len(waveform):
        size = sizes[turn % len(sizes)]
        mels.append(stream.push(waveform[position : position + size]))
        position, turn = position + size, turn + 1
    return np.concatenate([*mels, stream.finish()], axis=1)


@pytest.mark.parametrize("profile", ASRFRONT_PROFILES)
def test_asrfront_equals_openai_whisper_on_real_speech(speech: list[Waveform], profile: str) -> None:
    for waveform in speech:
        expected = whisper_audio.log_mel_spectrogram(waveform, PROFILES[profile].bands).numpy()
        actual = log_mel(waveform, profile, frontend="asrfront")
        assert actual.dtype == np.float32
        np.testing.assert_allclose(actual, expected, rtol=0, atol=BOUND)


@pytest.mark.parametrize("clamp", [True, False])
@pytest.mark.parametrize("profile", ASRFRONT_PROFILES)
def test_asrfront_equals_numpy_on_real_speech(speech: list[Waveform], profile: str, clamp: bool) -> None:
    for waveform in speech:
        actual = log_mel(waveform, profile, clamp=clamp, frontend="asrfront")
        expected = features.log_mel(waveform, profile, clamp=clamp)
        np.testing.assert_allclose(actual, expected, rtol=0, atol=BOUND)


@pytest.mark.parametrize("clamp", [True, False])
@pytest.mark.parametrize("profile", ASRFRONT_PROFILES)
@pytest.mark.parametrize("signal", SIGNALS)
def test_asrfront_equals_numpy_on_signals_that_are_hard(signal: str, profile: str, clamp: bool) -> None:
    actual = log_mel(SIGNALS[signal], profile, clamp=clamp, frontend="asrfront")
    expected = features.log_mel(SIGNALS[signal], profile, clamp=clamp)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=TONE_BOUND)


@pytest.mark.parametrize("samples", [1600, 1601, 1639, 1640, 1641, 1759, 1760, 3999])
@pytest.mark.parametrize(("name", "profile"), COMPUTED)
def test_there_is_one_frame_for_each_whole_hop(samples: int, name: str, profile: str) -> None:
    waveform = made_up(4000)[:samples]
    expected = features.log_mel(waveform, profile)
    assert expected.shape[1] == samples // HOP_LENGTH
    np.testing.assert_allclose(log_mel(waveform, profile, frontend=name), expected, rtol=0, atol=TONE_BOUND)


@pytest.mark.parametrize("piece", [160, 320, 1000, 16_000])
@pytest.mark.parametrize(("name", "profile"), COMPUTED)
def test_a_stream_of_real_speech_equals_the_whole(speech: list[Waveform], name: str, profile: str, piece: int) -> None:
    for waveform in speech[:4]:
        expected = features.log_mel(waveform, profile, clamp=False)
        np.testing.assert_allclose(streamed(waveform, [piece], profile, name), expected, rtol=0, atol=BOUND)


@pytest.mark.parametrize(("name", "profile"), COMPUTED)
@settings(max_examples=40)
@given(
    sizes=st.lists(st.integers(1, 2000), min_size=1, max_size=8),
    samples=st.integers(1600, 6000),
    seed=st.integers(0, 9),
)
def test_a_stream_cut_anywhere_equals_the_whole(
    name: str, profile: str, sizes: list[int], samples: int, seed: int
) -> None:
    waveform = made_up(samples, seed)
    expected = features.log_mel(waveform, profile, clamp=False)
    np.testing.assert_allclose(
        streamed(waveform, sizes, profile, name), expected, rtol=0, atol=1e-6 if name == "numpy" else TONE_BOUND
    )


@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize("name", FRONTENDS)
def test_a_stream_of_a_hard_signal_equals_the_whole_once_it_is_clamped(signal: str, name: str) -> None:
    mel = streamed(SIGNALS[signal], [320], "whisper80", name)
    np.testing.assert_allclose(mel, log_mel(SIGNALS[signal], clamp=False, frontend=name), rtol=0, atol=TONE_BOUND)
    np.testing.assert_allclose(clamp_to_floor(mel), features.log_mel(SIGNALS[signal]), rtol=0, atol=TONE_BOUND)


@pytest.mark.parametrize("name", FRONTENDS)
def test_a_frame_comes_out_half_a_window_after_its_centre(name: str) -> None:
    stream, arrived = StreamingLogMel(frontend=name), []
    for received, sample in enumerate(made_up(2000), start=1):
        arrived += [received] * stream.push([sample]).shape[1]
    assert arrived[0] == 201  # its mirrored half needs one sample more
    assert arrived[1:] == [HOP_LENGTH * frame + 200 for frame in range(1, len(arrived))]


@pytest.mark.parametrize("name", FRONTENDS)
def test_a_finished_stream_begins_another_utterance(name: str) -> None:
    stream = StreamingLogMel(frontend=name)
    for waveform in (made_up(5000, 1), made_up(3000, 2)):
        mel = np.concatenate([stream.push(waveform), stream.finish()], axis=1)
        np.testing.assert_allclose(mel, features.log_mel(waveform, clamp=False), rtol=0, atol=TONE_BOUND)


def test_a_stream_costs_the_same_a_second_however_long_it_lasts() -> None:
    def cpu_s_of(waveform: Waveform) -> float:
        costs = []
        for _ in range(5):
            started = time.process_time()
            streamed(waveform, [320], "whisper80", DEFAULT_FRONTEND)
            costs.append(time.process_time() - started)
        return min(costs)

    cpu_s_of(made_up(SAMPLE_RATE))
    assert cpu_s_of(made_up(20 * SAMPLE_RATE)) < 2 * 5 * cpu_s_of(made_up(4 * SAMPLE_RATE))


def test_a_stream_does_not_hang_on_the_callers_buffer() -> None:
    waveform, stream, buffer, mels = made_up(8000), StreamingLogMel(), np.empty(100, np.float32), []
    for start in range(0, 8000, 100):
        buffer[:] = waveform[start : start + 100]
        mels.append(stream.push(buffer))
    mel = np.concatenate([*mels, stream.finish()], axis=1)
    np.testing.assert_allclose(mel, features.log_mel(waveform, clamp=False), rtol=0, atol=TONE_BOUND)


def test_a_piece_with_nan_is_refused_by_its_place_in_the_utterance_and_left_out() -> None:
    waveform, stream = made_up(8000), StreamingLogMel()
    first = stream.push(waveform[:4000])
    with pytest.raises(AudioNotFinite, match=r"sample 4002 \(0.250 s\) is nan"):
        stream.push(np.array([0, 0, np.nan], np.float32))
    mel = np.concatenate([first, stream.push(waveform[4000:]), stream.finish()], axis=1)
    np.testing.assert_allclose(mel, features.log_mel(waveform, clamp=False), rtol=0, atol=TONE_BOUND)


def test_a_stream_that_ends_too_early_is_refused_as_the_whole_would_be() -> None:
    stream = StreamingLogMel()
    with pytest.raises(EmptyAudio, match="no samples"):
        stream.finish()
    assert stream.push(made_up(1599)).shape[1] > 0
    with pytest.raises(AudioTooShort, match="lasts 0.09994 s; accepted: 0.1 s"):
        stream.finish()
    with pytest.raises(EmptyAudio):
        stream.finish()


@pytest.mark.parametrize("name", FRONTENDS)
def test_unusable_audio_is_refused_alike(name: str) -> None:
    with pytest.raises(AudioTooShort, match="lasts 0.0625 s"):
        log_mel(made_up(1000), frontend=name)
    with pytest.raises(AudioNotFinite, match="sample 1 "):
        log_mel(np.array([0, np.inf] * 1000, np.float32), frontend=name)


def test_a_missing_library_is_an_error_that_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "asrfront", None)
    with pytest.raises(FrontendMissing, match=r"asrfront is not installed.*pip install 'amser\[edge\]'; or name numpy"):
        require("asrfront", "whisper80")
    with pytest.raises(FrontendMissing):
        log_mel(made_up(1600), frontend="asrfront")
    with pytest.raises(FrontendMissing):
        StreamingLogMel(frontend="asrfront")
    assert log_mel(made_up(1600), frontend="numpy").shape == (80, 10)


def test_a_profile_that_the_library_lacks_is_refused_with_those_it_has() -> None:
    with pytest.raises(UnsupportedProfile, match="profile paper; accepted: whisper80, whisper128; the front end numpy"):
        log_mel(made_up(1600), "paper", frontend="asrfront")


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    with pytest.raises(UnknownFrontend, match="'kaldi'; accepted: asrfront, numpy"):
        StreamingLogMel(frontend="kaldi")
    with pytest.raises(ValueError, match="no profile 'mfcc'; there are whisper80"):
        log_mel(made_up(1600), "mfcc")


def test_the_default_is_a_front_end() -> None:
    assert frontend.DEFAULT_FRONTEND in FRONTENDS
