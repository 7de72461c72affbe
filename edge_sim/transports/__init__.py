"""Utterance → bytes → log-Mel: every way to send speech that the codecs are compared with, at several settings each.

`by_name("opus", "16k")` is a transport; `TRANSPORTS` lists what there is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Final

from amser.audio import UnreadableAudio
from edge_sim.transports.aac import Aac
from edge_sim.transports.base import AudioTransport, Transport, UnknownSetting, UnknownTransport
from edge_sim.transports.features import SETTINGS, Features
from edge_sim.transports.flac import Flac
from edge_sim.transports.mp3 import Mp3
from edge_sim.transports.opus import Opus
from edge_sim.transports.pcm import Pcm

__all__ = [
    "TRANSPORTS",
    "AudioTransport",
    "Offer",
    "Transport",
    "UnknownSetting",
    "UnknownTransport",
    "UnreadableAudio",
    "by_name",
    "every",
    "parse",
]


@dataclass(frozen=True, slots=True)
class Offer:
    """A transport before its setting is chosen.

    Attributes:
        factory: the transport at a setting. Raises UnknownSetting.
        settings: what the factory takes.
    """

    factory: Callable[[str], Transport]
    settings: tuple[str, ...]


TRANSPORTS: Final = MappingProxyType(
    {audio.name: Offer(audio, audio.settings) for audio in (Pcm, Flac, Mp3, Aac, Opus)}
    | {codec: Offer(partial(Features, codec), settings) for codec, settings in SETTINGS.items()}
)


def by_name(name: str, setting: str) -> Transport:
    """The transport of this name at this setting. Raises UnknownTransport, UnknownSetting."""
    try:
        offer = TRANSPORTS[name]
    except KeyError:
        raise UnknownTransport(f"no transport {name!r}", ", ".join(TRANSPORTS)) from None
    return offer.factory(setting)


def parse(text: str) -> list[Transport]:
    """`opus:16k`, or `opus` for all its settings. Raises UnknownTransport, UnknownSetting."""
    name, colon, setting = text.partition(":")
    if colon or name not in TRANSPORTS:
        return [by_name(name, setting)]
    return [by_name(name, each) for each in TRANSPORTS[name].settings]


def every() -> Iterator[Transport]:
    """All transports at all their settings."""
    return (offer.factory(setting) for offer in TRANSPORTS.values() for setting in offer.settings)
