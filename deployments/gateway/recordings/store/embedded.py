"""Jobs in an SQLite file that the replicas of a node share, and their audio in files beside it."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, Final, TypeVar

from deployments.gateway.answer_store import StoreUnavailable, private_folder
from deployments.gateway.recordings.documents import Status
from deployments.gateway.recordings.store.base import Job, JobsFull
from deployments.recording_settings import JobSettings

UNNOTED_S: Final = 3600.0  # for which a file may be without its job: a copy takes seconds
BUSY_WITHIN_S: Final = 5.0  # patience with another replica that writes
SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY, owner TEXT NOT NULL, status TEXT NOT NULL, request TEXT NOT NULL, created REAL NOT NULL,
    expires REAL NOT NULL, progress REAL NOT NULL, claims INTEGER NOT NULL, outcome TEXT NOT NULL,
    due REAL, holder TEXT NOT NULL, bytes INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS due ON jobs (due);
CREATE TABLE IF NOT EXISTS segments (job TEXT NOT NULL, position INTEGER NOT NULL, value TEXT NOT NULL,
    PRIMARY KEY (job, position));
"""
FIELDS: Final = "id, owner, status, request, created, expires, progress, claims, outcome"
OPEN: Final = "status IN ('queued', 'running')"

Result = TypeVar("Result")


