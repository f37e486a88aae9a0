"""What the pages say to type exists: commands, options, make targets, imports, links."""

import ast
import functools
import importlib
import importlib.util
import json
import os
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch

from pyrafuse.base.parts import Part
from pyrafuse.cli.arguments import call
from pyrafuse.cli.compare import read_variants
from pyrafuse.cli.main import COMMANDS, main
from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.data.formats.shapes import write_shapes
from pyrafuse.models.describing import describe
from pyrafuse.necks.registry import NECKS, create_neck

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def read_script(file: Path) -> Any:
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


REFERENCE = read_script(ROOT / "scripts/reference.py")
"""What writes the generated pages."""


def read_blocks(page: Path, language: str) -> list[str]:
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)
    return [text for of, text in blocks if of == language]


def typed_lines() -> list[str]:
    """Every line of the pages that is to be typed in a shell, without its comment."""
    return [
        line.partition("  #")[0].strip()
        for page in PAGES
        for block in read_blocks(page, "")
        for line in block.splitlines()
        if line.startswith(("pyrafuse ", "make "))
    ]


def explain_misfit(line: str) -> str:
    """Why ``line`` cannot be typed so; empty where it can."""
    program, *words = shlex.split(line)
    if program == "make":
        targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        return "" if words[0] in targets else f"no target {words[0]}"
    if words == ["--help"]:
        return ""
    name = next((name for name in (" ".join(words[:2]), words[0]) if name in COMMANDS), None)
    if name is None:
        return f"no command {words[0]}"
    function = COMMANDS[name].load()
    without_effect = functools.wraps(function)(lambda *_, **__: 0)
    try:
        return "" if call(without_effect, words[len(name.split()) :], prog=name) == 0 else "not accepted"
    except ValueError as error:
        return str(error)


def test_there_are_lines_to_check():
    lines = typed_lines()
    assert {"make demo", "make test", "pyrafuse models"} <= set(lines)


@pytest.mark.parametrize("line", typed_lines())
def test_what_is_to_be_typed_is_accepted(line):
    assert explain_misfit(line) == ""


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("make coffee", "no target coffee"),
        ("pyrafuse brew", "no command brew"),
        ("pyrafuse data check a --sugar 2", "unknown option --sugar"),
    ],
)
def test_the_check_can_fail(line, message):
    assert message in explain_misfit(line)


def test_the_readme_opens_with_two_commands():
    assert read_blocks(ROOT / "README.md", "")[0].split("\n")[0].startswith("make demo ")
    assert read_blocks(ROOT / "README.md", "")[0].count("make ") == 2


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_in_the_pages_compiles_and_its_imports_exist(page):
    for block in read_blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module or "")
                assert [a.name for a in node.names if not hasattr(module, a.name)] == []
            elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "pyrafuse":
                assert hasattr(importlib.import_module("pyrafuse"), node.attr)


