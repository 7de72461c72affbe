"""Utterances on disk while there is no link, each until its result is on disk too.

One SQLite file holds the utterances that wait, the results and a count of what was dropped. An utterance leaves the
first in the very transaction that enters it in one of the others: a process that is killed at any moment loses none and
stores none twice.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Final
from uuid import UUID

from amser.client.exchange.answer import Answer
from amser.client.exchange.utterances import Utterance
from amser.client.spool_clock import SpoolClock, Uptime, uptime
from amser.client.spool_view import (
    APPLICATION_ID,
    OLDEST_FIRST,
    RESULT,
    VERSION,
    WAITING,
    Dropped,
    Result,
    SpoolDamaged,
    SpoolError,
    SpoolInUse,
    SpoolView,
    Waiting,
    as_result,
    as_waiting,
)

LONGEST_WAIT_S: Final = 86_400.0  # no wait is longer
# How much of its age a spool may lose when the power goes. A transaction takes its clock along for one page more; where
# there is none, the clock is written alone, 96 times a day, since flash wears out.
CLOCK_WITHIN_S: Final = 60.0
CLOCK_ALONE_S: Final = 900.0
_POLL_S: Final = 0.05  # how often a process that waits for the ownership asks for it

_log = logging.getLogger(__name__)

_CLOCK_SCHEMA: Final = """
CREATE TABLE clock (id INTEGER PRIMARY KEY CHECK (id = 1), seconds REAL NOT NULL, boot TEXT NOT NULL,
    uptime REAL NOT NULL);
CREATE INDEX age ON waiting (put_at, bytes);
"""
_SCHEMA: Final = f"""
CREATE TABLE waiting (
    position INTEGER PRIMARY KEY, utterance_id TEXT NOT NULL UNIQUE, captured_at REAL NOT NULL, seconds REAL NOT NULL,
    device_ms REAL NOT NULL, bytes INTEGER NOT NULL, attempts INTEGER NOT NULL DEFAULT 0,
    partials INTEGER NOT NULL DEFAULT 0, not_before REAL NOT NULL DEFAULT 0, put_at REAL NOT NULL DEFAULT 0,
    due_at REAL NOT NULL DEFAULT 0, note TEXT NOT NULL, envelope BLOB NOT NULL);
CREATE TABLE results (
    utterance_id TEXT PRIMARY KEY, captured_at REAL NOT NULL, seconds REAL NOT NULL, bytes INTEGER NOT NULL,
    attempts INTEGER NOT NULL, settled_at REAL NOT NULL, answer TEXT, failure TEXT, note TEXT NOT NULL,
    CHECK ((answer IS NULL) <> (failure IS NULL)));
