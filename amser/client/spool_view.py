"""What a spool holds, as records, and how it is read beside the process that owns it (`amser.client.spool`)."""

from __future__ import annotations

import json
import shlex
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar
from uuid import UUID

from amser.client.exchange.answer import Answer, Word

APPLICATION_ID: Final = 0x414D5350  # "AMSP", in the header of the file: another program's database is not touched
VERSION: Final = 2
READABLE: Final = (1, VERSION)  # what is read here is in both; an owner brings the first to the second
OLDEST_FIRST: Final = "ORDER BY position"  # as they were put: the calendar may have been wrong, or set in between
WAITING: Final = "utterance_id, captured_at, seconds, bytes, attempts, not_before, note"
RESULT: Final = "utterance_id, captured_at, seconds, attempts, settled_at, answer, failure, note"
Record = TypeVar("Record")

_BUSY_S: Final = 5.0  # patience with a program that has the file locked


class SpoolError(Exception):
    """A spool that cannot be used. The message says what to do."""


class SpoolInUse(SpoolError):  # noqa: N818 - an error by its base class
    """Another process owns it."""


class SpoolDamaged(SpoolError):  # noqa: N818 - an error by its base class
    """The file is no spool, or is one no longer. It is left as it is."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """An utterance that waits. Times are Unix seconds, to be shown: what is due or too old goes by the spool's clock.

    Attributes:
        utterance_id: the same in every attempt.
        captured_at: when it was said, by the calendar that the device had then.
        seconds: duration of the speech.
        bytes: of the envelope.
        attempts: requests that reached the cluster, or may have, and brought no result.
        not_before: when it may be sent again, by the calendar at the last attempt; 0 for at once.
        note: what the caller of `put` wants to have back with the result.
    """

    utterance_id: UUID
    captured_at: float
    seconds: float
    bytes: int
    attempts: int
    not_before: float
    note: str


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome of an utterance: an answer, or the reason why there will be none.

    Attributes:
        utterance_id, captured_at, seconds, note: as it waited.
        attempts: requests that it took, as far as this device knows.
        settled_at: when the result was stored, Unix seconds.
        answer: of the cluster; None where it refused the utterance for good.
        failure: why; None where there is an answer.
    """

    utterance_id: UUID
    captured_at: float
    seconds: float
    attempts: int
    settled_at: float
    answer: Answer | None
    failure: str | None
    note: str


@dataclass(frozen=True, slots=True)
class Dropped:
    """What was dropped for one reason, since the spool was made.

    Attributes:
        reason: the limit that was passed: `count`, `bytes`, `age`, or `results` for results that made room for others.
        count: utterances.
        bytes: of their envelopes.
        seconds: of their speech.
        last_at: when the last was dropped, Unix seconds.
    """

    reason: str
    count: int
    bytes: int
    seconds: float
    last_at: float


class SpoolView:
    """What a spool holds, read without owning it. A context manager.

    Raises:
        SpoolError: there is no such file, or it is no spool.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.RLock()
        if not path.is_file():
            command = f"python -m amser send FILE --spool {shlex.quote(str(path))}"
            raise SpoolError(f"there is no spool at {path}. One is made with: {command}")
        with self._typed_errors():
            self._db = self._connect("ro")
            try:
                if self._is_new():
                    raise SpoolDamaged(f"{path} is empty. {self._advice()}")
            except BaseException:
                self._db.close()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the file."""
        with self._lock:
            self._db.close()

    def waiting(self) -> list[Waiting]:
        """All that wait, oldest first."""
        return self._records(as_waiting, f"SELECT {WAITING} FROM waiting {OLDEST_FIRST}")

    def results(self) -> list[Result]:
        """All results, in the order in which they came."""
        return self._records(as_result, f"SELECT {RESULT} FROM results ORDER BY rowid")

    def drops(self) -> list[Dropped]:
        """What was dropped, one record a reason."""
        return [
            Dropped(*row) for row in self._rows("SELECT reason, count, bytes, seconds, last_at FROM drops ORDER BY 1")
        ]

    def _rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with self._lock, self._typed_errors():
            return self._db.execute(query, values).fetchall()

    def _records(self, read: Callable[[tuple[Any, ...]], Record], query: str, *values: object) -> list[Record]:
        rows = self._rows(query, *values)
        with self._as_damaged():
            return [read(row) for row in rows]

    @contextmanager
    def _as_damaged(self) -> Iterator[None]:
        """Around what is made of rows: SQLite does not notice where a disk has changed what stands in them."""
        try:
            yield
        except (ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
            raise SpoolDamaged(f"{self.path} is damaged: a row cannot be read. {self._advice()}") from error

    def _connect(self, mode: str) -> sqlite3.Connection:
        return sqlite3.connect(
            f"{self.path.absolute().as_uri()}?mode={mode}",
            uri=True,
            timeout=_BUSY_S,
            isolation_level=None,  # a transaction begins where this file says so
            check_same_thread=False,  # `_lock` keeps threads apart
        )

    def _is_new(self) -> bool:
        """Whether nothing was ever written. Another program's database is refused before anything in it changes."""
        ((application,),) = self._db.execute("PRAGMA application_id").fetchall()
        ((version,),) = self._db.execute("PRAGMA user_version").fetchall()
        ((tables,),) = self._db.execute("SELECT count(*) FROM sqlite_master").fetchall()
        if (application, version, tables) == (0, 0, 0):
            return True
        if application != APPLICATION_ID or version not in READABLE:
            raise SpoolDamaged(f"{self.path} is a database, but no spool of version {VERSION}. Name another file.")
        return False

    @contextmanager
    def _typed_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.ProgrammingError:  # of this file, not of the spool's
            raise
        except OSError as error:
            raise SpoolError(f"{self.path} cannot be used: {error.strerror}") from error
        except UnicodeDecodeError as error:  # in SQLite's own message, which quotes the damaged file
            raise SpoolDamaged(f"{self.path} is damaged. {self._advice()}") from error
        except sqlite3.DatabaseError as error:
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF  # the rest says more of the same
            if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                raise SpoolDamaged(f"{self.path} is damaged: {error}. {self._advice()}") from error
            if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise SpoolInUse(f"{self.path} is locked by another program. Close it and try again.") from error
            if code == sqlite3.SQLITE_FULL:
                raise SpoolError(f"{self.path} has no room left on its disk. Make some and try again.") from error
            raise SpoolError(f"{self.path} cannot be used: {error}") from error

    def _advice(self) -> str:
        return (
            "It was left as it is: move it away to go on with a new one, "
            f"and see what can be saved with: sqlite3 {shlex.quote(str(self.path))} .recover"
        )


def as_waiting(row: tuple[Any, ...]) -> Waiting:
    """Of the columns `WAITING`."""
    return Waiting(UUID(row[0]), *row[1:])


def as_result(row: tuple[Any, ...]) -> Result:
    """Of the columns `RESULT`."""
    utterance_id, captured_at, seconds, attempts, settled_at, answer, failure, note = row
    return Result(UUID(utterance_id), captured_at, seconds, attempts, settled_at, _answer(answer), failure, note)


def _answer(stored: str | None) -> Answer | None:
    if stored is None:
        return None
    fields = json.loads(stored)
    if "confidence" not in fields:  # stored by version 0.4, whose cluster raised no doubts
        fields |= {"confidence": fields["probabilities"].get(fields["emotion"], 0.0), "doubts": []}
    lists = {name: tuple(fields.get(name, ())) for name in ("doubts", "degraded", "warnings")}
    words = tuple(Word(**word) for word in fields.get("words", ()))
    return Answer(**fields | lists | {"words": words})
