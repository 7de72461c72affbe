"""Word vectors and context: one row a token, the same alone and in a batch, and nothing fetched while serving."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import spacy
from numpy.typing import NDArray
from tokenizers import ByteLevelBPETokenizer
from transformers import RobertaConfig, RobertaModel, RobertaTokenizerFast

from models.messages import TokenFeatures
from models.text.context_encoder import LONGEST_TEXT, ContextEncoder
from models.text.word_vectors import WordVectors
from models.weights import model_path

SENTENCE = "The kids are talking by the door."


@pytest.fixture(scope="module")
def vectors() -> WordVectors:
    return WordVectors(model_path("spacy-en-core-web-md"))


@pytest.fixture(scope="module")
def encoder() -> ContextEncoder:
    return ContextEncoder(model_path("all-minilm-l6-v2"))


@pytest.fixture(scope="module")
def small_roberta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A RoBERTa of two layers, 48 wide, with a tokenizer of its own; it has learnt nothing."""
    folder = tmp_path_factory.mktemp("roberta")
    pieces = ByteLevelBPETokenizer()
    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    pieces.train_from_iterator([SENTENCE] * 20, vocab_size=300, special_tokens=specials)
    pieces.save_model(str(folder))
    RobertaTokenizerFast.from_pretrained(folder).save_pretrained(folder)
    config = RobertaConfig(
        vocab_size=300, hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=LONGEST_TEXT + 2, pad_token_id=1, bos_token_id=0, eos_token_id=2,
    )  # fmt: skip
    RobertaModel(config).save_pretrained(folder)
    assert (folder / "model.safetensors").is_file()
    return folder


def mean_of(features: TokenFeatures) -> NDArray[np.float32]:
    mean: NDArray[np.float32] = features.values.mean(axis=0)
    return mean


def cosine(one: TokenFeatures, other: TokenFeatures) -> float:
    a, b = mean_of(one), mean_of(other)
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def test_every_word_has_a_vector_of_its_own(vectors: WordVectors) -> None:
    features = vectors.embed(SENTENCE)
    assert features.tokens == ("The", "kids", "are", "talking", "by", "the", "door", ".")
    assert features.values.shape == (8, 300)
    assert features.values.dtype == np.float32
    assert (np.linalg.norm(features.values, axis=1) > 0).all()
    np.testing.assert_array_equal(features.values[1], vectors.embed("kids").values[0])


def test_related_words_are_nearer_than_others(vectors: WordVectors) -> None:
    happy, glad, door = (vectors.embed(word) for word in ("happy", "glad", "door"))
    assert cosine(happy, glad) > cosine(happy, door)


def test_an_unknown_word_is_a_row_of_zeros(vectors: WordVectors) -> None:
    features = vectors.embed("hello qzxvwkjy")
    assert features.values[0].any()
    assert not features.values[1].any()


def test_an_empty_text_has_no_words(vectors: WordVectors) -> None:
    features = vectors.embed("")
    assert features.tokens == ()
    assert features.values.shape == (0, 300)


def test_vectors_of_another_width_are_refused(tmp_path: Path) -> None:
    language = spacy.blank("en")
    language.vocab.set_vector("word", np.ones(50, np.float32))
    language.to_disk(tmp_path / "narrow")
    with pytest.raises(ValueError, match="50 wide.*300"):
        WordVectors(tmp_path / "narrow")


def test_sentences_of_like_meaning_are_nearer_than_others(encoder: ContextEncoder) -> None:
    children, kids, rates = encoder.encode(
        ["The children speak next to the entrance.", SENTENCE, "Interest rates were raised by the central bank."]
    )
    assert encoder.width == 384
    assert cosine(children, kids) > 0.5 > cosine(kids, rates)


def test_a_text_is_encoded_alike_alone_and_beside_longer_ones(encoder: ContextEncoder) -> None:
    texts = ["Yes.", SENTENCE, "", SENTENCE * 5]
    for text, beside in zip(texts, encoder.encode(texts), strict=True):
        (alone,) = encoder.encode([text])
        assert alone.tokens == beside.tokens
        np.testing.assert_allclose(beside.values, alone.values, atol=1e-5)


def test_an_empty_text_keeps_its_special_tokens(encoder: ContextEncoder) -> None:
    (features,) = encoder.encode([""])
    assert features.tokens == ("[CLS]", "[SEP]")
    assert features.values.shape == (2, 384)
    assert np.isfinite(features.values).all()


def test_a_text_that_never_ends_is_cut(encoder: ContextEncoder) -> None:
    (features,) = encoder.encode([SENTENCE * 200])
    assert features.values.shape == (LONGEST_TEXT, 384)


def test_a_roberta_works_and_says_how_wide_it_is(small_roberta: Path) -> None:
    encoder = ContextEncoder(small_roberta)
    assert encoder.width == 48
    sentence, nothing = encoder.encode([SENTENCE, ""])
    assert sentence.tokens[0] == "<s>"
    assert sentence.tokens[-1] == "</s>"
    assert sentence.values.shape == (len(sentence.tokens), 48)
    assert nothing.values.shape == (2, 48)
    (alone,) = encoder.encode([""])
    np.testing.assert_allclose(nothing.values, alone.values, atol=1e-5)


def test_weights_that_could_carry_code_are_not_loaded(small_roberta: Path, tmp_path: Path) -> None:
    """A folder with a pickle instead of safetensors."""
    for file in small_roberta.iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR.")
    with pytest.raises(OSError, match="safetensors"):
        ContextEncoder(tmp_path)


def test_a_model_that_is_not_here_is_not_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("something asked for the network")

    monkeypatch.setattr("socket.getaddrinfo", refuse)
    monkeypatch.setattr("time.sleep", refuse)  # nor waited to try again
    started = time.monotonic()
    with pytest.raises(OSError, match="cached files"):
        ContextEncoder("nobody/no-such-encoder")
    assert time.monotonic() - started < 60
