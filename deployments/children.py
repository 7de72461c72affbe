"""Child processes that end together with all that they have started, also where this program is killed.

A watcher has a pipe from this program as its standard input, which the kernel closes however the program ends. Linux's
parent-death signal would not do: it comes when the *thread* ends that started the child, and reaches the child alone.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from typing import Any, Final

import psutil

ENDS_WITHIN_S: Final = 6.0  # by itself, once it was asked to
DIES_WITHIN_S: Final = 5.0  # when it is killed


class Child(subprocess.Popen[bytes]):
    """A child in a session of its own: Ctrl-C reaches us alone, and we end what we started in order.

    Args:
        command: the program and its arguments.
        options: further ones of `subprocess.Popen`.
    """

    def __init__(self, command: list[str], **options: Any) -> None:
        super().__init__(command, start_new_session=True, **options)
        watcher = [sys.executable, "-P", __file__, str(self.pid)]
        self._watcher = subprocess.Popen(
            watcher, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True
        )

    def end(self) -> None:
        """Ends it and its descendants."""
        with suppress(psutil.NoSuchProcess):
            _end_tree(psutil.Process(self.pid))
        self.wait()
        self._watcher.communicate()


def _end_tree(root: psutil.Process) -> None:
    """Asks a process to end, and kills what is left of it and of its descendants."""
    processes = [root, *root.children(recursive=True)]
    root.terminate()
    with suppress(psutil.TimeoutExpired):
        root.wait(ENDS_WITHIN_S)
    _, alive = psutil.wait_procs(processes, timeout=DIES_WITHIN_S)
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=DIES_WITHIN_S)


def _watch(pid: int) -> None:
    """Returns when the child has ended, or this process's parent has and the child after it."""
    with suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        sys.stdin.buffer.read()
        if root.is_running():
            _end_tree(root)


if __name__ == "__main__":
    _watch(int(sys.argv[1]))
