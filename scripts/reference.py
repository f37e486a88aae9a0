"""The generated half of the documentation, as a hook of MkDocs: nothing of it is committed.

registries, parser, public names, graphs -> `PAGES`: path in docs/ -> function that writes it -> pages of the site
"""

import inspect
import io
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl

import pyrafuse
from pyrafuse.base.registry import NEEDED, Registry
from pyrafuse.cli.draw import find_graph
from pyrafuse.cli.main import COMMANDS
from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.data.formats.registry import FORMATS as ANNOTATIONS
from pyrafuse.data.formats.registry import all_formats
from pyrafuse.export.registry import FORMATS as EXPORTS
from pyrafuse.inference.listing import ALL_KINDS, INNER_KINDS, KINDS, describe_part, tell_cost
from pyrafuse.inference.writers.registry import WRITERS
from pyrafuse.models.describing import describe
from pyrafuse.necks.graph_neck import GraphNeck
from pyrafuse.necks.registry import NECKS, create_neck
from pyrafuse.recipes.registry import RECIPES
from pyrafuse.reports.graphs import list_nodes
from pyrafuse.runtime.engines.registry import ENGINES as RUNTIMES
from pyrafuse.search.engines.registry import ENGINES as SEARCH_ENGINES
from pyrafuse.search.strategies.registry import STRATEGIES
from pyrafuse.training.loggers.registry import LOGGERS
from pyrafuse.visualization.pyramid_graph import GraphNode, plot_graph

ROOT = Path(__file__).resolve().parents[1]
OTHER_REGISTRIES: Mapping[str, Registry[Any]] = {
    "Recipes": RECIPES,
    "Annotation formats": ANNOTATIONS,
    "Output formats of `predict`": WRITERS,
    "Export formats": EXPORTS,
    "Engines that run exported files": RUNTIMES,
    "Loggers of a training": LOGGERS,
    "Strategies of a search": STRATEGIES,
    "Engines of a search": SEARCH_ENGINES,
}
"""What is registered besides the parts of detectors, by its heading."""
TITLES = {"model": "Models", "backbone": "Backbones", "neck": "Necks", "head": "Heads"}
DRAWN_ON = PyramidSpec((256, 512, 1024), (8, 16, 32))
"""The maps that graphs are drawn on."""
API = (
    "pyrafuse.models.detector.Detector",
    "pyrafuse.base.preprocessing.Preprocessing",
    "pyrafuse.base.spec.DetectorSpec",
    "pyrafuse.base.parts.Part",
    "pyrafuse.base.registry.Registry",
    "pyrafuse.core.pyramid",
    "pyrafuse.core.predictions",
    "pyrafuse.core.targets",
    "pyrafuse.core.assignment",
    "pyrafuse.necks.graph",
    "pyrafuse.inference.predicting.predict_to",
    "pyrafuse.base.views.cutting.Views",
    "pyrafuse.explain.fusion",
    "pyrafuse.comparison.comparing",
    "pyrafuse.search.choices.Space",
    "pyrafuse.training.settings",
    "pyrafuse.runtime.loading",
)
"""Names below the public ones that pages and parts of one's own use."""


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages and pictures; MkDocs calls this once a build."""
    from mkdocs.structure.files import File  # the tests of this file have no MkDocs

    for path, write in PAGES.items():
        files.append(File.generated(config, path, content=write()))
    return files


def write_parts(title: str, kinds: Iterable[str]) -> str:
    """Every part of ``kinds`` with its paper, its cost and its options."""
    lines = [f"# {title}", ""]
    if cost_note := [kind for kind in kinds if kind in KINDS]:
        lines += [
            f"`pyrafuse models --kind {cost_note[0]}` prints this list. Parameters and GFLOPs are of one image of "
            "416 px and 80 classes, with the default options.",
            "",
        ]
    for kind in kinds:
        level = "##"
        if len(tuple(kinds)) > 1:
            lines += [f"## {kind.replace('_', ' ').capitalize()}", ""]
            level = "###"
        for name in ALL_KINDS[kind].names():
            lines += _write_part(kind, name, level)
    return "\n".join(lines)


def _write_part(kind: str, name: str, level: str) -> list[str]:
    part, cost = describe_part(kind, name), tell_cost(kind, name)
    facts = [f"[arXiv:{part.paper}](https://arxiv.org/abs/{part.paper})"] if part.paper else []
    if cost is not None:
        facts.append(f"{cost.parameters / 1e6:.2f} M parameters, {cost.gflops:.2f} GFLOPs")
    lines = [f"{level} {name}", "", _in_cell(part.summary), ""]
    lines += [". ".join(facts) + ".", ""] if facts else []
    if part.options:
        lines += ["| option | default | meaning |", "|---|---|---|"]
        lines += [
            f"| `{o.name}` | {_code(o.default) if o.default else 'needed'} | {_in_cell(o.meaning)} |"
            for o in part.options
        ]
        lines.append("")
    return lines


def write_registries() -> str:
    """Everything that can be named besides the parts of detectors."""
    lines = [
        "# Formats, recipes and engines",
        "",
        "Each is registered under its name; `--import FILE.py` adds more.",
        "",
    ]
    for title, registry in OTHER_REGISTRIES.items():
        lines += [f"## {title}", "", "| name | what it is | options |", "|---|---|---|"]
        for name in registry.names():
            builder = registry.get(name)
            text = inspect.getdoc(getattr(builder, "func", builder)) or ""
            options = [
                f"`{option}`" if default is NEEDED else f"`{option}={default!r}`"
                for option, default in registry.options(name).items()
            ]
            lines.append(f"| `{name}` | {_in_cell(text.partition(chr(10))[0])} | {', '.join(map(_in_cell, options))} |")
        lines.append("")
    lines += ["## How annotation formats are recognised", "", "| name | title | files |", "|---|---|---|"]
    lines += [f"| `{name}` | {given.title} | {_in_cell(given.looked_for)} |" for name, given in all_formats()]
    return "\n".join(lines) + "\n"


def write_commands() -> str:
    """The help of every command, as the parser prints it."""
    from pyrafuse.cli.arguments import Options
    from pyrafuse.cli.helping import write_help

    columns, os.environ["COLUMNS"] = os.environ.get("COLUMNS"), "100"
    try:
        lines = ["# Command line", "", "Every option has its type and its default in brackets.", ""]
        for name, command in COMMANDS.items():
            function = command.load()
            options = Options.of(function)
            text = write_help(function, options.settings, prog=f"pyrafuse {name}", words=options.words)
            lines += [f"## pyrafuse {name}", "", command.summary, "", "```text", text.rstrip(), "```", ""]
    finally:
        os.environ.pop("COLUMNS")
        if columns is not None:
            os.environ["COLUMNS"] = columns
    return "\n".join(lines)


def write_api() -> str:
    """Directives of mkdocstrings for the public names and the `API`."""
    lines = [
        "# Python interface",
        "",
        "Generated from the docstrings. [Python](../how_to/python.md) shows it in use.",
        "",
    ]
    lines += ["## Public names", "", "`import pyrafuse` gives these.", ""]
    for name in pyrafuse.__all__:
        home = "pyrafuse.cli.calling" if name == "export" else pyrafuse._HOMES[name]  # the room of that name is called
        lines += [f"::: {home}.{name}", ""]
    lines += ["## Types, parts and tools", ""]
    for name in API:
        lines += [f"::: {name}", ""]
    return "\n".join(lines)


def write_contributing() -> str:
    """CONTRIBUTING.md, in docs/."""
    return _page_of("CONTRIBUTING.md")


def write_changes() -> str:
    """CHANGELOG.md, in docs/."""
    return _page_of("CHANGELOG.md")


def _page_of(file: str) -> str:
    """A file of the repository's root; links to files outside of docs/ become their text."""
    text = (ROOT / file).read_text().replace("](docs/", "](../")
    return re.sub(r"\[([^]]+)\]\((?!\.\./|https?:|#)[^)]+\)", r"\1", text)


