"""What can be set of access: `auth`, `limits`, `cors` and `hosts` in the `args` of serve_config.yaml.

Apart from `deployments.settings`, which takes them in, since the file of keys has limits too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from amser.wire import Limits as WireLimits

LARGEST_ENVELOPE: Final = WireLimits().max_bytes
LONGEST_UTTERANCE_S: Final = WireLimits().max_frames / 100  # of 10 ms each
DEFAULT_KEY_FILE: Final = Path("~/.config/amser/keys.json")


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class AuthSettings(_Settings):
    """Who may ask."""

    mode: Literal["keys", "none"]
    """`keys`: whoever has one of the file's. `none`: whoever reaches the port."""
    file: Path = DEFAULT_KEY_FILE
    """Of the keys (`python -m deployments.access create`), at the same path on every node that has a replica of the
    gateway. It holds hashes alone and is read again when it changes."""
    docs: Literal["public", "key"] = "public"
    """Whether /docs, /redoc, /openapi.json and /problems want a key too. They say what this repository says."""

    @model_validator(mode="before")
    @classmethod
    def _in_one_word(cls, value: Any) -> Any:
        return {"mode": value} if isinstance(value, str) else value

    @field_validator("file")
    @classmethod
    def _at_home(cls, value: Path) -> Path:
        if value.parts[:1] != ("~",) and not value.is_absolute():
            raise ValueError("the file of keys needs an absolute path, or one that begins with ~")
        return value


class Limits(_Settings):
    """Of one key, or of one device. None is no limit.

    What is allowed in a minute may come at once, and comes back evenly: of 60 requests a minute one each second.
    """

    requests_per_minute: int | None = Field(None, ge=1)
    """Requests to routes that want a key; those that are refused for a limit before their body is read do not count."""
    concurrency: int | None = Field(None, ge=1)
    """Requests at once, in each replica of the gateway."""
    bytes_per_minute: int | None = Field(None, ge=LARGEST_ENVELOPE)
    """Of request bodies; no less than the largest envelope has, which would never pass."""
    audio_s_per_minute: float | None = Field(None, ge=LONGEST_UTTERANCE_S)
    """Seconds of speech, as the envelope or the file has them; no less than the longest utterance has."""

    def changed_by(self, other: Limits) -> Limits:
        """These, but for those that the other one sets; it sets what it names, with null too."""
        return self.model_copy(update={name: getattr(other, name) for name in other.model_fields_set})


class LimitSettings(_Settings):
    """How much may be asked. A limit by device lies within that of its key: a device says itself which one it is.

    Each replica of the gateway counts by itself, unless `idempotency` names a Redis, where all count together.
    """

    key: Limits = Limits()
    """Of each key; of each remote address where there are none (`auth: none`)."""
    device: Limits = Limits()
    """Of each device id that envelopes name, under one key."""

    def changed_by(self, other: LimitSettings) -> Self:
        """These, but for those that the other one sets."""
        return type(self)(key=self.key.changed_by(other.key), device=self.device.changed_by(other.device))


class CorsSettings(_Settings):
    """Which pages of other sites may ask from a browser."""

    origins: tuple[str, ...] = ()
    """Such as `https://app.example`; `*` is every one. None by default."""
