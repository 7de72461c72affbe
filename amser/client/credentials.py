"""What a client shows to a cluster that wants to know who asks, and how it knows the cluster."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Final

KEY_VARIABLE: Final = "AMSER_KEY"  # of the environment; everybody on the machine sees command lines
LONGEST_KEY: Final = 200


class NoKey(ValueError):  # noqa: N818 - an error by its base class
    """A key that cannot be one, or a file of it that cannot be read. The text does not show it."""


def checked_key(key: str) -> str:
    """The key, without white space around it.

    Raises:
        NoKey: it is empty, too long, or cannot be sent in a header.
    """
    key = key.strip()
    if not key or len(key) > LONGEST_KEY or not key.isascii() or not key.isprintable() or " " in key:
        raise NoKey("the key is none: it looks like amser_k3f9a2b1_ and 43 letters, digits, - or _")
    return key


def given_key(file: Path | None, environment: Mapping[str, str] = os.environ) -> str | None:
    """The key in a file, or else in `AMSER_KEY`; None where there is neither.

    Raises:
        NoKey: there is one that cannot be used.
    """
    if file is not None:
        try:
            return checked_key(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no text"
            raise NoKey(f"the key in {file} cannot be read: {reason}") from None
    key = environment.get(KEY_VARIABLE)
    return checked_key(key) if key else None


def bearer(key: str | None) -> dict[str, str]:
    """The header that shows a key."""
    return {"Authorization": f"Bearer {key}"} if key else {}


def trust(ca: Path | None) -> ssl.SSLContext | bool:
    """What certificates of a cluster are checked against: those of a file, or those that the world trusts.

    Raises:
        ValueError: the file cannot be read, or holds no certificate.
    """
    if ca is None:
        return True
    try:
        return ssl.create_default_context(cafile=str(ca))
    except (OSError, ssl.SSLError) as error:
        raise ValueError(f"{ca} holds no certificates that can be read: {error}") from None
