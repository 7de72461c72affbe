"""The benchmarks of emotion: missing data is one line, and the tables of the rows that ship are still made."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any, cast

import pytest
import synthetic_corpus
from rich.console import Console

from benchmarks.emotion import BASELINES, MEASURED, TABLES, Bench
from benchmarks.plots.emotion import plot
from models.emotion.published.umons import Umons
from models.emotion.registry import build

RESULTS = Path(__file__).resolve().parents[3] / "benchmarks" / "results" / "emotion.json"


@pytest.mark.parametrize("name", ["emotion", "fusion_cost"])
def test_a_missing_corpus_is_said_in_one_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AMSER_DATA", str(tmp_path))
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(f"benchmarks.{name}").main(["--json", str(tmp_path / "rows.json")])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    missing = tmp_path / "emotion" / "ravdess.tsv"
    assert line.startswith(f"benchmarks.{name}: there is no manifest {missing}; --corpus names one, AMSER_DATA")


def test_every_table_has_its_measurement_and_the_shipped_rows_are_of_these_tables() -> None:
    assert tuple(MEASURED) == TABLES
    tables = {row["table"] for row in json.loads(RESULTS.read_text())}
    assert {"rates", "baselines", "pairs", "four"} <= tables <= set(TABLES)


def test_the_shipped_rows_are_plotted(tmp_path: Path) -> None:
    plot(json.loads(RESULTS.read_text()), tmp_path / "emotion.json")
    written = {file.name for file in tmp_path.iterdir()}
    assert written == {"emotion_rates.png", "emotion_modalities.png", "emotion_confusion.png"}


def test_the_baselines_differ_from_the_published_recipe_in_the_network_and_umons_has_its_glimpses() -> None:
    unread: Any = None  # a recipe depends on neither corpus nor encoders
    bench = Bench(Console(quiet=True), None, None, None, unread, 1)
    for name in BASELINES:
        recipe = bench.baseline(name)
        network = build(recipe.network_config(synthetic_corpus.CONTEXT_WIDTH))
        assert (recipe.name, network.config.model, recipe.contrast().alpha) == (name, name, 0)
        assert network.config.layers == (2 if name == "umons" else 1)
    umons = build(bench.baseline("umons").network_config(synthetic_corpus.CONTEXT_WIDTH))
    assert len(cast(Umons, umons).glimpses) == 1
