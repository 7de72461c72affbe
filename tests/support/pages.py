"""The Markdown pages of the repository: their code blocks, commands, links and names."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
QUICK_STARTS = (
    "README.md",
    "docs/operators.md",
    "docs/app-developers.md",
    "docs/load-testers.md",
    "docs/researchers.md",
)
CHANGELOG = "CHANGELOG.md"  # names what was, too
ELSEWHERE = "http://127.0.0.1:8000"  # the cluster that the pages talk to
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page: its language (empty for a drawing) and content."""

    page: str
    language: str
    content: str


@dataclass(frozen=True)
class Command:
    """A shell command of a page, continued lines joined, without its comment."""

    page: str
    line: str

    @property
    def words(self) -> list[str]:
        words = shlex.split(self.line)
        return words[1:] if re.fullmatch(r"[A-Z_]+=\w+", words[0]) else words  # a setting of the environment

    @property
    def module(self) -> str | None:
        """X of `python -m X …`."""
        words = self.words
        return words[2] if words[:2] == ["python", "-m"] else None

    def __str__(self) -> str:
        return f"{self.page}: {self.line}"


def all_pages() -> list[str]:
    pages = [
        *ROOT.glob("*.md"),
        *(page for folder in ("docs", "models", "ops") for page in (ROOT / folder).rglob("*.md")),
    ]
    return sorted(page.relative_to(ROOT).as_posix() for page in pages)


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str) -> list[Block]:
    return [Block(page, language, content) for language, content in _FENCE.findall(text_of(page))]


def prose(page: str) -> str:
    """A page without its blocks."""
    return _FENCE.sub("", text_of(page))


def commands(page: str) -> list[Command]:
    """Every command of a page's bash blocks."""
    scripts = [block.content.replace("\\\n", " ") for block in blocks(page) if block.language == "bash"]
    lines = [" ".join(re.sub(r"(^|\s)#.*", "", line).split()) for script in scripts for line in script.splitlines()]
    return [Command(page, line) for line in lines if line]


def code_spans(page: str) -> Iterator[str]:
    """What a page has in backticks."""
    for span in re.findall(r"`([^`\n]+(?:\n[^`\n]+)?)`", prose(page)):
        yield " ".join(span.split())


# What tests/e2e/test_pages.py runs against a cluster. A soak takes half an hour.
_ON_A_CLUSTER = (
    r"curl .*|python -m amser (send|batch|listen|deliver|spool|encode|inspect) .*"
    r"|python -m load_tests (run steady|report) .*"
)


def runs_on_a_cluster(command: Command) -> bool:
    return re.fullmatch(_ON_A_CLUSTER, command.line) is not None
