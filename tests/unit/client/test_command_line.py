"""`python -m amser` as a program: what it loads, what it says without a command, and how it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from recordings import DATA, rows

from amser.client.command_line import COMMANDS, main

FILE = DATA / rows("speech/librispeech.tsv")[0]["path"]
ROOT = Path(__file__).parents[3]
AMSER = [sys.executable, "-m", "amser"]
LOADED = "import json, sys, os; print(json.dumps([sorted(sys.modules), os.environ.get('OPENBLAS_NUM_THREADS')]))"


def loaded_after(*arguments: str) -> tuple[set[str], str | None]:
    """The modules that a process has after such a command, and what it told OpenBLAS."""
    environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    program = f"import amser.__main__ as m\ntry: m.main({list(arguments)!r})\nexcept SystemExit: pass\n{LOADED}"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    modules, threads = json.loads(done.stdout.splitlines()[-1])
    return set(modules), threads


def test_help_is_quick_because_it_loads_nothing() -> None:
    modules, _ = loaded_after("--help")
    assert modules & {"numpy", "scipy", "av", "httpx", "rich", "onnxruntime"} == set()


def test_a_command_loads_nothing_of_the_cluster_and_holds_openblas_to_one_thread(tmp_path: Path) -> None:
    modules, threads = loaded_after("encode", str(FILE), "-o", str(tmp_path / "out.amser"))
    assert (tmp_path / "out.amser").stat().st_size > 100
    ours = {name.partition(".")[0] for name in modules}
    assert ours & {"torch", "ray", "models", "deployments", "edge_sim", "training", "load_tests"} == set()
    assert threads == "1"


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help_with_examples_and_exit_codes_within_80_columns(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert f"\n  python -m amser {command} " in shown
    assert "exit codes: 0 " in shown
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize(
    ("arguments", "said"),
    [([], "the following arguments are required: COMMAND"), (["fly"], "invalid choice: 'fly'"), (["-x"], "required")],
)
def test_without_a_command_the_help_is_named(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("amser: ")
    assert said in first
    assert second == "See: python -m amser --help"


def test_a_package_that_is_missing_comes_with_the_command_that_brings_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    for name in [name for name in sys.modules if name.startswith(("amser.audio", "amser.client.commands.encode"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "amser.client.commands.inputs", raising=False)
    assert main(["encode", str(FILE)]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "amser: the package av is not installed",
        "Install it with: pip install 'amser[edge]'",
    ]


def test_a_reader_that_has_read_enough_ends_it_quietly(tmp_path: Path) -> None:
    envelope = tmp_path / "call.amser"
    main(["encode", str(FILE), "-o", str(envelope)])
    command = f'"{sys.executable}" -m amser inspect --json $(yes call.amser | head -n 2000) | head -n 1'
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert (json.loads(done.stdout)["codec"], done.stderr) == ("klt", "")


def test_a_name_that_is_no_text_is_shown_escaped(tmp_path: Path) -> None:
    file = os.fsencode(tmp_path) + b"/caf\xe9.wav"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([*AMSER, "encode", file], cwd=ROOT, env=environment, capture_output=True)
    assert done.returncode == 1
    assert done.stderr.endswith(b"caf\\udce9.wav: No such file or directory\n")
