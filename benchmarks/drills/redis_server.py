"""A Redis server of this machine that a drill stops and starts: a child process that keeps nothing on disk."""

from __future__ import annotations

import shutil
import signal
import subprocess
from contextlib import suppress
from types import TracebackType
from typing import Final

import redis

from benchmarks.drills.processes import until
from benchmarks.measuring.command import CannotBegin
from deployments.local_cluster import LOOPBACK, free_port

COMMAND: Final = "redis-server"
STARTS_WITHIN_S: Final = 10.0


class RedisServer:
    """A context manager.

    Attributes:
        url: of the server, whether it runs or not.

    Raises:
        CannotBegin: it is not installed.
    """

    def __init__(self) -> None:
        if shutil.which(COMMAND) is None:
            raise CannotBegin(f"the drill of the store needs {COMMAND}: apt-get install redis-server")
        self._port = free_port()
        self.url = f"redis://{LOOPBACK}:{self._port}/0"
        self._server: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> RedisServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Returns once it answers; it is empty. Raises ClusterFailed where it does not."""
        command = [COMMAND, "--port", str(self._port), "--bind", LOOPBACK, "--save", "", "--appendonly", "no"]
        self._server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(self._answers, STARTS_WITHIN_S, f"{COMMAND} on port {self._port}")

    def freeze(self) -> None:
        """It accepts connections and answers none, as on a machine that stands still."""
        assert self._server is not None
        self._server.send_signal(signal.SIGSTOP)

    def stop(self) -> None:
        """It is gone, with all that it kept."""
        if self._server is not None:
            self._server.kill()
            self._server.wait()
            self._server = None

    def _answers(self) -> bool:
        with suppress(redis.RedisError), redis.Redis.from_url(self.url, socket_timeout=1.0) as client:
            return bool(client.ping())
        return False
