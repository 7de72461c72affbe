"""What the fault drills break: processes of a cluster by name, and the link between devices and cluster."""

from __future__ import annotations

import asyncio
import threading
import time
from asyncio import StreamReader, StreamWriter
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import psutil
import yaml

from benchmarks.drills.processes import actors, kill, replicas
from deployments.local_cluster import DEFAULT_CONFIG, LocalCluster
from models.weights import model_path

MODELS: Final = ("whisper-base", "whisper-base-short", "spacy-en-core-web-md", "all-minilm-l6-v2")
POLL_S: Final = 0.05
__all__ = ["Link", "actors", "config_of_drills", "kill", "replicas", "serves_again", "until"]
PIECE: Final = 65_536  # bytes
HEAD_ENDS: Final = b"\r\n\r\n"


def config_of_drills(folder: Path, **of_deployments: dict[str, Any]) -> Path:
    """serve_config.yaml with one replica of each stage, whose death is noticed within a second.

    Args:
        folder: for the file.
        of_deployments: what else differs, by deployment.
    """
    for name in MODELS:
        model_path(name)  # where it is missing: an error that names the command, before a cluster starts
    config = yaml.safe_load(DEFAULT_CONFIG.read_text())
    for deployment in config["applications"][0]["deployments"]:
        del deployment["autoscaling_config"]
        deployment |= {"num_replicas": 1, "health_check_period_s": 1, **of_deployments.get(deployment["name"], {})}
    path = folder / "serve_config.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def until(condition: Callable[[], object], within_s: float, what: str) -> float:
    """Seconds until the condition holds.

    Raises:
        AssertionError: it does not in time.
    """
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < within_s, f"not within {within_s:g} s: {what}"
        time.sleep(POLL_S)
    return time.monotonic() - started


def serves_again(cluster: LocalCluster, deployment: str, victim: psutil.Process, within_s: float = 120) -> float:
    """Seconds until Serve says that a replica other than the victim runs, and the application that all is well."""

    def replaced() -> bool:
        entry = cluster.status().get("deployments", {}).get(deployment, {"replicas": []})
        running = [replica["pid"] for replica in entry["replicas"] if replica["state"] == "RUNNING"]
        return bool(running) and victim.pid not in running

    seconds = until(replaced, within_s, f"another replica of {deployment}")
    cluster.wait_until_ready(within_s)
    return seconds


class Link:
    """A context manager: a relay on loopback between devices and cluster that can be cut.

    Args:
        url: of the cluster.

    Attributes:
        url: of the link.
        cut: connections that were cut, by what was under way: `body`, `answer` (half of it arrives), or `between`.
    """

    def __init__(self, url: str) -> None:
        target = urlsplit(url)
        self._target = (target.hostname, target.port)
        self.cut = Counter[str]()
        self._state: Literal["up", "failing", "down"] = "up"
        self._open = set[StreamWriter]()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Link:
        self._thread.start()
        server = asyncio.run_coroutine_threadsafe(asyncio.start_server(self._carry, "127.0.0.1", 0), self._loop)
        self._server = server.result(10)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._state = "down"
        self._loop.call_soon_threadsafe(self._server.close)
        self._loop.call_soon_threadsafe(self._hang_up)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def fail_for(self, seconds: float) -> None:
        """Cuts a body and an answer in two as they come by, then everything else; nobody gets through meanwhile."""
        self._state = "failing"
        until(lambda: self.cut["body"] and self.cut["answer"], 60, "a body and an answer on the link")
        self._state = "down"
        self._loop.call_soon_threadsafe(self._hang_up)
        time.sleep(seconds)
        self._state = "up"

    async def _carry(self, from_device: StreamReader, to_device: StreamWriter) -> None:
        if self._state == "down":
            to_device.transport.abort()
            return
        from_cluster, to_cluster = await asyncio.open_connection(*self._target)
        both = {to_device, to_cluster}
        self._open |= both
        with suppress(ConnectionError):
            await asyncio.gather(
                self._relay(from_device, to_cluster, to_device, "body"),
                self._relay(from_cluster, to_device, to_cluster, "answer"),
            )
        self._open -= both
        for writer in both:
            writer.close()

    async def _relay(self, source: StreamReader, sink: StreamWriter, other: StreamWriter, carries: str) -> None:
        while piece := await source.read(PIECE):
            is_head = piece.endswith(HEAD_ENDS)
            if self._state == "failing" and not is_head:
                sink.write(piece[: len(piece) // 2])
                self.cut[carries] += 1
                self._open -= {sink, other}
                other.transport.abort()
                break
            sink.write(piece)
            await sink.drain()
        sink.close()  # after what was written has left

    def _hang_up(self) -> None:
        self.cut["between"] += len(self._open) // 2
        for writer in self._open:
            writer.transport.abort()
        self._open.clear()
