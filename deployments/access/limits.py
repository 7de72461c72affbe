"""How much each key and each device may ask: buckets that fill evenly (the generic cell rate algorithm).

A bucket is one number, the moment at which it is full again. What may be used in a minute may be used at once. All
buckets that are known together are looked at before any is drawn from: a request that is refused before its body draws
nothing, and one that is refused for its seconds or its device has drawn what was looked at before.

Each replica of the gateway has buckets of its own, unless `deployments.access.shared_limits` keeps them in Redis.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Final, Protocol

WINDOW_S: Final = 60.0
MOST_OF_A_CALLER: Final = 2_000  # buckets; whoever invents device ids forgets their own
MOST: Final = 100_000  # of all callers
ROUNDING_S: Final = 1e-6  # of sums of floats


@dataclass(frozen=True, slots=True)
class Charge:
    """What a request draws from a bucket.

    Attributes:
        limit: whose name it is: requests, bytes or speech.
        device: under the caller's key; empty for the caller itself.
        per_minute: that the bucket holds.
        amount: that is drawn.
    """

    limit: str
    device: str
    per_minute: float
    amount: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether all charges fit.

    Attributes:
        wait_s: until they would, if nothing else is drawn; 0 where they do and were drawn, infinite for never.
        charge: that takes longest.
    """

    wait_s: float
    charge: Charge | None = None


class Buckets(Protocol):
    """Where buckets are kept."""

    async def draw(self, caller: str, charges: Sequence[Charge], *, only_ask: bool = False) -> Verdict:
        """Draws all charges, or none; none either way where this `only_ask`s."""


@dataclass(slots=True)
class _Of:
    """A caller's buckets: when each is full again, the one that was used last at the end."""

    used_at: float
    full_at: OrderedDict[tuple[str, str], float] = field(default_factory=OrderedDict)


class OwnBuckets:
    """In this process, of a bounded size.

    Args:
        clock: seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._callers: OrderedDict[str, _Of] = OrderedDict()  # the one that asked last at the end
        self._count = 0

    def __len__(self) -> int:
        return self._count

    async def draw(self, caller: str, charges: Sequence[Charge], *, only_ask: bool = False) -> Verdict:
        """See `Buckets`."""
        if not charges:
            return Verdict(0.0)
        now = self._clock()
        self._forget(now)
        known = self._callers.get(caller)
        full_at = known.full_at if known else {}
        drawn = [
            (charge, max(now, full_at.get((charge.device, charge.limit), now)) + cost_s(charge)) for charge in charges
        ]
        worst = longest([(charge, wait_s(charge, full - now)) for charge, full in drawn])
        if worst.wait_s or only_ask:
            return worst
        if known is None:
            known = self._callers[caller] = _Of(now)
        known.used_at = now
        self._callers.move_to_end(caller)
        for charge, full in drawn:
            name = charge.device, charge.limit
            self._count += name not in known.full_at
            known.full_at[name] = full
            known.full_at.move_to_end(name)
        self._make_room(known, now)
        return worst

    def _forget(self, now: float) -> None:
        """Callers whose buckets are all full again."""
        while self._callers and next(iter(self._callers.values())).used_at < now - WINDOW_S:
            self._count -= len(self._callers.popitem(last=False)[1].full_at)

    def _make_room(self, last: _Of, now: float) -> None:
        buckets = last.full_at
        while buckets and (
            next(iter(buckets.values())) <= now
            or len(buckets) > MOST_OF_A_CALLER
            or (self._count > MOST and len(buckets) > 1)
        ):
            buckets.popitem(last=False)
            self._count -= 1
        while self._count > MOST:
            self._count -= len(self._callers.popitem(last=False)[1].full_at)


def cost_s(charge: Charge) -> float:
    """In how many seconds what is drawn comes back."""
    return WINDOW_S * charge.amount / charge.per_minute


def wait_s(charge: Charge, full_in_s: float) -> float:
    """Seconds until a charge fits, where its bucket would be full again in so many; infinite where it never does."""
    if charge.amount > charge.per_minute:
        return inf
    over_s = full_in_s - WINDOW_S
    return over_s if over_s > ROUNDING_S else 0.0


def longest(waits: Sequence[tuple[Charge, float]]) -> Verdict:
    """The charge that has to wait longest."""
    charge, longest_s = max(waits, key=lambda each: each[1])
    return Verdict(longest_s, charge) if longest_s else Verdict(0.0)


class Concurrency:
    """How many requests of each name are under way in this process."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, str], int] = {}

    def __len__(self) -> int:
        return len(self._open)

    def enter(self, caller: str, device: str, most: int) -> bool:
        """Counts one more; False where there are as many as there may be."""
        count = self._open.get((caller, device), 0)
        if count >= most:
            return False
        self._open[caller, device] = count + 1
        return True

    def leave(self, caller: str, device: str) -> None:
        """One less."""
        count = self._open[caller, device] - 1
        if count:
            self._open[caller, device] = count
        else:
            del self._open[caller, device]
