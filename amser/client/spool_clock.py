"""How a spool counts time: by how long the device was on, whatever its calendar says.

A device without a battery for its clock starts in 1970 until NTP sets it, and a clock may be set back. Ages and waits
are therefore counted on a clock of the spool's own, which no step of the calendar moves.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
BOOT_MOMENT_WITHIN_S: Final = 600.0  # where no boot has an id: two that began within one such span are taken for one


@dataclass(frozen=True, slots=True)
class Uptime:
    """How long the device has been on.

    Attributes:
        boot: differs between boots.
        seconds: since that boot, time asleep included where the system counts it.
    """

    boot: str
    seconds: float


def uptime() -> Uptime:
    """Of this device.

    Linux has both. Elsewhere (macOS) a boot goes by the moment at which it began, as the calendar has it now: where
    that is set, the boot looks like a new one, and what has been counted up to then stays.
    """
    boottime = getattr(time, "CLOCK_BOOTTIME", None)  # unlike CLOCK_MONOTONIC it counts while the device sleeps
    seconds = time.monotonic() if boottime is None else time.clock_gettime(boottime)
    try:
        return Uptime(BOOT_ID.read_text(encoding="ascii").strip(), seconds)
    except OSError:
        return Uptime(f"began {round((time.time() - seconds) / BOOT_MOMENT_WITHIN_S)}", seconds)


class SpoolClock:
    """Seconds that a spool has existed while the device was on. Never goes back; a device that is off adds nothing.

    In a new boot it goes on from the first look at it, after what had been stored before.

    Args:
        stored: by an earlier owner: its `seconds`, and the uptime that they belong to; None for a new spool.
        uptime: of the device.
    """

    def __init__(self, stored: tuple[float, Uptime] | None, uptime: Callable[[], Uptime]) -> None:
        self._uptime = uptime
        now = uptime()
        seconds, since = stored or (0.0, now)
        self.is_stored = stored is not None and now.boot == since.boot and now.seconds >= since.seconds
        self._anchor = seconds, since if self.is_stored else now  # one value: threads read it while another stores
        self._latest_s = seconds

    def now(self) -> float:
        """Seconds."""
        return self._at(self._uptime())

    @property
    def unstored_s(self) -> float:
        """Seconds that would be lost if the device were switched off now."""
        return self.now() - self._anchor[0]

    def store(self, write: Callable[[float, Uptime], object]) -> None:
        """Hands over what the next owner needs; it counts as stored once `write` has returned."""
        since = self._uptime()
        seconds = self._at(since)
        write(seconds, since)
        self._anchor, self.is_stored = (seconds, since), True

    def _at(self, uptime: Uptime) -> float:
        seconds, since = self._anchor
        self._latest_s = max(self._latest_s, seconds + uptime.seconds - since.seconds)
        return self._latest_s
