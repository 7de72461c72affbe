"""The id of a request: the client's own where it names one, so that both sides find it in their logs."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from typing import Final

REQUEST_ID_HEADER: Final = "Amser-Request-Id"
KEY_ID: Final = "amser_key_id"  # in the state of a request's scope: which key it came with
# In this order. Ray's proxies add X-Request-Id where a client sends none, and write it into their own logs
ACCEPTED: Final = (REQUEST_ID_HEADER.lower(), "x-request-id")
# No space, quote or control character: an id goes into log lines and response headers as it is
_WELL_FORMED: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/+=@~-]{0,127}", re.ASCII)


def request_id(headers: Mapping[str, str]) -> str:
    """The id that a request came with, or a new one. An id is for finding a request and nothing else: two requests may
    have the same one.

    Args:
        headers: of the request, by their names in lower case. An id of other characters, or longer than 128, is not
            used.
    """
    for name in ACCEPTED:
        given = headers.get(name, "")
        if _WELL_FORMED.fullmatch(given):
            return given
    return str(uuid.uuid4())
