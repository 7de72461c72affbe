"""What clients notice while a cluster is upgraded, or loses a part: each drill under an open loop of real utterances.

    python -m benchmarks.drills --json drills.json

Half of the devices try again for a minute, as a spool does for longer; the others are bare and send once. Lost is what
got no answer in the end. Some utterances are sent again after their answer: they get the same one, or are computed
twice.
"""

from __future__ import annotations

import argparse
import os
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import yaml
from rich.table import Table

from benchmarks.drills.devices import ANSWERED, Again, Exchange, OpenLoop, conversation, p99_ms
from benchmarks.drills.faults import (
    DRILLS,
    NODE,
    NODE_DEATH,
    OF_A_NODE,
    OF_THE_STORE,
    Scene,
    placed_on_node,
)
from benchmarks.drills.redis_server import RedisServer
from benchmarks.measuring import command
from benchmarks.measuring.cluster import CONFIGS, require_models
from benchmarks.measuring.console import output, status, table
from benchmarks.measuring.report import write_rows
from deployments.local_cluster import LocalCluster
from load_tests.commands import count, positive
from load_tests.fleet.payloads import Payloads

WARM_UP_S: Final = 6.0  # of a drill: its first utterances count for nothing
COLUMNS: Final = {
    "profile": "profile",
    "drill": "drill",
    "retrying": "retrying\nanswered",
    "attempts": "tried\nagain",
    "bare": "bare\nanswered",
    "twice": "computed\ntwice",
    "degraded": "with\nless",
    "p99_before_ms": "p99 ms\nbefore",
    "p99_during_ms": "during",
    "seconds": "s",
}


def measure(scene: Scene, drill: str, rate: float, quiet_s: float, seed: int, payloads: Payloads) -> dict[str, Any]:
    """One drill: quiet, the fault until all is as it should be, quiet."""
    with OpenLoop(scene.cluster.url, rate, seed, payloads) as load:
        time.sleep(WARM_UP_S)
        counted_from = time.monotonic()
        time.sleep(quiet_s)
        began = time.monotonic()
        DRILLS[drill](scene)
        ended = time.monotonic()
        time.sleep(quiet_s)
    if len(load.exchanges) < load.sent:
        raise command.NothingMeasured(f"{drill}: {load.sent - len(load.exchanges)} devices ended with an error")
    counted = [each for each in load.exchanges if each.scheduled_s >= counted_from]
    before = [each for each in counted if each.done_s < began]
    during = [each for each in counted if each.done_s >= began and each.scheduled_s < ended]
    return {"drill": drill, "rate": rate, "seconds": round(ended - began, 1)} | tally(counted, before, during)


def tally(counted: Sequence[Exchange], before: Sequence[Exchange], during: Sequence[Exchange]) -> dict[str, Any]:
    """What became of a drill's exchanges.

    Args:
        counted: all.
        before: those that were done before the fault.
        during: those that met it.
    """
    retrying = [each for each in counted if not each.bare]
    bare = [each for each in counted if each.bare]
    answered = [each for each in counted if each.outcome == ANSWERED]
    return {
        "sent": len(counted),
        "met": len(during),
        "lost": sum(each.outcome != ANSWERED for each in retrying),
        "lost_by": dict(Counter(each.outcome for each in retrying if each.outcome != ANSWERED)),
        "again": sum(each.again is not None for each in counted),
        "computed_twice": sum(each.again in (Again.COMPUTED, Again.CONTRADICTS) for each in counted),
        "contradicted": sum(each.again is Again.CONTRADICTS for each in counted),
        "bare": len(bare),
        "bare_answered": sum(each.outcome == ANSWERED for each in bare),
        "bare_told": dict(Counter(each.outcome for each in bare if each.outcome != ANSWERED)),
        "resends": sum(each.attempts - 1 for each in answered),
        "degraded": sum(bool(each.degraded) for each in answered),
        "p99_before_ms": _rounded(p99_ms(before)),
        "p99_during_ms": _rounded(p99_ms(during)),
    }


