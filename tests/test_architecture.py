"""The shape of the code: who may import whom, how long a file may be, what must have a sentence."""

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

import pyrafuse

ROOT = Path(__file__).resolve().parents[1]

ROWS = (
    ("base",),
    ("core", "runtime"),
    ("ops", "layers"),
    ("backbones", "necks", "heads", "assigners", "samplers", "losses", "data", "evaluation", "visualization"),
    ("criteria", "postprocess", "reports"),
    ("models",),
    ("importers",),
    ("training", "inference", "export", "explain"),
    ("recipes", "experiments"),
    ("comparison",),
    ("search", "demo", "serving"),
    ("cli",),
)
ROW_OF = {room: row for row, rooms in enumerate(ROWS) for room in rooms}
MAX_LINES = 400
NAMES_THAT_SAY_NOTHING = {"utils", "util", "helpers", "helper", "common", "misc", "manager"}


@dataclass(frozen=True)
class Import:
    """One import of a module of ours: where it stands and whether it runs when the file is imported."""

    target: str
    line: int
    in_function: bool
    for_types_only: bool


Sources = Mapping[str, str]
"""Dotted module name -> source text; a package is named like its folder."""


def read_sources() -> Sources:
    """Every module of the package."""
    source_root = ROOT / "src"
    sources = {}
    for path in sorted((source_root / "pyrafuse").rglob("*.py")):
        parts = path.relative_to(source_root).with_suffix("").parts
        sources[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.read_text()
    return sources


def find_imports(sources: Sources, module: str) -> list[Import]:
    """The imports of our own modules in ``module``."""
    is_package = any(name.startswith(f"{module}.") for name in sources)
    found = []

    def targets(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
            return
        base = node.module or ""
        if node.level:
            parts = module.split(".")
            parent = parts[: len(parts) - node.level + is_package]
            base = ".".join([*parent, base] if base else parent)
        for alias in node.names:
            submodule = f"{base}.{alias.name}"
            yield submodule if submodule in sources else base

    def visit(node: ast.AST, in_function: bool, for_types_only: bool) -> None:
        if isinstance(node, ast.Import | ast.ImportFrom):
            found.extend(
                Import(target, node.lineno, in_function, for_types_only)
                for target in targets(node)
                if target.split(".")[0] == "pyrafuse"
            )
        inner_function = in_function or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if isinstance(node, ast.If) and ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}:
            for child in node.body:
                visit(child, inner_function, True)
            for child in node.orelse:
                visit(child, inner_function, for_types_only)
            return
        for child in ast.iter_child_nodes(node):
            visit(child, inner_function, for_types_only)

    visit(ast.parse(sources[module]), False, False)
    return found


def room_of(module: str) -> str:
    """The folder under pyrafuse that ``module`` lives in; empty for pyrafuse itself."""
    return [*module.split("."), ""][1]


def find_row_violations(sources: Sources) -> list[str]:
    """Imports from the same row's other folders or from a row below, and folders that are no room."""
    problems = []
    for module in sources:
        room = room_of(module)
        if room in {"", "__main__"}:
            continue
        if room not in ROW_OF:
            problems.append(f"{module}: {room} is not a room of DESIGN.md")
            continue
        for found in find_imports(sources, module):
            other = room_of(found.target)
            if other in {"", room}:
                continue
            if ROW_OF.get(other, len(ROWS)) >= ROW_OF[room]:
                problems.append(f"{module}:{found.line}: {room}/ may not import {other}/ ({found.target})")
    return problems


def find_hidden_imports(sources: Sources) -> list[str]:
    """Imports of our own modules inside functions, outside cli/."""
    return [
        f"{module}:{found.line}: {found.target} is imported inside a function"
        for module in sources
        if room_of(module) != "cli"
        for found in find_imports(sources, module)
        if found.in_function
    ]


def find_cycles(sources: Sources) -> list[str]:
    """Modules that import each other when they are loaded, one line a cycle."""
    graph = {
        module: {
            found.target
            for found in find_imports(sources, module)
            if not (found.in_function or found.for_types_only) and found.target in sources
        }
        for module in sources
    }
    cycles: dict[frozenset[str], str] = {}
    done: set[str] = set()

    def follow(module: str, trail: tuple[str, ...]) -> None:
        if module in trail:
            cycle = trail[trail.index(module) :]
            cycles.setdefault(frozenset(cycle), " -> ".join([*cycle, module]))
            return
        if module in done:
            return
        for target in sorted(graph[module]):
            follow(target, (*trail, module))
        done.add(module)

    for module in sorted(graph):
        follow(module, ())
    return sorted(cycles.values())


def find_long_files(sources: Sources) -> list[str]:
    """Files past the length at which they do two things."""
    return [
        f"{module}: {lines} lines, at most {MAX_LINES}: which two things does it do?"
        for module, text in sources.items()
        if (lines := len(text.splitlines())) > MAX_LINES
    ]


def find_empty_names(sources: Sources) -> list[str]:
    """Modules and folders whose name says nothing about what lives there."""
    return [
        f"{module}: what lives there?"
        for module in sources
        if any(word in NAMES_THAT_SAY_NOTHING for part in module.split(".") for word in part.split("_"))
    ]


def find_undocumented(sources: Sources) -> list[str]:
    """Modules, public functions and public classes without a docstring."""
    problems = []
    for module, text in sources.items():
        tree = ast.parse(text)
        if not ast.get_docstring(tree):
            problems.append(f"{module}: no docstring")
        problems += [
            f"{module}:{node.lineno}: {node.name} has no docstring"
            for node in tree.body
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            and not node.name.startswith("_")
            and not ast.get_docstring(node)
        ]
    return problems


def find_busy_packages(sources: Sources) -> list[str]:
    """Packages whose ``__init__`` does more than say what they are: that would slow imports.

    The outermost, the runtime and the export, which is called by its folder's name, are public doors.
    """
    return [
        f"{module}: its __init__.py should hold a docstring and nothing else"
        for module, text in sources.items()
        if module not in {"pyrafuse", "pyrafuse.runtime", "pyrafuse.export"}
        and any(name.startswith(f"{module}.") for name in sources)
        and len(ast.parse(text).body) > 1
    ]


def find_drawing(sources: Sources) -> list[str]:
    """Figures made outside the room that draws, and pages laid out by what computes explanations."""
    problems = []
    for module, text in sources.items():
        room = room_of(module)
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.Import | ast.ImportFrom):
                continue
            names = [alias.name for alias in node.names]
            imported = names if isinstance(node, ast.Import) else [node.module or ""]
            if room != "visualization" and any(name.split(".")[0] == "matplotlib" for name in imported):
                problems.append(f"{module}:{node.lineno}: figures are drawn in visualization/")
            if room == "explain" and {*imported, *names} & {"html", "Report", "pyrafuse.visualization.report"}:
                problems.append(f"{module}:{node.lineno}: explain/ computes, pages are laid out in reports/")
    return problems


