"""Where the device finds speech: real conversation, real detector."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from amser.audio import read
from amser.client import segmentation
from amser.client.segmentation import SegmentationSettings, Span, SpeechDetector
from amser.features import SAMPLE_RATE
from edge_sim.conversation import read_rttm
from models.weights import model_path

Waveform = NDArray[np.float32]

GRID_HZ = 100  # resolution at which times are compared


@pytest.fixture(scope="module")
def detector() -> SpeechDetector:
    return SpeechDetector(model_path("silero-vad"))


@pytest.fixture(scope="module")
def conversation() -> Waveform:
    return read(model_path("sample-conversation") / "sample.wav")


@pytest.fixture(scope="module")
def fluent_speech(conversation: Waveform) -> Waveform:
    """Two seconds in which one speaker does not pause."""
    return conversation[12 * SAMPLE_RATE : 14 * SAMPLE_RATE]


def silence(seconds: float) -> Waveform:
    return np.zeros(round(seconds * SAMPLE_RATE), np.float32)


def on_grid(spans: list[Span], seconds: float) -> NDArray[np.bool_]:
    grid = np.zeros(round(seconds * GRID_HZ), bool)
    for start, end in spans:
        grid[round(start * GRID_HZ) : round(end * GRID_HZ)] = True
    return grid


def test_utterances_agree_with_what_people_annotated(detector: SpeechDetector, conversation: Waveform) -> None:
    seconds = conversation.size / SAMPLE_RATE
    turns = read_rttm((model_path("sample-conversation") / "sample.rttm").read_text())
    annotated = on_grid([(turn.start_s, turn.end_s) for turn in turns], seconds)
    found = on_grid(detector.utterances(conversation), seconds)
    assert (found & annotated).sum() / annotated.sum() > 0.95
    assert (found & annotated).sum() / found.sum() > 0.95


def test_leading_silence_is_skipped(detector: SpeechDetector, conversation: Waveform) -> None:
    first, _ = detector.utterances(conversation)[0]
    assert first == pytest.approx(6.69, abs=0.2)  # where the annotation begins


def test_silence_and_noise_hold_no_utterance(detector: SpeechDetector) -> None:
    noise = np.random.default_rng(0).normal(0, 0.01, 5 * SAMPLE_RATE).astype(np.float32)
    assert detector.utterances(silence(5)) == []
    assert detector.utterances(noise) == []
    assert detector.utterances(silence(0)) == []


@pytest.mark.parametrize(("pause_s", "utterances"), [(0.15, 1), (1.0, 2)])
def test_a_breath_does_not_end_an_utterance_and_a_pause_does(
    detector: SpeechDetector, fluent_speech: Waveform, pause_s: float, utterances: int
) -> None:
    spoken_twice = np.concatenate([fluent_speech, silence(pause_s), fluent_speech])
    assert len(detector.utterances(spoken_twice)) == utterances


def test_padding_neither_overlaps_nor_leaves_the_recording(detector: SpeechDetector, fluent_speech: Waveform) -> None:
    spoken_twice = np.concatenate([fluent_speech, silence(0.5), fluent_speech])
    spans = detector.utterances(spoken_twice, SegmentationSettings(padding_s=5.0))
    (first_start, first_end), (second_start, second_end) = spans
    assert first_start == 0.0
    assert first_end == second_start == pytest.approx(2.25, abs=0.15)  # the middle of the pause
    assert second_end == 4.5


@pytest.mark.parametrize("longest_s", [30.0, 4.0])
def test_what_is_too_long_is_cut_where_it_is_quiet(
    detector: SpeechDetector, conversation: Waveform, longest_s: float
) -> None:
    monologue = np.tile(conversation[round(7.6 * SAMPLE_RATE) : round(17.8 * SAMPLE_RATE)], 4)  # 40.8 s
    spans = detector.utterances(monologue, SegmentationSettings(longest_s=longest_s))
    lengths = [end - start for start, end in spans]
    assert len(spans) >= monologue.size / SAMPLE_RATE / longest_s
    assert max(lengths) <= longest_s
    assert min(lengths) >= longest_s / 3 - 1e-9
    around = round(0.1 * SAMPLE_RATE)
    loudness = np.sqrt(np.mean(np.square(monologue)))
    for (_, cut), (start, _) in zip(spans, spans[1:], strict=False):
        assert cut == start
        middle = round(cut * SAMPLE_RATE)
        assert np.sqrt(np.mean(np.square(monologue[middle - around : middle + around]))) < 0.5 * loudness


def test_a_long_recording_in_blocks_gives_the_same_probabilities(
    detector: SpeechDetector, conversation: Waveform, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once = detector.probabilities(conversation)
    monkeypatch.setattr(segmentation, "WINDOWS_AT_ONCE", 100)
    in_blocks = detector.probabilities(conversation)
    assert at_once.shape == (-(-conversation.size // segmentation.WINDOW),)
    np.testing.assert_allclose(in_blocks, at_once, atol=1e-5)


def test_the_device_looks_where_the_weight_store_fetches_to() -> None:
    assert segmentation.default_model() == model_path("silero-vad")


def test_a_detector_that_was_not_fetched_names_the_command_that_brings_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AMSER_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"python -m models\.weights fetch silero-vad"):
        segmentation.default_model()
