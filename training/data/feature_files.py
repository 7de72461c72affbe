"""Speech features on disk: computed once, by several processes, read back as rows of mapped files.

A folder holds the features of one view of a corpus, in shards of `UTTERANCES_IN_SHARD` utterances: the encoder states
of all of them in one matrix, which is mapped into memory, and the rest beside it. So a training of many corpora opens
at once, needs no more memory than what it draws, and sends its processes no features but where to find them.
"""

from __future__ import annotations

import datetime
import functools
import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from rich import get_console
from rich.progress import track

UTTERANCES_IN_SHARD = 96
WORKERS = 2  # processes that compute features, one thread each

Item = TypeVar("Item")
Compute = Callable[[Sequence[Item], Any], "list[SpeechFeatures]"]


@dataclass(frozen=True, slots=True)
class SpeechFeatures:
    """What the cluster computes of an utterance before its text is encoded.

    Attributes:
        log_mel: float16 (80, T), after the codec; (80, 1) of zeros where it is not kept.
        encoder_states: float16 (s, width), see `models.whisper.voice`.
        text: the recogniser's, or the corpus's own.
    """

    log_mel: NDArray[np.float16]
    encoder_states: NDArray[np.float16]
    text: str


class MappedRows(np.ndarray[Any, np.dtype[Any]]):
    """Rows of a mapped matrix that another process gets as the name of the file; what is computed from them is not."""

    source: tuple[Path, int, int] | None

    def __array_finalize__(self, _: object) -> None:
        self.source = None

    def __reduce__(self) -> Any:
        return super().__reduce__() if self.source is None else (mapped_rows, self.source)


def mapped_rows(file: Path, start: int, stop: int) -> MappedRows:
    """Rows of a kept matrix, read when they are first used."""
    rows = _mapped(file)[start:stop].view(MappedRows)
    rows.source = (file, start, stop)
    return rows


def speech_workers(load: Callable[[], Any], workers: int = WORKERS) -> ProcessPoolExecutor:
    """Processes that each load the models once; none starts before something must be computed.

    Args:
        load: returns the models; it can be pickled.
        workers: how many.
    """
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, context, initializer=_prepare, initargs=(load,))


def kept_features(
    folder: Path,
    items: Sequence[Item],
    compute: Compute[Item],
    load: Callable[[], Any],
    description: str,
    workers: Executor | None = None,
) -> list[SpeechFeatures]:
    """The features of every item, in order, from the folder where they are there.

    A shard is written when it is whole, so that an interrupted extraction goes on where it stopped.

    Args:
        folder: of these features; its name is their key.
        items: what `compute` takes several of.
        compute: makes the features of some items with the models; it can be pickled.
        load: returns the models; called only where features are missing and there are no workers for them.
        description: of the progress bar.
        workers: see `speech_workers`; a single missing shard is computed in this process.
    """
    folder.mkdir(parents=True, exist_ok=True)
    starts = range(0, len(items), UTTERANCES_IN_SHARD)
    shards = {_shard(folder, start): items[start : start + UTTERANCES_IN_SHARD] for start in starts}
    missing = {file: group for file, group in shards.items() if not file.is_file()}
    if len(missing) < len(shards):
        oldest = min(file.stat().st_mtime for file in shards if file not in missing)
        kept = len(items) - sum(map(len, missing.values()))
        get_console().print(f"{description}: {kept:,} of {len(items):,} kept, the oldest of {_day(oldest)}")
    if workers is None or len(missing) == 1:
        models = load() if missing else None
        for file, group in track(missing.items(), description, disable=not missing):
            _write(file, compute(group, models))
    elif missing:
        futures = [workers.submit(_compute_and_write, file, compute, group) for file, group in missing.items()]
        for future in track(as_completed(futures), description, len(futures)):
            future.result()
    return [features for file in shards for features in _read(file)]


_models: Any = None  # of a worker process


def _prepare(load: Callable[[], Any]) -> None:
    global _models
    _models = load()


def _compute_and_write(file: Path, compute: Compute[Item], items: Sequence[Item]) -> None:
    _write(file, compute(items, _models))


def _shard(folder: Path, start: int) -> Path:
    return folder / f"{start:06d}.npz"


def _states_of(shard: Path) -> Path:
    return shard.with_suffix(".states.npy")


def _write(shard: Path, features: Sequence[SpeechFeatures]) -> None:
    states = _states_of(shard)
    partial = states.with_suffix(f".{os.getpid()}.partial")  # another training may compute the same shard
    with partial.open("wb") as stream:
        np.save(stream, np.concatenate([each.encoder_states for each in features]))
    partial.replace(states)
    partial = shard.with_suffix(f".{os.getpid()}.partial")
    with partial.open("wb") as stream:
        np.savez(
            stream,
            log_mel=np.concatenate([each.log_mel for each in features], axis=1),
            frames=[each.log_mel.shape[1] for each in features],
            states=[len(each.encoder_states) for each in features],
            texts=np.array([each.text for each in features]),
        )
    partial.replace(shard)


def _read(shard: Path) -> list[SpeechFeatures]:
    with np.load(shard, allow_pickle=False) as arrays:
        mels = np.split(arrays["log_mel"], np.cumsum(arrays["frames"])[:-1], axis=1)
        ends = [0, *np.cumsum(arrays["states"]).tolist()]
        texts = arrays["texts"].tolist()
    file = _states_of(shard)
    states = [mapped_rows(file, start, stop) for start, stop in zip(ends, ends[1:], strict=False)]
    return [SpeechFeatures(*each) for each in zip(mels, states, texts, strict=True)]


@functools.cache
def _mapped(file: Path) -> NDArray[np.float16]:
    return np.asarray(np.load(file, mmap_mode="r"))


def _day(timestamp: float) -> str:
    return datetime.datetime.fromtimestamp(timestamp).astimezone().date().isoformat()
