"""`python -m demo`, which is what `make demo` runs: start the cluster, let devices send speech, show the answers."""

from __future__ import annotations

import argparse
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, NoReturn, Protocol
from urllib.parse import urlsplit

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn

from amser.client.commands.terminal import FAILED, INTERRUPTED, OK, Parser, columns, complain
from demo.fleet import Result, speak
from demo.report import picture, summarize, summary_table, turns_table
from deployments.local_cluster import ClusterFailed, LocalCluster
from edge_sim.conversation import load_conversation
from models.weights import WeightsMissing, cache_folder, model_path

TERMINATED: Final = 143  # exit code
MOST_DEVICES: Final = 64
MOST_SECONDS: Final = 600
LINES_SHOWN: Final = 12  # of a reason, and of the log, where the cluster does not start


class Cluster(Protocol):
    """What the demo needs of `LocalCluster` once it was entered."""

    url: str

    def wait_until_ready(
        self, timeout_s: float = ..., progress: Callable[[dict[str, str]], None] | None = ...
    ) -> None: ...


Start = Callable[[argparse.Namespace], AbstractContextManager[Cluster]]


class PortTaken(RuntimeError):  # noqa: N818 - an error by its base class
    """Something else listens where the cluster would."""


def main(arguments: Sequence[str] | None = None, start: Start | None = None) -> int:
    """Runs the demo; returns its exit code.

    Args:
        arguments: of the command line.
        start: what makes the cluster; a `LocalCluster` if None.
    """
    options = _parser().parse_args(arguments)
    console = Console(highlight=False, record=options.svg is not None, width=columns())
    signal.signal(signal.SIGTERM, _terminate)
    try:
        return _run(options, console, start or _local_cluster)
    except KeyboardInterrupt:
        console.print("Stopped. The cluster has ended.")
        return INTERRUPTED
    except (WeightsMissing, PortTaken) as error:
        return complain(str(error), program="demo")
    except ClusterFailed as error:
        _explain(error, options.log, console)
    return FAILED


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m demo",
        description="Starts a cluster on this machine, lets simulated devices speak the turns of a telephone "
        "conversation to it, and shows the words and the emotion of each turn with what it cost.",
        epilog="Exit codes: 0 every request was answered, 1 not so, 2 wrong usage, 130 stopped by Ctrl-C.",
    )
    parser.add_argument("--seconds", type=_within(MOST_SECONDS), default=20, metavar="N", help="default: %(default)s")
    parser.add_argument("--devices", type=_within(MOST_DEVICES), default=8, metavar="N", help="default: %(default)s")
    parser.add_argument("--keep", action="store_true", help="leave the cluster serving until Ctrl-C")
    parser.add_argument(
        "--port", type=int, metavar="N", help="of the API; 0 is a free one (default: serve_config.yaml)"
    )
    log = cache_folder() / "demo.log"
    parser.add_argument("--log", type=Path, default=log, metavar="FILE", help="what Ray prints (default: %(default)s)")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="write what is printed there too, as a picture")
    return parser


def _within(most: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdecimal() or not 1 <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text} is not 1 to {most}")
        return int(text)

    return number


def _local_cluster(options: argparse.Namespace) -> LocalCluster:
    cluster = LocalCluster(log=options.log, http_port=options.port)
    address = urlsplit(cluster.url)
    with socket.socket() as probe:
        if probe.connect_ex((address.hostname, address.port)) == 0:
            raise PortTaken(f"Port {address.port} is in use. Take a free one with: python -m demo --port 0")
    return cluster


def _run(options: argparse.Namespace, console: Console, start: Start) -> int:
    conversation = load_conversation(model_path("sample-conversation"))
    options.log.unlink(missing_ok=True)  # of the run before
    console.print("Starting a cluster on this machine: Ray, and the deployments of serve_config.yaml.")
    began = time.monotonic()
    with _running(start(options), console) as cluster:
        _wait_until_ready(cluster, console)
        console.print(f"Ready after {time.monotonic() - began:.0f} s.")
        console.print(
            f"{options.devices} devices speak the {len(conversation)} turns of a telephone conversation "
            f"for {options.seconds} s."
        )
        began = time.monotonic()
        with _spoken(options.seconds, console) as progress:
            results = speak(conversation, cluster.url, options.devices, options.seconds, progress)
        summary = summarize(results, conversation, time.monotonic() - began)
        console.print(turns_table(results, conversation, console.width))
        docs = f"{cluster.url}/docs" + ("" if options.keep else ", as long as the cluster serves: see below")
        console.print(summary_table(summary, options.devices, docs, options.log))
        if options.svg:
            options.svg.write_text(picture(console), encoding="utf-8")
        if options.keep:
            console.print("\nServing until Ctrl-C.")
            threading.Event().wait()
    console.print("\nThe cluster has ended. To leave it serving: python -m demo --keep")
    return OK if summary.answered and not summary.failures else FAILED


@contextmanager
def _running(cluster: AbstractContextManager[Cluster], console: Console) -> Iterator[Cluster]:
    """The cluster, entered; ended whatever happens, and without a second Ctrl-C leaving half of it behind."""
    with ExitStack() as stack:
        with console.status("starting Ray"):
            entered = stack.enter_context(cluster)
        try:
            yield entered
        finally:
            before = [(name, signal.signal(name, signal.SIG_IGN)) for name in (signal.SIGINT, signal.SIGTERM)]
            with console.status("ending the cluster"):
                stack.close()
            for name, handler in before:
                signal.signal(name, handler)


def _wait_until_ready(cluster: Cluster, console: Console) -> None:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[waiting]}"))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        bar = bars.add_task("deployments", total=None, waiting="")

        def show(deployments: dict[str, str]) -> None:
            waiting = [name for name, status in deployments.items() if status != "HEALTHY"]
            count = len(deployments)
            bars.update(bar, completed=count - len(waiting), total=count or None, waiting=", ".join(waiting))

        cluster.wait_until_ready(progress=show)


@contextmanager
def _spoken(seconds: int, console: Console) -> Iterator[Callable[[Sequence[Result]], None]]:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    began = time.monotonic()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        bar = bars.add_task("speaking", total=seconds)

        def show(results: Sequence[Result]) -> None:
            elapsed = time.monotonic() - began
            failed = sum(result.failure is not None for result in results)
            what = f"{len(results) - failed} answers" + (f", {failed} failed" if failed else "")
            bars.update(bar, completed=min(elapsed, seconds), description=what)

        yield show


def _explain(error: ClusterFailed, log: Path, console: Console) -> None:
    """The end of the reason and of the log; both in full go into the log."""
    reason = str(error)
    written = log.read_text(errors="replace") if log.is_file() else ""
    console.print("The cluster did not start:", style="red")
    console.print(_end_of(reason), markup=False, soft_wrap=True)
    if str(log) not in reason:  # else its end is part of the reason
        console.print(f"\nThe end of the log:\n{_end_of(written)}", markup=False, soft_wrap=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text(f"{written}\n{reason}\n")
    console.print(f"\nAll of it: {log}", markup=False, soft_wrap=True)


def _end_of(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines()[-LINES_SHOWN:])


def _terminate(*_: Any) -> NoReturn:
    sys.exit(TERMINATED)  # through every `finally`, so that the cluster ends too


if __name__ == "__main__":
    sys.exit(main())
