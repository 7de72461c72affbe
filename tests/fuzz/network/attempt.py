"""The targets on the network, by name, and how one is run."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from types import MappingProxyType
from typing import Final

from tests.fuzz.child import Task
from tests.fuzz.findings import Findings, cause_of, earlier, stack
from tests.fuzz.network.framing import framing
from tests.fuzz.network.openapi import openapi
from tests.fuzz.network.pressure import flood, mix, slow
from tests.fuzz.network.requests import bodies, bombs_over_http, requests
from tests.fuzz.network.site import Site
from tests.fuzz.state import State

ON_THE_NETWORK: Final[MappingProxyType[str, Callable[[Site], None]]] = MappingProxyType(
    {
        "openapi": openapi,
        "requests": requests,
        "bodies": bodies,
        "framing": framing,
        "bombs": bombs_over_http,
        "slow": slow,
        "flood": flood,
        "mix": mix,
    }
)


def on_the_network(task: Task) -> None:
    """Runs a target until its time is over; first it sends what failed once."""
    findings = Findings(task.folder, task.run, task.target)
    site = Site(task.url, findings, State(task.state), Random(task.seed), task.deadline)
    try:
        if task.replay:
            for data in earlier(task.folder, task.target):
                site.ask(data, "sent again", data.partition(b" ")[0].decode("latin-1"))
        ON_THE_NETWORK[task.target](site)
    except Exception as error:  # of the tool itself: it is seen, and the other targets go on
        findings.add("crash", f"the tool: {cause_of(error)}", stack(error))
    finally:
        findings.close()
