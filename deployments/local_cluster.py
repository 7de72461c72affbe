"""A Ray head and the application on this machine, as child processes: for the demo, the benchmarks and the tests.

`ray stop` would end every Ray on the machine, so the head is started with `--block` as our own child, and exactly
that is ended, with what it has started. So is every further node.
"""

from __future__ import annotations

import copy
import os
import random
import secrets
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import httpx
import psutil
import yaml

from deployments.access.settings import AuthSettings
from deployments.children import Child

DEFAULT_CONFIG: Final = Path(__file__).resolve().parent.parent / "serve_config.yaml"
LOOPBACK: Final = "127.0.0.1"
POLL_S: Final = 0.5
LARGEST_REPLICA_LOG: Final = 200_000  # bytes of each that are kept
OWN_PORTS: Final = (20_000, 32_000)  # above those of Ray's workers, below Linux's range for outgoing connections
# Serve's throughput mode: its proxy is HAProxy and replicas do not share their loop with user code
THROUGHPUT_MODE: Final = {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1", "RAY_SERVE_ENABLE_HA_PROXY": "1"}

KEYS_VARIABLE: Final = "AMSER_KEYS"  # `deployments.access.proxy` reads it
# Bytes up to which Ray sends a message with the call and not through its object store (docs/decisions/0014): more than
# the classifier is given for 30 s of speech
LARGEST_INLINE: Final = 3_000_000
PROXY_CHECKED_EVERY_S: Final = "1"  # Serve's own 10 s let a proxy that died be replaced after 30 s
PROXY_CALLBACK: Final = "deployments.gateway.proxy:middlewares"

Progress = Callable[[dict[str, str]], None]


class ClusterFailed(RuntimeError):  # noqa: N818 - an error by its base class
    """The head or the application did not come up; the text says which, with the end of the log."""


class LocalCluster:
    """A context manager: a head on loopback, with the application of a config file; further nodes if they are wanted.

    Args:
        config: as `serve deploy` takes it.
        log: where everything goes that Ray prints.
        num_gpus: GPUs that the head claims to have; None lets Ray look.
        num_cpus: the same for CPUs.
        throughput: Serve's throughput mode in place of its default.
        http_port: of the application; None takes that of the config, 0 a free one.
        overrides: `args` of the application that differ from the config. `auth` is `none` unless it stands here.
        nodes: names of further nodes on this machine, with as many CPUs and no GPU. They join before the application is
            deployed: a deployment with `label_selector: {node: NAME}` runs there. A mapping says what differs in the
            environment of each.

    Attributes:
        url: of the application; https where the config has a certificate.
        certificate: file of it, which clients have to trust; None for http.
        dashboard: URL of Ray's own.
        log: see above.

    Raises:
        ClusterFailed: on entering, where the head or a node does not start, or the head refuses the application.
    """

    def __init__(
        self,
        config: Path = DEFAULT_CONFIG,
        *,
        log: Path,
        num_gpus: int | None = None,
        num_cpus: int | None = None,
        throughput: bool = False,
        http_port: int | None = None,
        overrides: Mapping[str, Any] | None = None,
        nodes: Sequence[str] | Mapping[str, Mapping[str, str]] = (),
    ) -> None:
        self.log = log
        self._config: dict[str, Any] = yaml.safe_load(config.read_text())
        if http_port is not None:
            self._config["http_options"]["port"] = http_port or free_port()
        self._config["http_options"]["host"] = LOOPBACK  # nobody needs a key, so nobody else may reach it
        self._config["applications"][0].setdefault("args", {}).update({"auth": "none", **(overrides or {})})
        self.certificate: str | None = self._config["http_options"].get("ssl_certfile")
        self.url = f"{'https' if self.certificate else 'http'}://{LOOPBACK}:{self._config['http_options']['port']}"
        self.dashboard = f"http://{LOOPBACK}:{free_port()}"
        self._gcs_port = free_port()
        self._resources = {"num-gpus": num_gpus, "num-cpus": num_cpus}
        self._throughput = throughput
        self._head: Child | None = None
        self._nodes: dict[str, Child | None] = dict.fromkeys(nodes)
        # Nodes of one machine share its address: each one's proxy has a port of its own
        self._proxy_ports = {name: free_port() for name in nodes}
        self._differs = nodes if isinstance(nodes, Mapping) else {}
        self._folder: Path | None = None

    @property
    def address(self) -> str:
        """Of the head, as `ray.init` takes it."""
        return f"{LOOPBACK}:{self._gcs_port}"

    @property
    def environment(self) -> dict[str, str]:
        """What every process that talks to this head must have in its environment."""
        assert self._folder is not None, "the cluster was not entered"
        tokens = {"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN_PATH": str(self._folder / "token")}
        quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_COLOR_PREFIX": "0", "OMP_NUM_THREADS": "1"}
        quiet["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"] = "0"  # a single node has no other that takes over
        quiet["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"] = PROXY_CALLBACK
        quiet[KEYS_VARIABLE] = self._key_file() or ""  # not that of the shell: without a file the proxy asks for no key
        quiet["RAY_worker_niceness"] = "0"  # Ray's 15 is for batch work: here the clients that wait share the machine
        quiet["RAY_max_direct_call_object_size"] = str(LARGEST_INLINE)
        quiet["RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S"] = PROXY_CHECKED_EVERY_S
        mode = THROUGHPUT_MODE if self._throughput else {}
        return {**os.environ, **quiet, **tokens, **mode, "RAY_ADDRESS": self.address}

    def __enter__(self) -> LocalCluster:
        self._folder = Path(tempfile.mkdtemp(prefix="amser-"))  # short: Ray puts sockets into it
        (self._folder / "token").write_text(secrets.token_hex(16))
        try:
            self._start_head()
            for name in self._nodes:
                self._nodes[name] = self._start_node(name)
            if self._nodes:
                self._wait_for_nodes()
            self.deploy(self._config)
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def wait_until_ready(self, timeout_s: float = 180, progress: Progress | None = None) -> None:
        """Return once every deployment runs and the application answers.

        Args:
            timeout_s: until then.
            progress: called about twice a second with the status of each deployment.

        Raises:
            ClusterFailed: a deployment failed, the head died, or the time is over.
        """
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            self._require_head()
            application = self.status()
            deployments = {name: entry["status"] for name, entry in application.get("deployments", {}).items()}
            if progress is not None:
                progress(deployments)
            if application.get("status") in ("DEPLOY_FAILED", "UNHEALTHY"):
                raise ClusterFailed(f"the application is {application['status']}: {_reason(application)}")
            if application.get("status") == "RUNNING" and self._answers():
                return
            time.sleep(POLL_S)
        raise ClusterFailed(f"the application was not ready within {timeout_s:g} s; {self.tail()}")

    def status(self) -> dict[str, Any]:
        """What Serve says of the application; empty as long as it says nothing."""
        with suppress(httpx.HTTPError):
            answer = httpx.get(f"{self.dashboard}/api/serve/applications/", timeout=5)
            if answer.is_success:
                applications: dict[str, dict[str, Any]] = answer.json()["applications"]
                return next(iter(applications.values()), {})
        return {}

    @property
    def config(self) -> dict[str, Any]:
        """A copy of what is deployed, for `deploy` to take with changes."""
        return copy.deepcopy(self._config)

    def deploy(self, config: dict[str, Any]) -> None:
        """Give the running head another config, as `serve deploy` does; it takes its time to follow.

        Raises:
            ClusterFailed: the head refuses it.
        """
        answer = httpx.put(f"{self.dashboard}/api/serve/applications/", json=config, timeout=60)
        if not answer.is_success:
            raise ClusterFailed(f"Ray refused the application: {answer.text[-2000:]}")
        self._config = config

    def processes(self, node: str | None = None) -> list[psutil.Process]:
        """Every process of this cluster, or of one of its `nodes`."""
        found = []
        for started in (self._head, *self._nodes.values()) if node is None else (self._nodes[node],):
            with suppress(psutil.NoSuchProcess):
                if started is not None:
                    first = psutil.Process(started.pid)
                    found += [first, *first.children(recursive=True)]
        return found

    def tail(self, lines: int = 12) -> str:
        """The last lines of the log."""
        content = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return f"the end of {self.log}:\n" + "\n".join(content[-lines:])

    def url_of(self, node: str) -> str:
        """Of the application, through the proxy of one of its `nodes` (`proxy_location: EveryNode`)."""
        return f"http://{LOOPBACK}:{self._proxy_ports[node]}"

    def _key_file(self) -> str | None:
        """For Ray's proxy, which does not see the `args` of the application."""
        auth = AuthSettings.model_validate(self._config["applications"][0]["args"]["auth"])
        return str(auth.file.expanduser()) if auth.mode == "keys" else None

    def _start_head(self) -> None:
        assert self._folder is not None
        self._head = self._ray_start(
            "--head", f"--port={self._gcs_port}", f"--temp-dir={self._folder}",
            "--include-dashboard=true", f"--dashboard-host={LOOPBACK}",
            f"--dashboard-port={self.dashboard.rpartition(':')[2]}", f"--ray-client-server-port={free_port()}",
            *(f"--{name}={count}" for name, count in self._resources.items() if count is not None),
        )  # fmt: skip
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            self._require_head()
            with suppress(httpx.HTTPError):
                if httpx.get(f"{self.dashboard}/api/serve/applications/", timeout=5).is_success:
                    return
            time.sleep(POLL_S)
        raise ClusterFailed(f"the Ray head did not answer within 60 s; {self.tail()}")

    def _start_node(self, name: str) -> Child:
        cpus = self._resources["num-cpus"]
        return self._ray_start(
            f"--address={self.address}", f"--labels=node={name}", "--num-gpus=0",
            *([] if cpus is None else [f"--num-cpus={cpus}"]),
            differs={"RAY_SERVE_WORKER_PROXY_HTTP_PORT": str(self._proxy_ports[name]), **self._differs.get(name, {})},
        )  # fmt: skip

    def _wait_for_nodes(self) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if self._nodes_alive() == 1 + len(self._nodes):
                return
            time.sleep(POLL_S)
        raise ClusterFailed(f"the nodes {', '.join(self._nodes)} did not join within 60 s; {self.tail()}")

    def _nodes_alive(self) -> int:
        with suppress(httpx.HTTPError):
            answer = httpx.get(f"{self.dashboard}/nodes?view=summary", timeout=5)
            if answer.is_success:
                return sum(node["raylet"].get("state") == "ALIVE" for node in answer.json()["data"]["summary"])
        return 0

    def _ray_start(self, *options: str, differs: Mapping[str, str] | None = None) -> Child:
        command = [
            str(Path(sys.executable).parent / "ray"), "start", "--block", "--disable-usage-stats",
            f"--node-ip-address={LOOPBACK}", "--dashboard-agent-listen-port=0", *options,
        ]  # fmt: skip
        self.log.parent.mkdir(parents=True, exist_ok=True)
        environment = {name: value for name, value in self.environment.items() if name != "RAY_ADDRESS"}
        with self.log.open("ab") as output:
            return Child(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**environment, **(differs or {})},
            )

    def _answers(self) -> bool:
        trusted = ssl.create_default_context(cafile=self.certificate) if self.certificate else True
        with suppress(httpx.HTTPError):
            return httpx.get(f"{self.url}/readyz", timeout=5, verify=trusted).is_success
        return False

    def _require_head(self) -> None:
        if self._head is not None and self._head.poll() is not None:
            raise ClusterFailed(f"the Ray head ended with {self._head.returncode}; {self.tail()}")

    def _stop(self) -> None:
        """End the head and what it started, however the start went."""
        for each in (*self._nodes.values(), self._head):
            if each is not None:
                each.end()
        if self._folder is not None:
            self._keep_replica_logs(self._folder)
            shutil.rmtree(self._folder, ignore_errors=True)
        self._head = None
        self._nodes = dict.fromkeys(self._nodes)

    def _keep_replica_logs(self, folder: Path) -> None:
        """Add what replicas and controller wrote to the log, before Ray's own folder goes.

        A process that dies of a signal says where on standard error.
        """
        logs = folder.glob("session_2*/logs/serve/*.log"), folder.glob("session_2*/logs/worker-*.err")
        with self.log.open("ab") as output:
            for part in (each for kind in logs for each in sorted(kind)):
                if content := part.read_bytes()[-LARGEST_REPLICA_LOG:]:
                    output.write(f"\n--- {part.name}\n".encode() + content)


def free_port() -> int:
    """A port on loopback that was free a moment ago.

    It is not one of those that the system gives to outgoing connections, of which Ray opens hundreds before it binds.
    """
    choose = random.SystemRandom()
    while True:
        with socket.socket() as probe, suppress(OSError):
            probe.bind((LOOPBACK, choose.randrange(*OWN_PORTS)))
            return int(probe.getsockname()[1])


def _reason(application: Mapping[str, Any]) -> str:
    failed = [
        f"{name}: {entry['message']}"
        for name, entry in application.get("deployments", {}).items()
        if entry.get("message") and entry["status"] not in ("HEALTHY", "UPDATING")
    ]
    return "; ".join([str(application.get("message", "")), *failed])[-3000:]
