"""Speech to the cluster while it is spoken: `StreamClient`, and `stream` without an event loop (docs/stream.md)."""

from amser.client.stream.asynchronous import StreamClient
from amser.client.stream.messages import Ends, Event, StreamFailed, StreamSettings
from amser.client.stream.synchronous import stream

__all__ = ["Ends", "Event", "StreamClient", "StreamFailed", "StreamSettings", "stream"]
