"""The form of a transcription request: a file among fields, as `multipart/form-data` (RFC 7578)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Final

from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from deployments.gateway.problems import Refusal, refusal_of

FILE: Final = "file"
MEDIA_TYPE: Final = "multipart/form-data"
MOST_FIELDS: Final = 32
LONGEST_FIELD: Final = 8_192  # bytes
PIECE: Final = 131_072  # bytes that are parsed at once
OVERHEAD: Final = 65_536  # bytes of a form beyond its file


@dataclass(frozen=True, slots=True)
class Form:
    """Attributes:
    content: of the file.
    fields: the others, by name, each with its values.
    """

    content: bytes
    fields: Mapping[str, list[str]]


def check_form(headers: Mapping[str, str]) -> None:
    """Refuses a request whose body is no form."""
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != MEDIA_TYPE:
        cause = f"the content type is {media_type or 'missing'!r:.100}"
        raise refusal_of("unsupported-media-type", cause, f"{MEDIA_TYPE} with a part `{FILE}`")


async def read_form(headers: Mapping[str, str], body: bytes) -> Form:
    """The file and the fields of a body.

    Raises:
        Refusal: it is no form, or has no file.
    """

    async def pieces() -> AsyncGenerator[bytes, None]:
        for begin in range(0, len(body), PIECE):
            yield body[begin : begin + PIECE]
            await asyncio.sleep(0)  # others have their turn on the event loop

    parser = MultiPartParser(
        Headers(headers), pieces(), max_files=1, max_fields=MOST_FIELDS, max_part_size=LONGEST_FIELD
    )
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError) as error:  # KeyError: it names no boundary
        said = error.message if isinstance(error, MultiPartException) else "it names no boundary"
        raise _refused(f"the form cannot be read: {said:.100}") from None
    try:
        file, fields = form.get(FILE), dict[str, list[str]]()
        for name, value in form.multi_items():
            if isinstance(value, str):
                fields.setdefault(name, []).append(value)
        if not isinstance(file, UploadFile):
            raise _refused(f"the form has no file named `{FILE}`")
        return Form(await file.read(), fields)
    finally:
        await form.close()


def _refused(cause: str) -> Refusal:
    known = refusal_of("bad-parameter", cause, f"a part `{FILE}` with the recording")
    return Refusal(known.status, cause, known.limit, parameter=FILE, kind="bad-parameter")
