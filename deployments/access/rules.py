"""Which route wants which key. A route that is not named here wants a valid key of any scope."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias

Scope: TypeAlias = Literal["recognize", "read"]
Rule: TypeAlias = Scope | Literal["open", "docs", "any key"]

SCOPES: Final[tuple[Scope, ...]] = ("recognize", "read")

PROBES: Final = ("/healthz", "/readyz")  # of load balancers, which ask by address

# By the path as the router gets it, and whatever the method
RULES: Final = MappingProxyType[str, Rule](
    {
        "/v1/emotion": "recognize",
        "/v1/emotion/audio": "recognize",
        "/v1/audio/transcriptions": "recognize",
        "/v1/emotion:batch": "recognize",
        "/v1/recordings": "recognize",
        "/v1/stream": "recognize",
        "/v1/models": "read",
        "/healthz": "open",  # load balancers have no keys
        "/readyz": "open",
        "/": "open",  # the playground: its files say nothing of anybody, and what it sends needs the key typed into it
        "/docs": "docs",
        "/docs/oauth2-redirect": "docs",
        "/redoc": "docs",
        "/openapi.json": "docs",
        "/problems": "docs",
    }
)
SOCKETS: Final = frozenset({"/v1/stream"})  # WebSockets; all others of `RULES` are plain routes
UNDER: Final = MappingProxyType[str, Rule](
    {
        "/static-offline-docs/": "docs",
        "/problems/": "docs",
        "/v1/jobs/": "recognize",
        "/v1/models/": "read",
        "/web/": "open",  # of the playground
    }
)
JOB: Final = "/v1/jobs/{id}"  # as metrics and logs name each of them


def rule_of(path: str) -> Rule:
    """What a path wants."""
    path = path.removesuffix("\n")  # the `$` of a route's pattern matches before a last newline too
    if path in RULES:
        return RULES[path]
    return next((rule for start, rule in UNDER.items() if path.startswith(start)), "any key")


def route_of(path: str) -> str:
    """A path as metrics and logs name it: one of ours, or `other` for whatever else a client asks for."""
    if path.startswith("/v1/jobs/"):
        return JOB
    return path if path in RULES else "other"


def path_of(scope: Mapping[str, Any]) -> str:
    """The path of an ASGI scope as our routes name it, without the prefix that the application has at the proxy."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))
