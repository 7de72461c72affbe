"""The file of keys: read by every replica whenever it changes, written by `python -m deployments.access`."""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Final

from pydantic import ValidationError
from ray.serve import metrics

from deployments.access.keys import Key, KeyRing
from deployments.access.settings import Limits, LimitSettings

LOOKED_AT_EVERY_S: Final = 1.0
OTHERS_MAY_WRITE: Final = 0o002
NAMES: Final = frozenset({*KeyRing.model_fields, *Key.model_fields, *LimitSettings.model_fields, *Limits.model_fields})

logger = logging.getLogger("ray.serve")  # the logger that Serve writes to its files

Signature = tuple[int, ...]


class KeyFileBroken(Exception):  # noqa: N818 - an error by its base class
    """The file of keys cannot be used. The text names it and says why, and holds nothing of its content."""


def read(path: Path) -> KeyRing:
    """The keys of a file.

    Raises:
        KeyFileBroken: it is not there, cannot be read, is none, or everybody may write it.
    """
    return _read(path)[0]


def _read(path: Path) -> tuple[KeyRing, Signature]:
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            content = file.read()
    except OSError as error:
        raise KeyFileBroken(f"the file of keys {path} cannot be read: {error.strerror}") from None
    if found.st_mode & OTHERS_MAY_WRITE:
        raise KeyFileBroken(f"everybody may write the file of keys {path}: chmod o-w")
    try:
        return KeyRing.model_validate_json(content), _signature(found)
    except ValidationError as error:
        # Without what stands there: somebody may have pasted a key into it
        wrong = "; ".join(f"{_place(each['loc'])}: {each['type']}" for each in error.errors()[:3])
        raise KeyFileBroken(f"{path} is no file of keys: {wrong}") from None


def _place(parts: tuple[int | str, ...]) -> str:
    """Where in the file, by names that a file of keys may have."""
    return ".".join(str(part) if isinstance(part, int) or part in NAMES else "…" for part in parts) or "file"


def _signature(found: os.stat_result) -> Signature:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


class WatchedKeys:
    """The keys of a file, as it is now. A file that cannot be used any longer leaves those that were read before.

    Args:
        path: of the file.
        clock: seconds that never go back.

    Raises:
        KeyFileBroken: on construction, where there are no keys from before.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path, self._clock = path, clock
        self._ring, self._seen = _read(path)
        self._look_at = clock() + LOOKED_AT_EVERY_S
        self._trouble = ""
        self._broken = metrics.Gauge(
            "amser_key_file_broken", "1 where the file of keys cannot be used and earlier keys count."
        )
        self._broken.set(0)

    def ring(self) -> KeyRing:
        """The keys. The file is looked at once a second, and read where it has changed."""
        now = self._clock()
        if now >= self._look_at:
            self._look_at = now + LOOKED_AT_EVERY_S
            self._look()
        return self._ring

    def _look(self) -> None:
        with suppress(OSError):
            if not self._trouble and _signature(self._path.stat()) == self._seen:
                return
        try:
            self._ring, self._seen = _read(self._path)
        except KeyFileBroken as error:
            if str(error) != self._trouble:  # once, not every second
                logger.error("%s; the keys that were read before still count", error)
            self._trouble = str(error)
            self._broken.set(1)
            return
        self._trouble = ""
        self._broken.set(0)
        logger.warning("the file of keys has changed: %d keys", len(self._ring.keys))


@contextmanager
def changing(path: Path) -> Iterator[list[KeyRing]]:
    """The keys of a file, to be changed: what the list holds at the end is written, at once and for this user alone.

    One process changes it at a time. A file that is not there yet holds no keys.

    Raises:
        KeyFileBroken: there is one that cannot be used.
        OSError: it cannot be written.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        rings = [read(path) if path.exists() else KeyRing()]
        before = rings[0]
        yield rings
        if rings[0] != before:
            _write(path, rings[0])
            os.fsync(folder)
    finally:
        os.close(folder)


def _write(path: Path, ring: KeyRing) -> None:
    target = path.resolve()  # a link goes on pointing at it
    with NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", delete=False) as file:  # mode 600
        try:
            file.write(ring.model_dump_json(indent=2, exclude_unset=True).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
            os.replace(file.name, target)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
