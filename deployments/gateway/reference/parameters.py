"""Parameters and bodies that several routes have, as OpenAPI describes them."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import Query

from deployments.gateway.preferences import DEADLINE_HEADER, PREFER_HEADER, STRICT
from deployments.gateway.uploads.bodies import FILE, FORM
from deployments.settings import RequestSettings
from deployments.telemetry.request_ids import REQUEST_ID_HEADER

LIMITS: Final = RequestSettings()  # an operator may set others; /docs says what they are by default

Emotions = Annotated[
    str | None,
    Query(
        description="Restricts the answer to these classes: two or more that the network knows, each once.",
        examples=["angry,happy,neutral,sad"],
    ),
]
Language = Annotated[
    str | None,
    Query(
        description="That is spoken: a code of ISO 639, a BCP 47 tag or a POSIX locale. Without it, or with `auto`, it "
        "is detected.",
        examples=["en", "pt-BR"],
    ),
]

AUDIO_TYPES: Final = ("wav", "flac", "mpeg", "ogg", "mp4", "aac", "webm", "amr", "aiff", "x-caf", "basic")
Words = Annotated[
    str | None,  # read by `preferences`, whose refusal says more than FastAPI's of a boolean
    Query(
        description="`true` for an answer that has the words one by one, with their times; `false` otherwise.",
        examples=["true"],
    ),
]

HEADERS: Final = [
    {
        "name": DEADLINE_HEADER,
        "in": "header",
        "schema": {"type": "integer", "minimum": 1, "maximum": round(1000 * LIMITS.deadline_s)},
        "description": "Milliseconds after which the answer is of no use.",
        "example": 3000,
    },
    {
        "name": PREFER_HEADER,
        "in": "header",
        "schema": {"type": "string"},
        "description": f"`{STRICT}` refuses answers that leave something out.",
        "example": STRICT,
    },
    {
        "name": REQUEST_ID_HEADER,
        "in": "header",
        "schema": {"type": "string", "maxLength": 128},
        "description": "Of this request, for your logs and the cluster's.",
        "example": "kitchen-0017",
    },
]


def body(description: str, content: dict[str, Any]) -> dict[str, Any]:
    """What OpenAPI says of a body, and of the headers that requests with one may have.

    Args:
        description: what it is, and its limits.
        content: by media type.
    """
    return {"requestBody": {"required": True, "description": description, "content": content}, "parameters": HEADERS}


def binary(*media_types: str) -> dict[str, Any]:
    """Content of bytes, for `body`."""
    return {name: {"schema": {"type": "string", "format": "binary"}} for name in media_types}


_FORM: Final[dict[str, Any]] = {
    "type": "object",
    "required": [FILE],
    "properties": {
        FILE: {"type": "string", "format": "binary"},
        "language": {"type": "string"},
        "emotions": {"type": "string"},
        "words": {"type": "boolean"},
    },
}
IN_A_FORM: Final[dict[str, Any]] = {FORM: {"schema": _FORM}}
UPLOAD: Final = binary(*(f"audio/{name}" for name in AUDIO_TYPES)) | IN_A_FORM


def size(count: int) -> str:
    """Bytes, as they are said: in MiB or kiB where they are a whole number of these."""
    for unit, factor in (("MiB", 1 << 20), ("kiB", 1 << 10)):
        if count % factor == 0:
            return f"{count // factor} {unit}"
    return f"{count} bytes"
