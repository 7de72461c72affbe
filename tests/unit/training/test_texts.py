"""Features of texts: each different one is encoded once, and very many are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synthetic_corpus

from models.weights import model_path
from training.data import texts
from training.data.texts import TextFeatureExtractor

SEVERAL = ["two words", "", "a longer sentence of six words", "two words", "one"]


@pytest.fixture
def extractor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> TextFeatureExtractor:
    synthetic_corpus.replace_text_models(monkeypatch)
    return TextFeatureExtractor(cache_root=tmp_path)


def models_of(extractor: TextFeatureExtractor) -> Any:
    return extractor._load()


def test_each_different_text_is_encoded_once(extractor: TextFeatureExtractor) -> None:
    features = extractor.extract(SEVERAL)
    words, context = models_of(extractor)
    assert features.keys() == set(SEVERAL)
    assert sorted(words.texts) == sorted(context.texts) == sorted(set(SEVERAL))


def test_features_are_those_of_the_stages_in_half_precision(extractor: TextFeatureExtractor) -> None:
    for text, pair in extractor.extract(SEVERAL).items():
        tokens = len(text.split())
        assert pair.words.shape == (tokens, 300)
        assert pair.context.shape == (tokens + 2, synthetic_corpus.CONTEXT_WIDTH)
        assert pair.words.dtype == pair.context.dtype == np.float16
        assert (pair.words == np.float16(1 / 3)).all()
        assert (pair.context == tokens + 2).all()


def test_few_texts_leave_no_file(extractor: TextFeatureExtractor, tmp_path: Path) -> None:
    extractor.extract(SEVERAL)
    assert list(tmp_path.iterdir()) == []


def test_many_texts_are_kept_and_read_back_as_they_were(
    extractor: TextFeatureExtractor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(texts, "KEPT_FROM", 4)
    first = extractor.extract(SEVERAL)
    assert len(list(tmp_path.glob("texts-*.npz"))) == 1
    monkeypatch.setattr(texts, "WordVectors", lambda _: pytest.fail("models were loaded"))
    again = TextFeatureExtractor(cache_root=tmp_path).extract(SEVERAL[::-1])
    assert again.keys() == first.keys()
    for text, pair in first.items():
        np.testing.assert_array_equal(again[text].words, pair.words)
        np.testing.assert_array_equal(again[text].context, pair.context)
        assert again[text].context.dtype == np.float16


def test_other_texts_and_other_encoders_are_kept_apart(
    extractor: TextFeatureExtractor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(texts, "KEPT_FROM", 2)
    extractor.extract(SEVERAL)
    extractor.extract(SEVERAL[:2])
    TextFeatureExtractor("another encoder", cache_root=tmp_path).extract(SEVERAL)
    TextFeatureExtractor(word_vectors="other vectors", cache_root=tmp_path).extract(SEVERAL)
    assert len(list(tmp_path.glob("texts-*.npz"))) == 4


def test_models_are_loaded_when_a_text_is_first_encoded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    synthetic_corpus.replace_text_models(monkeypatch)
    monkeypatch.setattr(texts, "ContextEncoder", lambda _: pytest.fail("models were loaded"))
    extractor = TextFeatureExtractor(cache_root=tmp_path)
    assert extractor.fingerprints == {
        "words": "fingerprint of spacy-en-core-web-md",
        "context": "fingerprint of all-minilm-l6-v2",
    }
    assert TextFeatureExtractor("another", "vectors").fingerprints == {
        "words": "fingerprint of vectors",
        "context": "fingerprint of another",
    }
    with pytest.raises(pytest.fail.Exception, match="models were loaded"):
        extractor.extract(["a text"])


def test_the_width_is_that_of_the_encoder(extractor: TextFeatureExtractor) -> None:
    assert extractor.context_width == synthetic_corpus.CONTEXT_WIDTH


def test_the_served_models_describe_a_text_and_no_text() -> None:
    for name in ("spacy-en-core-web-md", "all-minilm-l6-v2"):
        model_path(name)
    extractor = TextFeatureExtractor()
    features = extractor.extract(["Kids are talking by the door.", ""])
    spoken, silent = features["Kids are talking by the door."], features[""]
    assert spoken.words.shape[1] == 300
    assert len(spoken.words) >= 6
    assert spoken.context.shape[1] == extractor.context_width == 384
    assert silent.words.shape == (0, 300)
    assert len(silent.context) == 2  # the special tokens
    assert np.isfinite(spoken.context).all()
