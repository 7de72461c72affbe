"""The command line that all benchmarks share: where rows go, and how a run ends.

A benchmark that cannot begin, or is interrupted, ends in one line on standard error: `benchmarks.asr: no manifest …`.
Exit codes: 0 measured, 1 something failed on the way, 2 wrong usage or something is missing, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from pathlib import Path
from typing import Final, Protocol

from amser.errors import SignalError
from benchmarks.measuring.manifest import ManifestError
from deployments.local_cluster import ClusterFailed
from load_tests.report.output import check_writable
from models.weights import UnknownModel, WeightsMissing, model_path
from training.corpora.manifest import ManifestError as CorpusError

FAILED, USAGE, INTERRUPTED = 1, 2, 130  # exit codes
RESULTS: Final = Path("runs")  # where rows go that are not sent elsewhere
CONVERSATION: Final = "sample-conversation"  # in the catalogue of weights: what the simulated devices say
MISSING: Final = (ManifestError, CorpusError, SignalError, WeightsMissing, UnknownModel)


class Main(Protocol):
    """The entry point of a benchmark."""

    def __call__(self, arguments: Sequence[str] | None = None) -> None:
        """Runs it with these arguments, or those of the process."""


class CannotBegin(Exception):  # noqa: N818 - an error by its base class
    """What the command line asks for cannot be measured. One line says why."""


class NothingMeasured(RuntimeError):  # noqa: N818 - an error by its base class
    """The system under test answered nothing. One line says why."""


def benchmark(name: str) -> Callable[[Main], Main]:
    """Decorates `main` of a benchmark so that it ends in one line where it cannot go on."""

    def decorate(main: Main) -> Main:
        @wraps(main)
        def run(arguments: Sequence[str] | None = None) -> None:
            try:
                main(arguments)
                return
            except KeyboardInterrupt:
                why, code = "interrupted", INTERRUPTED
            except (CannotBegin, *MISSING) as error:
                why, code = str(error), USAGE
            except (NothingMeasured, ClusterFailed, OSError) as error:
                why, code = str(error), FAILED
            # Not within `except`: once the frames of `main` are gone, their bars are too
            print(f"benchmarks.{name}: {why}", file=sys.stderr)
            raise SystemExit(code)

        return run

    return decorate


def parser(name: str, documentation: str | None, *, plot: bool = False) -> argparse.ArgumentParser:
    """A parser with `--json`.

    Args:
        name: of the benchmark.
        documentation: of its module; the first line describes the command.
        plot: whether a picture goes beside the rows.
    """
    first_line = (documentation or "").split("\n")[0]
    made = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=first_line)
    beside = "; a plot goes beside it" if plot else ""
    made.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        default=RESULTS / f"{name}.json",
        help=f"where the rows go{beside} (default: %(default)s)",
    )
    return made


def add_log(made: argparse.ArgumentParser, name: str) -> None:
    """`--log`, for a benchmark that starts a cluster."""
    made.add_argument(
        "--log", type=Path, metavar="FILE", default=RESULTS / f"{name}.log", help="what Ray prints (%(default)s)"
    )


def parse(made: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options, once it is sure that rows and log can be written.

    Raises:
        CannotBegin: they cannot.
    """
    options = made.parse_args(arguments)
    for option in ("json", "log"):
        if file := getattr(options, option, None):
            try:
                check_writable(file)
            except OSError as error:
                raise CannotBegin(f"--{option} {file} cannot be written: {error.strerror}") from None
    return options


def require_weights(names: Iterable[str]) -> None:
    """Asks for models before the work that needs them. Raises WeightsMissing, UnknownModel."""
    for name in names:
        model_path(name)
