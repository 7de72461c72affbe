"""What corpora there are, what is in one, and a manifest of it: `python -m training.corpora [NAME --root DIR]`."""

from __future__ import annotations

import argparse
import csv
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from training.corpora.catalogue import ADAPTERS, open_corpus
from training.corpora.manifest import CLASSES, Corpus, ManifestError
from training.outputs import new_file

EXAMPLES = """examples:
  python -m training.corpora
  python -m training.corpora ravdess --root corpora/ravdess
  python -m training.corpora ravdess --root corpora/ravdess --manifest corpora/ravdess.tsv

A recipe trains on several together: `corpora: [{source: a.tsv}, {source: nemo=corpora/nemo, weight: 0.5}]`. Readings or
noise, in a manifest without a column `emotion`, have one label: `{source: read.tsv, label: neutral, always: true}`.
"""
COLUMNS = ("utterance", "speaker", "emotion", "text", "language", "fold", "dialogue", "licence", "path")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit code."""
    options = _parser().parse_args(arguments)
    console = Console()
    if options.name is None:
        console.print(known_corpora())
        return 0
    try:
        corpus = open_corpus(options.name, options.root)
        console.print(summary(corpus))
        if options.manifest:
            write_manifest(corpus, new_file(options.manifest, options.force))
    except (ManifestError, OSError, csv.Error) as error:
        print(f"training.corpora: {error}", file=sys.stderr)
        return 2
    return 0


def known_corpora() -> Table:
    """All adapters, with what must be known before one is used."""
    licence_and_source = Column("licence, source", overflow="fold")  # an address that was cut short would be of no use
    name = Column("corpus", no_wrap=True)
    table = Table(name, "what it is", "languages, classes", licence_and_source, show_lines=True)
    for adapter in ADAPTERS.values():
        table.add_row(
            adapter.name,
            f"{adapter.title}\n[dim]{adapter.note}[/dim]",
            f"{', '.join(adapter.languages)}\n{', '.join(adapter.classes)}",
            f"{adapter.licence}\n[dim]{adapter.source}[/dim]",
        )
    return table


def summary(corpus: Corpus) -> Table:
    """How much there is of everything."""
    records = corpus.records
    emotions = Counter(record.emotion for record in records)
    folds = Counter(record.fold for record in records if record.fold is not None)
    table = Table("", corpus.name, show_header=True)
    table.add_row("utterances", f"{len(records):,}")
    table.add_row("classes", _counts({name: emotions[name] for name in CLASSES if name in emotions}))
    table.add_row("speakers", f"{len({record.speaker for record in records}):,}")
    table.add_row("languages", _counts(Counter(record.language or "unknown" for record in records)))
    table.add_row("folds", _counts({str(fold): folds[fold] for fold in sorted(folds)}))
    table.add_row("licence", escape(corpus.licence or "unknown"))
    table.add_row("left out", escape(_counts(corpus.unknown_labels)))
    return table


def write_manifest(corpus: Corpus, file: Path) -> None:
    """Write a corpus as a manifest that `load_manifest` reads without a root.

    Paths are relative where all sound files are under the manifest's folder, so that both can move together, and
    absolute otherwise.
    """
    folder = file.resolve().parent
    paths = [record.audio.absolute() for record in corpus.records]
    if all(path.is_relative_to(folder) for path in paths):
        paths = [path.relative_to(folder) for path in paths]
    licence = " ".join(corpus.licence.split())
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, delimiter="\t", quoting=csv.QUOTE_NONE, quotechar=None, lineterminator="\n")
        writer.writerow(COLUMNS)
        for record, path in zip(corpus.records, paths, strict=True):
            text = " ".join(record.text.split())
            fold = "" if record.fold is None else record.fold
            speech = [record.utterance, record.speaker, record.emotion, text, record.language or ""]
            writer.writerow([*speech, fold, record.dialogue or "", licence, path.as_posix()])


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items()) or "none"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.corpora",
        description="Without arguments: the corpora that can be read, their licences and where to get them.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "name", nargs="?", metavar="NAME", help="a corpus of the list, or a manifest: print what is in it"
    )
    parser.add_argument("--root", type=Path, metavar="DIR", help="the folder the corpus was unpacked into")
    parser.add_argument("--manifest", type=Path, metavar="FILE", help="write the corpus there as a manifest (TSV)")
    parser.add_argument("--force", action="store_true", help="replace a manifest that exists")
    return parser


if __name__ == "__main__":
    sys.exit(main())
