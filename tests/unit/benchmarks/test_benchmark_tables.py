"""What the benchmarks and load tests print, made of the rows in benchmarks/results: legible at 80 columns."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console, RenderableType
from rich.table import Table

from benchmarks import (
    asr,
    autoscaling,
    composition,
    edge,
    emotion,
    flow,
    fusion_cost,
    generator,
    prediction,
    service_times,
    serving,
    transport,
)
from benchmarks.measuring import codec_summary
from load_tests.simulation.service_times import read

RESULTS = Path(__file__).resolve().parents[3] / "benchmarks" / "results"
WIDTH = 80


def rows(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def printed(what: RenderableType) -> str:
    console = Console(file=io.StringIO(), width=WIDTH, highlight=False)
    console.print(what)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def words_of(table: Table) -> set[str]:
    """Every word of headers, cells and title."""
    texts = [str(table.title or ""), *(str(column.header) for column in table.columns)]
    texts += [str(cell) for column in table.columns for cell in column.cells]
    return {word for text in texts for word in text.split()}


def of_emotions(name: str) -> Iterable[Table]:
    return emotion.tables(name, [row for row in rows("emotion") if row["table"] == name])


TABLES: dict[str, Iterable[RenderableType | str]] = {
    "asr": [asr.rows_table(rows("asr"), "Words, librispeech.tsv, 112 utterances")],
    "autoscaling": [autoscaling.rows_table(rows("autoscaling"))],
    "codec": [*codec_summary.tables(rows("codec")), *codec_summary.summary(rows("codec"))],
    "codec in noise": [*codec_summary.tables(rows("codec_noise")), *codec_summary.summary(rows("codec_noise"))],
    "composition": [composition.rows_table(rows("composition"))],
    "edge": edge.tables(rows("edge"), "librispeech.tsv, 92.86 s of speech; ms of CPU for a second of it"),
    "emotion": [made for name in ("rates", "baselines", "four", "pairs") for made in of_emotions(name)],
    "fusion cost": [fusion_cost.stages_table(rows("fusion_cost")[0])],
    "flow": [flow.rows_table(rows("flow"))],
    "generator": [generator.rows_table(rows("generator"))],
    "prediction": [prediction.rows_table(rows("prediction"))],
    "service times": [service_times.costs_table(read())],
    "serving": serving.tables(rows("serving")),
    "transport": [*transport.tables(rows("transport")), transport.papers_table()],
}


@pytest.mark.parametrize("name", TABLES)
def test_no_word_of_a_table_is_broken_at_80_columns(name: str) -> None:
    tables = [each for each in TABLES[name] if isinstance(each, Table)]
    assert tables
    for table in tables:
        text = printed(table)
        assert "…" not in text
        assert max(map(len, text.splitlines())) <= WIDTH
        assert words_of(table) - set(text.split()) == set()
