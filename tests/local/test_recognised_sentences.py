"""Sentences that a synthetic voice says and Whisper writes down, as the text network may learn from them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from training.data.recognised import SentenceRecogniser, is_changed
from training.data.waveform_augmentation import WaveformAugmentation

TYPED = "it's not his job to train you :)"
NAMED = "[NAME] is the worst coach i have ever seen"
NOTHING = "\U0001f602\U0001f602"
CLEAR = WaveformAugmentation(pitch=0, stretch=0, noise=0, gain=0)
BURIED = replace(CLEAR, noise=1, gaussian_snr=(-40, -40))


def recognised(augmentation: WaveformAugmentation, folder: Path) -> dict[str, str]:
    return SentenceRecogniser(augmentation, cache_root=folder).recognised([TYPED, NAMED, NOTHING])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("recognised")


def test_typed_sentences_are_written_with_the_recognisers_punctuation_and_a_name_for_a_mask(folder: Path) -> None:
    texts = recognised(CLEAR, folder)
    assert texts[TYPED] == "It's not his job to train you."
    assert re.fullmatch(r"[A-Z][a-z]+ is the worst coach I have ever seen\.", texts[NAMED])
    assert texts[NOTHING] == ""
    assert recognised(CLEAR, folder) == texts
    assert len(list(folder.iterdir())) == 1


def test_sentences_with_bad_sound_are_kept_apart_and_not_understood(folder: Path) -> None:
    clear, buried = recognised(CLEAR, folder), recognised(BURIED, folder)
    assert is_changed(TYPED)
    assert "train" in clear[TYPED]
    assert "train" not in buried[TYPED]
    assert len(list(folder.iterdir())) == 2
