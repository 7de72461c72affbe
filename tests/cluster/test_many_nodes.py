"""Several nodes on real Ray, over stand-ins: a node has its own clock, its own weights and its own proxy, and for a
while its own version of the code.

The real stages run on two nodes in test_drills.py. The head imports this file as `test_many_nodes:build`.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import yaml
from drills import actors, kill, until
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from nodes import ANOTHER_CLOCK, another_cache, another_clock
from ray import serve
from ray.serve.handle import DeploymentHandle

from deployments import pipeline
from deployments.gateway.utterances.answers import refusal
from deployments.local_cluster import LocalCluster
from deployments.replica import calls
from deployments.replica.calls import RemoteStage
from deployments.replica.deadline import NEVER, after, remaining
from deployments.replica.execution import Timed
from deployments.replica.weights import on_this_node
from models.resolve import Wanted, wanted
from models.weights import model_path

SECOND: Final = "second"
WEIGHTS: Final = "spacy-en-core-web-md"
NOT_THERE: Final = "all-minilm-l6-v2"  # not on the second node
WITHIN_S: Final = 5.0
CLIENTS: Final = 4

api = FastAPI()


class Doubling(RemoteStage):
    """A stage with weights, which speaks the version that it is told."""

    def __init__(self, weights: Wanted, version: int) -> None:
        calls.VERSION = version  # of this process
        self._found = str(on_this_node(weights))

    async def double(self, number: int, deadline: float = NEVER) -> Timed[dict[str, Any]]:
        told = {"doubled": 2 * number, "weights": self._found, "left_s": remaining(deadline), "wall_s": time.time()}
        return Timed(told, 0.0)


@serve.deployment(name="Ingress")
@serve.ingress(api)
class Gateway:
    def __init__(self, stage: DeploymentHandle, version: int) -> None:
        calls.VERSION = version
        self._double = pipeline._elsewhere(stage, "double")
        self._version = version

    @api.get("/readyz")
    async def readyz(self) -> str:
        return "ready"

    # Ray pickles the class by value, without the names that stand in annotations alone
    @api.post("/double/{number}", response_model=None)
    async def double(self, number: int) -> object:
        try:
            answer = await self._double(number, deadline=after(WITHIN_S))
        except Exception as error:
            refused = refusal(error, WITHIN_S, 1)
            return JSONResponse({"cause": repr(error)}, 500 if refused is None else refused.status.value)
        return {**answer.value, "version": self._version}


def build(args: dict[str, Any]) -> serve.Application:
    """The stage on the second node."""
    stage: Any = serve.deployment(Doubling)
    gateway: Any = Gateway
    placed = stage.options(ray_actor_options={"num_cpus": 0.1, "label_selector": {"node": SECOND}})
    bound = placed.bind(wanted(args["weights"]), args["version"])
    application: serve.Application = gateway.options(ray_actor_options={"num_cpus": 0.1}).bind(bound, args["version"])
    return application


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """The second node keeps its weights elsewhere, and not all of them, and its clocks are wrong."""
    for name in (WEIGHTS, NOT_THERE):
        model_path(name)  # where it is missing: an error that names the command, before a cluster starts
    here, folder = Path(__file__), tmp_path_factory.mktemp("nodes")
    python_path = f"{here.parents[2]}:{here.parents[1] / 'support'}:{here.parent}"
    cache, clock = another_cache(folder, WEIGHTS), another_clock(folder)
    second = {"AMSER_CACHE": str(cache), "PYTHONPATH": f"{clock}:{python_path}"}
    deployment = {"num_replicas": 2, "max_ongoing_requests": 20, "graceful_shutdown_wait_loop_s": 0.5}
    application = {
        "name": "amser",
        "route_prefix": "/",
        "import_path": "test_many_nodes:build",
        "args": {"version": 1, "weights": WEIGHTS},
        "deployments": [{"name": name, **deployment} for name in ("Ingress", "Doubling")],
    }
    config = folder / "serve_config.yaml"
    http_options = {"host": "127.0.0.1", "request_timeout_s": 20}
    config.write_text(
        yaml.safe_dump({"proxy_location": "EveryNode", "http_options": http_options, "applications": [application]})
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", python_path)
        patch.setenv("RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S", "1")  # one that died is replaced after 3 s, not after 30
        log = folder / "cluster.log"
        with LocalCluster(config, log=log, num_gpus=0, num_cpus=2, http_port=0, nodes={SECOND: second}) as running:
            running.wait_until_ready(90)
            yield running


def redeploy(cluster: LocalCluster, **args: object) -> None:
    config = cluster.config
    config["applications"][0]["args"] |= args
    cluster.deploy(config)


def ask(url: str, number: int = 21) -> dict[str, Any]:
    response = httpx.post(f"{url}/double/{number}", timeout=30)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def answers(url: str) -> bool:
    """Whether a proxy listens there, and the application answers through it."""
    with suppress(httpx.TransportError):
        return bool(ask(url)["doubled"] == 42)
    return False


def test_a_stage_on_another_node_has_its_own_weights_and_the_time_that_is_left(cluster: LocalCluster) -> None:
    answer = ask(cluster.url)
    assert answer["doubled"] == 42
    assert answer["weights"].endswith(f"/cache/weights/{WEIGHTS}")
    assert answer["weights"] != str(model_path(WEIGHTS))
    assert answer["wall_s"] - time.time() == pytest.approx(ANOTHER_CLOCK["wall_s"], abs=10)
    assert WITHIN_S - 1 < answer["left_s"] < WITHIN_S + 0.1


def test_the_proxy_of_every_node_answers_also_without_that_of_the_head(cluster: LocalCluster) -> None:
    until(lambda: answers(cluster.url_of(SECOND)), 60, "a proxy on the second node")
    (of_second,) = actors(cluster, "ProxyActor", SECOND)
    (of_head,) = [each for each in actors(cluster, "ProxyActor") if each.pid != of_second.pid]
    kill(of_head)
    with pytest.raises(httpx.TransportError):
        ask(cluster.url)
    assert ask(cluster.url_of(SECOND))["doubled"] == 42
    cluster.wait_until_ready(60)  # it is replaced


def test_messages_of_another_version_are_rolled_out_and_no_request_is_lost(cluster: LocalCluster) -> None:
    """Gateways and stages are replaced side by side, so for a while neither understands every replica of the other."""
    statuses, versions, stop = Counter[int](), Counter[int](), time.monotonic() + 60

    def keep_asking(first: int) -> int:
        """As a device does: what is refused for now is sent again. The number of requests that were answered."""
        answered, done = 0, False
        with httpx.Client(base_url=cluster.url, timeout=30) as client:
            while not done and time.monotonic() < stop:
                number = first + answered
                done = versions[2] > 20 and answered % 10 == 0
                while True:
                    response = client.post(f"/double/{number}")
                    statuses[response.status_code] += 1
                    if response.status_code == 200:
                        break
                    assert response.status_code == 503, response.text
                    time.sleep(0.1)
                assert response.json()["doubled"] == 2 * number
                versions[response.json()["version"]] += 1
                answered += 1
        return answered

    with ThreadPoolExecutor(CLIENTS) as clients:
        answered = [clients.submit(keep_asking, 1000 * number) for number in range(CLIENTS)]
        until(lambda: versions[1] > 20, 20, "requests under way")
        redeploy(cluster, version=2)
        total = sum(each.result() for each in answered)
    assert statuses[200] == total == sum(versions.values())
    assert versions[1] > 20
    assert versions[2] > 20
    cluster.wait_until_ready(60)


def test_a_replica_on_a_node_without_the_weights_fails_and_says_which_and_what_to_do(cluster: LocalCluster) -> None:
    redeploy(cluster, weights=NOT_THERE)

    def told() -> str:
        return str(cluster.status().get("deployments", {}).get("Doubling", {}).get("message", ""))

    until(lambda: "WeightsMissing" in told(), 60, "a message of the replica")
    assert re.search(rf"on node \S+ \([0-9.]+, [0-9a-f]{{12}}\): {NOT_THERE}: not fetched", told())
    assert f"python -m models.weights fetch {NOT_THERE}" in told()
