"""Where the weights come from: `python -m models.weights {list,fetch,verify}`, and `model_path` for the stages.

Serving never downloads. A stage asks `model_path("whisper-base")` and gets a folder whose files are the ones that the
catalogue (`weights.yaml`) names by SHA-256, or an error that holds the command that brings them. This module is the
command; `store` keeps the folder, `sources` brings files, `catalogue` is the schema.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from models.weights.catalogue import CATALOGUE, CatalogueError, Model, load
from models.weights.store import (
    FetchFailed,
    UnknownModel,
    default_store,
    fetch,
    lookup,
    remedy,
    unverified,
    verify,
)

LIST_WIDTH = 120  # columns at least: a narrower table breaks every description into a tower of words
OK, WRONG, USAGE, INTERRUPTED = 0, 1, 2, 130  # exit codes


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m models.weights`: 0 all is well, 1 a file is wrong or missing, 2 wrong usage, 130 stopped."""
    options = _parser().parse_intermixed_args(arguments)
    console = Console(highlight=False, soft_wrap=True)
    try:
        models = load(options.catalogue)
        for name in options.names:
            lookup(name, options.catalogue)
    except (CatalogueError, UnknownModel) as error:
        print(f"weights: {error}", file=sys.stderr)
        return USAGE
    store: Path = options.store or default_store()
    if options.command == "list":
        return _list(models, store, options.names or list(models), console)
    if options.command == "fetch":
        names = options.names or [name for name, model in models.items() if model.default]
        return _fetch(names, store, options, console)
    names = options.names or [name for name, model in models.items() if model.default or (store / name).exists()]
    return _verify(names, store, options.catalogue, console)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m models.weights",
        description="Weights, pinned by SHA-256: list what there is, fetch it once, verify what lies on disk.",
        epilog="Exit codes: 0 all is well, 1 a file is wrong or missing, 2 wrong usage.",
    )
    parser.add_argument("command", choices=["list", "fetch", "verify"])
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="models; without: list all, fetch the default set, verify the default set and what was fetched",
    )
    parser.add_argument(
        "--store",
        type=Path,
        metavar="DIR",
        help="where the models lie (default: weights/ in $AMSER_CACHE, $XDG_CACHE_HOME/amser or ~/.cache/amser)",
    )
    parser.add_argument(
        "--from",
        dest="mirror",
        metavar="DIR|URL",
        help="take models from the sub-folders of this folder or http(s) URL first (default: $AMSER_WEIGHTS_FROM)",
    )
    parser.add_argument("--catalogue", type=Path, default=CATALOGUE, metavar="FILE", help="another catalogue")
    return parser


def _list(models: Mapping[str, Model], store: Path, names: Sequence[str], console: Console) -> int:
    table = Table(box=None, pad_edge=False)
    for column in ("model", "default", "state", "size", "licence"):
        table.add_column(column, justify="right" if column == "size" else "left", no_wrap=True)
    table.add_column("what it is")
    for name in names:
        model = models[name]
        state = unverified(model, store / name) or "fetched"
        size = decimal(model.bytes)
        table.add_row(name, "yes" if model.default else "", state, size, model.licence, escape(model.description))
    console.width = max(console.width, LIST_WIDTH)
    console.print(table)
    console.print(f"store: {escape(str(store))}")
    return OK


def _fetch(names: Sequence[str], store: Path, options: argparse.Namespace, console: Console) -> int:
    code = OK
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    bars = Progress(*columns, TimeRemainingColumn(), console=console, transient=True, disable=not console.is_terminal)
    with bars:
        for name in names:
            bar = bars.add_task(name, total=None)

            def progress(done: int, total: int, bar: TaskID = bar) -> None:
                bars.update(bar, completed=done, total=total)

            try:
                done = fetch(name, store, options.catalogue, options.mirror, progress)
                console.print(f"{name}: {escape(done)}")
            except (FetchFailed, OSError) as error:  # OSError: the store cannot be written
                console.print(f"[red]{escape(str(error))}[/red]")
                code = WRONG
            except KeyboardInterrupt:
                console.print(f"{name}: interrupted; the same command continues")
                return INTERRUPTED
            finally:
                bars.remove_task(bar)
    console.print(f"store: {escape(str(store))}")
    return code


def _verify(names: Sequence[str], store: Path, catalogue: Path, console: Console) -> int:
    code = OK
    for name in names:
        with console.status(f"hashing {name}"):
            faults = verify(name, store, catalogue)
        if faults:
            code = WRONG
            console.print(f"[red]{name}: {escape('; '.join(faults))}[/red]")
            console.print(f"  Bring it with: {escape(remedy(name, store))}")
        else:
            console.print(f"{name}: every file is right")
    return code


if __name__ == "__main__":
    sys.exit(main())