def draw(neck: str) -> bytes:
    """The picture of a neck's graph, as `pyrafuse draw` makes it."""
    graph = find_graph(neck, DRAWN_ON)
    return _draw(neck + (f", {graph.stack} times" if graph.stack > 1 else ""), list_nodes(graph, DRAWN_ON))


def draw_system(title: str, list_system: Callable[[], Sequence[GraphNode]]) -> bytes:
    """The picture of a system whose neck is no graph of merges, from its maps."""
    return _draw(title, list_system())


def _draw(title: str, nodes: Sequence[GraphNode]) -> bytes:
    mpl.use("agg")
    picture = io.BytesIO()
    plot_graph(nodes, title=title).savefig(picture, format="svg", bbox_inches="tight")
    return picture.getvalue()


def list_fpn(model: str, inputs: PyramidSpec) -> list[GraphNode]:
    """The maps of the FPN that ``model`` begins its necks with."""
    neck = create_neck(describe(model).necks[0], inputs)
    assert isinstance(neck, GraphNeck)
    return list_nodes(neck.graph, inputs)


def list_libra() -> list[GraphNode]:
    """The maps of Libra R-CNN's necks: an FPN, then what `BFP.forward` computes."""
    fpn = list_fpn("libra_rcnn", PyramidSpec((256, 512, 1024, 2048), (4, 8, 16, 32)))
    given = [node for node in fpn if node.is_output]
    gathered = GraphNode("G4", 4, tuple(node.name for node in given), "mean, non-local block")
    ends = [GraphNode(f"B{n.level}", n.level, (n.name, "G4"), "sum", is_output=True) for n in given]
    return [*(replace(node, is_output=False) for node in fpn), gathered, *ends]