def rows_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """The rows as they are printed."""
    made = table("Drills: what clients notice", tuple(COLUMNS.values()), words=2)
    for row in rows:
        shown = {
            **row,
            "retrying": f"{row['sent'] - row['bare'] - row['lost']} of {row['sent'] - row['bare']}",
            "attempts": row["resends"],
            "bare": f"{row['bare_answered']} of {row['bare']}",
            "twice": f"{row['computed_twice']} of {row['again']}",
        }
        made.add_row(*(str(shown[column]) for column in COLUMNS))
    return made


@command.benchmark("drills")
def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    options = command.parse(_parser(), arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a run that `timeout` ends takes its cluster with it
    require_models(command.CONVERSATION)
    console, rows, payloads = output(), list[dict[str, Any]](), conversation()
    if not (plan := list(_by_cluster(options.profile, options.drills))):
        raise command.NothingMeasured("drills of a node are for the distributed profile alone")
    for profile, drills in plan:
        with _scene(options, profile, drills) as scene:
            for drill in drills:
                with status(drill):
                    row = measure(scene, drill, options.rate, options.quiet, options.seed, payloads)
                rows.append({"profile": profile, **row})
                console.print(
                    f"{profile}, {drill}: {row['sent']} sent, {row['lost']} lost, {row['computed_twice']} twice"
                )
                write_rows(options.json, rows)
    console.print(rows_table(rows))
    if any(row["lost"] or row["contradicted"] for row in rows):
        raise SystemExit(command.FAILED)


def _by_cluster(profiles: Sequence[str], drills: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Profiles, each with drills that share a cluster; one that takes a node away has its own, distributed alone."""
    for profile in profiles:
        if shared := [name for name in drills if name not in OF_A_NODE]:
            yield profile, shared
        if profile == "distributed":
            yield from ((profile, [name]) for name in drills if name in OF_A_NODE)


@contextmanager
def _scene(options: argparse.Namespace, profile: str, drills: Sequence[str]) -> Iterator[Scene]:
    with ExitStack() as stack:
        store = stack.enter_context(RedisServer()) if OF_THE_STORE in drills else None
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        kept = {"store": "redis", "redis_url": store.url} if store else {"folder": str(folder / "answers")}
        config = yaml.safe_load(CONFIGS[profile].read_text())
        nodes = [NODE] if set(drills) & {*OF_A_NODE} else []
        if nodes:
            stack.enter_context(patch.dict(os.environ, NODE_DEATH))
            config = placed_on_node(config)
        file = folder / "serve_config.yaml"
        file.write_text(yaml.safe_dump(config))
        cluster = LocalCluster(
            file, log=options.log, num_gpus=0, num_cpus=options.cpus, http_port=0,
            overrides={"idempotency": kept}, nodes=nodes,
        )  # fmt: skip
        with status(f"starting a cluster, {profile}"):
            stack.enter_context(cluster)
            cluster.wait_until_ready()
        yield Scene(cluster, store)


def _rounded(milliseconds: float) -> int | None:
    return None if milliseconds != milliseconds else round(milliseconds)


def _parser() -> argparse.ArgumentParser:
    parser = command.parser("drills", __doc__)
    add = parser.add_argument
    both = ["fused", "distributed"]
    add("--profile", nargs="+", choices=both, default=both, metavar="NAME", help="fused, distributed (default: both)")
    add("--drills", nargs="+", choices=list(DRILLS), default=list(DRILLS), metavar="NAME", help="default: all; of a "
        "node only distributed")  # fmt: skip
    add("--rate", type=positive, default=1.5, metavar="R", help="utterances a second (default: %(default)s)")
    add("--quiet", type=positive, default=10, metavar="S", help="before and after a fault (default: %(default)s)")
    add("--cpus", type=count, default=4, metavar="N", help="that a node claims: room for successors (%(default)s)")
    add("--seed", type=int, default=1, metavar="N", help="of the arrivals (default: %(default)s)")
    command.add_log(parser, "drills")
    return parser


if __name__ == "__main__":
    main()
