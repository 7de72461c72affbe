"""The store of weights on disk: what a complete model is, how one appears, and how it is found again.

NAME/                 a complete model; it appears in one rename, or not at all
NAME/.verified.json   size, time and SHA-256 of each file when it was last hashed
downloads/NAME/       verified downloads of a fetch that was interrupted
.NAME.partial, .NAME.lock
"""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from models.weights.catalogue import CATALOGUE, Model, check_kind, load
from models.weights.sources import SourceFailed, Workspace, fill, sha256_of

STAMP = ".verified.json"


class UnknownModel(KeyError):  # noqa: N818 - an error by its base class
    """The catalogue has no model of that name; the message lists those it has."""

    def __str__(self) -> str:
        return str(self.args[0])


class WeightsMissing(FileNotFoundError):  # noqa: N818 - an error by its base class
    """A model is not in the store, or not as it was verified. The message names the command that brings it."""


class FetchFailed(RuntimeError):  # noqa: N818 - an error by its base class
    """No source could bring a model; the message holds one line for each that was tried."""


def cache_folder() -> Path:
    """The folder for everything that can be fetched again; the only place where the environment is read for it.

    `$AMSER_CACHE`, else `$XDG_CACHE_HOME/amser`, else `~/.cache/amser`.
    """
    if own := os.environ.get("AMSER_CACHE"):
        return Path(own)
    if xdg := os.environ.get("XDG_CACHE_HOME"):
        return Path(xdg) / "amser"
    return Path.home() / ".cache" / "amser"


def default_store() -> Path:
    """The store that is used where none is named: `weights/` in the cache folder."""
    return cache_folder() / "weights"


def model_path(name: str, store: Path | None = None, catalogue: Path = CATALOGUE) -> Path:
    """Where a fetched model lies. Reads no more than file sizes and times; never downloads.

    Args:
        name: a name of the catalogue.
        store: the store's folder; `default_store()` if None.
        catalogue: another catalogue than the project's own.

    Returns:
        The model's folder, or its one file where the catalogue names an `entry` (an ONNX model).

    Raises:
        UnknownModel: the catalogue has no such model.
        WeightsMissing: not fetched, or a file is not the one that was verified.
    """
    model = lookup(name, catalogue)
    store = store or default_store()
    folder = store / name
    if reason := unverified(model, folder):
        raise WeightsMissing(f"{name}: {reason} (looked in {folder}). Bring it with: {remedy(name, store)}")
    return folder / model.entry if model.entry else folder


def fingerprint(name: str, catalogue: Path = CATALOGUE) -> str:
    """SHA-256 (hexadecimal) over the hashes of a model's files: the same on every machine that has these weights.

    Raises:
        UnknownModel: the catalogue has no such model.
    """
    return lookup(name, catalogue).fingerprint


def adapted_from(name: str, catalogue: Path = CATALOGUE) -> str:
    """The model of which a model of the catalogue is an adaptation, else the same name.

    An adaptation leaves the lower layers of the encoder as they were: what reads their states reads those of either.
    """
    model = load(catalogue).get(name)
    return model.adapts if model and model.adapts else name


