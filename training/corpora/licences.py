"""The licence of a checkpoint: the terms of everything it learnt from, each with the name of its corpus."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Mapping, Sequence
from pathlib import Path

from training.corpora import goemotions
from training.corpora.manifest import Corpus


def licences_of(
    corpora: Corpus | Sequence[Corpus] | None, sentences: Path | None, noise: Path | None, named: Mapping[str, str]
) -> dict[str, str]:
    """The terms of what a network learns from, by name; an empty text where they are not known.

    Args:
        corpora: the voices, of one corpus or several; an adapter or a manifest's column `licence` says their terms.
        sentences: folder of GoEmotions' tables; None for no sentences.
        noise: folder of recordings that augmentation adds; None for none.
        named: terms by the name of a corpus or noise folder, from a recipe or a command line; they come first.
    """
    voices = [corpora] if isinstance(corpora, Corpus) else corpora or ()
    licences = {corpus.name: corpus.licence for corpus in voices}
    if sentences is not None:
        licences[goemotions.NAME] = goemotions.LICENCE
    if noise is not None:
        licences[noise.resolve().name] = ""
    return {name: named.get(name, licence) for name, licence in licences.items()}


def joined(licences: Mapping[str, str]) -> str:
    """One line, as in `CC BY-NC-SA 4.0 (ravdess); Apache-2.0 (goemotions); unknown: street-noise`."""
    return "; ".join(f"{licence} ({name})" if licence else f"unknown: {name}" for name, licence in licences.items())


def extended(licence: str, licences: Mapping[str, str]) -> str:
    """A licence of one line, with the terms of what was learnt from since and is not named in it."""
    more = [part for name, terms in licences.items() if (part := joined({name: terms})) not in licence]
    return "; ".join([*([licence] if licence else []), *more])


def named_licence(text: str) -> tuple[str, str]:
    """The parts of NAME=TERMS, for an option of a command line."""
    name, equals, terms = text.partition("=")
    if not (name and equals and terms.strip()):
        raise ArgumentTypeError(f"{text!r} is not NAME=TERMS, as in ravdess='CC BY-NC-SA 4.0'")
    return name, terms.strip()
