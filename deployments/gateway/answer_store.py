"""Where answers are kept for a while, so that a request that is sent again gets the same one.

`EmbeddedStore` is a file of the node, which all gateway replicas on it share; `RedisStore` is shared by all nodes.
What they keep has transcripts in it: it is readable for this user alone, is never logged, and goes after its time.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import tempfile
import time
from collections.abc import Callable
from math import ceil
from pathlib import Path
from typing import Final, Protocol

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from deployments.settings import IdempotencySettings

BUSY_WITHIN_S: Final = 0.02  # patience with another replica that writes; a write takes a twentieth of a millisecond
REDIS_WITHIN_S: Final = 0.25  # an answer takes longer to compute, but not much
REDIS_PREFIX: Final = b"amser:answer:"
DAMAGED: Final = (sqlite3.DatabaseError, UnicodeDecodeError)  # the second in a message that quotes a damaged file
SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS answers (
    position INTEGER PRIMARY KEY AUTOINCREMENT, key BLOB NOT NULL UNIQUE, stored_at REAL NOT NULL,
    total INTEGER NOT NULL, value BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS age ON answers (stored_at);
"""


class StoreUnavailable(Exception):  # noqa: N818 - an error by its base class
    """The store does not answer. Whatever it keeps can be computed again."""


class AnswerStore(Protocol):
    """What keeps answers. All of it raises `StoreUnavailable`."""

    async def get(self, key: bytes) -> bytes | None:
        """What was put, unless its time is over or others needed the room."""

    async def put(self, key: bytes, value: bytes) -> None:
        """Keeps a value; one that is there already stays."""

    def expire(self) -> int:
        """Deletes what is too old, where the store does not do that by itself; returns how many are left."""


def answer_store(settings: IdempotencySettings) -> AnswerStore | None:
    """The store that these settings describe.

    Raises:
        StoreUnavailable: the embedded one cannot be opened.
    """
    if settings.store == "none":
        return None
    if settings.store == "redis":
        assert settings.redis_url is not None  # by its validator
        return RedisStore(settings.redis_url.get_secret_value(), settings.ttl_s)
    return EmbeddedStore(
        embedded_folder(settings), ttl_s=settings.ttl_s, max_answers=settings.max_answers, max_bytes=settings.max_bytes
    )


def embedded_folder(settings: IdempotencySettings) -> Path:
    """Where the files of this node are."""
    return settings.folder or Path(tempfile.gettempdir()) / f"amser-{os.getuid()}"


