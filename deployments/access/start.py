"""Whether an application may start: it has to say who may ask it."""

from __future__ import annotations

import time

from deployments.access.key_file import KeyFileBroken, read
from deployments.access.settings import DEFAULT_KEY_FILE, AuthSettings


class NoAccessRule(ValueError):  # noqa: N818 - an error by its base class
    """Nothing says who may ask, or nobody could. The text has what to do."""


def check(auth: AuthSettings | None) -> None:
    """Returns where somebody may ask, or it is said that everybody may.

    Raises:
        NoAccessRule: otherwise.
    """
    if auth is None:
        raise NoAccessRule(
            "nothing says who may ask this application. Set `auth: {mode: keys}` in its `args` and make a key with "
            "`python -m deployments.access create OWNER`, or say `auth: none` where whoever reaches the port may ask."
        )
    if auth.mode == "none":
        return
    path = auth.file.expanduser()
    name = "" if auth.file == DEFAULT_KEY_FILE else f" --file {path}"
    make = f"python -m deployments.access create OWNER{name}"
    try:
        keys = read(path).keys
    except KeyFileBroken as error:
        advice = "mend it, or name another one in `auth: {file: …}`" if path.exists() else f"make a key: {make}"
        raise NoAccessRule(f"{error}; {advice}") from None
    if not any(time.time() < key.expires_at for key in keys):
        raise NoAccessRule(f"{path} holds no key that is valid, so nobody could ask; make one: {make}")
