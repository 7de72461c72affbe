"""Jobs in a Redis that all gateways share, on whatever node they are.

`amser:job:ID` is a hash with the fields of a job, `…:segments` another one, `…:audio` a list of blocks.
`amser:jobs:due` and `amser:jobs:open` are sorted sets of ids, by when they are due and by when they expire;
`amser:jobs:of:OWNER` is the same as the latter of one client. What has to be done together is done by a script, so that
two gateways never hold a job.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from math import ceil
from typing import Any, BinaryIO, Final

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from deployments.gateway.answer_store import StoreUnavailable
from deployments.gateway.recordings.documents import Status
from deployments.gateway.recordings.store.base import Job, JobsFull
from deployments.recording_settings import JobSettings

WITHIN_S: Final = 5.0
BLOCK: Final = 1 << 20  # bytes
PREFIX: Final = "amser:job:"
DUE: Final = "amser:jobs:due"
OPEN: Final = "amser:jobs:open"
BYTES: Final = "amser:jobs:bytes"
OF: Final = "amser:jobs:of:"
FIELDS: Final = ("id", "owner", "status", "request", "created", "expires", "progress", "claims", "outcome")

_CREATE: Final = """
local open, own, bytes, due = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local id, now, expires, size = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
for _, gone in ipairs(redis.call('ZRANGEBYSCORE', open, '-inf', now)) do
    redis.call('ZREM', open, gone); redis.call('HDEL', bytes, gone); redis.call('ZREM', due, gone)
end
redis.call('ZREMRANGEBYSCORE', own, '-inf', now)
if redis.call('ZCARD', own) >= tonumber(ARGV[5]) then return 1 end
local held = size
for _, each in ipairs(redis.call('HVALS', bytes)) do held = held + tonumber(each) end
if redis.call('ZCARD', open) >= tonumber(ARGV[6]) or held > tonumber(ARGV[7]) then return 2 end
redis.call('ZADD', open, expires, id); redis.call('ZADD', own, expires, id)
redis.call('HSET', bytes, id, size); redis.call('EXPIREAT', own, math.ceil(expires) + 1)
return 0
"""
_CLAIM: Final = """
for _ = 1, 100 do
    local id = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, 1)[1]
    if not id then return false end
    local job = ARGV[4] .. id
    local status = redis.call('HGET', job, 'status')
    if status then
        redis.call('ZADD', KEYS[1], ARGV[2], id)
        if status == 'queued' then redis.call('HSET', job, 'status', 'running') end
        redis.call('HSET', job, 'holder', ARGV[3]); redis.call('HINCRBY', job, 'claims', 1)
        return id
    end
    redis.call('ZREM', KEYS[1], id)
end
return false
"""
_HELD: Final = """
local status = redis.call('HGET', KEYS[1], 'status')
if status ~= 'queued' and status ~= 'running' then return 0 end
if ARGV[1] ~= '' and redis.call('HGET', KEYS[1], 'holder') ~= ARGV[1] then return 0 end
"""
_EXTEND: Final = _HELD + "redis.call('ZADD', KEYS[2], ARGV[2], ARGV[3]); return 1"
_KEEP: Final = (
    _HELD
    + """
redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
if tonumber(ARGV[4]) > tonumber(redis.call('HGET', KEYS[1], 'progress')) then
    redis.call('HSET', KEYS[1], 'progress', ARGV[4])
end
redis.call('EXPIREAT', KEYS[2], math.ceil(tonumber(redis.call('HGET', KEYS[1], 'expires'))))
return 1
"""
)
_END: Final = (
    _HELD
    + """
