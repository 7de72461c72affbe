"""From a batch to its items: each under limits, admission, deadline and idempotency as on the single route.

One bad item spoils nothing. What is wrong with the batch itself (its media type, its size, a length that its bytes do
not have) refuses all of it before anything is computed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from amser import batch
from amser.rate_hint import HEADER as RATE_HINT
from amser.wire import TooLarge
from deployments.access.gate import Visit
from deployments.gateway.batches.documents import Item, to_json
from deployments.gateway.preferences import APPLIED_HEADER, STRICT, Preferences
from deployments.gateway.problems import Refusal, refusal_of
from deployments.gateway.utterances.answering import Answering
from deployments.gateway.utterances.reading import EnvelopeReader, check_media_type
from deployments.settings import RequestSettings
from deployments.telemetry.request_ids import REQUEST_ID_HEADER
from deployments.telemetry.requests import RequestRecord, Telemetry

LONGEST_BATCH_ID: Final = 124  # characters: with the number of an item, the most that an id may have
ROUTE: Final = "/v1/emotion:batch"
ITEM_ROUTE: Final = "/v1/emotion:batch item"  # in metrics and logs: an item is a request of its own there
CODEC: Final = "batch"  # the same: what the body of the request itself holds


@dataclass(frozen=True, slots=True)
class _Incoming:
    """An item as telemetry sees a request: in the trace of the batch, under an id of its own."""

    headers: dict[str, str]
    scope: dict[str, object]


class BatchAnswering:
    """Answers requests with many utterances each, in a replica of the gateway.

    Args:
        settings: limits.
        answering: of one utterance.
        envelopes: reads one.
        telemetry: what is seen from outside.
    """

    def __init__(
        self, settings: RequestSettings, answering: Answering, envelopes: EnvelopeReader, telemetry: Telemetry
    ) -> None:
        self._answering, self._envelopes, self._telemetry = answering, envelopes, telemetry
        self._limits = batch.Limits(settings.max_batch_bytes, settings.max_batch_items)
        self._at_once = settings.batch_at_once

    async def respond(self, request: Request) -> Response:
        """The answers, or the problem document of what stands against the batch."""
        return await self._answering.responded(request, ROUTE, self._respond)

    async def _respond(self, request: Request, record: RequestRecord) -> Response:
        preferences = self._answering.preferences(request)
        check_media_type(request, batch.MEDIA_TYPE)
        body = await self._answering.body(request, self._limits.max_bytes, preferences)
        preferences = preferences.from_body()
        try:
            envelopes = batch.unpack(body, self._limits)
        except TooLarge as error:  # of the batch: an utterance in it may be as long as ever
            raise refusal_of("too-large", error.cause, error.limit) from None
        record.received(CODEC, len(body))
        with self._answering.one_inside():
            items = await self._items(request, envelopes, preferences, record)
        replies = [item.reply for item in items if item.reply]
        record.answered(sorted({part for reply in replies for part in reply.degraded}), None)
        headers = {REQUEST_ID_HEADER: record.request_id}
        if preferences.strict:
            headers[APPLIED_HEADER] = STRICT
        if hints := [reply.headers[RATE_HINT] for reply in replies if RATE_HINT in reply.headers]:
            headers[RATE_HINT] = hints[-1]  # of the last that was said
        return Response(to_json(items), headers=headers, media_type=JSONResponse.media_type)

    async def _items(
        self, request: Request, envelopes: list[bytes], preferences: Preferences, record: RequestRecord
    ) -> list[Item]:
        visit = self._answering.visit()
        items: list[Item | None] = [None] * len(envelopes)
        numbered = iter(enumerate(envelopes))
        async with asyncio.TaskGroup() as group:
            for _ in range(visit.side_by_side(min(self._at_once, len(envelopes)))):
                group.create_task(self._one_by_one(request, numbered, items, preferences, record.request_id, visit))
        return [item for item in items if item is not None]

    async def _one_by_one(
        self,
        request: Request,
        numbered: Iterator[tuple[int, bytes]],
        items: list[Item | None],
        preferences: Preferences,
        batch_id: str,
        visit: Visit,
    ) -> None:
        """Takes the next envelope until none is left."""
        for number, content in numbered:
            request_id = f"{batch_id[:LONGEST_BATCH_ID]}.{number}"
            incoming = _Incoming({**request.headers, REQUEST_ID_HEADER.lower(): request_id}, dict(request.scope))
            with self._telemetry.request(incoming, ITEM_ROUTE) as record, visit.item(is_first=number == 0) as own:
                items[number] = await self._item(request, content, preferences, record, own)

    async def _item(
        self, request: Request, content: bytes, preferences: Preferences, record: RequestRecord, visit: Visit
    ) -> Item:
        try:
            read = await self._envelopes.read(request, content)
            reply = await self._answering.once(
                request, read, len(content), preferences, record, visit, is_of_device=True
            )
        except Refusal as known:
            refusal = known
        except Exception as error:
            refusal = self._answering.problem(error, preferences.within_s, record)
        else:
            record.answered(reply.degraded, reply.replay)
            return Item(record.request_id, reply)
        record.refused(refusal.status.value, refusal.kind.slug)
        return Item(record.request_id, refusal=refusal)
