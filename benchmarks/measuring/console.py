"""What the benchmarks print: tables that are legible at 80 columns, and progress on standard error."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from rich import box
from rich.console import Console
from rich.progress import track
from rich.status import Status
from rich.table import Table

from load_tests.fleet.run import Progress

Item = TypeVar("Item")


def output() -> Console:
    """Standard output."""
    return Console(highlight=False)


def _errors() -> Console:
    """Standard error; silent where it is no terminal: bars are of no use in a log."""
    console = Console(stderr=True)
    console.quiet = not console.is_terminal
    return console


def progress(items: Iterable[Item], label: str, total: int | None = None) -> Iterable[Item]:
    """The items, with a bar on standard error."""
    return track(items, label, total=total, console=_errors(), transient=True)


def status(label: str) -> Status:
    """A line on standard error while something lasts; a context manager."""
    return _errors().status(label)


@contextmanager
def run_status(label: str) -> Iterator[Callable[[Progress], None]]:
    """What `run_scenario` tells its progress to: a line on standard error."""
    with status(label) as shown:
        yield lambda progress: shown.update(f"{label}: {progress}")


def table(title: str, columns: Sequence[str], words: int = 1) -> Table:
    """An empty table.

    Args:
        title: above it.
        columns: their names; those of numbers break where they have a line feed.
        words: so many columns from the left hold words, which wrap; the others hold numbers, which do not.
    """
    made = Table(
        box=box.SIMPLE_HEAD, title=title, title_justify="left", show_edge=False, pad_edge=False, padding=(0, 1, 0, 0)
    )
    for position, name in enumerate(columns):
        made.add_column(name, justify="left" if position < words else "right", no_wrap=position >= words)
    return made
