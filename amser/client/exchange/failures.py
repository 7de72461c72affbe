# ruff: noqa: N818 - the names of the errors say what happened; their base class says that it is an error
"""What a request to the cluster can end with other than an answer."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from amser.client.exchange.answer import check_storable


class SendFailed(Exception):
    """A request that got no answer."""


class Unreachable(SendFailed):
    """No connection, or it broke, at every attempt."""


class AnswerTimedOut(SendFailed):
    """The cluster took the request and gave no answer in time. Not retried: it may still be working on it."""


class UnexpectedAnswer(SendFailed):
    """A good status with something else than an answer: most likely another server."""


class Refused(SendFailed):
    """The cluster answered with a problem (RFC 9457).

    Args:
        status: HTTP status.
        problem: the document; empty where the server sent none.
        reason: the status's own phrase, where the document has no title.
        retry_after_s: see below.
        took_s: see below.
        is_of_an_item: see below.

    Attributes:
        status: HTTP status.
        title: what kind of problem, or the status's own phrase.
        detail: what is wrong with this request; empty where the server does not say.
        limit: what would have been accepted; empty where the server does not say.
        problem: the whole document; empty where the server sent none.
        type: of the problem, a URI on the cluster with a page of what to do (docs/problems.md); empty where the server
            does not say. It is stable: programs tell problems apart by it.
        kind: the end of `type`, such as `unknown-language`.
        retry_after_s: how long the server asked to wait; None where it did not.
        took_s: from the request to this answer.
        is_of_an_item: it is about one item of a batch, not about the request.
    """

    def __init__(
        self,
        status: int,
        problem: Mapping[str, Any],
        reason: str = "",
        retry_after_s: float | None = None,
        took_s: float = 0.0,
        is_of_an_item: bool = False,
    ) -> None:
        self.status, self.problem = status, problem
        self.type = str(problem.get("type") or "")
        self.kind = self.type.partition("/problems/")[2]
        self.title = str(problem.get("title") or reason or "refused")
        self.detail = str(problem.get("detail") or "")
        self.limit = str(problem.get("limit") or "")
        self.retry_after_s = retry_after_s
        self.took_s = took_s
        self.is_of_an_item = is_of_an_item
        parts = [self.detail, f"accepted: {self.limit}" if self.limit else ""]
        super().__init__(f"{self.status} {self.title}" + "".join(f"; {part}" for part in parts if part))

    @classmethod
    def of(cls, response: httpx.Response) -> Refused:
        """What a response with a status other than a good one says."""
        return cls(
            response.status_code,
            _problem(response),
            response.reason_phrase,
            _retry_after(response.headers.get("Retry-After"), response.headers.get("Date")),
            response.elapsed.total_seconds(),
        )


def _retry_after(value: str | None, date: str | None) -> float | None:
    """Seconds, from either form that RFC 9110 (10.2.3) allows: a number of them, or a date.

    A date counts from the server's own (`Date`), where it says it: this device's may be wrong.
    """
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    until = _date(value)
    if until is None:
        return None
    return max(0.0, (until - (_date(date or "") or datetime.now(UTC))).total_seconds())


def _date(value: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    return date.replace(tzinfo=date.tzinfo or UTC)


def _problem(response: httpx.Response) -> Mapping[str, Any]:
    try:
        document = response.json()
        check_storable(document)
    except (ValueError, RecursionError):  # a proxy in between has pages of its own
        return {}
    return document if isinstance(document, dict) else {}
