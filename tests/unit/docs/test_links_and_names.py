"""What the pages point at is there: links, headings, paths, modules."""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections import Counter
from pathlib import Path

import pytest
from pages import CHANGELOG, ROOT, all_pages, code_spans, prose, text_of

PAGES = all_pages()
TRUE_TODAY = [page for page in PAGES if page != CHANGELOG]
PACKAGES = ("amser", "models", "deployments", "training", "edge_sim", "load_tests", "benchmarks", "demo")
FOLDERS = (*PACKAGES, "tests", "docs", "ops", ".ci")


def slugs(page: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    counts: Counter[str] = Counter()
    found = set()
    for heading in re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")
        found.add(f"{slug}-{counts[slug]}" if counts[slug] else slug)
        counts[slug] += 1
    return found


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        if not file.exists() or (anchor and anchor not in slugs(file)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", TRUE_TODAY)
def test_paths_of_the_repository_exist(page: str) -> None:
    names = {span for span in code_spans(page) if re.fullmatch(r"[\w.]+/[\w./*-]*", span)}
    ours = {name for name in names if name.partition("/")[0] in FOLDERS}
    assert {name for name in ours if not list(ROOT.glob(name.rstrip("/")))} == set()


@pytest.mark.parametrize("page", TRUE_TODAY)
def test_modules_and_what_is_in_them_exist(page: str) -> None:
    names = {
        span
        for span in code_spans(page)
        if re.fullmatch(rf"({'|'.join(PACKAGES)})(\.\w+)+(:\w+)?", span)
        and not re.search(r"\.(py|md|json|png|yaml)$", span)
    }
    assert {name for name in names if not exists(name)} == set()


@pytest.mark.parametrize("page", TRUE_TODAY)
def test_programs_that_a_page_names_can_be_run(page: str) -> None:
    named = set(re.findall(rf"python -m ((?:{'|'.join(PACKAGES)})[\w.]*\w)", text_of(page)))
    assert {name for name in named if not runs(name)} == set()


def exists(name: str) -> bool:
    """Whether a dotted name is a module, or something in one: `models.weights`, `deployments.app:build`."""
    parts = name.replace(":", ".").split(".")
    for length in range(len(parts), 0, -1):
        module = ".".join(parts[:length])
        if found(module):
            if length == len(parts):
                return True
            value = importlib.import_module(module)
            for attribute in parts[length:]:
                if not hasattr(value, attribute):
                    return False
                value = getattr(value, attribute)
            return True
    return False


def runs(name: str) -> bool:
    """Whether `python -m` takes it: a module, or a package with an entry point."""
    if not found(name):
        return False
    folder = ROOT.joinpath(*name.split("."))
    return not folder.is_dir() or (folder / "__main__.py").is_file()


def found(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False