def fetch(
    name: str,
    store: Path | None = None,
    catalogue: Path = CATALOGUE,
    mirror: Path | str | None = None,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> str:
    """Bring a model into the store, from the first of its sources that can, and verify every file.

    The model's folder appears complete or not at all. A second fetch at the same time waits for the first. What
    an interrupted fetch had verified is not downloaded again.

    Args:
        name: a name of the catalogue.
        store: the store's folder; `default_store()` if None.
        catalogue: another catalogue than the project's own.
        mirror: folder for `path` sources, or the http(s) URL of one; `$AMSER_WEIGHTS_FROM` if None.
        progress: called with (bytes so far, bytes in all) while a source works.

    Returns:
        What was done, in words: "already there" or the source that brought it.

    Raises:
        UnknownModel: the catalogue has no such model.
        FetchFailed: every source failed; names each with its reason.
    """
    model = lookup(name, catalogue)
    store = store or default_store()
    folder = store / name
    if unverified(model, folder) is None:
        return "already there"
    with _locked(store, name):
        if unverified(model, folder) is None:  # another process brought it while we waited
            return "already there"
        if folder.is_dir() and not _faults(model, folder):  # copied by hand, or only its times changed
            _write_stamp(model, folder)
            return "already there, verified"
        named = str(mirror) if mirror else os.environ.get("AMSER_WEIGHTS_FROM") or None
        if model.adapts:
            with suppress(FetchFailed):  # another source may have the adapted model whole
                fetch(model.adapts, store, catalogue, mirror, progress)
        return _fetch_from_sources(model, store, named, progress)


def verify(name: str, store: Path | None = None, catalogue: Path = CATALOGUE) -> list[str]:
    """Hash every file of a model anew.

    Returns:
        What is wrong, one sentence a file; empty if nothing is.

    Raises:
        UnknownModel: the catalogue has no such model.
    """
    model = lookup(name, catalogue)
    folder = (store or default_store()) / name
    if not folder.is_dir():
        return [f"not fetched ({folder} is not there)"]
    faults = _faults(model, folder)
    if not faults and unverified(model, folder) and os.access(folder, os.W_OK):
        _write_stamp(model, folder)
    return faults


def remedy(name: str, store: Path) -> str:
    """The command that brings a model into a store."""
    elsewhere = "" if store == default_store() else f" --store {shlex.quote(str(store))}"
    return f"python -m models.weights fetch {name}{elsewhere}"


def lookup(name: str, catalogue: Path = CATALOGUE) -> Model:
    """The catalogue's entry of that name.

    Raises:
        UnknownModel: it has none.
    """
    models = load(catalogue)
    if name not in models:
        raise UnknownModel(f"no model is called {name!r}; the catalogue has {', '.join(models)}")
    return models[name]


# --- Verification and its stamp ---------------------------------------------------------------------------------------


def _faults(model: Model, folder: Path) -> list[str]:
    """What is wrong with the files of a folder, by content."""
    faults = []
    for file in model.files:
        path = folder / file.path
        if not path.is_file():
            faults.append(f"{file.path} is missing")
        elif path.stat().st_size != file.bytes:
            faults.append(f"{file.path} has {path.stat().st_size} bytes, the catalogue says {file.bytes}")
        elif (found := sha256_of(path)) != file.sha256:
            faults.append(f"{file.path}: SHA-256 is {found}, the catalogue says {file.sha256}")
        elif refusal := check_kind(model, file, path):
            faults.append(refusal)
    return faults


def _state(model: Model, folder: Path) -> dict[str, list[int | str]]:
    """Size, time and expected hash of each file. Whole seconds: container images and archives keep no finer times."""
    state: dict[str, list[int | str]] = {}
    for file in model.files:
        status = (folder / file.path).stat()
        state[file.path] = [status.st_size, int(status.st_mtime), file.sha256]
    return state


def _write_stamp(model: Model, folder: Path) -> None:
    fresh = folder / f"{STAMP}.new"
    fresh.write_text(json.dumps(_state(model, folder), indent=1))
    os.replace(fresh, folder / STAMP)


def unverified(model: Model, folder: Path) -> str | None:
    """Why a folder cannot be taken for the verified model, judged without reading its files; None if it can."""
    if not folder.is_dir():
        return "not fetched"
    try:
        if json.loads((folder / STAMP).read_text()) == _state(model, folder):
            return None
    except (OSError, ValueError):
        return "incomplete or never verified"
    return "changed since it was verified"


# --- Fetching ---------------------------------------------------------------------------------------------------------


@contextmanager
def _locked(store: Path, name: str) -> Iterator[None]:
    """One fetch of a model at a time. The lock file stays: removing it would let two processes hold two locks."""
    store.mkdir(parents=True, exist_ok=True)
    with (store / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # released when the file closes, also by a crash
        yield


def _fetch_from_sources(model: Model, store: Path, mirror: str | None, progress: Callable[[int, int], None]) -> str:
    partial = store / f".{model.name}.partial"
    downloads = store / "downloads" / model.name
    failures = []
    try:
        for source in model.sources:
            shutil.rmtree(partial, ignore_errors=True)  # of a killed process, or of the source before
            partial.mkdir()
            downloads.mkdir(parents=True, exist_ok=True)
            try:
                fill(source, model, Workspace(partial, downloads, mirror, store, progress))
            except SourceFailed as error:
                failures.append(f"  {source}: {error}")
                continue
            if faults := _faults(model, partial):
                failures.append(f"  {source}: {'; '.join(faults)}")
                continue
            _write_stamp(model, partial)
            _move_in_place(partial, store / model.name)
            shutil.rmtree(downloads, ignore_errors=True)
            return f"from {source}"
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        for empty in (downloads, downloads.parent):
            with suppress(OSError):  # not there, or not empty: downloads to continue with, another model's fetch
                empty.rmdir()
    raise FetchFailed(f"{model.name}: no source could bring it:\n" + "\n".join(failures))


def _move_in_place(partial: Path, folder: Path) -> None:
    """Rename, after an older folder was renamed away: a directory cannot be replaced in one step."""
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.replace(folder, old)
    os.replace(partial, folder)
    shutil.rmtree(old, ignore_errors=True)
