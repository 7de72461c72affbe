"""How much of what comes in is held at once, and how long it may take.

Light to import: Ray's proxy loads it, where neither the settings of the application nor its models are.
"""

from __future__ import annotations

import os
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

ENVIRONMENT: Final = "AMSER_PROXY"  # JSON of `ProxySettings`, for Ray's proxy on each node


class _Limits(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BodySettings(_Limits):
    """Bodies of requests while they are being read."""

    grace_s: float = Field(10.0, gt=0)
    """A body that pauses for longer gets 408; so does one that has not caught up with the pace by then."""
    pace: int = Field(4_000, ge=1)
    """Bytes a second (32 kbit/s) that a body has to come with beyond the grace; 20 s of 16 kHz WAV are 640,000."""
    at_once: int = Field(256, ge=1)
    """Bodies being read. Where they are full, the slowest makes room for the next (429)."""
    of_a_client: int = Field(64, ge=1)
    """The same of one address."""
    held_bytes: int = Field(268_435_456, ge=1)
    """Of all of them. Ray's proxy counts a body until its request is answered."""


class ConnectionSettings(_Limits):
    """Connections to Ray's proxy."""

    head_s: float = Field(10.0, gt=0)
    """Until the head of a request is here; from the first byte, of a new connection from its beginning."""
    unread_s: float = Field(30.0, gt=0)
    """For which a client may leave its answer unread."""
    head_bytes: int = Field(16_384, ge=256)
    """Of a request line and the headers."""
    headers: int = Field(64, ge=8)
    """In a head."""
    at_once: int = Field(4_096, ge=1)
    """Connections; where they are full, the one that has been idle for longest makes room. At most half of the files
    that the process may open."""
    of_a_client: int = Field(512, ge=1)
    """The same of one address, but for those of proxies that uvicorn trusts (`FORWARDED_ALLOW_IPS`)."""


class ProxyBodySettings(BodySettings):
    """The same in Ray's proxy, which reads for all replicas, and where a waiting body takes memory alone."""

    at_once: int = Field(1_024, ge=1)
    of_a_client: int = Field(256, ge=1)
    held_bytes: int = Field(536_870_912, ge=1)


class SpoolSettings(BodySettings):
    """Recordings on their way, which are kept in files and not in memory."""

    at_once: int = Field(16, ge=1)
    of_a_client: int = Field(4, ge=1)
    held_bytes: int = Field(2_147_483_648, ge=1)
    """Of all of them, in the temporary folder of the node, until their requests are answered."""


class ProxySettings(_Limits):
    """Of Ray's proxy, which does not see the `args` of an application."""

    bodies: ProxyBodySettings = ProxyBodySettings()
    recordings: SpoolSettings = SpoolSettings()
    """The same of recordings."""
    connections: ConnectionSettings = ConnectionSettings()
    largest_body: int = Field(16_777_216, ge=1)
    """Bytes of any body; 413 beyond. Raise it with `requests.max_audio_bytes` of the application."""
    largest_recording: int = Field(268_435_456, ge=1)
    """Bytes of a recording. Raise it with `recordings.max_bytes` of the application."""
    begin_at_once: int = Field(16, ge=1)
    """Requests of one address in their first tenth of a second; its others wait (`deployments.intake.turns`)."""


class ProxyMisconfigured(ValueError):  # noqa: N818 - an error by its base class
    """The environment does not hold what `ProxySettings` wants."""


def proxy_settings() -> ProxySettings:
    """From the environment of this process.

    Raises:
        ProxyMisconfigured: it has something else.
    """
    try:
        return ProxySettings.model_validate_json(os.environ.get(ENVIRONMENT) or "{}")
    except ValidationError as error:
        raise ProxyMisconfigured(f"{ENVIRONMENT}: {error}") from error
