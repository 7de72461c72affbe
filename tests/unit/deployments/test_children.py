"""Children end with what they started, however we do."""

from __future__ import annotations

import subprocess
import sys
import time

import psutil

from deployments.children import Child

TREE = "import subprocess, sys; p = subprocess.Popen(['sleep', '600']); print(p.pid, flush=True); p.wait()"
STARTS = f"""
import subprocess, sys
from deployments.children import Child
child = Child([sys.executable, "-c", {TREE!r}], stdout=subprocess.PIPE)
print(child.pid, child.stdout.readline().decode(), flush=True)
sys.stdin.read()
"""
WITHIN_S = 20.0


def gone(process: psutil.Process) -> bool:
    deadline = time.monotonic() + WITHIN_S
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_a_child_ends_with_its_descendants_and_its_watcher() -> None:
    child = Child([sys.executable, "-c", TREE], stdout=subprocess.PIPE)
    assert child.stdout is not None
    grandchild = psutil.Process(int(child.stdout.readline()))
    watcher = psutil.Process(child._watcher.pid)
    child.end()
    assert child.returncode is not None
    assert gone(grandchild)
    assert gone(watcher)
    child.stdout.close()


def test_children_of_a_program_that_is_killed_end_too() -> None:
    """Time limits of test runs left whole clusters behind, which took the processors from whatever came next."""
    program = subprocess.Popen([sys.executable, "-c", STARTS], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert program.stdout is not None
    started = [psutil.Process(int(pid)) for pid in program.stdout.readline().split()]
    assert len(started) == 2
    program.kill()
    program.communicate()
    assert all(gone(process) for process in started)