def list_m2det() -> list[GraphNode]:
    """The maps of `MLFPN` with two TUMs of four scales; the largest map has level 3."""
    nodes = [GraphNode("C3", 3), GraphNode("C4", 4), GraphNode("F3", 3, ("C3", "C4"), "FFMv1: concat")]
    first, levels = "F3", range(3, 7)
    for k in (1, 2):
        down = [first, *(f"D{level}_{k}" for level in levels[1:])]
        nodes += [GraphNode(down[i], levels[i], (down[i - 1],), "3x3, stride 2") for i in (1, 2)]
        nodes.append(GraphNode(down[3], 6, (down[2],), "3x3, no padding"))
        nodes.append(GraphNode(f"U6_{k}", 6, (down[-1],), "1x1"))
        for i in (2, 1, 0):
            nodes.append(GraphNode(f"U{levels[i]}_{k}", levels[i], (f"U{levels[i + 1]}_{k}", down[i]), "sum"))
        if k == 1:
            first = "F3_2"
            nodes.append(GraphNode(first, 3, ("F3", "U3_1"), "FFMv2: concat"))
    ends = [GraphNode(f"P{n}", n, (f"U{n}_1", f"U{n}_2"), "SFAM: concat", is_output=True) for n in levels]
    return [*nodes, *ends]


def list_recursion() -> list[GraphNode]:
    """The maps of `RecursiveFPN` with two rounds on strides 8 to 32; R3 is the second backbone's map of stride 8."""
    levels = (3, 4, 5)
    nodes = [GraphNode(f"C{n}", n) for n in levels]
    nodes += _top_down("P", "C", levels)
    nodes += [GraphNode(f"A{n}", n, (f"P{n}",), "ASPP") for n in levels]
    nodes.append(GraphNode("R2", 2))  # the first stage of the second backbone: it reads the image alone
    nodes += [GraphNode(f"R{n}", n, (f"R{n - 1}", f"A{n}"), "stage of the second backbone") for n in levels]
    nodes += _top_down("Q", "R", levels)
    return [*nodes, *(GraphNode(f"O{n}", n, (f"P{n}", f"Q{n}"), "gate", is_output=True) for n in levels)]


def _top_down(name: str, source: str, levels: Sequence[int]) -> list[GraphNode]:
    """An FPN's path from the coarsest of ``levels``, finest first, to the finest."""
    coarsest, *finer = reversed(levels)
    path = [GraphNode(f"{name}{coarsest}", coarsest, (f"{source}{coarsest}",), "FPN")]
    return [*path, *(GraphNode(f"{name}{n}", n, (f"{source}{n}", f"{name}{n + 1}"), "FPN") for n in finer)]


SYSTEMS: Mapping[str, tuple[str, Callable[[], Sequence[GraphNode]]]] = {
    "ddod": ("FPN of ddod", partial(list_fpn, "ddod", DRAWN_ON)),
    "libra": ("FPN and balanced pyramid of libra_rcnn", list_libra),
    "m2det": ("MLFPN with two TUMs of four scales", list_m2det),
    "recursive_fpn": ("recursive FPN, two rounds", list_recursion),
}
"""Title and maps of each system with a picture of its own, by the name of its page."""


def graph_necks() -> list[str]:
    """Necks that are written as graphs of the maps in `DRAWN_ON`."""
    builders = {name: getattr(NECKS.get(name), "func", NECKS.get(name)) for name in NECKS.names()}
    return ["asff", *(n for n, b in builders.items() if inspect.get_annotations(b).get("return") is GraphNeck)]


def _code(text: str) -> str:
    return f"`{_in_cell(text)}`"


def _in_cell(text: str) -> str:
    """Text that ends no table cell."""
    return " ".join(text.split()).replace("|", "\\|")


PAGES: Mapping[str, Callable[[], str | bytes]] = {
    **{f"reference/{kind}s.md": partial(write_parts, TITLES[kind], (kind,)) for kind in KINDS},
    "reference/parts.md": partial(write_parts, "Parts of a description", tuple(INNER_KINDS)),
    "reference/registries.md": write_registries,
    "reference/command_line.md": write_commands,
    "reference/api.md": write_api,
    "how_to/contributing.md": write_contributing,
    "project/changes.md": write_changes,
    **{f"explanation/graphs/{name}.svg": partial(draw, name) for name in graph_necks()},
    **{f"explanation/graphs/{name}.svg": partial(draw_system, *system) for name, system in SYSTEMS.items()},
}
"""Path below docs/ of every generated page and picture, with what writes it."""
