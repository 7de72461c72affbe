"""A job as it is kept, and what a store of jobs has to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from deployments.gateway.recordings.documents import ENDED, Status


class JobsFull(Exception):  # noqa: N818 - an error by its base class
    """There is no room for another job.

    Attributes:
        limit: that is reached, in words.
    """

    def __init__(self, limit: str) -> None:
        super().__init__(f"there are as many jobs that have not ended as there may be: {limit}")
        self.limit = limit


@dataclass(frozen=True, slots=True)
class Job:
    """A recording that is answered later.

    Attributes:
        id: nobody can guess it.
        owner: the client that made it; for all others it is not there.
        status: as clients see it.
        request: JSON of what is asked for.
        created, expires: seconds since 1970.
        progress: share that is recognised, 0 to 1.
        claims: how often a replica has taken it since it was made, or since it ended.
        outcome: JSON of the result or of the problem, once it has ended with one.
    """

    id: str
    owner: str
    status: Status
    request: str
    created: float
    expires: float
    progress: float = 0.0
    claims: int = 0
    outcome: str = ""

    @property
    def has_ended(self) -> bool:
        """Whether nothing is left to be recognised."""
        return self.status in ENDED


class JobStore(Protocol):
    """What keeps jobs.

    A job that has not ended, or of whose end somebody has to be told, is *due* at a time. Who claims it puts that time
    off by a lease, again and again while it works; one whose replica has died is due when the lease is over.

    All of it raises `deployments.gateway.answer_store.StoreUnavailable`.
    """

    async def create(self, job: Job, audio: BinaryIO) -> None:
        """Keeps a job, due at once, with its audio, from the begin of the file. Raises JobsFull."""

    async def get(self, job_id: str) -> Job | None:
        """The job, unless its time is over."""

    async def segments(self, job_id: str) -> Mapping[int, str]:
        """JSON of the segments that are ready, by index."""

    async def audio(self, job_id: str, into: BinaryIO) -> bool:
        """Copies the audio into a file; False where it is gone."""

    async def claim(self, holder: str, lease_s: float) -> Job | None:
        """The job that has been due for longest, now held by `holder`; None where none is."""

    async def extend(self, job_id: str, holder: str, lease_s: float) -> bool:
        """Puts off when a job is due; False where it has ended or is somebody else's."""

    async def keep(self, job_id: str, holder: str, index: int, segment: str, progress: float) -> bool:
        """Keeps a segment; False as for `extend`."""

    async def end(self, job_id: str, holder: str | None, status: Status, outcome: str, told_in_s: float | None) -> bool:
        """The job has ended; its audio and segments go. False as for `extend`.

        Args:
            job_id: of the job.
            holder: that worked on it; None ends it whoever does.
            status: `done`, `failed` or `cancelled`.
            outcome: JSON of the result or of the problem.
            told_in_s: when it is due once more, to tell of its end; None where nobody is to be told.
        """

    async def told(self, job_id: str, holder: str, again_in_s: float | None) -> None:
        """Of an end somebody was told, or is to be told again later."""

    async def forget(self, job_id: str) -> None:
        """Deletes a job that has ended."""

    async def expire(self) -> None:
        """Deletes what is too old, where the store does not do that by itself."""
