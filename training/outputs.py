"""Files that the commands of training write: never over one that exists unless that is asked for."""

from __future__ import annotations

from pathlib import Path

RUNS = Path("runs")  # where results go by default: in the current folder, never in the package


class OutputExists(FileExistsError):  # noqa: N818 - an error by its base class
    """The file that a command is to write exists already."""


def new_file(path: Path, force: bool) -> Path:
    """The same path, if it may be written; asked before the work whose result it is to hold.

    Args:
        path: what will be written.
        force: whether a file that is there may be replaced.

    Raises:
        OutputExists: the file is there and `force` is not given, or it is a folder.
    """
    if path.is_dir():
        raise OutputExists(f"{path} is a folder")
    if path.exists() and not force:
        raise OutputExists(f"{path} exists; --force replaces it, another name keeps it")
    return path
