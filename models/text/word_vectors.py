"""Word vectors of a transcript: the word branch of Amser+ (IoT-J 2025, R10).

Stands between the recogniser, which writes the text, and the fusion classifier, which reads the vectors.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import spacy

from models.messages import TokenFeatures

WORD_VECTOR_WIDTH: Final = 300
_NOT_NEEDED: Final = ("tok2vec", "tagger", "parser", "senter", "attribute_ruler", "lemmatizer", "ner")


class WordVectors:
    """Looks the words of a text up in a spaCy vector table.

    Args:
        model: a folder that spaCy loads: en_core_web_md, en_core_web_lg or GloVe vectors after `spacy init vectors`.

    Raises:
        ValueError: its vectors are not 300 wide.
    """

    def __init__(self, model: Path) -> None:
        self._language = spacy.load(model, exclude=_NOT_NEEDED)
        width = self._language.vocab.vectors_length
        if width != WORD_VECTOR_WIDTH:
            raise ValueError(f"{model}: vectors are {width} wide, the fusion network reads {WORD_VECTOR_WIDTH}")

    def embed(self, text: str) -> TokenFeatures:
        """One row a token; a token that the table lacks is a row of zeros, an empty text has shape (0, 300)."""
        document = self._language(text)
        values = np.zeros((len(document), WORD_VECTOR_WIDTH), np.float32)
        for row, token in enumerate(document):
            values[row] = token.vector
        return TokenFeatures(tuple(token.text for token in document), values)
