"""What README and quick starts do with a running cluster, done with one: requests, Python, `amser`, load tests."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from pages import ELSEWHERE, QUICK_STARTS, ROOT, Block, Command, blocks, commands

from deployments.local_cluster import LocalCluster

SAID = "window"  # in the recording that the pages send
OBJECTIVE_MISSED = 3  # exit code of a load test; on a busy machine that is right

Run = Callable[..., subprocess.CompletedProcess[str]]
ALL = [command for page in QUICK_STARTS for command in commands(page)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where commands run: recordings are where the pages say, and what is written stays out of the clone."""
    folder = tmp_path_factory.mktemp("reader")
    (folder / "tests").symlink_to(ROOT / "tests")
    return folder


@pytest.fixture
def run(cluster: LocalCluster, folder: Path) -> Run:
    """Runs a line of a page in a shell, against this cluster in place of the page's."""

    def run(line: str, input: str = "") -> subprocess.CompletedProcess[str]:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return subprocess.run(
            ["bash", "-c", line.replace(ELSEWHERE, cluster.url)],
            cwd=folder,
            env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "COLUMNS": "160", "NO_PROXY": "*"},
            input=input,
            capture_output=True,
            text=True,
        )

    return run


def of(*beginnings: str) -> list[Command]:
    return [command for command in ALL if command.line.startswith(beginnings)]


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl on this machine")
@pytest.mark.parametrize("command", of("curl"), ids=str)
def test_curl_gets_what_the_page_says(command: Command, run: Run) -> None:
    done = run(command.line + " --silent --show-error --fail")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    if "/v1/emotion" in command.line:
        assert SAID in answer["transcript"]["text"]
        assert answer["degraded"] == []
    elif "/readyz" in command.line:
        assert answer["status"] == "ready"
    else:
        assert "asr" in json.dumps(answer)


@pytest.mark.parametrize(
    "block",
    [block for page in QUICK_STARTS for block in blocks(page) if block.language == "python"],
    ids=lambda block: block.page,
)
def test_python_of_a_page_prints_the_words(block: Block, cluster: LocalCluster, run: Run) -> None:
    done = run("python -", input=block.content.replace(ELSEWHERE, cluster.url))
    assert done.returncode == 0, done.stderr
    assert SAID in done.stdout


@pytest.mark.parametrize("page", QUICK_STARTS)
def test_commands_of_a_device_answer_in_the_order_of_the_page(page: str, run: Run) -> None:
    for command in commands(page):
        if command.line.startswith(("python -m amser send", "python -m amser deliver", "python -m amser spool")):
            takes_url = command.words[3] in ("send", "deliver") and "--url" not in command.words
            url = f" --url {ELSEWHERE}" if takes_url else ""
            done = run(command.line + url)
            assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
            if " deliver " not in command.line:  # what `send --spool` has sent no longer waits
                assert SAID in done.stdout


@pytest.mark.parametrize("page", QUICK_STARTS)
def test_load_tests_of_a_page_write_what_it_says(page: str, run: Run, folder: Path) -> None:
    for command in commands(page):
        if command.line.startswith(("python -m load_tests run", "python -m load_tests report")):
            running = " run " in command.line and "--url" not in command.line
            done = run(command.line + (f" --url {ELSEWHERE}" if running else ""))
            assert done.returncode in (0, OBJECTIVE_MISSED), f"{command}\n{done.stdout}{done.stderr}"
            if page.endswith("load-testers.md"):
                written = {file.name for file in (folder / "runs" / "steady").iterdir()}
                assert {"report.html", "requests.csv", "latency.csv"} <= written
