"""Features on disk: written by processes, mapped when they are read, sent to other processes as names of files."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import synthetic_corpus

from training.corpora.manifest import Corpus, load_manifest
from training.data import feature_files
from training.data.extraction import CodecSetting, extract_augmented_speech, extract_speech
from training.data.feature_files import SpeechFeatures, kept_features, speech_workers
from training.data.waveform_augmentation import WaveformAugmentation

NONE = CodecSetting.parse("none")


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return load_manifest(synthetic_corpus.write_corpus(tmp_path, ["angry", "sad"] * 5))


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_files, "UTTERANCES_IN_SHARD", 4)


def same(one: SpeechFeatures, other: SpeechFeatures) -> bool:
    return (
        one.text == other.text
        and np.array_equal(one.log_mel, other.log_mel)
        and np.array_equal(one.encoder_states, other.encoder_states)
    )


def test_processes_compute_what_one_alone_does(corpus: Corpus, tmp_path: Path) -> None:
    alone = extract_speech(
        corpus, NONE, cache_root=tmp_path / "alone", load_models=lambda: synthetic_corpus.speech_models()
    )
    augment = WaveformAugmentation(pitch=0, stretch=0, noise=1, telephone=1, reverberation=1)
    copy_alone = extract_augmented_speech(
        corpus, 2, augment, [NONE], [""] * 10, cache_root=tmp_path / "alone",
        load_models=lambda: synthetic_corpus.speech_models(asr=False),
    )  # fmt: skip
    with speech_workers(synthetic_corpus.speech_models) as workers:
        together = extract_speech(corpus, NONE, cache_root=tmp_path / "together", workers=workers)
        copy = extract_augmented_speech(
            corpus, 2, augment, [NONE], [""] * 10, cache_root=tmp_path / "together", workers=workers
        )
    assert len(together) == len(copy) == 10
    assert all(map(same, together, alone))
    assert all(map(same, copy, copy_alone))
    assert list(tmp_path.rglob("*.partial")) == []


def test_an_error_of_a_process_names_the_file(corpus: Corpus, tmp_path: Path) -> None:
    corpus.records[7].audio.write_text("no sound")
    with (
        speech_workers(synthetic_corpus.speech_models) as workers,
        pytest.raises(ValueError, match=r"7\.wav"),
    ):
        extract_speech(corpus, NONE, cache_root=tmp_path, workers=workers)


def test_features_are_mapped_and_pickled_as_the_name_of_their_file(tmp_path: Path) -> None:
    def compute(numbers: list[int], _: None) -> list[SpeechFeatures]:
        mel = np.zeros((80, 1), np.float16)
        return [SpeechFeatures(mel, np.full((n, 512), n, np.float16), f"text {n}") for n in numbers]

    features = kept_features(tmp_path / "key", list(range(11)), compute, lambda: None, "features")  # type: ignore[arg-type]
    assert [len(each.encoder_states) for each in features] == list(range(11))
    assert [each.text for each in features] == [f"text {n}" for n in range(11)]
    assert all((each.encoder_states == n).all() for n, each in enumerate(features))
    sent = pickle.dumps(features[9].encoder_states)
    assert len(sent) < 500
    np.testing.assert_array_equal(pickle.loads(sent), features[9].encoder_states)
    half = features[9].encoder_states[::2] * np.float16(0.5)  # what is computed from them is in no file
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(half)), np.full((5, 512), 4.5))
    part = features[9].encoder_states[2:4]
    assert pickle.loads(pickle.dumps(part)).shape == (2, 512)
    with pytest.raises(ValueError, match="read-only"):
        features[9].encoder_states[0, 0] = 1
