"""What can be set of recordings, jobs and webhooks (`deployments.settings` has the rest)."""

from __future__ import annotations

import base64
import binascii
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from deployments.intake.limits import SpoolSettings

SECRET_PREFIX: Final = "whsec_"  # Standard Webhooks
FEWEST_SECRET_BYTES: Final = 24


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class JobSettings(_Settings):
    """Recordings that are answered later. They are kept where `idempotency.store` says."""

    ttl_s: float = Field(86_400.0, gt=0, le=604_800)
    """For which a job is kept after it was made, and again after it has ended."""
    at_once: int = Field(2, ge=1, le=64)
    """That a gateway replica works on; the others wait."""
    of_a_client: int = Field(16, ge=1)
    """Of one key (or address), that have not ended; the next gets 429."""
    in_all: int = Field(256, ge=1)
    """The same of all clients."""
    held_bytes: int = Field(8_589_934_592, ge=1)
    """Of the audio of jobs that have not ended."""
    lease_s: float = Field(20.0, ge=1)
    """After which a job whose replica says nothing is taken over by another one."""
    attempts: int = Field(3, ge=1)
    """Replicas that may die under a job before it counts as failed."""


class WebhookSettings(_Settings):
    """What is told a server of the client when a job has ended (standardwebhooks.com)."""

    secret: SecretStr | None = None
    """`whsec_` and 24 bytes or more in base64, which signs every message. Without it no webhooks are taken."""
    private: bool = False
    """Whether webhooks may lead to addresses that are not public, and by http to this machine: for tests and closed
    networks."""
    attempts: int = Field(6, ge=1, le=20)
    """To deliver a message; the pauses between them double."""
    pause_s: float = Field(5.0, gt=0)
    """Before the second attempt."""
    within_s: float = Field(10.0, gt=0)
    """For an attempt."""

    @field_validator("secret")
    @classmethod
    def _is_secret(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            written = value.get_secret_value()
            try:
                size = len(base64.b64decode(written.removeprefix(SECRET_PREFIX), validate=True))
            except binascii.Error:
                size = 0
            if not written.startswith(SECRET_PREFIX) or size < FEWEST_SECRET_BYTES:
                raise ValueError(f"a secret is {SECRET_PREFIX} and {FEWEST_SECRET_BYTES} bytes or more in base64")
        return value


class RecordingSettings(_Settings):
    """Recordings of any length, which are cut at pauses and answered as segments."""

    max_seconds: float = Field(7200.0, ge=1, le=86_400)
    """Of a recording."""
    max_bytes: int = Field(268_435_456, ge=1)
    """Of its file. Raise it with `largest_recording` of Ray's proxy (`deployments/intake/limits.py`)."""
    bodies: SpoolSettings = SpoolSettings()
    """Recordings on their way to a gateway replica."""
    segments_at_once: int = Field(4, ge=1, le=64)
    """Of one recording, that are recognised side by side."""
    at_once: int = Field(4, ge=1, le=64)
    """Recordings that a gateway replica cuts and recognises; the others wait. Each takes a process of 150 MB, and 64 kB
    a second of sound in the temporary folder."""
    attempts: int = Field(3, ge=1)
    """To recognise a segment whose stages fail or are late. One that is refused for want of room is asked again."""
    memory_mb: int = Field(1024, ge=256)
    """Address space that decoding and cutting may take."""
    cpu_s: int = Field(900, ge=1)
    """Computing time of decoding and cutting; an hour takes about a minute."""
    silent_s: float = Field(60.0, gt=0)
    """After which a process that decodes and says nothing is ended."""
    jobs: JobSettings = JobSettings()
    webhook: WebhookSettings = WebhookSettings()
