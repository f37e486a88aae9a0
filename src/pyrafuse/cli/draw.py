"""`pyrafuse draw`."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.cli.shorthand import Shorthand, shorthand

if TYPE_CHECKING:
    from pyrafuse.core.pyramid import PyramidSpec
    from pyrafuse.necks.graph import Graph


@shorthand(
    Shorthand(
        usage="NECK [-o FILE] [--strides 8,16,32] [--channels 256,512,1024]",
        options={},
        help={"-o FILE": "--output FILE"},
        positional="neck",
    )
)
def draw(
    *,
    neck: str | None = None,
    output: Path | None = None,
    strides: tuple[int, ...] = (8, 16, 32),
    channels: tuple[int, ...] | None = None,
) -> int:
    """Draw a neck as a graph, or write it down as YAML to change it.

    Levels are rows, merges stand in the order in which they run.

    Args:
        neck: A neck that is written as a graph, such as nas_fpn, or the YAML file of your own; also as a bare word.
        output: .svg, .png, .pdf, .jpg or .webp for a picture, .yaml for a text to change and name as a neck; by
            default the neck's name with .svg.
        strides: Stride in pixels of each level that comes in, finest first.
        channels: Channels of each level that comes in; by default doubling from 256 on.
    """
    if neck is None:
        raise PyrafuseError("no neck was given: pyrafuse draw NECK -o FILE")
    if Path(neck).suffix in {".yaml", ".yml"} and not Path(neck).is_file():
        raise PyrafuseError(f"cannot read the graph {neck}: there is no such file; name a file, or a neck of ours")
    from pyrafuse.base.paths import check_writable
    from pyrafuse.base.writing import write_text
    from pyrafuse.core.pyramid import PyramidSpec
    from pyrafuse.necks.graph_text import SUFFIXES, write_graph
    from pyrafuse.reports.graphs import list_nodes
    from pyrafuse.visualization.figures import save_figure
    from pyrafuse.visualization.pyramid_graph import plot_graph

    widths = tuple(256 * 2**i for i in range(len(strides))) if channels is None else tuple(channels)
    try:
        inputs = PyramidSpec(widths, tuple(strides))
    except ValueError as error:
        raise PyrafuseError(f"--channels, --strides: {error}") from error
    graph = find_graph(neck, inputs)
    path = Path(f"{Path(neck).stem}.svg") if output is None else output
    check_writable(path)
    if path.suffix in SUFFIXES:
        write_text(path, write_graph(graph))
    else:
        title = Path(neck).stem + (f", {graph.stack} times" if graph.stack > 1 else "")
        save_figure(plot_graph(list_nodes(graph, inputs), title=title), path)
    print(path)
    return 0


def find_graph(neck: str, inputs: "PyramidSpec") -> "Graph":
    """The graph of the neck called ``neck`` on ``inputs``.

    Raises:
        PyrafuseError: If there is no such neck, or it is not written as a graph.
    """
    import torch

    from pyrafuse.necks.asff_graph import asff_graph
    from pyrafuse.necks.graph_neck import GraphNeck
    from pyrafuse.necks.registry import NECKS, create_neck

    if neck == "asff":
        return asff_graph(inputs)
    try:
        with torch.device("meta"):  # no weights are needed
            built = create_neck(neck, inputs)
    except PyrafuseError:
        raise
    except ValueError as error:  # a constructor that refuses what comes in
        raise PyrafuseError(f"{neck}: {error}") from error
    if not isinstance(built, GraphNeck):
        graphs = [name for name in NECKS.names() if _returns(NECKS.get(name)) is GraphNeck]
        raise PyrafuseError(f"{neck} is not written as a graph; choose from asff, {', '.join(graphs)}, or a YAML file")
    return built.graph


def _returns(builder: Callable[..., object]) -> object:
    """What ``builder``, or the function of a `functools.partial`, is annotated to return."""
    return inspect.get_annotations(getattr(builder, "func", builder)).get("return")