redis.call('HSET', KEYS[1], 'status', ARGV[2], 'outcome', ARGV[3], 'expires', ARGV[5], 'holder', '', 'claims', 0)
if ARGV[2] == 'done' then redis.call('HSET', KEYS[1], 'progress', 1) end
redis.call('EXPIREAT', KEYS[1], math.ceil(tonumber(ARGV[5])))
redis.call('DEL', KEYS[2], KEYS[3])
redis.call('ZREM', KEYS[4], ARGV[6]); redis.call('HDEL', KEYS[5], ARGV[6]); redis.call('ZREM', KEYS[7], ARGV[6])
if ARGV[4] == '' then redis.call('ZREM', KEYS[6], ARGV[6]) else redis.call('ZADD', KEYS[6], ARGV[4], ARGV[6]) end
return 1
"""
)


class SharedJobs:
    """See `JobStore`. How much Redis holds is its own setting: `maxmemory`, with a policy that evicts nothing of it.

    Args:
        url: such as `redis://:password@host:6379/0`.
        settings: limits.
    """

    def __init__(self, url: str, settings: JobSettings) -> None:
        self._settings = settings
        retry = Retry(NoBackoff(), 1)  # a kept connection breaks where the server was restarted
        self._redis = redis.asyncio.Redis.from_url(
            url, socket_timeout=WITHIN_S, socket_connect_timeout=WITHIN_S, retry=retry
        )

    async def create(self, job: Job, audio: BinaryIO) -> None:
        """See `JobStore`."""
        size = audio.seek(0, os.SEEK_END)
        most, now = self._settings, time.time()
        limits = most.of_a_client, most.in_all, most.held_bytes
        keys = OPEN, OF + job.owner, BYTES, DUE
        refused = await self._script(_CREATE, keys, job.id, now, job.expires, size, *limits)
        if refused:
            of_client = f"{most.of_a_client} of a client"
            raise JobsFull(of_client if refused == 1 else f"{most.in_all} in all, and {most.held_bytes} bytes of audio")
        try:
            await self._written(job, audio)
        except BaseException:
            with suppress(RedisError, OSError):
                await self._redis.delete(PREFIX + job.id, f"{PREFIX}{job.id}:audio")
                await self._redis.zrem(OPEN, job.id)
                await self._redis.zrem(OF + job.owner, job.id)
                await self._redis.hdel(BYTES, job.id)
            raise

    async def _written(self, job: Job, audio: BinaryIO) -> None:
        key, ends = PREFIX + job.id, ceil(job.expires)
        audio.seek(0)
        while block := await asyncio.to_thread(audio.read, BLOCK):
            await self._asked(self._redis.rpush(f"{key}:audio", block))
            await self._asked(self._redis.expireat(f"{key}:audio", ends))
        fields: dict[Any, Any] = {name: getattr(job, name) for name in FIELDS} | {"holder": ""}
        await self._asked(self._redis.hset(key, mapping=fields))
        await self._asked(self._redis.expireat(key, ends))
        await self._asked(self._redis.zadd(DUE, {job.id: time.time()}))  # last: whoever claims it finds it whole

    async def get(self, job_id: str) -> Job | None:
        """See `JobStore`."""
        values = await self._asked(self._redis.hmget(PREFIX + job_id, FIELDS))
        if values[0] is None:
            return None
        fields: dict[str, Any] = dict(zip(FIELDS, (value.decode() for value in values), strict=True))
        numbers = {name: float(fields[name]) for name in ("created", "expires", "progress")}
        job = Job(**fields | numbers | {"claims": int(fields["claims"])})
        return job if job.expires > time.time() else None

    async def segments(self, job_id: str) -> Mapping[int, str]:
        """See `JobStore`."""
        kept = await self._asked(self._redis.hgetall(f"{PREFIX}{job_id}:segments"))
        return {index: kept[b"%d" % index].decode() for index in sorted(map(int, kept))}

    async def audio(self, job_id: str, into: BinaryIO) -> bool:
        """See `JobStore`."""
        key = f"{PREFIX}{job_id}:audio"
        count = await self._asked(self._redis.llen(key))
        for index in range(count):
            block = await self._asked(self._redis.lindex(key, index))
            if block is None:
                return False
            await asyncio.to_thread(into.write, block)
        into.flush()
        return bool(count)

    async def claim(self, holder: str, lease_s: float) -> Job | None:
        """See `JobStore`."""
        now = time.time()
        found = await self._script(_CLAIM, (DUE,), now, now + lease_s, holder, PREFIX)
        return await self.get(found.decode()) if found else None

    async def extend(self, job_id: str, holder: str, lease_s: float) -> bool:
        """See `JobStore`."""
        return bool(await self._script(_EXTEND, (PREFIX + job_id, DUE), holder, time.time() + lease_s, job_id))

    async def keep(self, job_id: str, holder: str, index: int, segment: str, progress: float) -> bool:
        """See `JobStore`."""
        keys = PREFIX + job_id, f"{PREFIX}{job_id}:segments"
        return bool(await self._script(_KEEP, keys, holder, index, segment, progress))

    async def end(self, job_id: str, holder: str | None, status: Status, outcome: str, told_in_s: float | None) -> bool:
        """See `JobStore`."""
        job = await self.get(job_id)
        if job is None:
            return False
        key, now = PREFIX + job_id, time.time()
        keys = key, f"{key}:segments", f"{key}:audio", OPEN, BYTES, DUE, OF + job.owner
        due = "" if told_in_s is None else now + told_in_s
        arguments = holder or "", status, outcome, due, now + self._settings.ttl_s, job_id
        return bool(await self._script(_END, keys, *arguments))

    async def told(self, job_id: str, holder: str, again_in_s: float | None) -> None:
        """See `JobStore`."""
        del holder  # nobody else claims it within the lease
        if again_in_s is None:
            await self._asked(self._redis.zrem(DUE, job_id))
        else:
            await self._asked(self._redis.zadd(DUE, {job_id: time.time() + again_in_s}))

    async def forget(self, job_id: str) -> None:
        """See `JobStore`."""
        await self._asked(self._redis.delete(PREFIX + job_id))

    async def expire(self) -> None:
        """Redis does that by itself."""

    async def close(self) -> None:
        """Closes its connections."""
        await self._redis.aclose()

    async def _script(self, script: str, keys: tuple[str, ...], *arguments: object) -> Any:
        return await self._asked(self._redis.eval(script, len(keys), *keys, *map(_text, arguments)))

    async def _asked(self, answer: Awaitable[Any] | Any) -> Any:
        try:
            return await answer
        except (RedisError, OSError, TimeoutError) as error:
            raise StoreUnavailable(f"Redis does not answer: {type(error).__name__}") from error


def _text(argument: object) -> str:
    return f"{argument:.6f}" if isinstance(argument, float) else str(argument)
