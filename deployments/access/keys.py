"""API keys: how one is made, what is kept of it, and how it is recognised.

A key is `amser_ID_SECRET`: the prefix for scanners of repositories and logs, an id that may be shown, and a secret of
256 random bits. What is kept is BLAKE2b of the whole, keyed with the id, so that a hash is of no use under another id.
A slow hash (bcrypt, Argon2) protects passwords, which can be guessed; nobody guesses 256 random bits, and a slow hash
would let whoever sends wrong keys use up the gateway.
"""

from __future__ import annotations

import hmac
import re
import secrets
import string
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from hashlib import blake2b
from typing import Final, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, PrivateAttr, model_validator

from deployments.access.rules import Scope
from deployments.access.settings import LimitSettings

PREFIX: Final = "amser"
BEARER: Final = "bearer"
ID_LENGTH: Final = 8
SECRET_BYTES: Final = 32
HASH_BYTES: Final = 32
PERSON: Final = b"amser-access-key"  # of BLAKE2b: this hash is of no use anywhere else
_TOKEN: Final = re.compile(rf"{PREFIX}_([a-z0-9]{{{ID_LENGTH}}})_[A-Za-z0-9_-]{{43}}")


class Key(BaseModel):
    """A key as the file has it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(pattern=rf"^[a-z0-9]{{{ID_LENGTH}}}$")
    owner: str = Field(min_length=1, max_length=100)
    """Whose it is. An owner may have several: a new one is made and handed out before the old one is revoked."""
    hash: str = Field(pattern=rf"^[0-9a-f]{{{2 * HASH_BYTES}}}$")
    scopes: frozenset[Scope] = Field(min_length=1)
    created: AwareDatetime
    expires: AwareDatetime | None = None
    limits: LimitSettings = LimitSettings()
    """Where they differ from those of the application."""
    note: str = Field("", max_length=500)
    _effective: tuple[LimitSettings, LimitSettings] | None = PrivateAttr(None)

    @cached_property
    def digest(self) -> bytes:
        """The hash in bytes."""
        return bytes.fromhex(self.hash)

    @cached_property
    def expires_at(self) -> float:
        """The same as `expires`, in seconds since 1970."""
        return self.expires.timestamp() if self.expires else float("inf")

    def limits_within(self, general: LimitSettings) -> LimitSettings:
        """Of this key in an application with these; worked out once."""
        if self._effective is None or self._effective[0] is not general:
            self._effective = general, general.changed_by(self.limits)
        return self._effective[1]


class KeyRing(BaseModel):
    """Everything that a file of keys holds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    keys: tuple[Key, ...] = ()

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        if len(self.by_id) != len(self.keys):
            raise ValueError("two keys have the same id")
        return self

    @cached_property
    def by_id(self) -> dict[str, Key]:
        """The same keys."""
        return {key.id: key for key in self.keys}


def new_key(
    owner: str, scopes: frozenset[Scope], expires: datetime | None, limits: LimitSettings, note: str
) -> tuple[Key, str]:
    """A key, and the token that its owner sends, which is nowhere else."""
    key_id = "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(ID_LENGTH))
    token = f"{PREFIX}_{key_id}_{secrets.token_urlsafe(SECRET_BYTES)}"
    created = datetime.now(UTC).replace(microsecond=0)
    digest = _digest(key_id, token).hex()
    key = Key(
        id=key_id, owner=owner, hash=digest, scopes=scopes, created=created, expires=expires, limits=limits, note=note
    )
    return key, token


@dataclass(frozen=True, slots=True)
class Shown:
    """What an Authorization header shows.

    Attributes:
        key: that was recognised.
        trouble: why it does not count: missing, unknown or expired; empty where it does. For the operator alone.
    """

    key: Key | None
    trouble: str = ""

    @property
    def is_valid(self) -> bool:
        """Whether the key counts."""
        return not self.trouble


def key_of(header: str | None, ring: KeyRing) -> Shown:
    """The key that a header shows; None is no header."""
    if header is None:
        return Shown(None, "missing")
    scheme, _, token = header.partition(" ")
    key = recognised(token.strip(), ring) if scheme.lower() == BEARER else None
    if key is None:
        return Shown(None, "unknown")
    return Shown(key, "" if time.time() < key.expires_at else "expired")


def recognised(token: str, ring: KeyRing) -> Key | None:
    """The key of a token, expired or not; None where it is none of the ring's. It takes the same time for every id."""
    shape = _TOKEN.fullmatch(token)
    if shape is None:
        return None
    key = ring.by_id.get(shape[1])
    expected = key.digest if key else bytes(HASH_BYTES)
    return key if hmac.compare_digest(_digest(shape[1], token), expected) else None


def _digest(key_id: str, token: str) -> bytes:
    return blake2b(token.encode(), digest_size=HASH_BYTES, key=key_id.encode(), person=PERSON).digest()
