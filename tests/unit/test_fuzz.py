"""What strangers send, tried by machines for a moment with fixed seeds; and the tool that does it for an hour."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from random import Random
from typing import Any, ClassVar

import pytest

from tests.fuzz import __main__ as command
from tests.fuzz.child import Task, Trial
from tests.fuzz.findings import KEPT, Findings, earlier, of_run
from tests.fuzz.lane import Lane, turns
from tests.fuzz.memory import Series
from tests.fuzz.mutations import mutate, mutate_document
from tests.fuzz.neighbour import Record
from tests.fuzz.network.exchange import Answer, post, request
from tests.fuzz.network.framing import misframed, smuggled
from tests.fuzz.network.site import Site, is_http
from tests.fuzz.report import BEGIN, END, PAGE, as_document, figures, write_figures
from tests.fuzz.run import Outcome, Plan
from tests.fuzz.state import State, read
from tests.fuzz.targets import registry
from tests.fuzz.targets.base import Target

INPUTS = {
    "envelope": 400,
    "batch": 400,
    "audio": 200,
    "uploads": 90,
    "forms": 300,
    "answers": 150,
    "spool": 150,
    "headers": 600,
    "keys": 300,
    "store": 80,
}
PROBLEM = json.dumps(
    {"type": "/problems/malformed", "title": "Bad Request", "status": 400, "detail": "cut off"}
).encode()


def task_of(folder: Path, target: str, **fields: Any) -> Task:
    return Task(target, folder, "a run", **{"seconds": 60, "seed": 1, "coverage": False, **fields})


def tried(task: Task) -> Trial:
    trial = Trial(task)
    trial.known()
    trial.mutated()
    trial.close()
    return trial


class Fragile(Target):
    """Fails at a byte."""

    name: ClassVar[str] = "fragile"

    def seeds(self) -> list[bytes]:
        return [b"all is well", b"all is not well: \xfe, and that is all"]

    def accepts(self, data: bytes) -> bool:
        if b"\xfe" in data:
            raise KeyError("a byte that nobody expected")
        return bool(data)


@pytest.fixture
def fragile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "kind_of", lambda _: Fragile)


# --- What is tried ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", registry.IN_PROCESS)
def test_nothing_that_a_stranger_sends_is_an_error_nobody_expected(target: str, tmp_path: Path) -> None:
    trial = tried(task_of(tmp_path, target, inputs=INPUTS[target], replay=True))
    assert [(found.cause, found.detail) for found in of_run(tmp_path, "a run")] == []
    assert trial.state.tried >= INPUTS[target]
    assert 0 < trial.state.accepted < trial.state.tried


# --- What fails is kept -----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("fragile")
def test_an_input_that_fails_is_kept_once_at_its_smallest_and_tried_first_the_next_time(tmp_path: Path) -> None:
    tried(task_of(tmp_path, "fragile", inputs=300))
    (found,) = of_run(tmp_path, "a run")
    assert (found.verdict, found.target, found.size) == ("crash", "fragile", 1)
    assert found.times > 1
    assert found.cause == "KeyError in tests/unit/test_fuzz.py:accepts"
    assert "a byte that nobody expected" in found.detail
    assert earlier(tmp_path, "fragile") == [b"\xfe"]
    again = Trial(Task("fragile", tmp_path, "the next run", 60, 2, replay=True, inputs=1, coverage=False))
    again.known()
    again.close()
    assert [each.size for each in of_run(tmp_path, "the next run")] == [1]


def test_a_process_that_dies_leaves_the_input_that_it_died_of(tmp_path: Path) -> None:
    lane = Lane(["answers"], task_of(tmp_path, ""), 30)
    lane.start()
    state = task_of(tmp_path, "answers").state
    deadline = time.monotonic() + 60
    while not read(state).tried and time.monotonic() < deadline:
        time.sleep(0.05)
    assert lane._child is not None
    os.kill(lane._child.pid, signal.SIGSEGV)
    while not list(of_run(tmp_path, "a run")) and time.monotonic() < deadline:
        time.sleep(0.05)
    lane.stop()
    (found,) = of_run(tmp_path, "a run")
    assert (found.target, found.verdict, found.cause) == ("answers", "crash", "the process ended with -11")
    assert lane.tallies["answers"].tried > 0


def test_every_input_of_the_repository_belongs_to_a_target() -> None:
    names = {path.name.partition("-")[0] for path in KEPT.glob("*")}
    assert names <= set(command.ALL)


def test_the_state_of_a_child_is_read_after_its_death(tmp_path: Path) -> None:
    state = State(tmp_path / "state")
    state.begin(b"one")
    state.end(True)
    state.begin(b"the last")
    progress = read(tmp_path / "state")
    assert (progress.tried, progress.accepted, progress.current) == (2, 1, b"the last")


def test_mutations_are_the_same_for_a_seed_and_bounded() -> None:
    def made(seed: int) -> list[bytes]:
        source = Random(seed)
        return [mutate(b"RIFF" + bytes(60), source, (b"RIFF", b"data"), (b"other",)) for _ in range(200)]

    assert made(3) == made(3)
    assert made(3) != made(4)
    assert max(map(len, made(3))) <= 65_536
    assert len(set(made(3))) > 150


def test_mutated_documents_differ_in_one_place() -> None:
    source = Random(0)
    document = {"a": {"b": [1, 2]}, "c": "text"}
    made = [mutate_document(document, source) for _ in range(50)]
    assert document == {"a": {"b": [1, 2]}, "c": "text"}
    assert any(isinstance(each, dict) and each.get("c") == "text" and each.get("a") != document["a"] for each in made)


# --- Verdicts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "data", "verdicts"),
    [
        (Answer(400, {"content-type": "application/problem+json"}, PROBLEM), post(b""), []),
        (Answer(413, {"content-type": "application/problem+json"}, PROBLEM), post(b""), ["refusal"]),  # says 400
        (
            Answer(404, {"content-type": "application/json"}, b'{"detail":"Not Found"}'),
            request("GET", "/x"),
            ["refusal"],
        ),
        (Answer(400, {"content-type": "text/plain"}, b"Invalid HTTP request received."), b"\x16\x03\x01", []),
        (Answer(500, {"content-type": "application/problem+json"}, PROBLEM), post(b""), ["crash"]),
        (Answer(502, {"content-type": "text/html"}, b"<html>"), b"\x16\x03\x01", ["crash"]),
        (Answer(200, {"content-type": "application/json"}, b"{}"), post(b""), []),
    ],
)
def test_an_answer_is_judged(answer: Answer, data: bytes, verdicts: list[str], tmp_path: Path) -> None:
    findings = Findings(tmp_path, "a run", "requests")
    site = Site("http://127.0.0.1:1", findings, State(tmp_path / "state"), Random(0), 0.0)
    site.judge(answer, "a request", data)
    assert [found.verdict for found in of_run(tmp_path, "a run")] == verdicts


def test_what_two_parsers_may_read_differently_is_no_http_to_the_server() -> None:
    taken = [name for name, data in smuggled() if is_http(data)]
    assert set(taken) <= {"both framings ('Transfer-Encoding: xchunked')"}
    assert {name for name, data in misframed() if is_http(data)} >= {
        "20,000 chunks of a byte",
        "100-continue",
        "HTTP/1.0",
    }


def test_memory_is_judged_by_the_last_half() -> None:
    flat = Series([10.0 * n for n in range(40)] + [400.0] * 40)  # it grew at first, as caches fill
    growing = Series([100.0 + n for n in range(80)])
    assert flat.growth == 0
    assert growing.growth == pytest.approx(0.126, abs=0.01)
    assert Series([1.0] * 10).growth is None


def test_a_stall_counts_beyond_what_is_normal() -> None:
    record = Record(normal_s=0.4, waits_s=[0.3, 1.9, 0.5])
    assert record.longest_stall_s == pytest.approx(1.5)
    assert Record(normal_s=0.4, waits_s=[0.3]).longest_stall_s == 0


# --- The command ------------------------------------------------------------------------------------------------------


def test_every_target_has_its_turn_within_the_time() -> None:
    names = ("openapi", "slow", "mix", "flood")
    short, hour = turns(names, 60), turns(names, 3600)
    assert sum(short.values()) == pytest.approx(60)
    assert short["slow"] == 2 * short["flood"]
    assert hour["flood"] == pytest.approx(60, abs=5)


def test_a_run_in_process_ends_by_itself_and_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "runs"
    arguments = ["--minutes", "0.05", "--targets", "answers", "--seed", "7", "--folder", str(folder), "--no-coverage"]
    assert command.main(arguments) == 0
    document = json.loads((folder / "report.json").read_text())
    assert document["targets"]["answers"]["inputs"] > 0
    assert (document["findings"], document["neighbour"], document["seed"]) == ([], None, 7)
    assert "answers" in capsys.readouterr().out


@pytest.mark.parametrize("wrong", [["--minutes", "0"], ["--minutes", "1", "--targets", "everything"], []])
def test_wrong_usage_is_code_2(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(wrong)
    assert ended.value.code == 2
    assert "usage" in capsys.readouterr().err


def test_the_figures_of_a_report_take_the_place_of_those_on_the_page(tmp_path: Path) -> None:
    lane = Lane(["envelope"], task_of(tmp_path, ""), 1)
    lane.tallies["envelope"].tried = 12_345
    outcome = Outcome("a run", 90.0, lane.tallies, Record(0.4, [0.5, 0.9]), {"Ingress": Series([100.0] * 60, 120.0)})
    Findings(tmp_path, "a run", "envelope").add("crash", "a cause", "its detail", b"its input")
    document = as_document(Plan(1.5, ["envelope"], 7, tmp_path), outcome)
    page = tmp_path / "security.md"
    page.write_text(f"Before.\n\n{BEGIN}\n\nold\n\n{END}\n\nAfter.\n")
    write_figures([document], page)
    text = page.read_text()
    assert text.startswith("Before.\n")
    assert text.endswith("After.\n")
    assert "old" not in text
    assert "| `envelope` | in process | 12,345 | 0 | 1 | 0 | 0 | 0 |" in text
    assert "| its longest stall, beyond that slowest answer | 0.50 s |" in text
    assert "| memory of `Ingress`: most, trend, processes replaced | 120 MB, +0.0% over the last half, 0 |" in text


def test_the_page_has_a_place_for_figures_and_they_are_there() -> None:
    text = PAGE.read_text(encoding="utf-8")
    between = text.partition(BEGIN)[2].partition(END)[0]
    assert "| target | where | inputs |" in between
    assert figures.__doc__
