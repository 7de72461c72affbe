"""Kept results belong to the code that computed them: a digest of statements, whatever is written around them."""

from __future__ import annotations

from pathlib import Path

import pytest

from training import source_digest as module
from training.source_digest import NETWORKS, SPEECH_FEATURES, TEXT_FEATURES, source_digest

SOURCE = '"""Adds."""\n\n\ndef add(one: int, other: int) -> int:\n    """Their sum."""\n    return one + other\n'


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`sums` with two files, where packages are looked for."""
    monkeypatch.setattr(module, "ROOT", tmp_path)
    folder = tmp_path / "sums"
    (folder / "inner").mkdir(parents=True)
    (folder / "add.py").write_text(SOURCE)
    (folder / "inner" / "more.py").write_text("TWO = 2\n")
    return folder


def digest(*modules: str) -> str:
    return source_digest.__wrapped__(*modules)


@pytest.mark.parametrize(
    ("old", "new"),
    [("one + other", "one - other"), ("add", "plus"), ("-> int:", "-> int:\n    print(one)")],
)
def test_a_changed_statement_changes_the_digest(package: Path, old: str, new: str) -> None:
    before = digest("sums")
    (package / "add.py").write_text(SOURCE.replace(old, new))
    assert digest("sums") != before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Their sum.", "The sum of two numbers."),
        ('"""Adds."""\n', ""),
        ("    return", "    # as in school\n    return"),
        ("one + other", "(one + other)"),
    ],
)
def test_comments_docstrings_and_layout_do_not(package: Path, old: str, new: str) -> None:
    before = digest("sums")
    (package / "add.py").write_text(SOURCE.replace(old, new))
    assert digest("sums") == before


def test_every_file_of_a_package_counts_and_so_does_its_name(package: Path) -> None:
    before = {digest("sums"), digest("sums.add"), digest("sums", "sums.add")}
    assert len(before) == 3
    (package / "inner" / "more.py").write_text("TWO = 3\n")
    changed = digest("sums")
    (package / "inner" / "more.py").rename(package / "inner" / "other.py")
    assert len({*before, changed, digest("sums")}) == 5
    assert digest("sums.add") in before


@pytest.mark.usefixtures("package")
def test_a_module_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"there is no module sums\.subtract"):
        digest("sums.subtract")


@pytest.mark.parametrize("modules", [NETWORKS, SPEECH_FEATURES, TEXT_FEATURES])
def test_the_listed_modules_exist(modules: tuple[str, ...]) -> None:
    assert len({source_digest(each) for each in modules}) == len(modules)
