"""Ratchets: what keeps the tree small, pure and true. A limit here only ever becomes tighter."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILE_LINES = 400
FUNCTION_LINES = 70
BANNED_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "managers"}
# Modules that decide and do not act say so in their first docstring line: "… Pure …".
PURE_MARK = re.compile(r"\bpure\b", re.IGNORECASE)
IMPURE_MODULES = {
    "asyncio", "concurrent", "logging", "multiprocessing", "random", "secrets", "select", "shutil",
    "signal", "socket", "subprocess", "tempfile", "threading",
}  # fmt: skip
IMPURE_CALLS = {"open", "input", "print"}
# Of `time`, what reads the clock or waits; formatting a moment that is given is arithmetic.
CLOCK = re.compile(r"time|monotonic|perf_counter|sleep|(time|monotonic|perf_counter)_ns")
HEAVY_MODULES = {"aiohttp", "fsspec", "numpy", "pyarrow", "s3fs", "torch", "kubernetes", "redis"}


def tracked(pattern: str) -> list[Path]:
    """Files in the tree that git does not ignore; also in an export without git."""
    try:
        found = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard", "--", pattern],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        found = [str(path.relative_to(ROOT)) for path in ROOT.rglob(pattern.lstrip("*"))]
    return [ROOT / name for name in sorted(set(found)) if (ROOT / name).exists()]


PYTHON = tracked("*.py")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(tree: ast.AST) -> set[str]:
    """Every module imported anywhere below `tree`, as dotted names."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
    return names


def test_files_are_short():
    long = {
        name_of(path): lines
        for path in PYTHON
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > FILE_LINES
    }
    assert not long, f"more than {FILE_LINES} lines; a module has one idea: {long}"


def test_functions_are_short():
    long = {
        f"{name_of(path)}:{node.name}": lines
        for path in PYTHON
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := (node.end_lineno or 0) - node.lineno + 1) > FUNCTION_LINES
    }
    assert not long, f"more than {FUNCTION_LINES} lines: {long}"


def test_file_names_say_what_is_inside():
    vague = [name_of(path) for path in PYTHON if path.stem in BANNED_NAMES]
    assert not vague, vague


def test_every_module_says_what_it_is():
    silent = [
        name_of(path)
        for path in PYTHON
        if path.parts[len(ROOT.parts)] in {"cacheop", "cache_worker", "examples", "benchmarks"}
        and path.read_text(encoding="utf-8").strip()
        and not ast.get_docstring(tree_of(path))
    ]
    assert not silent, silent


def pure_modules() -> list[Path]:
    """All of cacheop.api, and what marks itself as pure in its docstring's first paragraph."""
    found = []
    for path in PYTHON:
        package = path.parts[len(ROOT.parts)]
        if package not in {"cacheop", "cache_worker"}:
            continue
        first = (ast.get_docstring(tree_of(path)) or "").split("\n\n")[0]
        if path.is_relative_to(ROOT / "cacheop/api") or PURE_MARK.search(first):
            found.append(path)
    return found


@pytest.mark.parametrize("path", pure_modules(), ids=name_of)
def test_pure_modules_do_nothing_but_compute(path: Path):
    tree = tree_of(path)
    roots = {module.split(".")[0] for module in imported(tree)}
    assert not roots & IMPURE_MODULES
    called = {
        node.func.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not called & IMPURE_CALLS
    clock = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "time"
        and CLOCK.fullmatch(node.attr)
    }
    assert not clock


@pytest.mark.parametrize("path", tracked("cacheop/api/*.py"), ids=name_of)
def test_the_api_needs_the_standard_library_only(path: Path):
    foreign = {
        module
        for module in imported(tree_of(path))
        if module.split(".")[0] not in sys.stdlib_module_names
        and not module.startswith("cacheop.api")
    }
    assert not foreign


@pytest.mark.parametrize("package", ["cacheop", "cache_worker"])
def test_imports_point_one_way(package: str):
    wrong = []
    for path in tracked(f"{package}/*.py"):
        for module in imported(tree_of(path)):
            if package == "cacheop" and module.split(".")[0] == "cache_worker":
                wrong.append((name_of(path), module))
            if (
                package == "cache_worker"
                and module.split(".")[0] == "cacheop"
                and not module.startswith("cacheop.api")
            ):
                wrong.append((name_of(path), module))
    assert not wrong


@pytest.mark.parametrize("module", ["cacheop", "cacheop.cli.main", "cache_worker.__main__"])
def test_starting_imports_nothing_heavy(module: str):
    code = f"import sys, {module}; print(*sorted({HEAVY_MODULES!r} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []


def test_tests_use_real_parts_or_working_fakes():
    patching = re.compile(r"monkeypatch\.setattr|mock\.patch|MagicMock|from unittest import mock")
    found = [
        name_of(path)
        for path in tracked("tests/*.py")
        if path != Path(__file__) and patching.search(path.read_text(encoding="utf-8"))
    ]
    assert not found, found


def test_paths_in_the_docs_exist():
    """`like/this.py`, in any Markdown file, is a path from the top or beside that file."""
    top = {path.name for path in ROOT.iterdir()}
    missing = []
    for document in tracked("*.md"):
        for path in re.findall(r"`([\w.-]+(?:/[\w.*-]+)+/?)`", document.read_text("utf-8")):
            if path.split("/")[0] not in top or "*" in path:
                continue  # not a path of this tree
            if not (ROOT / path).exists() and not (document.parent / path).exists():
                missing.append((name_of(document), path))
    assert not missing


def test_links_in_the_docs_lead_somewhere():
    missing = [
        (name_of(document), target)
        for document in tracked("*.md")
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text("utf-8"))
        if not (document.parent / target).exists()
    ]
    assert not missing


def test_notebooks_hold_no_outputs():
    """The .ipynb is the source; what it printed on somebody's machine is not."""
    import json

    for path in tracked("*.ipynb"):
        for cell in json.loads(path.read_text("utf-8"))["cells"]:
            assert not cell.get("outputs"), path
            assert cell.get("execution_count") is None, path
