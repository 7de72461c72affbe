"""What a Whisper model can be asked for, read from the vocabulary beside its weights: no network is loaded."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Final

FEWEST_TOKENS_OF_MULTILINGUAL: Final = 51_865  # the English-only models have one less

_LANGUAGE: Final = re.compile(r"<\|([a-z]{2,3})\|>")


def languages(model: Path) -> frozenset[str]:
    """The languages that a model decodes, as Whisper's codes (ISO 639-1 but for a few: `jw`, `haw`, `yue`).

    Large-v3 has `yue`, which the models before it lack; the English-only models name all languages and know one.

    Args:
        model: a folder in CTranslate2's format: `vocabulary.json` or `vocabulary.txt`, a token a line.

    Raises:
        FileNotFoundError: the folder has no vocabulary.
        ValueError: it names no language.
    """
    file = model / "vocabulary.json"
    if file.is_file():
        tokens = json.loads(file.read_text(encoding="utf-8"))
    else:
        file = model / "vocabulary.txt"
        tokens = file.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    if len(tokens) < FEWEST_TOKENS_OF_MULTILINGUAL:
        return frozenset({"en"})
    codes = frozenset(found[1] for token in tokens if (found := _LANGUAGE.fullmatch(token)))
    if not codes:
        raise ValueError(f"{file}: no token names a language")
    return codes
