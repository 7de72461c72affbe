"""Whether every stage can answer, known without waiting behind its work.

A stage that is asked has the question in its queue, behind requests: a busy one would look dead, and a load balancer
would take the cluster away when it is needed most. So who does not answer soon is looked up at Serve's controller: as
long as a replica runs, the stage is busy and not gone. A replica that hangs is found by Serve's health checks.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from ray import serve
from ray.serve.exceptions import BackPressureError

from deployments.pipeline import Description

ANSWERS_WITHIN_S: Final = 2.0  # a stage that is not busy
CONTROLLER_WITHIN_S: Final = 2.0
FRESH_S: Final = 1.0  # for which what is known is not asked again
WAIT_S: Final = 0.5  # for news, where something is known
OLDEST_S: Final = 10.0  # what is known for longer counts for nothing, and news are waited for
SERVING: Final = frozenset({"RUNNING", "PENDING_MIGRATION"})  # states of replicas that take requests
BUSY: Final = (TimeoutError, BackPressureError)

Describe = Callable[[], Awaitable[dict[str, Description]]]


@dataclass(frozen=True, slots=True)
class State:
    """Attributes:
    trouble: why not every stage can answer; None where it can.
    stages: what each said of itself the last time that all answered.
    at: when this was found, on a clock that never goes back.
    """

    trouble: str | None
    stages: dict[str, Description]
    at: float

    @property
    def age_s(self) -> float:
        """Seconds since this was found."""
        return time.monotonic() - self.at


class Readiness:
    """Asks the stages when it is asked, and answers with what is known if they take long.

    Args:
        describe: what each stage says of itself.
        missing: names of deployments of which no replica runs.
    """

    def __init__(self, describe: Describe, missing: Callable[[], list[str]] | None = None) -> None:
        self._describe, self._missing = describe, missing or deployments_without_replica
        self._known: State | None = None
        self._asking: asyncio.Task[None] | None = None

    async def state(self) -> State:
        """What is known; at most `FRESH_S` old where the stages answer at once."""
        if self._asking is None and (self._known is None or self._known.age_s > FRESH_S):
            # In a context of its own: one who asks and leaves must not take the question along
            self._asking = asyncio.create_task(self._ask(), context=contextvars.Context())
        if self._asking is not None:
            # Without anything that still counts the answer is waited for; it comes, or its time limits pass
            is_known = self._known is not None and self._known.age_s <= OLDEST_S
            await asyncio.wait({self._asking}, timeout=WAIT_S if is_known else None)
        assert self._known is not None
        return self._known

    async def _ask(self) -> None:
        stages = self._known.stages if self._known else {}
        try:
            trouble, stages = await self._look(stages)
        except (Exception, asyncio.CancelledError) as error:  # whatever it is, the cluster is not ready
            trouble = f"a stage does not answer: {type(error).__name__}"
        finally:
            self._asking = None
        self._known = State(trouble, stages, time.monotonic())

    async def _look(self, known: dict[str, Description]) -> tuple[str | None, dict[str, Description]]:
        try:
            return None, await asyncio.wait_for(self._describe(), ANSWERS_WITHIN_S)
        except BUSY:
            missing = await asyncio.wait_for(asyncio.to_thread(self._missing), CONTROLLER_WITHIN_S)
            return (f"no replica of {', '.join(missing)} runs" if missing else None), known


def deployments_without_replica() -> list[str]:
    """Those of this application; Serve's controller knows."""
    application = serve.status().applications[serve.get_replica_context().app_name]
    return [name for name, each in application.deployments.items() if not SERVING & each.replica_states.keys()]
