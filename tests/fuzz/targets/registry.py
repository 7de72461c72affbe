"""The targets in process, by name; each is imported where it is tried, since some take Ray along and others FFmpeg."""

from __future__ import annotations

from importlib import import_module
from types import MappingProxyType
from typing import Final

from tests.fuzz.targets.base import Target

IN_PROCESS: Final = MappingProxyType(
    {
        "envelope": "envelope:Envelopes",
        "batch": "batch:Batches",
        "audio": "audio:Files",
        "uploads": "uploads:Uploads",
        "forms": "forms:Forms",
        "answers": "client:Answers",
        "spool": "client:Spools",
        "headers": "gateway:Requests",
        "keys": "gateway:Keys",
        "store": "gateway:Stores",
    }
)


def kind_of(name: str) -> type[Target]:
    """The class of a target. Raises KeyError."""
    module, _, kind = IN_PROCESS[name].partition(":")
    found: type[Target] = getattr(import_module(f"tests.fuzz.targets.{module}"), kind)
    return found
