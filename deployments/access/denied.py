"""What a request without the right, or with too much, gets; the gateway makes a problem of it."""

from __future__ import annotations

from http import HTTPStatus


class Denied(Exception):  # noqa: N818 - an error by its base class
    """A request that may not pass, or not now.

    Attributes:
        status: HTTP status.
        kind: of problem, as `deployments.gateway.problems` lists them.
        cause: what is wrong, in words for the client's developer.
        limit: what would have been accepted.
        retry_after_s: when this very request would pass, if its key asked for nothing else meanwhile; None for never.
    """

    def __init__(
        self, status: HTTPStatus, kind: str, cause: str, limit: str | None = None, retry_after_s: int | None = None
    ) -> None:
        super().__init__(cause)
        self.status, self.kind, self.cause, self.limit, self.retry_after_s = status, kind, cause, limit, retry_after_s


def no_key() -> Denied:
    """One text whatever is wrong with the key, so that nobody learns which keys there were."""
    cause = "this needs a valid key, sent as `Authorization: Bearer amser_…`"
    return Denied(HTTPStatus.UNAUTHORIZED, "unauthorized", cause)


def no_scope(scope: str) -> Denied:
    """The key is valid, for something else."""
    return Denied(HTTPStatus.FORBIDDEN, "forbidden", "this key is not for that", f"keys with the scope {scope}")
