"""The file in the body of an upload: as it is, in a form, compressed."""

from __future__ import annotations

import gzip
import io
import os
import time
import tracemalloc

import httpx
import pytest
from recordings import audio_file, noise
from starlette.requests import Request

from deployments.gateway.problems import Refusal
from deployments.gateway.uploads.bodies import MOST_MEMBERS, Upload, read_recording, read_upload

WAV = audio_file(noise(0.5), "wav", "pcm_s16le")
LARGEST = 1 << 20


async def uploaded(body: bytes, **headers: str) -> Upload:
    head = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return await read_upload(Request({"type": "http", "headers": head}), body, LARGEST)


def form(**options: object) -> tuple[bytes, str]:
    """A body and its content type, as an HTTP client writes them."""
    request = httpx.Request("POST", "http://localhost", **options)  # type: ignore[arg-type]
    return request.read(), request.headers["content-type"]


@pytest.mark.parametrize("media_type", ["audio/wav", "application/x-www-form-urlencoded", "text/plain", ""])
async def test_a_body_is_a_file_whatever_its_content_type_says(media_type: str) -> None:
    """curl calls what `--data-binary` sends a form."""
    assert await uploaded(WAV, content_type=media_type) == Upload(WAV)


@pytest.mark.parametrize("part", ["file", "audio", "upload[]"])
async def test_the_file_of_a_form_may_have_any_name(part: str) -> None:
    data = {"language": "en", "x": ["ä", "ö"]}
    body, media_type = form(files={part: ("how do you do.wav", io.BytesIO(WAV))}, data=data)
    expected = Upload(WAV, {"language": ["en"], "x": ["ä", "ö"]})
    assert await uploaded(body, content_type=media_type) == expected


async def test_gzip_is_undone_around_a_file_and_around_a_form() -> None:
    body, media_type = form(files={"file": ("a.wav", io.BytesIO(WAV))})
    for name in ("gzip", "x-gzip", "GZIP"):
        assert (await uploaded(gzip.compress(WAV), content_encoding=name)).content == WAV
    assert (await uploaded(gzip.compress(body), content_type=media_type, content_encoding="gzip")).content == WAV
    halves = gzip.compress(WAV[:5000]) + gzip.compress(WAV[5000:]) + bytes(512)
    assert (await uploaded(halves, content_encoding="gzip")).content == WAV
    assert await uploaded(WAV, content_encoding="identity") == Upload(WAV)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        pytest.param(gzip.compress(bytes(1 << 30)), "too-large", id="a gigabyte"),
        pytest.param(gzip.compress(bytes(1000)) * 40_000, "bad-encoding", id="many streams"),
        pytest.param(gzip.compress(WAV) + b"and more", "bad-encoding", id="junk behind it"),
        pytest.param(gzip.compress(WAV)[:-4], "bad-encoding", id="cut off"),
        pytest.param(b"\x1f\x8b" * 500_000, "bad-encoding", id="no gzip"),
    ],
)
async def test_what_does_not_unfold_within_limits_is_refused_at_once(body: bytes, kind: str) -> None:
    began = time.process_time()
    with pytest.raises(Refusal) as refused:
        await uploaded(body, content_encoding="gzip")
    assert refused.value.kind.slug == kind
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize("charset", ["undefined", "unicode_escape", "utf-7", "idna", "zip"])
async def test_a_form_is_in_utf_8(charset: str) -> None:
    """Starlette decodes names with any codec of Python's, of which some raise what it does not catch."""
    body, media_type = form(files={"file": ("a.wav", io.BytesIO(WAV))}, data={"\\ud800": "x"})
    with pytest.raises(Refusal) as refused:
        await uploaded(body, content_type=f"{media_type}; charset={charset}")
    assert refused.value.kind.slug == "bad-form"
    assert (await uploaded(body, content_type=f"{media_type}; charset=UTF-8")).content == WAV


async def test_as_much_as_a_body_may_unfold_to() -> None:
    assert len((await uploaded(gzip.compress(bytes(LARGEST)), content_encoding="gzip")).content) == LARGEST
    streams = b"".join(gzip.compress(b"x") for _ in range(MOST_MEMBERS))
    assert (await uploaded(streams, content_encoding="gzip")).content == b"x" * MOST_MEMBERS


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        pytest.param({"files": [("a", ("a.wav", WAV)), ("b", ("b.wav", WAV))]}, "bad-form", id="two files"),
        pytest.param({"files": {"file": ("a.wav", WAV)}, "data": {"x": "y" * 10_000}}, "bad-form", id="a long field"),
        pytest.param({"files": {"file": ("a.wav", b"")}}, "empty-body", id="an empty file"),
        pytest.param({"files": {"file": (None, "text")}}, "no-file", id="a field called file"),
    ],
)
async def test_what_is_wrong_with_a_form_is_told(options: dict[str, object], kind: str) -> None:
    body, media_type = form(**options)
    with pytest.raises(Refusal) as refused:
        await uploaded(body, content_type=media_type)
    assert refused.value.kind.slug == kind
    assert "file" in str(refused.value.limit)


async def test_a_recording_in_a_form_is_not_held_in_memory() -> None:
    body, media_type = form(files={"file": ("long.wav", io.BytesIO(bytes(8 << 20)))}, data={"language": "en"})
    headers = [(b"content-type", media_type.encode()), (b"content-encoding", b"gzip")]
    request = Request({"type": "http", "headers": headers})
    tracemalloc.start()
    async with read_recording(request, io.BytesIO(gzip.compress(body)), 16 << 20) as (file, fields):
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert fields == {"language": ["en"]}
        assert os.fstat(file.fileno()).st_size == 8 << 20
        assert file.tell() == 0
    assert most < 4 << 20