class EmbeddedJobs:
    """See `JobStore`.

    Args:
        folder: for the files; made where there is none.
        settings: limits.
        clock: seconds since 1970, the same in all processes of the node.

    Raises:
        StoreUnavailable: the folder belongs to somebody else or is open to others, or the file cannot be made.
    """

    def __init__(self, folder: Path, settings: JobSettings, clock: Callable[[], float] = time.time) -> None:
        self._settings, self._clock = settings, clock
        private_folder(folder)
        self._audio = folder / "jobs"
        private_folder(self._audio)
        path = folder / "jobs.sqlite"
        try:
            os.close(os.open(path, os.O_CREAT | os.O_NOFOLLOW, 0o600))
            self._db = sqlite3.connect(path, timeout=BUSY_WITHIN_S, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.execute("PRAGMA secure_delete = ON")  # what is deleted is overwritten
            self._db.executescript(SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise StoreUnavailable(f"{path} cannot be used: {error}") from error
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="jobs")  # waits for other writers beside the loop

    async def create(self, job: Job, audio: BinaryIO) -> None:
        """See `JobStore`."""
        await self._run(lambda: self._create(job, audio))

    async def get(self, job_id: str) -> Job | None:
        """See `JobStore`."""
        query = f"SELECT {FIELDS} FROM jobs WHERE id = ? AND expires > ?"
        row = await self._run(lambda: self._db.execute(query, (job_id, self._clock())).fetchone())
        return None if row is None else Job(*row)

    async def segments(self, job_id: str) -> Mapping[int, str]:
        """See `JobStore`."""
        query = "SELECT position, value FROM segments WHERE job = ? ORDER BY position"
        return dict(await self._run(lambda: self._db.execute(query, (job_id,)).fetchall()))

    async def audio(self, job_id: str, into: BinaryIO) -> bool:
        """See `JobStore`."""

        def copy() -> bool:
            try:
                with self._file_of(job_id).open("rb") as kept:
                    shutil.copyfileobj(kept, into, 1 << 20)
            except FileNotFoundError:
                return False
            into.flush()
            return True

        return await asyncio.to_thread(copy)

    async def claim(self, holder: str, lease_s: float) -> Job | None:
        """See `JobStore`."""

        def claimed() -> Job | None:
            now = self._clock()
            due = "SELECT id FROM jobs WHERE due <= ? AND expires > ? ORDER BY due LIMIT 1"
            change = (
                "UPDATE jobs SET due = ?, holder = ?, claims = claims + 1, "
                f"status = CASE WHEN {OPEN} THEN 'running' ELSE status END WHERE id = ({due}) RETURNING {FIELDS}"
            )
            rows = self._db.execute(change, (now + lease_s, holder, now, now)).fetchall()
            return Job(*rows[0]) if rows else None

        return await self._run(claimed)

    async def extend(self, job_id: str, holder: str, lease_s: float) -> bool:
        """See `JobStore`."""
        change = f"UPDATE jobs SET due = ? WHERE id = ? AND holder = ? AND {OPEN}"
        return await self._run(
            lambda: bool(self._db.execute(change, (self._clock() + lease_s, job_id, holder)).rowcount)
        )

    async def keep(self, job_id: str, holder: str, index: int, segment: str, progress: float) -> bool:
        """See `JobStore`."""

        def kept() -> bool:
            change = f"UPDATE jobs SET progress = max(progress, ?) WHERE id = ? AND holder = ? AND {OPEN}"
            if not self._db.execute(change, (progress, job_id, holder)).rowcount:
                return False
            self._db.execute("INSERT OR REPLACE INTO segments VALUES (?, ?, ?)", (job_id, index, segment))
            return True

        return await self._run(lambda: self._together(kept))

    async def end(self, job_id: str, holder: str | None, status: Status, outcome: str, told_in_s: float | None) -> bool:
        """See `JobStore`."""

        def ended() -> bool:
            now = self._clock()
            change = (
                "UPDATE jobs SET status = ?, outcome = ?, due = ?, expires = ?, claims = 0, holder = '', bytes = 0, "
                f"progress = CASE WHEN ? = 'done' THEN 1.0 ELSE progress END WHERE id = ? AND {OPEN} "
                "AND (? IS NULL OR holder = ?)"
            )
            due = None if told_in_s is None else now + told_in_s
            fields = status, outcome, due, now + self._settings.ttl_s, status, job_id, holder, holder
            if not self._db.execute(change, fields).rowcount:
                return False
            self._db.execute("DELETE FROM segments WHERE job = ?", (job_id,))
            return True

        has_ended = await self._run(lambda: self._together(ended))
        if has_ended:
            self._file_of(job_id).unlink(missing_ok=True)
        return has_ended

    async def told(self, job_id: str, holder: str, again_in_s: float | None) -> None:
        """See `JobStore`."""
        due = None if again_in_s is None else self._clock() + again_in_s
        change = "UPDATE jobs SET due = ? WHERE id = ? AND holder = ?"
        await self._run(lambda: self._db.execute(change, (due, job_id, holder)))

    async def forget(self, job_id: str) -> None:
        """See `JobStore`."""
        await self._run(lambda: self._db.execute(f"DELETE FROM jobs WHERE id = ? AND NOT {OPEN}", (job_id,)))

    async def expire(self) -> None:
        """See `JobStore`."""

        def expired() -> None:
            gone = self._db.execute("DELETE FROM jobs WHERE expires <= ? RETURNING id", (self._clock(),)).fetchall()
            for (job_id,) in gone:
                self._db.execute("DELETE FROM segments WHERE job = ?", (job_id,))
                self._file_of(job_id).unlink(missing_ok=True)
            kept = {job_id for (job_id,) in self._db.execute("SELECT id FROM jobs")}
            for file in self._audio.glob("*.audio"):  # of a replica that died before it had noted the job
                if file.stem not in kept and time.time() - file.stat().st_mtime > UNNOTED_S:
                    file.unlink(missing_ok=True)

        await self._run(lambda: self._together(expired))

    def close(self) -> None:
        """Lets go of the file."""
        self._thread.shutdown()
        self._db.close()

    def _create(self, job: Job, audio: BinaryIO) -> None:
        size = audio.seek(0, os.SEEK_END)
        audio.seek(0)
        own = "SELECT count(*) FROM jobs WHERE owner = ? AND " + OPEN
        every = "SELECT count(*), coalesce(sum(bytes), 0) FROM jobs WHERE " + OPEN

        def added() -> None:
            most = self._settings
            count, held = self._db.execute(every).fetchone()
            if self._db.execute(own, (job.owner,)).fetchone()[0] >= most.of_a_client:
                raise JobsFull(f"{most.of_a_client} of a client")
            if count >= most.in_all or held + size > most.held_bytes:
                raise JobsFull(f"{most.in_all} in all, and {most.held_bytes} bytes of audio")
            fields = job.id, job.owner, job.status, job.request, job.created, job.expires, self._clock(), size
            self._db.execute("INSERT INTO jobs VALUES (?, ?, ?, ?, ?, ?, 0.0, 0, '', ?, '', ?)", fields)

        file = self._file_of(job.id)
        try:
            with os.fdopen(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as kept:
                shutil.copyfileobj(audio, kept, 1 << 20)
            self._together(added)
        except BaseException:
            file.unlink(missing_ok=True)
            raise

    def _together(self, change: Callable[[], Result]) -> Result:
        """In one transaction."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            result = change()
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")
        return result

    def _file_of(self, job_id: str) -> Path:
        return self._audio / f"{job_id}.audio"

    async def _run(self, work: Callable[[], Result]) -> Result:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except (sqlite3.Error, OSError) as error:
            raise StoreUnavailable(f"jobs cannot be kept: {error}") from error
