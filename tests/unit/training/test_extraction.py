"""What is heard of a corpus: through the codec, by the served stages, once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import made_up
import numpy as np
import pytest
import soundfile

from amser.features import SAMPLE_RATE
from training.corpora.manifest import Corpus, ManifestError, load_manifest
from training.data import extraction
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
    return load_manifest(made_up.write_corpus(tmp_path, ["angry", "sad", "calm"] * 4))


@pytest.fixture
def listener() -> Any:
    return made_up.listener()


def refuse(message: str = "models were loaded") -> Callable[[], SpeechModels]:
    return lambda: pytest.fail(message)


def test_the_text_is_that_of_the_compressed_mel(corpus: Corpus, listener: Any, tmp_path: Path) -> None:
    heard = extract_speech(corpus, RANK_10, cache_root=tmp_path, listener=lambda: listener)
    assert [each.text for each in heard] == ["rank 10"] * 12
    for each, mel in zip(heard, listener.asr.mels, strict=True):
        assert np.linalg.matrix_rank(mel.values.astype(np.float32), tol=0.1) <= 10
        assert mel.rank == 10
        np.testing.assert_array_equal(each.log_mel, mel.values)


def test_the_states_are_those_of_the_compressed_mel(corpus: Corpus, listener: Any, tmp_path: Path) -> None:
    heard = extract_speech(corpus, RANK_10, cache_root=tmp_path, listener=lambda: listener)
    assert [id(mel) for mel in listener.voice.mels] == [id(mel) for mel in listener.asr.mels]
    for each in heard:
        frames = each.log_mel.shape[1]
        assert each.encoder_states.shape == (-(-frames // 4), 512)
        assert each.encoder_states.dtype == np.float16
        assert (each.encoder_states == frames).all()


def test_features_are_what_was_heard_and_read(
    corpus: Corpus, listener: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_up.replace_text_models(monkeypatch)
    features = extract(corpus, RANK_10, TextFeatureExtractor(), cache_root=tmp_path, listener=lambda: listener)
    np.testing.assert_array_equal(features[3].log_mel, listener.asr.mels[3].values)
    assert features[3].words.shape == (2, 300)
    assert features[3].context.shape == (4, made_up.CONTEXT_WIDTH)
    assert features[3].encoder_states.shape == (-(-listener.asr.mels[3].frames // 4), 512)


def test_without_a_codec_the_mel_is_that_of_the_sound(corpus: Corpus, listener: Any, tmp_path: Path) -> None:
    heard = extract_speech(corpus, NONE, cache_root=tmp_path, listener=lambda: listener)
    assert heard[0].log_mel.shape[1] == pytest.approx(100, abs=1)  # one second, resampled from 8 kHz
    assert heard[0].log_mel.max() - heard[0].log_mel.min() <= 2.01  # Whisper's floor, eight decades in quarters


def test_reference_text_needs_no_recogniser(corpus: Corpus, tmp_path: Path) -> None:
    heard = extract_speech(
        corpus, RANK_10, reference_text=True, cache_root=tmp_path, listener=lambda: made_up.listener(asr=False)
    )
    assert [each.text for each in heard] == [f"said {number}" for number in range(12)]


def test_a_second_time_nothing_is_heard_again(corpus: Corpus, listener: Any, tmp_path: Path) -> None:
    first = extract_speech(corpus, RANK_10, cache_root=tmp_path, listener=lambda: listener)
    again = extract_speech(corpus, RANK_10, cache_root=tmp_path, listener=refuse())
    for one, other in zip(first, again, strict=True):
        assert one.text == other.text
        np.testing.assert_array_equal(one.log_mel, other.log_mel)
        np.testing.assert_array_equal(one.encoder_states, other.encoder_states)


def test_an_interrupted_extraction_goes_on(
    corpus: Corpus, listener: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extraction, "UTTERANCES_AT_ONCE", 5)
    transcribe, calls = listener.asr.transcribe, iter(range(2))
    listener.asr.transcribe = lambda mels: transcribe(mels) if next(calls, None) is not None else pytest.fail("power")
    with pytest.raises(pytest.fail.Exception, match="power"):
        extract_speech(corpus, RANK_10, cache_root=tmp_path, listener=lambda: listener)
    second: Any = made_up.listener()
    heard = extract_speech(corpus, RANK_10, cache_root=tmp_path, listener=lambda: second)
    assert len(second.asr.mels) == 2
    assert len(heard) == 12
    assert list(tmp_path.rglob("*.partial")) == []


def test_other_codecs_corpora_and_recognisers_are_heard_anew(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {
        cache_key(corpus, RANK_10, False),
        cache_key(corpus, RANK_10, True),
        cache_key(corpus, CodecSetting.parse("svd-f16:0.25"), False),
        cache_key(Corpus("small", corpus.records[1:], {}), RANK_10, False),
    }
    monkeypatch.setattr("training.data.extraction.fingerprint", lambda _: "other")
    keys.add(cache_key(corpus, RANK_10, False))
    assert len(keys) == 5


def test_a_changed_copy_is_the_changed_sound_with_the_words_of_the_plain_one(corpus: Corpus, tmp_path: Path) -> None:
    texts = [f"heard {number}" for number in range(12)]
    silent: Any = made_up.listener(asr=False)
    heard = extract_augmented_speech(corpus, 1, GAIN_ALONE, [NONE], texts, cache_root=tmp_path, listener=lambda: silent)
    assert [each.text for each in heard] == texts
    seed = 12 + 5  # copy 1 of 12 records, record 5
    expected = compressed_mel(GAIN_ALONE(waveform_of(corpus.records[5]), seed), NONE).values
    np.testing.assert_array_equal(heard[5].log_mel, expected)
    assert not np.array_equal(expected, compressed_mel(waveform_of(corpus.records[5]), NONE).values)


def test_each_utterance_of_a_copy_goes_through_one_of_the_codecs(corpus: Corpus, tmp_path: Path) -> None:
    models: Any = made_up.listener(asr=False)
    extract_augmented_speech(
        corpus, 0, GAIN_ALONE, [NONE, RANK_10], [""] * 12, cache_root=tmp_path, listener=lambda: models
    )  # fmt: skip
    assert {mel.codec for mel in models.voice.mels} == {"none", "svd-f16"}


def test_a_copy_is_heard_once_and_another_copy_or_change_for_itself(corpus: Corpus, tmp_path: Path) -> None:
    def hear(copy: int, augmentation: WaveformAugmentation, bring: Callable[[], SpeechModels]) -> list[Any]:
        return extract_augmented_speech(
            corpus, copy, augmentation, [NONE], [""] * 12, cache_root=tmp_path, listener=bring
        )

    first = hear(0, GAIN_ALONE, lambda: made_up.listener(asr=False))
    again = hear(0, GAIN_ALONE, refuse())
    np.testing.assert_array_equal(first[7].log_mel, again[7].log_mel)
    second = hear(1, GAIN_ALONE, lambda: made_up.listener(asr=False))
    louder = WaveformAugmentation(pitch=0, stretch=0, noise=0, gain=1, decibels=(3.0, 6.0))
    third = hear(0, louder, lambda: made_up.listener(asr=False))
    assert not np.array_equal(first[7].log_mel, second[7].log_mel)
    assert not np.array_equal(first[7].log_mel, third[7].log_mel)


def test_a_copy_has_the_texts_it_is_given_even_where_its_sound_was_heard_before(corpus: Corpus, tmp_path: Path) -> None:
    for text in ("what the recogniser wrote", "what the corpus says"):
        heard = extract_augmented_speech(
            corpus, 0, GAIN_ALONE, [NONE], [text] * 12, cache_root=tmp_path,
            listener=lambda: made_up.listener(asr=False),
        )  # fmt: skip
        assert {each.text for each in heard} == {text}


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
    assert rate == made_up.RATE
    assert waveform.dtype == np.float32
    assert len(waveform) == len(samples) * SAMPLE_RATE // rate


def test_a_mel_says_how_it_was_compressed(corpus: Corpus) -> None:
    waveform = waveform_of(corpus.records[0])
    plain, compressed = compressed_mel(waveform, NONE, "pl"), compressed_mel(waveform, RANK_10)
    assert (plain.codec, plain.rank, plain.language) == ("none", None, "pl")
    assert (compressed.codec, compressed.rank, compressed.language) == ("svd-f16", 10, None)
    assert plain.values.dtype == compressed.values.dtype == np.float16
    assert plain.seconds == pytest.approx(len(waveform) / SAMPLE_RATE, abs=0.011)
