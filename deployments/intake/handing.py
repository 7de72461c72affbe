"""Hands a body that lies in a file on to an application, no faster than it is taken.

Ray's proxy puts whatever it receives into a queue without an end, from which a replica fetches it, and a replica does
the same: a body of hundreds of megabytes would be in the memory of both. So a few pieces are under way at a time: the
next is read when an earlier one was fetched, which shows in that nobody holds it any longer. The pace leaves a replica
time to put them into its own file.
"""

from __future__ import annotations

import asyncio
import os
import weakref
from typing import Any, BinaryIO, Final

from starlette.types import Message, Receive

PIECE: Final = 262_144  # bytes
UNDER_WAY: Final = 16  # pieces
PACE: Final = 67_108_864  # bytes a second


class _Piece(dict[str, Any]):
    """A message of which is known when it has gone. It is pickled as the dictionary that it is."""

    def __reduce__(self) -> tuple[type, tuple[dict[str, Any]]]:
        return dict, (dict(self),)


def hand_on(file: BinaryIO, receive: Receive) -> Receive:
    """What an application receives the body from; what comes after it, that the client leaves, comes from the client.

    Args:
        file: with the body.
        receive: of the client.
    """
    left = file.seek(0, os.SEEK_END)
    file.seek(0)
    room = asyncio.Semaphore(UNDER_WAY)
    ended = False

    async def handed_on() -> Message:
        nonlocal left, ended
        if ended:
            return await receive()
        await room.acquire()
        content = file.read(PIECE)
        left -= len(content)
        ended = left <= 0 or not content
        if not ended:
            await asyncio.sleep(len(content) / PACE)
        piece = _Piece(type="http.request", body=content, more_body=not ended)
        weakref.finalize(piece, room.release).atexit = False
        return piece

    return handed_on
