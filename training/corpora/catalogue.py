"""All corpora that can be opened by name, and the one way to open any: a manifest, or an adapter and a folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from training.corpora import (
    crema_d,
    emodb,
    esd,
    iemocap,
    meld,
    nemo,
    ravdess,
    tess,
    vcemo,
)
from training.corpora.adapter import Adapter
from training.corpora.manifest import Corpus, ManifestError, load_manifest
from training.data_folder import in_data_folder

MANIFEST_ENDING = ".tsv"
KNOWN = (
    iemocap.ADAPTER,
    iemocap.IMPROVISED,
    *(module.ADAPTER for module in (vcemo, ravdess, crema_d, emodb, tess, nemo, esd, meld)),
)
ADAPTERS: dict[str, Adapter] = {adapter.name: adapter for adapter in KNOWN}


def open_corpus(source: str, root: Path | None = None, label: str | None = None) -> Corpus:
    """Read a corpus.

    Args:
        source: a manifest (`corpora/mine.tsv`), a corpus and its folder (`ravdess=corpora/ravdess`), or a corpus alone.
        root: the folder of a corpus that is named alone; for a manifest, the folder that its paths are relative to.
        label: the class of every utterance, whatever the corpus says; a manifest needs no column `emotion` then.

    Raises:
        ManifestError: no corpus has that name, it has no folder, or it cannot be read.
    """
    name, _, folder = source.partition("=")
    if name in ADAPTERS:
        where = Path(folder) if folder else root
        if where is None:
            raise ManifestError(f"where is {name}? Name its folder: {name}=/folder")
        corpus = ADAPTERS[name].load(where)
        if label is None:
            return corpus
        return replace(corpus, records=tuple(replace(record, emotion=label) for record in corpus.records))
    if source.endswith(MANIFEST_ENDING) or Path(source).is_file():
        return load_manifest(Path(source), root, label)
    raise ManifestError(
        f"{source!r} is neither a manifest ({MANIFEST_ENDING}) nor a corpus known here: {', '.join(ADAPTERS)}"
    )


def source_in_data_folder(source: str) -> str:
    """A corpus as a recipe names it, with its relative path under `$AMSER_DATA` (see `in_data_folder`)."""
    name, equals, folder = source.partition("=")
    if name not in ADAPTERS:
        return str(in_data_folder(source))
    return f"{name}={in_data_folder(folder)}" if equals else name
