"""`stream` ends with what went wrong, and never waits for ever."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from amser.client.stream import StreamFailed, StreamSettings, stream
from amser.features import Float32


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def broken() -> Iterator[Float32]:
    yield np.zeros(1600, np.float32)
    raise FileNotFoundError("missing.wav")


def silence() -> Iterator[Float32]:
    while True:
        time.sleep(0.02)
        yield np.zeros(320, np.float32)


@pytest.mark.timeout(30)
def test_what_the_recording_raises_ends_the_stream() -> None:
    with pytest.raises(FileNotFoundError, match=r"missing\.wav"):
        list(stream(broken(), StreamSettings(url=free_address(), give_up_s=60)))


@pytest.mark.timeout(30)
def test_an_address_that_is_none_ends_the_stream() -> None:
    with pytest.raises(Exception, match="localhost"):
        list(stream(silence(), StreamSettings(url="localhost:8000", give_up_s=60)))


@pytest.mark.timeout(30)
def test_a_cluster_that_is_not_there_is_given_up_and_no_thread_stays() -> None:
    with pytest.raises(StreamFailed, match="cannot be reached"):
        list(stream(silence(), StreamSettings(url=free_address(), give_up_s=0.5)))
    deadline = time.monotonic() + 10
    while any(thread.name == "stream" for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
