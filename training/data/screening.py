"""Recordings that cannot be used are left out before anything is computed, counted and named: no one stops a training.

Stands between the corpora, which name sound files without opening them, and `training.data.extraction`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile
from rich.progress import track

from amser.features import FRAMES_PER_SECOND, MINIMUM_SECONDS, RESAMPLED_FROM, AudioError, to_mono
from models.emotion.batch import MAXIMUM_SECONDS
from models.weights import cache_folder
from training.corpora.manifest import Corpus, ManifestError
from training.source_digest import source_digest

TOO_LONG = f"longer than {MAXIMUM_SECONDS:g} s"
TOO_SHORT = f"shorter than {MINIMUM_SECONDS:g} s"
UNREADABLE, SILENT, NOT_FINITE = "unreadable", "silent", "not finite"
SILENT_RANGE = 2 / 32768  # between lowest and highest sample: a bit of noise in 16-bit silence, but no sound
NAMED = 3  # utterances of each kind in a summary
KEPT_FROM = 200  # recordings; checking fewer takes no time worth a file or a progress bar


def screen(corpus: Corpus) -> Corpus:
    """The corpus without recordings that cannot be used, which its `unusable` names.

    Every recording is read: a header alone does not tell whether there is sound. What was found out about many is kept
    in Amser's cache folder for as long as the files stay as they are.

    Raises:
        ManifestError: none can be used.
    """
    files = [record.audio for record in corpus.records]
    faults = [fault_of(file) for file in files] if len(files) < KEPT_FROM else _kept_faults(corpus.name, files)
    unusable = {
        fault: tuple(record.utterance for record, other in zip(corpus.records, faults, strict=True) if other == fault)
        for fault in sorted({fault for fault in faults if fault is not None})
    }
    records = tuple(record for record, fault in zip(corpus.records, faults, strict=True) if fault is None)
    screened = replace(corpus, records=records, unusable=unusable)
    if not records:
        raise ManifestError(f"{corpus.name} has no usable recording: {summary_of(screened)}")
    return screened


def _kept_faults(name: str, files: Sequence[Path]) -> list[str | None]:
    """`fault_of` each file, from the cache folder where none of them has changed since."""
    stats = [[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in files]
    content = json.dumps([stats, source_digest("training.data.screening")])
    kept = cache_folder() / "screening" / f"{name}-{hashlib.sha256(content.encode()).hexdigest()[:16]}.json"
    if not kept.is_file():
        kept.parent.mkdir(parents=True, exist_ok=True)
        partial = kept.with_suffix(".partial")
        partial.write_text(json.dumps([fault_of(file) for file in track(files, f"recordings of {name}")]))
        partial.replace(kept)
    faults: list[str | None] = json.loads(kept.read_text())
    return faults


def fault_of(file: Path) -> str | None:
    """What is wrong with a recording: one of `TOO_LONG`, `TOO_SHORT`, `UNREADABLE`, `SILENT`, `NOT_FINITE`; or None."""
    try:
        with soundfile.SoundFile(file) as sound:
            rate = sound.samplerate
            samples = sound.read(int((MAXIMUM_SECONDS + 1) * rate), dtype="float32", always_2d=True)
        lowest, highest = RESAMPLED_FROM
        if not lowest <= rate <= highest:
            return UNREADABLE
        waveform = to_mono(samples, rate)
    except (soundfile.SoundFileError, AudioError, OSError):
        return UNREADABLE
    seconds = len(waveform) / rate
    if seconds < MINIMUM_SECONDS:
        return TOO_SHORT
    if int(seconds * FRAMES_PER_SECOND) > MAXIMUM_SECONDS * FRAMES_PER_SECOND:
        return TOO_LONG
    if not np.isfinite(waveform).all():
        return NOT_FINITE
    return SILENT if np.ptp(waveform) <= SILENT_RANGE else None


def summary_of(corpus: Corpus) -> str:
    """How many recordings were left out, of which kind, and the first of each; empty where none was."""
    if not corpus.unusable:
        return ""
    left_out = sum(map(len, corpus.unusable.values()))
    kinds = (f"{len(names):,} {fault} ({_first(names)})" for fault, names in corpus.unusable.items())
    return f"{left_out:,} of {left_out + len(corpus.records):,} recordings left out: {', '.join(kinds)}"


def _first(names: Sequence[str]) -> str:
    return ", ".join([*names[:NAMED], *(["…"] if len(names) > NAMED else [])])
