"""Small text models that have learnt nothing, in folders: an encoder with a tokenizer of its own, and word vectors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import spacy
import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import RobertaConfig, RobertaModel, RobertaTokenizerFast

from models.text.context_encoder import LONGEST_TEXT
from models.text.word_vectors import WORD_VECTOR_WIDTH


def write_roberta(folder: Path, width: int, texts: Sequence[str]) -> Path:
    """An untrained RoBERTa of one layer and that width; its tokenizer knows the texts."""
    folder.mkdir()
    pieces = ByteLevelBPETokenizer()
    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    pieces.train_from_iterator(list(texts) * 20, vocab_size=320, special_tokens=specials)
    pieces.save_model(str(folder))
    RobertaTokenizerFast.from_pretrained(folder).save_pretrained(folder)
    torch.manual_seed(width)
    config = RobertaConfig(
        vocab_size=320, hidden_size=width, num_hidden_layers=1, num_attention_heads=4, intermediate_size=32,
        max_position_embeddings=LONGEST_TEXT + 2, pad_token_id=1, bos_token_id=0, eos_token_id=2,
    )  # fmt: skip
    RobertaModel(config).save_pretrained(folder)
    return folder


def write_word_vectors(folder: Path, texts: Iterable[str], language: str = "en") -> Path:
    """Random vectors of the words that spaCy finds in the texts of that language."""
    random = np.random.default_rng(0)
    blank = spacy.blank(language)
    for word in sorted({token.text for text in texts for token in blank(text)}):
        blank.vocab.set_vector(word, random.standard_normal(WORD_VECTOR_WIDTH).astype(np.float32))
    blank.to_disk(folder)
    return folder