CHECKS = (
    find_row_violations,
    find_hidden_imports,
    find_cycles,
    find_long_files,
    find_empty_names,
    find_undocumented,
    find_busy_packages,
    find_drawing,
)


@pytest.mark.parametrize("check", CHECKS)
def test_the_package_keeps_the_rules(check):
    assert check(read_sources()) == []


def test_every_module_is_read():
    sources = read_sources()
    assert {"pyrafuse", "pyrafuse.core", "pyrafuse.base.registry"} <= set(sources)


GOOD = '"""A sentence."""\n'


@pytest.mark.parametrize(
    ("check", "sources", "message"),
    [
        (find_row_violations, {"pyrafuse.core.a": "from pyrafuse.ops import boxes"}, "core/ may not import ops/"),
        (find_row_violations, {"pyrafuse.necks.a": "import pyrafuse.heads.b"}, "necks/ may not import heads/"),
        (find_row_violations, {"pyrafuse.necks.a": "from ..heads.b import C"}, "necks/ may not import heads/"),
        (find_row_violations, {"pyrafuse.ops.a": "def f():\n  import pyrafuse.cli.main"}, "ops/ may not import cli/"),
        (find_row_violations, {"pyrafuse.attic.a": GOOD}, "attic is not a room"),
        (find_row_violations, {"pyrafuse.runtime.a": "from pyrafuse.core import devices"}, "may not import core/"),
        (find_hidden_imports, {"pyrafuse.ops.a": "def f():\n  from pyrafuse.core import errors"}, "inside a function"),
        (
            find_hidden_imports,
            {"pyrafuse.ops.a": "class A:\n  def f(self):\n    import pyrafuse.base.errors"},
            "pyrafuse.ops.a:3",
        ),
        (
            find_cycles,
            {"pyrafuse.ops.a": "from pyrafuse.ops.b import x", "pyrafuse.ops.b": "from pyrafuse.ops import a"},
            "pyrafuse.ops.a -> pyrafuse.ops.b -> pyrafuse.ops.a",
        ),
        (find_long_files, {"pyrafuse.ops.a": "x = 1\n" * 401}, "401 lines"),
        (find_empty_names, {"pyrafuse.ops.box_utils": GOOD}, "what lives there"),
        (find_empty_names, {"pyrafuse.common.a": GOOD}, "what lives there"),
        (find_undocumented, {"pyrafuse.ops.a": GOOD + "def f(): ..."}, "f has no docstring"),
        (find_undocumented, {"pyrafuse.ops.a": GOOD + "class A: ..."}, "A has no docstring"),
        (find_undocumented, {"pyrafuse.ops.a": "x = 1"}, "no docstring"),
        (
            find_busy_packages,
            {"pyrafuse.ops": GOOD + "import os", "pyrafuse.ops.a": GOOD},
            "docstring and nothing else",
        ),
        (find_drawing, {"pyrafuse.explain.a": "from matplotlib.figure import Figure"}, "drawn in visualization/"),
        (find_drawing, {"pyrafuse.training.a": "def f():\n  import matplotlib.pyplot"}, "pyrafuse.training.a:2"),
        (find_drawing, {"pyrafuse.explain.a": "import html"}, "laid out in reports/"),
        (find_drawing, {"pyrafuse.explain.a": "from pyrafuse.visualization.report import Report"}, "explain/ computes"),
    ],
)
def test_a_check_finds_what_it_is_for(check, sources, message):
    problems = check(sources)
    assert len(problems) == 1
    assert message in problems[0]


