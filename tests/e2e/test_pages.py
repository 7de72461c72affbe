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
from pages import ELSEWHERE, QUICK_STARTS, ROOT, Block, Command, blocks, commands, runs_on_a_cluster

from deployments.local_cluster import LocalCluster

SAID = "window"  # in the recording that the pages send
OBJECTIVE_MISSED = 3  # exit code of a load test; on a busy machine that is right

Run = Callable[..., subprocess.CompletedProcess[str]]


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


def checked(command: Command, done: subprocess.CompletedProcess[str]) -> None:
    """Fails where a command has not done what its page says."""
    shown = f"{command}\n{done.stdout}{done.stderr}"
    if command.module == "load_tests":
        assert done.returncode in (0, OBJECTIVE_MISSED), shown
        return
    assert done.returncode == 0, shown
    match command.words:
        case ["curl", *rest] if any("/v1/emotion" in word for word in rest):
            answer = json.loads(done.stdout)
            assert SAID in answer["transcript"]["text"], shown
            assert answer["degraded"] == [], shown
        case ["curl", *rest] if any("/v1/audio/transcriptions" in word for word in rest):
            assert done.stdout.startswith("WEBVTT"), shown
            assert SAID in done.stdout, shown
        case ["curl", url] if url.endswith("/readyz"):
            assert json.loads(done.stdout)["status"] == "ready", shown
        case ["curl", *_]:
            assert "whisper-base" in done.stdout, shown
        case [*_, "send" | "spool", _] | [*_, "send", _, "--spool", _, "--step", _]:
            assert SAID in done.stdout, shown
        case [*_, "batch", _, _] | [*_, "listen", "--file", _]:
            assert SAID in done.stdout, shown
        case [*_, "inspect", _]:
            assert "klt" in done.stdout, shown


@pytest.mark.slow
@pytest.mark.parametrize("page", QUICK_STARTS)
def test_commands_of_a_page_do_what_it_says(page: str, run: Run, folder: Path) -> None:
    for command in commands(page):
        if runs_on_a_cluster(command) and (command.words[0] != "curl" or shutil.which("curl")):
            line = command.line
            if line.startswith("curl"):
                line += " --silent --show-error --fail"
            elif command.words[3] in ("send", "batch", "listen", "deliver", "run") and "--url" not in command.words:
                line += f" --url {ELSEWHERE}"
            checked(command, run(line))
    if page.endswith("load-testers.md"):
        written = {file.name for file in (folder / "runs" / "steady").iterdir()}
        assert {"report.html", "requests.csv", "latency.csv"} <= written


@pytest.mark.parametrize(
    "block",
    [block for page in QUICK_STARTS for block in blocks(page) if block.language == "python"],
    ids=lambda block: block.page,
)
def test_python_of_a_page_prints_the_words(block: Block, cluster: LocalCluster, run: Run) -> None:
    done = run("python -", input=block.content.replace(ELSEWHERE, cluster.url))
    assert done.returncode == 0, done.stderr
    assert SAID in done.stdout
