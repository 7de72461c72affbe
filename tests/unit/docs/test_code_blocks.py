"""Every command of the pages is run, here or against a cluster (tests/e2e/test_pages.py), or there is a reason.

A command that is not run is at least parsed: the program's own parser has to accept it as it stands.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pages import QUICK_STARTS, ROOT, Command, all_pages, blocks, commands, runs_on_a_cluster

KNOWN_LANGUAGES = {"bash", "python", "json", "yaml", "javascript", ""}  # "": a drawing, or a header of HTTP

# Commands that need no cluster and are quick: run as they stand, and what they have to print.
RUN_HERE = {
    "python -m training.corpora": "IEMOCAP",
    "python -m training.corpora tests/data/emotion/emogator.tsv": "utterances",
    "python -m models.weights verify": "",
    "python -m load_tests plan --devices 1_000_000 --slo-p99-ms 3000": "replicas",
    "python -m load_tests plan --devices 100_000 --slo-p99-ms 3000": "16 nodes",
    "python -m edge_sim tests/data/speech/librispeech/*.flac --radio wifi lte --transport klt:standard opus:16k": "lte",
    "python -m benchmarks.transport --manifest tests/data/speech/librispeech.tsv --limit 4": "klt",
}
# Not run, and why; the first that matches counts.
NOT_RUN = {
    r"make (demo|setup|test)": "installs packages, or runs this very test",
    r"source .venv/bin/activate": "a setting of the reader's shell",
    r"export AMSER_KEY=.*": "makes a key of the reader's; tests/unit/deployments/test_keys.py makes some",
    r"python -m deployments\.access .*": "changes the reader's keys; tests/unit/deployments/test_keys.py runs it",
    r"export \w+=\S+": "a setting of the reader's shell",
    r"(ray|serve) .*": "needs a Ray head of its own on Ray's ports; tests/conftest.py deploys the same files",
    r"locust .*": "serves a web page until it is stopped; tests/unit/load_tests run the same file",
    r"pytest .*": "runs tests that are run anyway",
    r"python -m demo --keep": "serves until Ctrl-C; tests/unit/benchmarks/test_demo.py runs the demo",
    r"python -m models.weights fetch.*": "needs a network where something is missing",
    r"python -m training.corpora ravdess .*": "RAVDESS must be downloaded by the reader",
    r"python -m training.evaluate .*": "takes a minute of the recogniser; tests/unit/training run it",
    r"python -m training\.(train|adapt) .*": "takes hours, and a corpus of the reader's",
    r"python -m training\.short_context .*": "takes an hour, and corpora of the reader's",
    r"python -m load_tests run soak .*": "takes half an hour, and Ray's dashboard",
    r"python -m load_tests capacity .*": "takes minutes; tests/unit/load_tests search a capacity",
    r"python -m benchmarks\..*": "takes minutes to hours",
    r"python -m tests\.fuzz .*": "takes an hour; tests/unit/test_fuzz.py runs it for a moment",
}


def why_not(command: Command) -> str | None:
    return next((reason for rule, reason in NOT_RUN.items() if re.fullmatch(rule, command.line)), None)


ALL = [command for page in all_pages() for command in commands(page)]
OF_QUICK_STARTS = [command for command in ALL if command.page in QUICK_STARTS]


@pytest.mark.parametrize("page", all_pages())
def test_every_block_is_of_a_language_that_a_test_knows(page: str) -> None:
    assert {block.language for block in blocks(page)} <= KNOWN_LANGUAGES


def test_python_of_the_pages_is_in_quick_starts_alone_where_a_test_runs_it() -> None:
    assert {block.page for page in all_pages() for block in blocks(page) if block.language == "python"} <= {
        *QUICK_STARTS
    }


@pytest.mark.parametrize("command", OF_QUICK_STARTS, ids=str)
def test_a_command_of_a_quick_start_is_run_or_there_is_a_reason(command: Command) -> None:
    assert command.line in RUN_HERE or runs_on_a_cluster(command) or why_not(command), "no rule for this command"


def test_what_is_to_be_run_stands_on_a_page() -> None:
    assert set(RUN_HERE) <= {command.line for command in ALL}


# --- Run --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("line", "printed"), RUN_HERE.items(), ids=list(RUN_HERE))
def test_a_command_that_needs_no_cluster_does_what_the_page_says(line: str, printed: str, tmp_path: Path) -> None:
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", line],
        cwd=tmp_path,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "COLUMNS": "160"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert printed in done.stdout


# --- Parsed -----------------------------------------------------------------------------------------------------------


OF_OURS = [command for command in ALL if command.module]


@pytest.fixture(scope="module")
def wrong() -> dict[str, str]:
    """What the programs have against each command line; empty where they accept it."""
    lines = list({command.line: command.words[2:] for command in OF_OURS}.items())
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(ROOT / "tests" / "support" / "parse_commands.py")],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        input=json.dumps([words for _, words in lines]),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return dict(zip((line for line, _ in lines), json.loads(done.stdout), strict=True))


@pytest.mark.parametrize("command", OF_OURS, ids=str)
def test_a_program_accepts_the_arguments_that_a_page_gives_it(command: Command, wrong: dict[str, str]) -> None:
    assert wrong[command.line] == ""


@pytest.mark.parametrize("command", [command for command in ALL if command.words[0] == "make"], ids=str)
def test_make_knows_the_target_that_a_page_names(command: Command) -> None:
    targets = re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert command.words[1] in targets


@pytest.mark.skipif(shutil.which("make") is None, reason="no make on this machine")
def test_make_bench_runs_commands_of_the_page_of_benchmarks() -> None:
    names = ("DATA=AMSER_DATA", "RESULTS=ROWS", "BIN=BIN")
    planned = subprocess.run(["make", "-n", "bench", *names], cwd=ROOT, capture_output=True, text=True, check=True)
    plain = (
        planned.stdout.replace("\\\n", " ")
        .replace("ROWS/", "")
        .replace("BIN/", "")
        .replace("AMSER_DATA", "$AMSER_DATA")
    )
    lines = {" ".join(line.split()) for line in plain.splitlines()}
    measuring = {line for line in lines if re.search(r"python -m (benchmarks|training)", line)}
    assert len(measuring) > 10
    assert measuring <= {command.line for command in commands("docs/benchmarks.md")}


OTHERS = [command for command in ALL if command.words[0] in ("ray", "serve", "locust", "pytest")]


@pytest.mark.parametrize("command", OTHERS, ids=str)
def test_files_that_other_programs_are_given_exist(command: Command) -> None:
    files = [word for word in command.words[1:] if re.search(r"\.(py|yaml)$", word)]
    assert [file for file in files if not (ROOT / file).is_file()] == []
