"""NAS-FPN: seven merging cells that a search has found, stacked.

Ghiasi, Lin, Pang and Le, "NAS-FPN", arXiv:1904.07392, section 3 and figure 6 (the 7-cell architecture).
C3..C5 -> 1x1 convolutions -> P3..P5; P5 -> P6 -> P7; then several times all of the cells, each: fuse -> ReLU -> 3x3
convolution -> norm
"""

from dataclasses import replace

from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.necks.convolving import Conv
from pyrafuse.necks.fpn import name_levels
from pyrafuse.necks.graph import Graph, Merge
from pyrafuse.necks.graph_neck import GraphNeck
from pyrafuse.necks.registry import NECKS

NUM_LEVELS = 5

# Levels are told from the finest on, 0..4 for P3..P7. A number among the inputs is a map of the stem.
CELLS = (
    ("gp_64", 1, (3, 1), "global_attention"),
    ("sum_44", 1, ("gp_64", 1), "sum"),
    ("out_3", 0, ("sum_44", 0), "sum"),
    ("out_4", 1, ("out_3", "sum_44"), "sum"),
    ("gp_43", 2, ("out_4", "out_3"), "global_attention"),
    ("out_5", 2, (2, "gp_43"), "sum"),
    ("gp_54", 4, ("out_5", "sum_44"), "global_attention"),
    ("out_7", 4, (4, "gp_54"), "sum"),
    ("out_6", 3, ("out_7", "out_5"), "global_attention"),
)
UNCONVOLVED = ("gp_43", "gp_54")
"""Each is one half of the cell after it, which convolves."""


@NECKS.register("nas_fpn")
def nas_fpn(
    inputs: PyramidSpec,
    *,
    out_channels: int = 256,
    stack: int = 7,
    start_level: int = 0,
    norm: str = "batch_norm",
) -> GraphNeck:
    """The published NAS-FPN: five levels, of which those that do not come in are made by max-pooling.

    Args:
        inputs: Channels and strides of the backbone's maps.
        out_channels: Channels of every level.
        stack: How often the seven cells run.
        start_level: Finest level that is read; finer ones are left aside. The paper's has stride 8.
        norm: Behind each convolution, a key of `NORMS`.

    Raises:
        ValueError: If more than five levels are read.
    """
    if len(inputs) - start_level > NUM_LEVELS:
        raise ValueError(
            f"NAS-FPN's cells were found for {NUM_LEVELS} levels, and {len(inputs) - start_level} are read from "
            f"start_level={start_level} on; raise it"
        )
    names = name_levels(inputs, start_level=start_level, num_levels=NUM_LEVELS)
    lateral = Conv(1, norm=norm)
    stem = [Merge(f"P{n}", n, (f"C{n}",), conv=lateral) for n in names[start_level : len(inputs)]]
    for n in names[len(inputs) :]:
        stem.append(Merge(f"E{n}", n - 1, (f"P{n - 1}",), conv=lateral))
        stem.append(Merge(f"P{n}", n, (f"E{n}",), down="max_pool_floor"))
    graph = Graph(
        stem=tuple(stem),
        merges=create_cells(names[start_level:], norm=norm),
        outputs=tuple(f"out_{rank + 3}" for rank in range(NUM_LEVELS)),
        channels=out_channels,
        stack=stack,
        ignored=tuple(f"C{n}" for n in names[:start_level]),
    )
    return GraphNeck(inputs, graph)


def create_cells(names: tuple[int, ...], *, norm: str) -> tuple[Merge, ...]:
    """The seven cells over five levels with these numbers."""
    conv = Conv(3, before="relu", norm=norm, bias=True)
    merges = [
        Merge(
            name,
            names[rank],
            tuple(source if isinstance(source, str) else f"P{names[source]}" for source in sources),
            fusion=fusion,
            down="max_pool_to_size",
            conv=conv,
        )
        for name, rank, sources, fusion in CELLS
    ]
    return tuple(replace(merge, conv=None) if merge.name in UNCONVOLVED else merge for merge in merges)