@pytest.mark.parametrize(
    ("check", "sources"),
    [
        (find_row_violations, {"pyrafuse.models.a": "from pyrafuse.necks import b\nfrom pyrafuse import __version__"}),
        (find_row_violations, {"pyrafuse.importers.a": "from pyrafuse.models.detector import Detector"}),
        (find_hidden_imports, {"pyrafuse.cli.a": "def f():\n  from pyrafuse.models import factory"}),
        (find_hidden_imports, {"pyrafuse.ops.a": "def f():\n  import numpy"}),
        (
            find_cycles,
            {
                "pyrafuse.ops.a": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n  from pyrafuse.ops import b",
                "pyrafuse.ops.b": "from pyrafuse.ops import a",
            },
        ),
        (find_undocumented, {"pyrafuse.ops.a": GOOD + "def _f(): ..."}),
        (
            find_drawing,
            {"pyrafuse.visualization.a": "from matplotlib.figure import Figure", "pyrafuse.reports.a": "import html"},
        ),
    ],
)
def test_a_check_lets_good_code_pass(check, sources):
    assert check(sources) == []


@pytest.mark.parametrize("name", pyrafuse.__all__)
def test_a_public_name_resolves(name):
    value = getattr(pyrafuse, name)
    assert getattr(value, "__name__", name).rpartition(".")[2] == name  # one of them is a folder too


def test_public_names_have_a_home_and_nothing_else_has():
    assert set(pyrafuse.__all__) == set(pyrafuse._HOMES)
    with pytest.raises(AttributeError, match="has no attribute 'no_such_name'"):
        _ = pyrafuse.no_such_name


def test_every_module_can_be_imported():
    for module in read_sources():
        if not module.endswith("__main__"):
            assert importlib.import_module(module).__name__ == module


def test_the_command_line_starts_without_the_slow_libraries():
    slow = {"torch", "torchvision", "numpy", "matplotlib", "timm", "cv2"}
    code = f"import sys, pyrafuse.cli.main; print(sorted({slow!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")