class EmbeddedStore:
    """An SQLite file that the replicas of a node share. It survives them; of a power cut nothing has to be left.

    Rows are in the order in which they came, and so are their times and `total`, the bytes of all that came up to them:
    what is too old or too much is always at the front.

    Args:
        folder: for the file; made where there is none.
        ttl_s: seconds for which an answer is kept.
        max_answers: that are kept.
        max_bytes: of their values. The file takes up to twice as much, beside a log of 4 MB.
        clock: seconds, the same in all processes of the node.

    Raises:
        StoreUnavailable: the folder belongs to somebody else or is open to others, or the file cannot be made.
    """

    def __init__(
        self,
        folder: Path,
        *,
        ttl_s: float,
        max_answers: int,
        max_bytes: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = folder / "answers.sqlite"
        self._ttl_s, self._max_answers, self._max_bytes, self._clock = ttl_s, max_answers, max_bytes, clock
        private_folder(folder)
        try:
            self._db = self._open()
        except DAMAGED:  # no database, or damaged: nothing in it is worth more than computing it again
            self._start_anew()

    async def get(self, key: bytes) -> bytes | None:
        """See `AnswerStore`."""
        query = "SELECT value FROM answers WHERE key = ? AND stored_at BETWEEN ? AND ?"
        now = self._clock()
        try:
            row = self._db.execute(query, (key, now - self._ttl_s, now)).fetchone()
        except DAMAGED as error:
            raise self._unavailable(error) from error
        return None if row is None else bytes(row[0])

    async def put(self, key: bytes, value: bytes) -> None:
        """See `AnswerStore`."""
        if len(value) > self._max_bytes:
            return
        try:
            with self._db:
                self._db.execute("BEGIN IMMEDIATE")
                self._delete_too_old()
                last = "SELECT total FROM answers ORDER BY position DESC LIMIT 1"
                total = (self._db.execute(last).fetchone() or (0,))[0] + len(value)
                add = "INSERT OR IGNORE INTO answers (key, stored_at, total, value) VALUES (?, ?, ?, ?)"
                added = self._db.execute(add, (key, self._clock(), total, value))
                if added.rowcount and added.lastrowid:
                    self._make_room(added.lastrowid, total)
        except (*DAMAGED, TypeError) as error:  # of a sum that is no number any more
            if _code(error) != sqlite3.SQLITE_BUSY:  # otherwise others write: this one is not kept
                raise self._unavailable(error) from error

    def expire(self) -> int:
        """See `AnswerStore`."""
        try:
            self._delete_too_old()
            return int(self._db.execute("SELECT count(*) FROM answers").fetchone()[0])
        except DAMAGED as error:
            raise self._unavailable(error) from error

    def close(self) -> None:
        """Lets go of the file."""
        self._db.close()

    def _delete_too_old(self) -> None:
        now = self._clock()  # what is later than now is of an earlier boot
        self._db.execute("DELETE FROM answers WHERE stored_at < ? OR stored_at > ?", (now - self._ttl_s, now))

    def _make_room(self, position: int, total: int) -> None:
        self._db.execute("DELETE FROM answers WHERE position <= ?", (position - self._max_answers,))
        oldest = "SELECT position, total - length(value) FROM answers ORDER BY position LIMIT 1"
        while total - (row := self._db.execute(oldest).fetchone())[1] > self._max_bytes:
            self._db.execute("DELETE FROM answers WHERE position = ?", row[:1])

    def _open(self) -> sqlite3.Connection:
        try:
            os.close(os.open(self._path, os.O_CREAT | os.O_NOFOLLOW, 0o600))
        except OSError as error:
            raise StoreUnavailable(f"{self._path} cannot be made: {error.strerror}") from error
        db = sqlite3.connect(self._path, timeout=BUSY_WITHIN_S, isolation_level=None, check_same_thread=False)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = OFF")
            db.execute("PRAGMA secure_delete = ON")  # what is deleted is overwritten
            db.executescript(SCHEMA)
        except sqlite3.OperationalError as error:
            db.close()
            raise self._unavailable(error) from error
        except DAMAGED:
            db.close()
            raise
        return db

    def _start_anew(self) -> None:
        for name in ("", "-wal", "-shm"):
            Path(f"{self._path}{name}").unlink(missing_ok=True)
        self._db = self._open()

    def _unavailable(self, error: Exception) -> StoreUnavailable:
        if _code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            self._db.close()
            self._start_anew()
        return StoreUnavailable(f"{self._path} cannot be used: {error}")


class RedisStore:
    """A Redis server that all gateways share. How much it holds is its own setting (`maxmemory`).

    Args:
        url: such as `redis://:password@host:6379/0`.
        ttl_s: seconds for which an answer is kept.
    """

    def __init__(self, url: str, ttl_s: float) -> None:
        self._ttl_ms = ceil(1000 * ttl_s)
        self._redis = redis.asyncio.Redis.from_url(
            url,
            socket_timeout=REDIS_WITHIN_S,
            socket_connect_timeout=REDIS_WITHIN_S,
            retry=Retry(NoBackoff(), 1),  # a kept connection breaks where the server was restarted
        )

    async def get(self, key: bytes) -> bytes | None:
        """See `AnswerStore`."""
        try:
            value = await self._redis.get(REDIS_PREFIX + key.hex().encode())
        except (RedisError, OSError, TimeoutError) as error:
            raise StoreUnavailable(f"Redis does not answer: {type(error).__name__}") from error
        return value.encode() if isinstance(value, str) else value  # always bytes: nothing asks for text

    async def put(self, key: bytes, value: bytes) -> None:
        """See `AnswerStore`."""
        try:
            await self._redis.set(REDIS_PREFIX + key.hex().encode(), value, px=self._ttl_ms, nx=True)
        except (RedisError, OSError, TimeoutError) as error:
            raise StoreUnavailable(f"Redis does not answer: {type(error).__name__}") from error

    def expire(self) -> int:
        """Redis does that by itself."""
        return 0

    async def close(self) -> None:
        """Closes its connections."""
        await self._redis.aclose()


def _code(error: Exception) -> int:
    """SQLite's code of an error; what Python cannot read of a file is a damaged file too."""
    if not isinstance(error, sqlite3.DatabaseError):
        return sqlite3.SQLITE_CORRUPT
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF


def private_folder(folder: Path) -> None:
    """Makes a folder that nobody else can read or has prepared.

    Raises:
        StoreUnavailable: it belongs to somebody else, is open to others, or cannot be made.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise StoreUnavailable(f"{folder} cannot be made: {error.strerror}") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise StoreUnavailable(f"{folder} is not a folder of this user alone (mode 700)")
