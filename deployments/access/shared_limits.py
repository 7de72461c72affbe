"""The buckets of limits in Redis, so that all replicas of the gateway count together.

Where Redis does not answer, each replica counts by itself for a while: a limit is then as many times as high as there
are replicas, and nobody is refused for it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from hashlib import blake2b
from math import inf
from typing import Any, Final

import redis.asyncio
from pydantic import SecretStr
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from deployments.access.limits import ROUNDING_S, WINDOW_S, Buckets, Charge, OwnBuckets, Verdict

WITHIN_S: Final = 0.25
AWAY_S: Final = 5.0  # for which a Redis that does not answer is left alone
PREFIX: Final = "amser:limit:"
# What `OwnBuckets.draw` does, by the clock of Redis. Returns the number of the charge that waits longest, and its wait.
SCRIPT: Final = f"""
local time = redis.call('TIME')
local now = time[1] + time[2] / 1e6
local fulls, longest, which = {{}}, 0, 0
for i, key in ipairs(KEYS) do
  local per_minute, amount = tonumber(ARGV[2 * i]), tonumber(ARGV[2 * i + 1])
  local full = math.max(now, tonumber(redis.call('GET', key) or 0)) + {WINDOW_S} * amount / per_minute
  local wait = full - now - {WINDOW_S}
  if amount > per_minute then wait = 1e300 end
  if wait > {ROUNDING_S} and wait > longest then longest, which = wait, i end
  fulls[i] = full
end
if which == 0 and ARGV[1] == '0' then
  for i, key in ipairs(KEYS) do
    local rest_ms = math.ceil(1000 * (fulls[i] - now))
    if rest_ms > 0 then redis.call('SET', key, string.format('%.6f', fulls[i]), 'PX', rest_ms) end
  end
end
return {{which, string.format('%.6f', longest)}}
"""

logger = logging.getLogger("ray.serve")  # the logger that Serve writes to its files


def buckets(redis_url: SecretStr | None) -> Buckets:
    """Those of a Redis, or this replica's own where there is none."""
    return OwnBuckets() if redis_url is None else SharedBuckets(redis_url.get_secret_value())


class SharedBuckets:
    """In Redis, by its clock. What it keeps goes by itself once a bucket is full again.

    Args:
        url: such as `redis://:password@host:6379/0`.
    """

    def __init__(self, url: str) -> None:
        self._redis = redis.asyncio.Redis.from_url(
            url, socket_timeout=WITHIN_S, socket_connect_timeout=WITHIN_S, retry=Retry(NoBackoff(), 1)
        )
        self._script: Any = self._redis.register_script(SCRIPT)
        self._own = OwnBuckets()
        self._away_until = 0.0  # of time.monotonic()

    async def draw(self, caller: str, charges: Sequence[Charge], *, only_ask: bool = False) -> Verdict:
        """See `Buckets`."""
        if not charges:
            return Verdict(0.0)
        if time.monotonic() < self._away_until:
            return await self._own.draw(caller, charges, only_ask=only_ask)
        names = [_name(caller, charge) for charge in charges]
        arguments = [int(only_ask), *(value for charge in charges for value in (charge.per_minute, charge.amount))]
        try:
            which, wait = await self._script(keys=names, args=arguments)
        except (RedisError, OSError, TimeoutError) as error:
            self._away_until = time.monotonic() + AWAY_S
            logger.warning("each replica counts limits by itself for %g s: %s", AWAY_S, type(error).__name__)
            return await self._own.draw(caller, charges, only_ask=only_ask)
        if not which:
            return Verdict(0.0)
        charge = charges[which - 1]
        return Verdict(inf if charge.amount > charge.per_minute else float(wait), charge)

    async def close(self) -> None:
        """Closes its connections."""
        await self._redis.aclose()


def _name(caller: str, charge: Charge) -> str:
    """Of a bucket: a device id may be anything. What is in braces keeps a caller's buckets on one node of a cluster."""
    digest = blake2b(f"{charge.device}\0{charge.limit}".encode(), digest_size=16).hexdigest()
    return f"{PREFIX}{{{caller}}}:{digest}"
