"""The file in a request's body: the body itself, or a part of a form (`multipart/form-data`, RFC 7578); either may be
compressed with gzip.
"""

from __future__ import annotations

import asyncio
import logging
import os
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass, field
from io import BytesIO
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, Final, cast

from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from amser.audio import FORMATS
from deployments.gateway.problems import refusal_of

FORM: Final = "multipart/form-data"
FILE: Final = "file"  # the part that is read where a form has several
MOST_FIELDS: Final = 32
LONGEST_FIELD: Final = 8_192  # bytes
PIECE: Final = 131_072  # bytes that are parsed or unfolded at once
GZIP: Final = frozenset({"gzip", "x-gzip"})
CHARSETS: Final = frozenset({b"utf-8", b"utf8", b"us-ascii"})
MOST_MEMBERS: Final = 16  # gzip streams one behind another
WANTED: Final = f"an audio file ({FORMATS}), as the body or as a part of {FORM}"

logging.getLogger("python_multipart").setLevel(logging.ERROR)  # it warns of every byte that is not as it should be
_OF_GZIP: Final = 16 + zlib.MAX_WBITS


@dataclass(frozen=True, slots=True)
class Upload:
    """Attributes:
    content: of the file.
    fields: the other parts of a form, by name, each with its values.
    """

    content: bytes
    fields: Mapping[str, Sequence[str]] = field(default_factory=dict)


def check_encoding(headers: Mapping[str, str]) -> None:
    """Refuses a body whose encoding is not undone, by its head alone (`Refusal`)."""
    _is_compressed(headers)


async def read_upload(request: Request, body: bytes, largest: int) -> Upload:
    """What a request uploads, in memory.

    Args:
        request: for its head.
        body: all of it.
        largest: bytes of the body once it is unfolded.

    Raises:
        deployments.gateway.problems.Refusal: the encoding is unknown or broken, the body unfolds to more than
            `largest`, is no form though it says so, or has no file in it.
    """
    async with read_recording(request, BytesIO(body), largest, memory=largest) as (file, fields):
        return Upload(await asyncio.to_thread(file.read), fields)


@asynccontextmanager
async def read_recording(
    request: Request, body: BinaryIO, largest: int, memory: int = 1
) -> AsyncIterator[tuple[BinaryIO, Mapping[str, Sequence[str]]]]:
    """The file that a request uploads, and the other parts of a form; the file ends with the context.

    Args:
        request: for its head.
        body: all of it, at its begin.
        largest: bytes of the body once it is unfolded.
        memory: bytes of a file that may be kept there, 1 or more; what is larger is written to a file without a name.

    Raises:
        deployments.gateway.problems.Refusal: see `read_upload`.
    """
    async with AsyncExitStack() as held:
        file, fields = body, dict[str, list[str]]()
        if _is_compressed(request.headers) and _has_bytes(body):
            unfolded = held.enter_context(closing(SpooledTemporaryFile(max_size=memory)))  # noqa: SIM115 - closed there
            file = cast(BinaryIO, unfolded)
            await asyncio.to_thread(_unfold, body, file, largest)
        if not _has_bytes(file):
            raise refusal_of("empty-body", "the body is empty", WANTED)
        if media_type_of(request.headers) == FORM:
            form = await _read_form(request.headers, file, memory)
            held.push_async_callback(form.close)
            if file is not body:
                file.close()
            file, fields = _parts(form)
        if not _has_bytes(file):
            raise refusal_of("empty-body", "the file in the form is empty", WANTED)
        yield file, fields


def is_folded(headers: Mapping[str, str]) -> bool:
    """Whether the file of a body is another one than the body. Raises `Refusal`, see `check_encoding`."""
    return _is_compressed(headers) or media_type_of(headers) == FORM


def media_type_of(headers: Mapping[str, str]) -> str:
    """Of the body, without parameters and in lower case; empty where the head does not say."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def _is_compressed(headers: Mapping[str, str]) -> bool:
    written = headers.get("content-encoding", "").strip().lower()
    if written not in GZIP and written not in ("", "identity"):
        raise refusal_of("unsupported-encoding", f"the content encoding is {written!r:.100}", "gzip, or none")
    return written in GZIP


def _has_bytes(file: BinaryIO) -> bool:
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    return size > 0


def _unfold(source: BinaryIO, target: BinaryIO, largest: int) -> None:
    """gzip (RFC 1952); zeros may stand behind it. A member's output is taken in pieces, so that a bomb costs little."""
    left, pending = largest, source.read(PIECE)
    try:
        for _ in range(MOST_MEMBERS):
            member = zlib.decompressobj(_OF_GZIP)
            while not member.eof:
                content = member.decompress(pending, PIECE)
                pending = member.unconsumed_tail or (b"" if len(content) == PIECE else source.read(PIECE))
                if not (content or pending or member.eof):
                    raise refusal_of("bad-encoding", "the gzip in the body is cut off", "a whole gzip stream")
                left -= len(content)
                if left < 0:
                    limit = f"up to {largest} bytes"
                    raise refusal_of("too-large", f"the body unfolds to more than {largest} bytes", limit)
                target.write(content)
            pending = member.unused_data + pending
            while not pending.strip(b"\0"):
                if not (pending := source.read(PIECE)):
                    return
    except zlib.error as error:
        raise refusal_of("bad-encoding", f"the body is no gzip: {error!s:.100}", "a whole gzip stream") from None
    raise refusal_of("bad-encoding", f"the body has more than {MOST_MEMBERS} gzip streams", "one gzip stream")


async def _read_form(headers: Headers, body: BinaryIO, memory: int) -> FormData:
    async def pieces() -> AsyncGenerator[bytes, None]:
        while piece := body.read(PIECE):
            yield piece
            await asyncio.sleep(0)  # others have their turn on the event loop

    _, options = parse_options_header(headers["content-type"])
    if options.get(b"charset", b"utf-8").lower() not in CHARSETS:  # the names of others lead to any codec of Python's
        raise refusal_of("bad-form", "the form is not in UTF-8", WANTED)
    parser = MultiPartParser(headers, pieces(), max_files=1, max_fields=MOST_FIELDS, max_part_size=LONGEST_FIELD)
    parser.spool_max_size = memory
    try:
        return await parser.parse()
    except (MultiPartException, KeyError) as error:  # KeyError: the content type names no boundary
        cause = error.message if isinstance(error, MultiPartException) else "its content type names no boundary"
        raise refusal_of("bad-form", f"the form cannot be read: {cause:.100}", WANTED) from None


def _parts(form: FormData) -> tuple[BinaryIO, dict[str, list[str]]]:
    """The file, and the fields."""
    fields: dict[str, list[str]] = {}
    for name, value in form.multi_items():
        if isinstance(value, str):
            fields.setdefault(name, []).append(value)
    file = next((part for _, part in form.multi_items() if isinstance(part, UploadFile)), None)
    if file is None:
        hint = f"a part with a file name, as `curl -F {FILE}=@speech.wav` sends it"
        raise refusal_of("no-file", "the form has no file", hint)
    return file.file, fields
