"""Who may import whom, and how long a file may be: the rules of the house, held by `ast`.

docs/decisions/0002 says why. Floors from the ground: amser; edge_sim, models; load_tests, deployments, training;
benchmarks, demo.
"""

from __future__ import annotations

import ast
import graphlib
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAY_IMPORT = {  # of our packages; never one of the same floor or of a higher one
    "amser": set(),
    "edge_sim": {"amser"},
    "models": {"amser"},
    "load_tests": {"amser", "edge_sim"},
    "deployments": {"amser", "models"},
    "training": {"amser", "models"},
    "benchmarks": {"amser", "edge_sim", "models", "load_tests", "deployments", "training"},
    "demo": {"amser", "edge_sim", "models", "load_tests", "deployments", "training"},
}
PACKAGES = tuple(MAY_IMPORT)
ENTRY_POINT = "__main__"
LONGEST_FILE = 400  # lines
LARGEST_FOLDER = 16  # Python files on one level
SIGNAL_PATH_NEEDS = {"numpy", "scipy", "constriction", "google_crc32c"}
DEVICE_NEEDS_NONE_OF = {"torch", "ray", "transformers", "spacy", "fastapi"}


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def name_of(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(file: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in it: `from a import b` counts as `a.b` where that is a module."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: a relative import"
            assert node.module is not None
            for alias in node.names:
                inner = ROOT.joinpath(*node.module.split("."), alias.name)
                is_module = inner.with_suffix(".py").is_file() or (inner / "__init__.py").is_file()
                yield f"{node.module}.{alias.name}" if is_module else node.module


def package_of(module: str) -> str:
    return module.partition(".")[0]


def ours(file: Path) -> set[str]:
    """The modules of ours that a file imports."""
    return {module for module in imports(file) if package_of(module) in {*PACKAGES, "tests"}}


def circle_in(graph: Mapping[str, Iterable[str]]) -> list[str]:
    """Names that lead back to the first of them; empty where the graph has no circle."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def child_of(folder: str, module: str) -> str | None:
    """The file or sub-folder of `folder` that holds a module; None where it is elsewhere, or the folder's own face."""
    return module.removeprefix(f"{folder}.").partition(".")[0] if module.startswith(f"{folder}.") else None


def folders(package: str) -> list[str]:
    return sorted({".".join(file.parent.relative_to(ROOT).parts) for file in modules(package)})


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_lower_floors_alone(package: str) -> None:
    assert modules(package)
    allowed = MAY_IMPORT[package] | {package}
    foreign = {
        name_of(file): upward
        for file in modules(package)
        if (upward := {module for module in ours(file) if package_of(module) not in allowed})
    }
    assert foreign == {}


@pytest.mark.parametrize("package", PACKAGES)
def test_no_file_imports_itself_by_a_detour(package: str) -> None:
    graph = {name_of(file): ours(file) - {name_of(file)} for file in modules(package)}
    assert circle_in(graph) == []


@pytest.mark.parametrize("folder", [folder for package in PACKAGES for folder in folders(package)])
def test_what_lies_in_a_folder_forms_no_circle(folder: str) -> None:
    """Files and sub-folders, each taken as a whole. An entry point stands above its folder: nothing imports it."""
    graph: dict[str, set[str]] = {}
    for file in modules(package_of(folder)):
        child = child_of(folder, name_of(file))
        if child is not None:
            graph.setdefault(child, set()).update(
                other for module in ours(file) if (other := child_of(folder, module)) not in (None, child)
            )
    assert circle_in(graph) == []
    assert not any(ENTRY_POINT in others for others in graph.values())


@pytest.mark.parametrize("folder", [folder for package in PACKAGES for folder in folders(package)])
def test_a_folder_is_small_enough_to_be_seen_at_once(folder: str) -> None:
    files = [file for file in ROOT.joinpath(*folder.split(".")).glob("*.py") if file.stem != "__init__"]
    assert len(files) <= LARGEST_FOLDER


@pytest.mark.parametrize("package", PACKAGES)
def test_a_file_is_short_enough_to_be_read(package: str) -> None:
    too_long = {
        name_of(file): lines
        for file in modules(package)
        if (lines := len(file.read_text(encoding="utf-8").splitlines())) > LONGEST_FILE
    }
    assert too_long == {}


def test_the_signal_path_needs_numpy_scipy_and_a_checksum_alone() -> None:
    # What a device needs besides; `audio` decodes files with PyAV, `rate_hint` reads a header with http-sf, `languages`
    # knows ISO 639 through langcodes
    apart = {"client", "audio", "rate_hint.py", "languages.py", "__main__.py"}
    files = [file for file in modules("amser") if apart.isdisjoint(file.relative_to(ROOT).parts)]
    needed = {package_of(module) for file in files for module in imports(file)}
    assert needed - set(sys.stdlib_module_names) - {"amser"} <= SIGNAL_PATH_NEEDS


def test_a_device_needs_nothing_of_the_cluster() -> None:
    needed = {package_of(module) for file in modules("amser") for module in imports(file)}
    assert needed & DEVICE_NEEDS_NONE_OF == set()


def test_a_model_knows_neither_ray_nor_http() -> None:
    needed = {package_of(module) for file in modules("models") for module in imports(file)}
    assert needed & {"ray", "fastapi", "starlette", "httpx"} == set()


def test_the_test_command_of_the_readme_exists() -> None:
    commands = set(re.findall(r"\bmake ([a-z-]+)", (ROOT / "README.md").read_text(encoding="utf-8")))
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert {"demo", "test"} <= commands
    assert commands <= targets
