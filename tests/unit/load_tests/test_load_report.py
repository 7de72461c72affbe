"""The report is one page that needs nothing else, says what it does not know, and escapes what came from outside."""

from __future__ import annotations

import argparse
import csv
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from load_tests.commands import report as command
from load_tests.report.page import Verdict, verdict, write_report
from load_tests.report.plots import columns
from load_tests.report.record import DROPPED, Run, Sample, Snapshot, write_run
from load_tests.report.summary import summarise

SECONDS = 120.0
HOSTILE = "<script>alert('$x')</script>"
VOID = {"meta", "br", "image", "path", "use", "rect", "circle", "line"}  # elements that need no end
HTTP = re.compile(r"https?://(?!cluster|www\.w3\.org/)")  # the cluster's own URL, and names of formats, are no fetches


def sample(at_s: float, latency_s: float = 0.2, **more: Any) -> Sample:
    timings = {"asr-queue": 30.0, "asr": 100.0, "fusion": 5.0, "queue": 31.0, "total": 140.0}
    whole = {"status": 200, "outcome": "ok", "device": 1, "hardware": "phone", "radio": "lte", "timings_ms": timings}
    cost = {"speech_s": 3.0, "bytes_up": 1500, "bytes_down": 800, "joules": 0.9}
    return Sample(at_s, at_s + 0.001, at_s + latency_s, **{**whole, **cost, **more})


def a_run(count: int = 2400, **more: Any) -> Run:
    """Queueing latencies with refusals, failures, a drop, degraded answers, bad clients, two devices and two radios."""
    rng = np.random.default_rng(7)
    samples = [
        sample(float(at_s), float(latency))
        for at_s, latency in zip(np.sort(rng.uniform(0, SECONDS, count)), rng.gamma(4, 0.05, count), strict=True)
    ]
    samples[10:40] = [replace(each, status=429, outcome="429 full", timings_ms={}) for each in samples[10:40]]
    samples[50] = replace(samples[50], status=0, outcome="connection reset")
    samples[60] = Sample(samples[60].scheduled_s, None, None, 0, DROPPED, 1, "phone", "lte")
    samples[70:90] = [replace(each, degraded=("text_encoder",)) for each in samples[70:90]]
    samples[100:105] = [replace(each, behaviour="oversized", status=413) for each in samples[100:105]]
    samples[200:900] = [replace(each, hardware="speaker", radio="wifi") for each in samples[200:900]]
    snapshots = tuple(
        Snapshot(float(at), {"WhisperASR": 1 + (at > 60), "Roberta": 1}, 4, 0.3, {"WhisperASR": 900.0 + at})
        for at in range(0, 120, 2)
    )
    about = {"hardware": {"cores": 2}, "versions": {"ray": "2.60.0"}, "measured": "2026-11-22T10:00:00+00:00"}
    run = Run("spike", "http://cluster", 7, 50, SECONDS, 900.0, 3, tuple(samples), snapshots, about)
    return replace(run, **more)