def test_the_page_on_python_runs_from_top_to_bottom(tmp_path, monkeypatch):
    page = (ROOT / "docs/how_to/python.md").read_text()
    page = page[: page.index("## Export")]  # what follows has tests of its own, or shows parts
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    small = {"epochs=5": "epochs=1", "size=320": "size=64", "size=416": "size=64", "batch=8": "batch=2",
             "batch_size=8": "batch_size=2"}  # fmt: skip
    write_shapes(tmp_path / "my_data", num_train=4, num_val=2, size=64)
    pictures = sorted((tmp_path / "my_data").rglob("*.png")) or sorted((tmp_path / "my_data").rglob("*.jpg"))
    (tmp_path / "images").mkdir()
    for picture in pictures[:2]:
        (tmp_path / "images" / picture.name).write_bytes(picture.read_bytes())
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {}
    for block in blocks:
        for word, smaller in small.items():
            block = block.replace(word, smaller)
        exec(compile(block, "docs/how_to/python.md", "exec"), namespace)  # what the page says to type
    assert namespace["summary"].num_images == 2
    assert namespace["evaluation"].ap == namespace["again"].evaluate("my_data/", size=64, batch=2).ap
    assert (tmp_path / "drawn.jpg").is_file()
    assert len(namespace["crops"]) == len(namespace["found"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_within_the_project_lead_somewhere(page):
    links = [link for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()) if "://" not in link]
    generated = {ROOT / "docs" / path for path in REFERENCE.PAGES}
    places = {link: Path(os.path.normpath(page.parent / link)) for link in links}
    assert [link for link, place in places.items() if not place.exists() and place not in generated] == []


def test_everything_that_can_be_named_is_in_the_generated_reference():
    parts = REFERENCE.write_parts("Parts", REFERENCE.ALL_KINDS)
    for kind, registry in REFERENCE.ALL_KINDS.items():
        section = parts.partition(f"## {kind.replace('_', ' ').capitalize()}\n")[2].partition("\n## ")[0]
        assert re.findall(r"^### (\S+)$", section, re.MULTILINE) == list(registry.names())
    assert "| `weight_channels` | `16` | Channels that each level is squeezed to" in parts
    others = REFERENCE.write_registries()
    for title, registry in REFERENCE.OTHER_REGISTRIES.items():
        section = others.partition(f"## {title}\n")[2].partition("\n## ")[0]
        assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == list(registry.names())
    commands = REFERENCE.write_commands()
    assert re.findall(r"^## pyrafuse (.+)$", commands, re.MULTILINE) == list(COMMANDS)
    assert "--max-latency" in commands
    assert commands.count("usage: pyrafuse ") >= len(COMMANDS)


def test_every_registry_of_the_package_has_a_place_in_the_reference():
    listed = {*map(id, REFERENCE.ALL_KINDS.values()), *map(id, REFERENCE.OTHER_REGISTRIES.values())}
    files = (ROOT / "src/pyrafuse").rglob("*.py")
    made = [(f, n) for f in files for n in re.findall(r"^(\w+)(?:: .*)? = \w*Registry\(", f.read_text(), re.MULTILINE)]
    assert len(made) > 20
    for file, name in made:
        module = ".".join(file.relative_to(ROOT / "src").with_suffix("").parts)
        assert id(getattr(importlib.import_module(module), name)) in listed, f"{module}.{name}"


def test_the_drawn_graphs_are_those_of_the_necks():
    assert {"asff", "fpn", "nas_fpn", "bifpn", "pafpn"} <= set(REFERENCE.graph_necks())
    assert REFERENCE.draw("fpn").count(b"<svg") == 1


@pytest.mark.parametrize(
    ("system", "model", "inputs", "changes"),
    [
        ("ddod", "ddod", (8, 16, 32), {}),
        ("libra", "libra_rcnn", (4, 8, 16, 32), {}),
        ("m2det", "m2det", (8, 16), {"num_levels": 2, "num_scales": 4}),
    ],
)
def test_the_drawn_systems_have_the_levels_of_their_necks(system, model, inputs, changes):
    title, list_system = REFERENCE.SYSTEMS[system]
    first, *others = describe(model).necks
    with torch.device("meta"):
        given = PyramidSpec((256, 512, 1024, 2048)[: len(inputs)], inputs)
        neck = create_neck(Part(first.name, {**first.options, **changes}), given)
        for part in others:
            neck = create_neck(part, neck.features)
    nodes = list_system()
    assert sorted(2**node.level for node in nodes if node.is_output) == list(neck.features.strides)
    assert sorted(2**node.level for node in nodes if not node.inputs) == list(inputs)
    assert REFERENCE.draw_system(title, list_system).count(b"<svg") == 1


def names_of_parts() -> set[str]:
    registries = [*REFERENCE.ALL_KINDS.values(), *REFERENCE.OTHER_REGISTRIES.values()]
    return {name for registry in registries for name in registry.names()}


def test_what_the_page_on_migrating_names_exists():
    options = {option.replace("_", "-") for option in re.findall(r"--[a-z][\w.-]*", REFERENCE.write_commands())}
    parts = names_of_parts()
    rows = re.findall(r"^\| .* \| (.*) \|$", (ROOT / "docs/how_to/migrating.md").read_text(), re.MULTILINE)
    codes = [code for row in rows for code in re.findall(r"`([^`]+)`", row)]
    assert len(codes) > 40
    for code in codes:
        if code.startswith("pyrafuse ") and "--resume" not in code:
            assert explain_misfit(code) == "", code
        elif code.startswith("--"):
            assert code.split()[0].replace("_", "-") in {*options, "--import"}, code
        elif code.startswith("pyrafuse."):
            assert hasattr(importlib.import_module("pyrafuse"), re.findall(r"\w+", code)[1]), code
        elif re.fullmatch(r"\w+", code):
            assert code in parts | {"criterion", "postprocess", "predict"}, code


def test_parts_in_the_pages_of_explanation_exist():
    for page in sorted((ROOT / "docs/explanation").glob("*.md")):
        head = page.read_text().partition("## ")[0]
        named = {
            name
            for line in re.findall(r"^(?:.*[a-z]: `.*)$", head, re.MULTILINE)
            for name in re.findall(r"`(\w+)`", line)
        }
        assert named <= names_of_parts(), page.name


@pytest.mark.slow
def test_the_notebook_runs_from_top_to_bottom(tmp_path, monkeypatch):
    cells = json.loads((ROOT / "docs/tutorial/own_images.ipynb").read_text())["cells"]
    write_shapes(tmp_path / "shapes", num_train=4, num_val=2, size=64)
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            code = "".join(cell["source"]).replace("EPOCHS, SIZE = 20, 320", "EPOCHS, SIZE = 1, 64")
            exec(compile(code.replace("batch=8", "batch=2"), "own_images.ipynb", "exec"), namespace)
    assert namespace["found"].source.endswith(".jpg") or namespace["found"].source.endswith(".png")
    assert (tmp_path / "mine.onnx").stat().st_size > 100_000


def test_the_table_of_exports_is_what_the_command_prints(capsys):
    assert main(["export", "--list"]) == 0
    printed = capsys.readouterr().out
    assert printed[printed.index("| model") :] in (ROOT / "docs/how_to/exporting.md").read_text()


def test_variants_of_the_pages_are_read(tmp_path):
    used = set(re.findall(r"--variants (\S+\.yaml)", "\n".join(typed_lines())))
    blocks = [block for page in PAGES for block in read_blocks(page, "yaml")]
    written = {block.partition("\n")[0].removeprefix("# "): block for block in blocks if block.startswith("# ")}
    assert used
    for name in used:
        (tmp_path / name).write_text(written[name])
        assert len(read_variants(tmp_path / name, "small", [])) > 1


def test_the_neck_of_the_contributors_page_works():
    (block,) = (text for text in read_blocks(ROOT / "CONTRIBUTING.md", "python") if "@NECKS.register" in text)
    try:
        exec(block, {"__name__": "lateral"})
        neck = NECKS.create("lateral", PyramidSpec((4, 6), (8, 16)), out_channels=5)
    finally:
        NECKS._entries.pop("lateral", None)
    assert neck.features == PyramidSpec((5, 5), (8, 16))
    levels = neck((torch.zeros(1, 4, 8, 8), torch.zeros(1, 6, 4, 4)))
    assert [tuple(level.shape) for level in levels] == [(1, 5, 8, 8), (1, 5, 4, 4)]
