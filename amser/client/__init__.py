"""What a device or an app embeds beside the codecs: a client of the cluster, segmentation, front end, and a spool.

`Client` and `AsyncClient` are the way in; what is named here is imported when it is first used.
"""

from __future__ import annotations

import os
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

# A device has one core to spare, and on a busy machine OpenBLAS' threads make matrices as small as these 50 times
# slower (measured: 22 s of log-Mel in 3 ms or 170 ms). OpenBLAS reads this once, when NumPy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

if TYPE_CHECKING:
    from amser.client.asynchronous import AsyncClient
    from amser.client.device import DeviceSettings
    from amser.client.exchange.answer import Answer, Word
    from amser.client.exchange.failures import AnswerTimedOut, Refused, SendFailed, UnexpectedAnswer, Unreachable
    from amser.client.exchange.recordings import Job, JobCancelled, RecordingAnswer, Segment
    from amser.client.sources import Microphone, NoMicrophone
    from amser.client.synchronous import Client, Outcome

__all__ = [
    "Answer", "AnswerTimedOut", "AsyncClient", "Client", "DeviceSettings", "Job", "JobCancelled", "Microphone",
    "NoMicrophone", "Outcome", "RecordingAnswer", "Refused", "Segment", "SendFailed", "UnexpectedAnswer", "Unreachable",
    "Word",
]  # fmt: skip

_MODULES: Final = MappingProxyType(
    {
        "asynchronous": ("AsyncClient",),
        "device": ("DeviceSettings",),
        "exchange.answer": ("Answer", "Word"),
        "exchange.failures": ("AnswerTimedOut", "Refused", "SendFailed", "UnexpectedAnswer", "Unreachable"),
        "exchange.recordings": ("Job", "JobCancelled", "RecordingAnswer", "Segment"),
        "sources": ("Microphone", "NoMicrophone"),
        "synchronous": ("Client", "Outcome"),
    }
)


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"amser.client.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
