"""The page at `/`, and the files under `/web` that it and other pages are made of: `web/` as it lies in the repository.

Whoever reaches the port may load them. They say nothing about anybody, and what they ask for needs a key.
"""

# No `from __future__ import annotations` here: FastAPI reads the types of the routes.

import asyncio
from functools import cache
from pathlib import Path
from typing import Final

from fastapi import APIRouter, Request, Response
from starlette.responses import FileResponse
from starlette.staticfiles import StaticFiles

WEB: Final = Path(__file__).resolve().parents[2] / "web"
INDEX: Final = "index.html"
HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Permissions-Policy": "microphone=(self)",
    "Cache-Control": "no-cache",  # kept, but asked for again by its ETag
}

router = APIRouter(include_in_schema=False)


@cache
def _files() -> StaticFiles:
    """Of this node, where the folder may lie elsewhere than where the application was built."""
    return StaticFiles(directory=WEB)


@router.head("/")
@router.get("/")
async def page(request: Request) -> Response:
    """The playground. 304 where the browser has this version."""
    return await _file(INDEX, request)


@router.head("/web/{path:path}")
@router.get("/web/{path:path}")
async def file(path: str, request: Request) -> Response:
    """A file of the page, or of the codec for other pages. 404 where there is none."""
    return await _file(path, request)


async def _file(path: str, request: Request) -> Response:
    response = await _files().get_response(path, request.scope)
    if isinstance(response, FileResponse):
        # Whole, whatever Range says: Starlette refuses one that it cannot read in plain text
        content = await asyncio.to_thread(Path(response.path).read_bytes)
        headers = {name: value for name, value in response.headers.items() if name != "accept-ranges"}
        response = Response(content, response.status_code, headers)
    response.headers.update(HEADERS)
    return response
