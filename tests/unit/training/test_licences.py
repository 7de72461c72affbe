"""The licence of a network is that of everything it learnt from, and unknown where its terms are not given."""

from __future__ import annotations

from argparse import ArgumentTypeError
from pathlib import Path

import pytest

from training.corpora.catalogue import ADAPTERS
from training.corpora.licences import extended, joined, licences_of, named_licence
from training.corpora.manifest import Corpus

RAVDESS = Corpus("ravdess", (), {}, ADAPTERS["ravdess"].licence)
MINE = Corpus("mine", (), {})


def test_the_terms_of_voices_sentences_and_noise_are_joined_by_name() -> None:
    licences = licences_of(RAVDESS, Path("goemotions_ekman"), Path("noise/esc10"), {"esc10": "CC BY 3.0"})
    assert joined(licences) == "CC BY-NC-SA 4.0 (ravdess); Apache-2.0 (goemotions); CC BY 3.0 (esc10)"


def test_terms_that_are_not_given_are_unknown() -> None:
    assert joined(licences_of(MINE, None, Path("/data/street"), {"ravdess": "CC0"})) == "unknown: mine; unknown: street"


def test_named_terms_come_before_those_of_an_adapter() -> None:
    assert joined(licences_of(RAVDESS, None, None, {"ravdess": "bought"})) == "bought (ravdess)"


def test_a_network_that_learns_from_more_gets_the_terms_of_that_too() -> None:
    since = {"goemotions": "Apache-2.0", "street": ""}
    assert extended("CC0 (mine)", since) == "CC0 (mine); Apache-2.0 (goemotions); unknown: street"
    assert extended("CC0 (mine); Apache-2.0 (goemotions)", {"goemotions": "Apache-2.0"}) == (
        "CC0 (mine); Apache-2.0 (goemotions)"
    )


def test_an_option_is_a_name_and_its_terms() -> None:
    assert named_licence("mine=CC BY 4.0, see a=b") == ("mine", "CC BY 4.0, see a=b")
    for text in ("mine", "=CC0", "mine=", "mine= "):
        with pytest.raises(ArgumentTypeError, match="is not NAME=TERMS"):
            named_licence(text)


@pytest.mark.parametrize("adapter", ADAPTERS.values(), ids=lambda adapter: adapter.name)
def test_every_adapter_knows_its_terms(adapter: object) -> None:
    assert getattr(adapter, "licence", "")