class Page(HTMLParser):
    """The elements and the words of a page. Its elements are closed in their order."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.source = file.read_text(encoding="utf-8")
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self._open: list[str] = []
        self.feed(self.source)
        assert self._open == []
        self.words = " ".join(self.words.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style":
            self.words += data

    def all(self, tag: str) -> Iterator[dict[str, str | None]]:
        return (attributes for name, attributes in self.elements if name == tag)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "report"
    write_report(a_run(), folder)
    return folder


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    return Page(folder / "report.html")


def test_the_page_fetches_nothing_and_runs_nothing(page: Page) -> None:
    assert not list(page.all("script"))
    assert not list(page.all("link"))
    assert not HTTP.search(re.sub(r"base64,[^\"]*", "", page.source))
    pictures = [value or "" for each in page.all("image") for name, value in each.items() if name.endswith("href")]
    assert pictures
    assert all(source.startswith("data:image/png;base64,") for source in pictures)


def test_every_section_is_there(page: Page) -> None:
    for section in (
        "Latency over time",
        "Latency by percentile",
        "Latency against offered rate",
        "Throughput",
        "Replicas",
        "Where the time goes in the cluster",
        "Refusals",
        "Failures",
        "Degraded answers",
        "What it cost the devices",
        "Generator",
        "Bad clients",
        "What it ran on",
    ):
        assert section in page.words


def test_every_figure_has_a_name_for_those_who_do_not_see_it(page: Page) -> None:
    figures = list(page.all("svg"))
    names = {each["aria-label"] for each in figures}
    assert {each["role"] for each in figures} == {"img"}
    assert len(names) == len(figures) == 8
    assert len(list(page.all("title"))) == 1 + len(figures)


def test_figures_share_no_ids_and_refer_to_their_own(page: Page) -> None:
    elements = re.findall(r"<svg .*?</svg>", page.source, re.DOTALL)
    of_each = [set(re.findall(r'\bid="([^"]+)"', element)) for element in elements]
    assert sum(map(len, of_each)) == len(set().union(*of_each))
    for element, ids in zip(elements, of_each, strict=True):
        ElementTree.fromstring(element)
        assert set(re.findall(r"(?:url\(|href=\")#([\w]+)", element)) <= ids


def test_axes_and_words_of_a_figure_have_the_colour_of_the_page(page: Page) -> None:
    assert "currentColor" in page.source
    assert "#010203" not in page.source
    assert "#000000" not in page.source


def test_the_headline_has_rate_goodput_and_verdict(page: Page) -> None:
    summary = summarise(a_run())
    assert f"goodput{summary.goodput:.3g} a second" in page.words
    assert "Objective kept by what was answered, not by all that arrived." in page.words
    assert f"99 of 100 answers took at most {summary.latency.p99:,.0f} ms; the objective is 900 ms" in page.words


def test_drops_are_a_reason_not_to_trust_it(page: Page) -> None:
    assert "This measurement is not to be trusted: 1 arrivals were dropped" in page.words


def test_refusals_failures_and_bad_clients_are_counted(page: Page) -> None:
    assert re.search(r"429 full ?30 ?1.3 %", page.words)
    assert re.search(r"connection reset ?1 ?0.042 %", page.words)
    assert re.search(r"oversized ?ok ?5", page.words)
    assert re.search(r"text_encoder ?20 ?0.84 %", page.words)


def test_costs_are_by_device_and_radio(page: Page) -> None:
    assert re.search(r"speaker ?wifi ?700 ?1,500 ?800 ?0.9 ?18 ?1.6 MB", page.words)


def test_what_it_ran_on_is_said(page: Page) -> None:
    assert re.search(r"versions.ray ?2.60.0", page.words)


def test_what_came_from_outside_is_escaped(tmp_path: Path) -> None:
    run = a_run(
        scenario=HOSTILE,
        url=HOSTILE,
        about={HOSTILE: {HOSTILE: HOSTILE}, "measured": HOSTILE, "description": HOSTILE},
        snapshots=(Snapshot(1.0, {HOSTILE: 1}, 1, 0.1),),
        samples=(
            *(
                sample(1.0 + n, degraded=(HOSTILE,), timings_ms={HOSTILE: 1.0}, hardware=HOSTILE, radio=HOSTILE)
                for n in range(3)
            ),
            sample(1.0, status=500, outcome=HOSTILE),
            sample(1.0, status=429, outcome=HOSTILE),
            sample(1.0, behaviour=HOSTILE, outcome=HOSTILE),
        ),
    )
    page = Page(write_report(run, tmp_path))
    assert not list(page.all("script"))
    assert "<script" not in page.source
    assert page.words.count(HOSTILE) >= 15


def test_a_run_without_arrivals_says_what_is_missing(tmp_path: Path) -> None:
    page = Page(write_report(a_run(samples=(), snapshots=(), about={}), tmp_path))
    assert not list(page.all("svg"))
    for sentence in (
        "Nothing was answered.",
        "nothing arrived",
        "the dashboard was not asked, or did not answer",
        "no answer carried timings",
        "it was not measured",
        "Nothing was refused.",
        "Nothing failed.",
        "No answer left anything out.",
        "Nothing was sent.",
        "The record does not say.",
    ):
        assert sentence in page.words
    assert "nan" not in page.words.lower()


def test_a_run_in_which_all_failed_still_has_a_report(tmp_path: Path) -> None:
    failed = tuple(replace(each, outcome="no answer", status=0) for each in a_run(200).samples)
    page = Page(write_report(a_run(samples=failed), tmp_path))
    assert "Nothing was answered." in page.words
    assert "no request was answered" in page.words


@pytest.mark.parametrize(
    ("latencies", "refused", "expected"),
    [
        ([0.9] * 100, 0, Verdict.KEPT),
        ([0.9] * 99 + [5.0], 0, Verdict.KEPT),
        ([0.9] * 98 + [5.0] * 2, 0, Verdict.MISSED),
        ([0.9] * 98, 2, Verdict.KEPT_BY_SOME),
        ([], 3, Verdict.NOTHING),
    ],
)
def test_the_verdict(latencies: list[float], refused: int, expected: Verdict) -> None:
    samples = [sample(0.0, each) for each in latencies]
    samples += [sample(0.0, status=429, outcome="full")] * refused
    run = a_run(samples=tuple(samples))
    assert verdict(run, summarise(run)) is expected


def test_requests_have_a_row_each(folder: Path) -> None:
    run = a_run()
    with (folder / "requests.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["outcome"] for row in rows] == [each.outcome for each in run.samples]
    assert float(rows[0]["latency_ms"]) == pytest.approx(1000 * (run.samples[0].latency_s or 0), abs=0.001)
    assert (rows[0]["asr-queue_ms"], rows[0]["within_objective"]) == ("30.0", "1")
    assert (rows[60]["sent_s"], rows[60]["latency_ms"], rows[75]["degraded"]) == ("", "", "text_encoder")


def test_percentiles_go_as_far_as_the_answers_bear(folder: Path) -> None:
    with (folder / "latency.csv").open(encoding="utf-8", newline="") as file:
        rows = {float(row["percentile"]): row for row in csv.DictReader(file)}
    latency = summarise(a_run()).latency
    assert list(rows) == [50, 75, 90, 95, 99, 99.5, 99.9, 99.95, 100]
    assert float(rows[99]["from_scheduled_ms"]) == pytest.approx(latency.p99, abs=0.001)
    assert float(rows[99]["from_sent_ms"]) == pytest.approx(latency.p99 - 1, abs=0.002)


def test_windows_end_with_the_schedule_and_hold_all_arrivals() -> None:
    data = columns(a_run())
    assert data.window_s == 2
    assert data.edges[-1] == SECONDS
    assert data.rate(data.scheduled_s).sum() * data.window_s == 2395  # without the bad clients


def test_many_requests_stay_a_small_page(tmp_path: Path) -> None:
    assert write_report(a_run(20_000), tmp_path).stat().st_size < 1_500_000


def run_command(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    command.add_to(parser.add_subparsers())
    options = parser.parse_args(["report", *arguments])
    return int(options.run(options))


def test_the_command_writes_the_report_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(a_run(100), tmp_path)
    assert run_command(str(tmp_path)) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "report.html")
    assert {file.name for file in tmp_path.iterdir()} == {"run.json", "report.html", "requests.csv", "latency.csv"}


@pytest.mark.parametrize(
    ("content", "said"), [(None, "holds no run"), ("{}", "is no record"), ("no", "cannot be read")]
)
def test_the_command_says_what_is_wrong_with_a_record(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None, said: str
) -> None:
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    assert run_command(str(tmp_path)) == 1
    assert said in capsys.readouterr().err
