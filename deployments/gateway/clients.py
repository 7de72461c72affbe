"""Who asks: what counts as one client, and which clients asked of late. Admission divides its room among them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from starlette.requests import HTTPConnection

from deployments.intake.addresses import network_of

UNKNOWN: Final = "unknown"  # without an address, as through a local socket
CLIENT_MEMORY_S: Final = 10.0  # after its last request a client counts as gone
MOST_CLIENTS: Final = 1000  # that are remembered, so that many addresses do not fill the memory


def client_of(request: HTTPConnection) -> str:
    """The client that shares its room with itself alone: the remote address, of IPv6 the network.

    The address is that of the connection. Behind a reverse proxy on the same machine it is the one in X-Forwarded-For
    (uvicorn trusts 127.0.0.1; `FORWARDED_ALLOW_IPS` names others). Clients behind one address count as one.
    """
    if request.client is None:
        return UNKNOWN
    return network_of(request.client.host) or UNKNOWN


class RecentClients:
    """The clients of the last seconds, and how long each waits for an answer.

    Args:
        clock: seconds, never going back.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._asked: dict[str, tuple[float, float]] = {}  # (when, seconds to wait), the latest client last

    def add(self, client: str, within_s: float) -> None:
        """The client asks for an answer within so many seconds."""
        now = self._clock()
        self._asked.pop(client, None)
        self._asked[client] = (now, within_s)
        while len(self._asked) > MOST_CLIENTS or now - next(iter(self._asked.values()))[0] > CLIENT_MEMORY_S:
            del self._asked[next(iter(self._asked))]

    def patience_of_others_s(self, client: str) -> float | None:
        """The shortest time that another client gives an answer; None where no other one asked of late."""
        now = self._clock()
        return min(
            (
                within_s
                for other, (asked, within_s) in self._asked.items()
                if other != client and now - asked <= CLIENT_MEMORY_S
            ),
            default=None,
        )
