"""What every refusal of the signal path says: the cause, and the limit that was passed.

`AudioError`, `CodecError` and `WireError` build on this, so that a border (HTTP, a command line) can print any of them.
"""

from __future__ import annotations


class SignalError(ValueError):
    """Input that the signal path refuses.

    Attributes:
        cause: what is wrong with the input, with its value.
        limit: what would have been accepted; None where there is no such bound.
    """

    def __init__(self, cause: str, limit: str | None = None) -> None:
        super().__init__(cause, limit)
        self.cause = cause
        self.limit = limit

    def __str__(self) -> str:
        return self.cause if self.limit is None else f"{self.cause}; accepted: {self.limit}"