CREATE TABLE drops (
    reason TEXT PRIMARY KEY, count INTEGER NOT NULL, bytes INTEGER NOT NULL, seconds REAL NOT NULL,
    last_at REAL NOT NULL);
{_CLOCK_SCHEMA}
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {VERSION};
"""
# Ages begin anew: those of version 1 are differences of a calendar that may have been wrong. Waits go on
_FROM_VERSION_1: Final = f"""
ALTER TABLE waiting ADD COLUMN partials INTEGER NOT NULL DEFAULT 0;
ALTER TABLE waiting ADD COLUMN put_at REAL NOT NULL DEFAULT 0;
ALTER TABLE waiting ADD COLUMN due_at REAL NOT NULL DEFAULT 0;
DROP INDEX oldest;
{_CLOCK_SCHEMA}
UPDATE waiting SET due_at = not_before - {{now}} WHERE not_before - {{now}} BETWEEN 0 AND {LONGEST_WAIT_S};
PRAGMA user_version = {VERSION};
"""
_NEWEST_FIRST: Final = "ORDER BY put_at DESC, position DESC"
_AGE: Final = "SELECT rowid FROM waiting WHERE put_at < ?"
_COUNT: Final = f"SELECT rowid FROM waiting {_NEWEST_FIRST} LIMIT -1 OFFSET ?"
_BYTES: Final = (
    f"SELECT rowid FROM (SELECT rowid, sum(bytes) OVER ({_NEWEST_FIRST}) AS kept FROM waiting) WHERE kept > ?"
)
_RESULTS: Final = "SELECT rowid FROM results WHERE rowid <= (SELECT max(rowid) FROM results) - ?"


@dataclass(frozen=True, slots=True)
class SpoolLimits:
    """How much a spool holds. Where it is full, the oldest go first.

    Attributes:
        max_count: utterances that wait: a day of speech without a pause, 8 s each.
        max_bytes: of their envelopes; with the default codec 9 h of speech, and bearable on the smallest SD card.
        max_age_s: since it was put, as the spool's clock counts (`amser.client.spool_clock`); a week, longer than any
            weekend without a link.
        max_results: results that are kept, 2 kB each.

    Raises:
        ValueError: one of them leaves no room for anything.
    """

    max_count: int = 10_000
    max_bytes: int = 64 * 1024**2
    max_age_s: float = 7 * 86_400.0
    max_results: int = 50_000

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not value > 0:
                raise ValueError(f"{name} is {value}: a spool needs room for one utterance at least")


class Spool(SpoolView):
    """A spool that this process owns until it is closed. Its threads may share it.

    The owner holds an flock on FILE-lock: the kernel lets go of it however the process ends, and readers are not kept
    out. `synchronous=FULL` writes every commit through to the disk: an utterance survives a power cut from the moment
    `put` returns. NORMAL would survive the process alone, and lose the last seconds with the power.

    Args:
        path: of the database; made where there is none.
        limits: what it may hold.
        wait_s: how long to wait for another process to let go of it.
        clock: Unix seconds, to be shown.
        uptime: of this device; ages and waits go by it.

    Raises:
        SpoolInUse: another process owns it.
        SpoolDamaged: the file is no spool, or is damaged.
        SpoolError: it cannot be opened.
    """

    def __init__(
        self,
        path: Path,
        limits: SpoolLimits = SpoolLimits(),  # noqa: B008 - frozen
        *,
        wait_s: float = 0.0,
        clock: Callable[[], float] = time.time,
        uptime: Callable[[], Uptime] = uptime,
    ) -> None:
        self.path, self.limits, self._clock, self._uptime = path, limits, clock, uptime
        self._lock = threading.RLock()
        self._owner = self._own(wait_s)
        try:
            self._open()
        except BaseException:
            os.close(self._owner)
            raise

    def close(self) -> None:
        """Lets go of the file and of its ownership."""
        with self._lock:
            super().close()
            if self._owner >= 0:
                os.close(self._owner)
                self._owner = -1

    def put(self, utterance: Utterance, captured_at: datetime, note: str = "") -> None:
        """Stores an utterance, on disk when this returns. One that waits already, or has a result, stays as it is.

        Args:
            utterance: as `Device.encode` gives it.
            captured_at: when it was said, with a time zone.
            note: comes back with the result.
        """
        row = (str(utterance.utterance_id), captured_at.timestamp(), utterance.seconds, utterance.device_ms)
        size = len(utterance.envelope)
        known = "SELECT 1 FROM waiting WHERE utterance_id = ?1 UNION ALL SELECT 1 FROM results WHERE utterance_id = ?1"
        with self._transaction() as dropped:
            if self._db.execute(known, row[:1]).fetchone():
                return
            if size > self.limits.max_bytes:  # all others would be dropped for it, and it would still not fit
                dropped.append(self._count_drop("bytes", 1, size, utterance.seconds))
                return
            self._db.execute(
                "INSERT INTO waiting (utterance_id, captured_at, seconds, device_ms, bytes, put_at, note, envelope)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (*row, size, self._age.now(), note, utterance.envelope),
            )
            self._trim(dropped)

    def expire(self) -> None:
        """Drops what is too old. Now and then it stores how old the rest is."""
        if self._age.unstored_s > CLOCK_ALONE_S or self._rows(f"{_AGE} LIMIT 1", self._oldest_allowed()):
            with self._transaction() as dropped:
                self._trim(dropped)

    def due(self, limit: int) -> list[Waiting]:
        """Up to `limit` utterances that may be sent now, oldest first."""
        query = f"SELECT {WAITING} FROM waiting WHERE due_at <= ? {OLDEST_FIRST} LIMIT ?"
        return self._records(as_waiting, query, self._age.now(), limit)

    def next_due_s(self) -> float | None:
        """Seconds until an utterance may be sent; None where none waits."""
        ((due_at,),) = self._rows("SELECT min(due_at) FROM waiting")
        with self._as_damaged():
            return None if due_at is None else max(0.0, due_at - self._age.now())

    def utterance(self, utterance_id: UUID) -> Utterance | None:
        """What is to be sent; None where it does not wait (any longer)."""
        query = "SELECT envelope, seconds, device_ms FROM waiting WHERE utterance_id = ?"
        for envelope, seconds, device_ms in self._rows(query, str(utterance_id)):
            return Utterance(envelope, utterance_id, seconds, device_ms)
        return None

    def postpone(self, utterance_id: UUID, wait_s: float, *, partial: bool = False) -> None:
        """Counts an attempt that brought no result; the next begins no sooner than in `wait_s`.

        Args:
            utterance_id: of one that waits.
            wait_s: seconds, `LONGEST_WAIT_S` at most.
            partial: it brought an answer that leaves something out; `partials` counts these.
        """
        change = (
            "UPDATE waiting SET attempts = attempts + 1, partials = partials + ?, not_before = ?, due_at = ?"
            " WHERE utterance_id = ?"
        )
        wait_s = min(wait_s, LONGEST_WAIT_S)
        with self._transaction():
            times = (self._clock() + wait_s, self._age.now() + wait_s)
            self._db.execute(change, (int(partial), *times, str(utterance_id)))

    def partials(self, utterance_id: UUID) -> int:
        """Answers that left something out, of an utterance that waits; 0 where it does not."""
        rows = self._rows("SELECT partials FROM waiting WHERE utterance_id = ?", str(utterance_id))
        return rows[0][0] if rows else 0

    def replace(self, utterance: Utterance) -> None:
        """Counts an attempt after which an utterance is to be sent in another form.

        Args:
            utterance: in that form, with the id of one that waits. Where it does not (any longer), nothing happens.
        """
        change = "UPDATE waiting SET attempts = attempts + 1, envelope = ?, bytes = ? WHERE utterance_id = ?"
        with self._transaction():
            row = (utterance.envelope, len(utterance.envelope), str(utterance.utterance_id))
            self._db.execute(change, row)

    def settle(self, utterance_id: UUID, answer: Answer) -> Result | None:
        """Exchanges an utterance for its answer, in one transaction.

        Returns:
            What was stored; None where it does not wait: it has a result already, or was dropped meanwhile.
        """
        return self._exchange(utterance_id, json.dumps(asdict(answer), ensure_ascii=False), None)

    def refuse(self, utterance_id: UUID, reason: str) -> Result | None:
        """Exchanges an utterance for the reason why it will never be answered, as `settle` does."""
        return self._exchange(utterance_id, None, reason)

    def _exchange(self, utterance_id: UUID, answer: str | None, failure: str | None) -> Result | None:
        key = str(utterance_id)
        with self._transaction() as dropped:
            stored = self._db.execute(
                "INSERT INTO results (utterance_id, captured_at, seconds, bytes, attempts, settled_at, answer, failure,"
                " note) SELECT utterance_id, captured_at, seconds, bytes, attempts + 1, ?, ?, ?, note"
                " FROM waiting WHERE utterance_id = ?",
                (self._clock(), answer, failure, key),
            )
            if not stored.rowcount:
                return None
            self._db.execute("DELETE FROM waiting WHERE utterance_id = ?", (key,))
            rows = self._db.execute(f"SELECT {RESULT} FROM results WHERE utterance_id = ?", (key,)).fetchall()
            with self._as_damaged():
                (row,) = rows  # an index that the disk has changed finds none
            self._drop(dropped, "results", "results", _RESULTS, self.limits.max_results)
        with self._as_damaged():
            return as_result(row)

    def _trim(self, dropped: list[Dropped]) -> None:
        limits = self.limits
        self._drop(dropped, "waiting", "age", _AGE, self._oldest_allowed())
        ((count, size),) = self._db.execute("SELECT count(*), total(bytes) FROM waiting").fetchall()
        if count > limits.max_count:
            self._drop(dropped, "waiting", "count", _COUNT, limits.max_count)
        if size > limits.max_bytes:
            self._drop(dropped, "waiting", "bytes", _BYTES, limits.max_bytes)

    def _oldest_allowed(self) -> float:
        return self._age.now() - self.limits.max_age_s

    def _drop(self, dropped: list[Dropped], table: str, reason: str, chosen: str, limit: float) -> None:
        """Deletes the rows that `chosen` selects, and counts them."""
        those = f"FROM {table} WHERE rowid IN ({chosen})"
        query = f"SELECT count(*), total(bytes), total(seconds) {those}"
        ((count, size, seconds),) = self._db.execute(query, (limit,)).fetchall()
        if count:
            dropped.append(self._count_drop(reason, count, int(size), seconds))
            self._db.execute(f"DELETE {those}", (limit,))

    def _count_drop(self, reason: str, count: int, size: int, seconds: float) -> Dropped:
        record = Dropped(reason, count, size, seconds, self._clock())
        self._db.execute(
            "INSERT INTO drops (reason, count, bytes, seconds, last_at) VALUES (?, ?, ?, ?, ?) ON CONFLICT (reason)"
            " DO UPDATE SET count = count + excluded.count, bytes = bytes + excluded.bytes,"
            " seconds = seconds + excluded.seconds, last_at = excluded.last_at",
            (record.reason, record.count, record.bytes, record.seconds, record.last_at),
        )
        return record

    @contextmanager
    def _transaction(self) -> Iterator[list[Dropped]]:
        """All of it or nothing. What it drops is logged after the commit."""
        dropped: list[Dropped] = []
        with self._lock:
            with self._typed_errors(), self._db:  # commits, or rolls back where anything is raised
                self._db.execute("BEGIN IMMEDIATE")
                yield dropped
                if not self._age.is_stored or self._age.unstored_s > CLOCK_WITHIN_S:
                    self._age.store(self._write_clock)
            for each in dropped:
                what = f"dropped {each.count} ({each.seconds:.1f} s of speech): the limit of {each.reason} was passed"
                _log.warning("%s: %s", self.path, what)

    def _write_clock(self, seconds: float, since: Uptime) -> None:
        self._db.execute("REPLACE INTO clock VALUES (1, ?, ?, ?)", (seconds, since.boot, since.seconds))

    def _own(self, wait_s: float) -> int:
        """A file descriptor that stands for the ownership."""
        ends_at = time.monotonic() + wait_s
        try:
            owner = os.open(f"{self.path}-lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise SpoolError(
                f"{self.path} cannot be made: {error.strerror}. Name a file in a writable folder."
            ) from error
        while True:
            try:
                fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= ends_at:
                    process = os.pread(owner, 20, 0).decode("ascii", "replace") or "unknown"
                    os.close(owner)
                    raise SpoolInUse(
                        f"{self.path} is in use by process {process}. Wait until it ends, or name another file."
                    ) from None
                time.sleep(_POLL_S)
            else:
                os.ftruncate(owner, 0)
                os.pwrite(owner, str(os.getpid()).encode(), 0)
                return owner

    def _open(self) -> None:
        with self._typed_errors():
            if not self.path.exists():
                os.close(os.open(self.path, os.O_CREAT | os.O_EXCL, 0o600))  # others may not read what was said
            self._db = self._connect("rw")
            try:
                new = self._is_new()
                ((found,),) = self._db.execute("PRAGMA quick_check(1)").fetchall()  # 20 ms for 64 MiB
                if found != "ok":
                    raise SpoolDamaged(f"{self.path} is damaged: {found}. {self._advice()}")
                self._db.execute("PRAGMA journal_mode = WAL")
                self._db.execute("PRAGMA synchronous = FULL")
                if new:
                    self._db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")
                elif self._db.execute("PRAGMA user_version").fetchone() != (VERSION,):
                    script = _FROM_VERSION_1.format(now=self._clock())
                    self._db.executescript(f"BEGIN IMMEDIATE; {script} COMMIT;")
                row = self._db.execute("SELECT seconds, boot, uptime FROM clock").fetchone()
                self._age = SpoolClock(row and (row[0], Uptime(*row[1:])), self._uptime)
                if not self._age.is_stored:  # the first look in this boot
                    with self._transaction():
                        pass
            except BaseException:
                self._db.close()
                raise
