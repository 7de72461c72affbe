"""Bodies of uploads: forms and gzip, before anything is decoded."""

from __future__ import annotations

import asyncio
import gzip
from pathlib import Path
from typing import ClassVar, Final

from starlette.requests import Request

from deployments.gateway.problems import Refusal
from deployments.gateway.uploads.bodies import check_encoding, read_upload
from tests.fuzz.targets.base import Target

LARGEST: Final = 1 << 20  # bytes that a body unfolds to
FILE: Final = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\nContent-Type: audio/wav\r\n\r\n'
FIELD: Final = b'--x\r\nContent-Disposition: form-data; name="language"\r\n\r\nen\r\n'
SOUND: Final = b"RIFF\x24\0\0\0WAVEdata\0\r\n--\r\n\r\n"
HEADS: Final = (  # an input is the number of one of them, in its first byte, and a body
    {},
    {"content-type": "multipart/form-data; boundary=x"},
    {"content-encoding": "gzip"},
    {"content-type": "multipart/form-data; boundary=x", "content-encoding": "gzip"},
    {"content-type": "multipart/form-data"},
    {"content-type": 'multipart/form-data; boundary="x y"; charset=utf-7', "content-encoding": "br"},
    {"content-type": "multipart/form-data; boundary=x; charset=undefined"},
    {"content-type": "multipart/form-data; boundary=x; charset=unicode_escape"},
)


class Forms(Target):
    """What a form holds is what was sent, within the limits."""

    name: ClassVar[str] = "forms"
    tokens: ClassVar[tuple[bytes, ...]] = (
        b"--x", b"--x--", b"\r\n", b"\r\n\r\n", b"Content-Disposition: form-data; name=", b'filename="', b"filename*=",
        b"utf-8''%ff", b"Content-Transfer-Encoding: base64\r\n", b"\x1f\x8b\x08\0", b"_charset_",
    )  # fmt: skip

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._loop = asyncio.new_event_loop()

    def seeds(self) -> list[bytes]:
        form = FIELD + FILE + SOUND + b"\r\n--x--\r\n"
        packed = gzip.compress(form)
        bodies = [SOUND, form, gzip.compress(SOUND), packed, form, form, packed + gzip.compress(bytes(2 * LARGEST))]
        return [bytes([place % len(HEADS)]) + body for place, body in enumerate(bodies)]

    def accepts(self, data: bytes) -> bool:
        head = HEADS[data[0] % len(HEADS)] if data else {}
        headers = [(name.encode(), value.encode()) for name, value in head.items()]
        request = Request({"type": "http", "headers": headers})
        try:
            check_encoding(request.headers)
            upload = self._loop.run_until_complete(read_upload(request, data[1:], LARGEST))
        except Refusal as refused:
            refused.problem("id").model_dump_json(exclude_none=True).encode()
            return False
        assert 0 < len(upload.content) <= max(LARGEST, len(data))
        assert head or upload.content == data[1:]
        return True

    def close(self) -> None:
        self._loop.close()
