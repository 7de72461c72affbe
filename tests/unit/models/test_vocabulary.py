"""Which languages a Whisper model decodes, by the vocabulary beside its weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from whisper.tokenizer import LANGUAGES

from models.weights import model_path
from models.whisper.vocabulary import languages


def vocabulary(codes: list[str], size: int) -> list[str]:
    """Tokens as Whisper has them: texts first, then the special ones."""
    special = [
        "<|endoftext|>",
        "<|startoftranscript|>",
        *(f"<|{code}|>" for code in codes),
        "<|translate|>",
        "<|0.00|>",
    ]
    return [f"word{number}" for number in range(size - len(special))] + special


def test_whisper_base_knows_99_languages_and_no_cantonese() -> None:
    known = languages(model_path("whisper-base"))
    assert known == set(LANGUAGES) - {"yue"}
    assert len(known) == 99


def test_large_v3_knows_cantonese(tmp_path: Path) -> None:
    (tmp_path / "vocabulary.json").write_text(json.dumps(vocabulary(list(LANGUAGES), 51_866)))
    assert languages(tmp_path) == set(LANGUAGES)


def test_an_english_only_model_names_all_languages_and_knows_one(tmp_path: Path) -> None:
    tokens = vocabulary(list(LANGUAGES)[:99], 51_864)
    (tmp_path / "vocabulary.txt").write_text("\n".join(tokens) + "\n")
    assert languages(tmp_path) == {"en"}


def test_a_folder_without_a_vocabulary_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="vocabulary"):
        languages(tmp_path)


def test_a_vocabulary_without_languages_is_not_whispers(tmp_path: Path) -> None:
    (tmp_path / "vocabulary.json").write_text(json.dumps(vocabulary([], 51_866)))
    with pytest.raises(ValueError, match="no token names a language"):
        languages(tmp_path)
