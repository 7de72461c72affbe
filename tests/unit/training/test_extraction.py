"""The features of a corpus: through the codec, by the served stages, computed once."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import synthetic_corpus

from amser.features import SAMPLE_RATE
from training.corpora.manifest import Corpus, ManifestError, load_manifest
from training.data import feature_files
from training.data.extraction import (
    CodecSetting,
    SpeechModels,
    cache_key,
    compressed_mel,
    extract,
    extract_augmented_speech,
    extract_speech,
    waveform_of,
)
from training.data.texts import TextFeatureExtractor
from training.data.waveform_augmentation import WaveformAugmentation

NONE, RANK_10 = CodecSetting.parse("none"), CodecSetting.parse("svd-f16:0.125")
GAIN_ALONE = WaveformAugmentation(pitch=0, stretch=0, noise=0, gain=1)


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return load_manifest(synthetic_corpus.write_corpus(tmp_path, ["angry", "sad", "calm"] * 4))


@pytest.fixture
def models() -> Any:
    return synthetic_corpus.speech_models()


def refuse(message: str = "models were loaded") -> Callable[[], SpeechModels]:
    return lambda: pytest.fail(message)


def test_the_text_is_that_of_the_compressed_mel(corpus: Corpus, models: Any, tmp_path: Path) -> None:
    speech = extract_speech(corpus, RANK_10, cache_root=tmp_path, load_models=lambda: models)
    assert [each.text for each in speech] == ["rank 10"] * 12
    for each, mel in zip(speech, models.asr.mels, strict=True):
        assert np.linalg.matrix_rank(mel.values.astype(np.float32), tol=0.1) <= 10
        assert mel.rank == 10
        np.testing.assert_array_equal(each.log_mel, mel.values)


def test_the_states_are_those_of_the_compressed_mel(corpus: Corpus, models: Any, tmp_path: Path) -> None:
    speech = extract_speech(corpus, RANK_10, cache_root=tmp_path, load_models=lambda: models)
    assert [id(mel) for mel in models.voice.mels] == [id(mel) for mel in models.asr.mels]
    for each in speech:
        frames = each.log_mel.shape[1]
        assert each.encoder_states.shape == (-(-frames // 8), 1536)
        assert each.encoder_states.dtype == np.float16
        assert (each.encoder_states == frames).all()


def test_features_are_those_of_speech_and_of_its_text(
    corpus: Corpus, models: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synthetic_corpus.replace_text_models(monkeypatch)
    features = extract(corpus, RANK_10, TextFeatureExtractor(), cache_root=tmp_path, load_models=lambda: models)
    np.testing.assert_array_equal(features[3].log_mel, models.asr.mels[3].values)
    assert features[3].words.shape == (2, 300)
    assert features[3].context.shape == (4, synthetic_corpus.CONTEXT_WIDTH)
    assert features[3].encoder_states.shape == (-(-models.asr.mels[3].frames // 8), 1536)


def test_without_a_codec_the_mel_is_that_of_the_sound(corpus: Corpus, models: Any, tmp_path: Path) -> None:
    speech = extract_speech(corpus, NONE, cache_root=tmp_path, load_models=lambda: models)
    assert speech[0].log_mel.shape[1] == pytest.approx(100, abs=1)  # one second, resampled from 8 kHz
    assert speech[0].log_mel.max() - speech[0].log_mel.min() <= 2.01  # Whisper's floor, eight decades in quarters


def test_reference_text_needs_no_recogniser(corpus: Corpus, tmp_path: Path) -> None:
    speech = extract_speech(
        corpus,
        RANK_10,
        reference_text=True,
        cache_root=tmp_path,
        load_models=lambda: synthetic_corpus.speech_models(asr=False),
    )
    assert [each.text for each in speech] == [f"said {number}" for number in range(12)]


def test_features_are_computed_once(corpus: Corpus, models: Any, tmp_path: Path) -> None:
    first = extract_speech(corpus, RANK_10, cache_root=tmp_path, load_models=lambda: models)
    again = extract_speech(corpus, RANK_10, cache_root=tmp_path, load_models=refuse())
    for one, other in zip(first, again, strict=True):
        assert one.text == other.text
        np.testing.assert_array_equal(one.log_mel, other.log_mel)
        np.testing.assert_array_equal(one.encoder_states, other.encoder_states)


def test_kept_features_are_announced_with_their_date(
    corpus: Corpus, models: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    extract_speech(corpus, RANK_10, cache_root=tmp_path, load_models=lambda: models)
    assert "kept" not in capsys.readouterr().out
    extract_speech(corpus, RANK_10, cache_root=tmp_path, load_models=refuse())
    today = datetime.datetime.now().astimezone().date().isoformat()
    printed = " ".join(capsys.readouterr().out.split())
    assert f"features of small, svd-f16:0.125: 12 of 12 kept, the oldest of {today}" in printed


def test_an_interrupted_extraction_goes_on(
    corpus: Corpus, models: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_files, "UTTERANCES_IN_SHARD", 5)
    transcribe, calls = models.asr.transcribe, iter(range(2))
    models.asr.transcribe = lambda mels: transcribe(mels) if next(calls, None) is not None else pytest.fail("power")
    with pytest.raises(pytest.fail.Exception, match="power"):
        extract_speech(corpus, RANK_10, cache_root=tmp_path, load_models=lambda: models)
    second: Any = synthetic_corpus.speech_models()
    speech = extract_speech(corpus, RANK_10, cache_root=tmp_path, load_models=lambda: second)
    assert len(second.asr.mels) == 2
    assert len(speech) == 12
    assert list(tmp_path.rglob("*.partial")) == []


def test_other_codecs_corpora_recognisers_and_code_get_features_of_their_own(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {
        cache_key(corpus, RANK_10, False),
        cache_key(corpus, RANK_10, True),
        cache_key(corpus, CodecSetting.parse("svd-f16:0.25"), False),
        cache_key(Corpus("small", corpus.records[1:], {}), RANK_10, False),
    }
    monkeypatch.setattr("training.data.extraction.fingerprint", lambda _: "other")
    keys.add(cache_key(corpus, RANK_10, False))
    monkeypatch.setattr("training.data.extraction.source_digest", lambda *_: "changed")
    keys.add(cache_key(corpus, RANK_10, False))
    assert len(keys) == 6


def test_an_augmented_copy_is_the_changed_sound_with_the_words_of_the_plain_one(corpus: Corpus, tmp_path: Path) -> None:
    texts = [f"text {number}" for number in range(12)]
    silent: Any = synthetic_corpus.speech_models(asr=False)
    speech = extract_augmented_speech(
        corpus, 1, GAIN_ALONE, [NONE], texts, cache_root=tmp_path, load_models=lambda: silent
    )
    assert [each.text for each in speech] == texts
    seed = 12 + 5  # copy 1 of 12 records, record 5
    expected = compressed_mel(GAIN_ALONE(waveform_of(corpus.records[5]), seed), NONE).values
    np.testing.assert_array_equal(speech[5].log_mel, expected)
    assert not np.array_equal(expected, compressed_mel(waveform_of(corpus.records[5]), NONE).values)


def test_each_utterance_of_a_copy_goes_through_one_of_the_codecs(corpus: Corpus, tmp_path: Path) -> None:
    models: Any = synthetic_corpus.speech_models(asr=False)
    extract_augmented_speech(
        corpus, 0, GAIN_ALONE, [NONE, RANK_10], [""] * 12, cache_root=tmp_path, load_models=lambda: models
    )  # fmt: skip
    assert {mel.codec for mel in models.voice.mels} == {"none", "svd-f16"}


def test_a_copy_is_computed_once_and_another_copy_or_change_for_itself(corpus: Corpus, tmp_path: Path) -> None:
    def extract_copy(copy: int, augmentation: WaveformAugmentation, load: Callable[[], SpeechModels]) -> list[Any]:
        return extract_augmented_speech(
            corpus, copy, augmentation, [NONE], [""] * 12, cache_root=tmp_path, load_models=load
        )

    first = extract_copy(0, GAIN_ALONE, lambda: synthetic_corpus.speech_models(asr=False))
    again = extract_copy(0, GAIN_ALONE, refuse())
    np.testing.assert_array_equal(first[7].log_mel, again[7].log_mel)
    second = extract_copy(1, GAIN_ALONE, lambda: synthetic_corpus.speech_models(asr=False))
    louder = WaveformAugmentation(pitch=0, stretch=0, noise=0, gain=1, decibels=(3.0, 6.0))
    third = extract_copy(0, louder, lambda: synthetic_corpus.speech_models(asr=False))
    assert not np.array_equal(first[7].log_mel, second[7].log_mel)
    assert not np.array_equal(first[7].log_mel, third[7].log_mel)


def test_a_copy_has_the_texts_it_is_given_even_where_its_sound_is_kept(corpus: Corpus, tmp_path: Path) -> None:
    for text in ("of the recogniser", "of the corpus"):
        speech = extract_augmented_speech(
            corpus, 0, GAIN_ALONE, [NONE], [text] * 12, cache_root=tmp_path,
            load_models=lambda: synthetic_corpus.speech_models(asr=False),
        )  # fmt: skip
        assert {each.text for each in speech} == {text}


@pytest.mark.parametrize("text", ["opus", "none:0.5", "svd-f16:much", "klt:fine", "klt:99", "interpolation:4", ""])
def test_a_codec_that_does_not_exist_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"codec {text!r}: expected none, or as in svd-f16:0.125"):
        CodecSetting.parse(text)


@pytest.mark.parametrize("text", ["none", "mel-f16", "svd-f16:0.125", "svd-f16:0.5", "klt:14", "interpolation:4x2"])
def test_a_codec_is_written_as_it_was_read(text: str) -> None:
    assert str(CodecSetting.parse(text)) == text


def test_a_file_that_is_no_sound_is_named(corpus: Corpus) -> None:
    corpus.records[0].audio.write_text("no sound")
    with pytest.raises(ManifestError, match=r"0\.wav"):
        waveform_of(corpus.records[0])


def test_a_sound_comes_at_16_khz(corpus: Corpus) -> None:
    samples, rate = soundfile.read(corpus.records[3].audio, dtype="float32")
    waveform = waveform_of(corpus.records[3])
    assert rate == synthetic_corpus.RATE
    assert waveform.dtype == np.float32
    assert len(waveform) == len(samples) * SAMPLE_RATE // rate


def test_a_mel_says_how_it_was_compressed(corpus: Corpus) -> None:
    waveform = waveform_of(corpus.records[0])
    plain, compressed = compressed_mel(waveform, NONE, "pl"), compressed_mel(waveform, RANK_10)
    assert (plain.codec, plain.rank, plain.language) == ("none", None, "pl")
    assert (compressed.codec, compressed.rank, compressed.language) == ("svd-f16", 10, None)
    assert plain.values.dtype == compressed.values.dtype == np.float16
    assert plain.seconds == pytest.approx(len(waveform) / SAMPLE_RATE, abs=0.011)
