"""The graphs of necks once more, written by hand: what the executor of graphs costs is measured against these.

a neck in its default form -> its plain form, of the same parameters, which gives the same numbers
"""

from collections.abc import Callable, Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from pyrafuse.core.pyramid import Neck, Pyramid, PyramidSpec
from pyrafuse.necks.asff import ASFF
from pyrafuse.necks.asff_graph import asff_graph
from pyrafuse.necks.bifpn import bifpn
from pyrafuse.necks.fpn import fpn
from pyrafuse.necks.graph_neck import GraphNeck
from pyrafuse.necks.merging import attend_globally, max_pool_to
from pyrafuse.necks.nas_fpn import nas_fpn
from pyrafuse.necks.pafpn import pafpn


def upsample(x: Tensor, like: Tensor) -> Tensor:
    """X (B, C, h, w) at the size of ``like`` (B, C', H, W), by nearest neighbours."""
    return F.interpolate(x, size=like.shape[2:], mode="nearest")


def max_pool(x: Tensor) -> Tensor:
    """X (B, C, H, W) at half of its size, rounded up."""
    return F.max_pool2d(x, 3, stride=2, padding=1)


def resize(x: Tensor, like: Tensor) -> Tensor:
    """X (B, C, h, w) at the size of ``like`` (B, C', H, W): repeated or max-pooled."""
    if x.shape[2:] == like.shape[2:]:
        return x
    is_coarser = x.shape[2:].numel() < like.shape[2:].numel()
    return upsample(x, like) if is_coarser else max_pool_to(x, like.shape[2:])


class PlainFPN(Neck):
    """Lin et al., arXiv:1612.03144, section 3."""

    def __init__(self, neck: GraphNeck) -> None:
        super().__init__()
        self.features = neck.features
        self.laterals = nn.ModuleList(neck.get_submodule(f"merges.L{n}.conv.conv") for n in neck.plan.levels)
        self.outputs = nn.ModuleList(neck.get_submodule(f"merges.P{n}.conv.conv") for n in neck.plan.levels)

    def forward(self, pyramid: Pyramid) -> Pyramid:
        maps = [lateral(x) for lateral, x in zip(self.laterals, pyramid, strict=True)]
        for level in reversed(range(len(maps) - 1)):
            maps[level] = maps[level] + upsample(maps[level + 1], maps[level])
        return tuple(output(x) for output, x in zip(self.outputs, maps, strict=True))


class PlainPAFPN(Neck):
    """Liu et al., arXiv:1803.01534, section 3.1."""

    def __init__(self, neck: GraphNeck) -> None:
        super().__init__()
        self.features = neck.features
        first, *others = neck.plan.levels
        inner = (f"P{first}", *(f"F{n}" for n in others))
        self.laterals = nn.ModuleList(neck.get_submodule(f"merges.L{n}.conv.conv") for n in neck.plan.levels)
        self.inner = nn.ModuleList(neck.get_submodule(f"merges.{name}.conv.conv") for name in inner)
        self.downs = nn.ModuleList(neck.get_submodule(f"merges.B{n}.edges.1.halve.0.conv") for n in others)
        self.outputs = nn.ModuleList(neck.get_submodule(f"merges.P{n}.conv.conv") for n in others)

    def forward(self, pyramid: Pyramid) -> Pyramid:
        maps = [lateral(x) for lateral, x in zip(self.laterals, pyramid, strict=True)]
        for level in reversed(range(len(maps) - 1)):
            maps[level] = maps[level] + upsample(maps[level + 1], maps[level])
        maps = [inner(x) for inner, x in zip(self.inner, maps, strict=True)]
        for level, down in enumerate(self.downs):
            maps[level + 1] = maps[level + 1] + down(maps[level])
        return (maps[0], *(output(x) for output, x in zip(self.outputs, maps[1:], strict=True)))


class BiFPNNode(nn.Module):
    """Fast normalized sum of two or three maps, SiLU, separable convolution, batch norm."""

    def __init__(self, merge: nn.Module) -> None:
        super().__init__()
        self.edge_weights = merge.get_parameter("fusion.edge_weights")
        self.depthwise = merge.get_submodule("conv.depthwise")
        self.conv = merge.get_submodule("conv.conv")
        self.norm = merge.get_submodule("conv.norm")

    def forward(self, *maps: Tensor) -> Tensor:
        weights = F.relu(self.edge_weights)
        weights = weights / (weights.sum() + 1e-4)
        x = weights[0] * maps[0] + weights[1] * maps[1]
        if len(maps) > 2:
            x = x + weights[2] * maps[2]
        return self.norm(self.conv(self.depthwise(F.silu(x))))


class BiFPNCell(nn.Module):
    """Down and up again; the way down reads its own maps of the inputs, as projections differ in the first cell."""

    def __init__(self, neck: GraphNeck, numbers: range, suffix: str) -> None:
        super().__init__()
        down = [f"P{n}" if n == numbers[0] else f"T{n}" for n in numbers[:-1]]
        up = [f"P{n}" for n in numbers[1:]]
        self.down = nn.ModuleList(BiFPNNode(neck.get_submodule(f"merges.{name}{suffix}")) for name in down)
        self.up = nn.ModuleList(BiFPNNode(neck.get_submodule(f"merges.{name}{suffix}")) for name in up)

    def forward(self, for_down: Pyramid, for_up: Pyramid) -> Pyramid:
        maps = list(for_down)
        for level in reversed(range(len(maps) - 1)):
            maps[level] = self.down[level](maps[level], upsample(maps[level + 1], maps[level]))
        for level in range(1, len(maps) - 1):
            maps[level] = self.up[level - 1](for_up[level], maps[level], max_pool(maps[level - 1]))
        maps[-1] = self.up[-1](for_up[-1], max_pool(maps[-2]))
        return tuple(maps)


class PlainBiFPN(Neck):
    """Tan, Pang and Le, arXiv:1911.09070, section 3; each way has projections of its own of what comes in."""

    def __init__(self, neck: GraphNeck) -> None:
        super().__init__()
        self.features = neck.features
        given = neck.plan.levels
        numbers = range(given[0], given[0] + len(neck.features))
        suffixes = _suffixes(neck)
        down = [f"{'P' if n == given[0] else 'T'}{n}{suffixes[0]}.edges.0" for n in given]
        if given[-1] == numbers[-1]:  # the coarsest level begins the way down: the merge below it reads it second
            down[-1] = down[-2].replace("edges.0", "edges.1")
        up = [f"P{n}{suffixes[0]}.edges.0" for n in given[1:]]
        self.extra = nn.ModuleList(_projection(neck, f"C{n}.edges.0") for n in numbers[len(given) :])
        self.for_down = nn.ModuleList(_projection(neck, edge) for edge in down)
        self.for_up = nn.ModuleList(_projection(neck, edge) for edge in up)
        self.cells = nn.ModuleList(BiFPNCell(neck, numbers, suffix) for suffix in suffixes)

    def forward(self, pyramid: Pyramid) -> Pyramid:
        extra: list[Tensor] = []
        for project in self.extra:
            extra.append(max_pool(project((*pyramid, *extra)[-1])))
        for_down = (*(project(x) for project, x in zip(self.for_down, pyramid, strict=True)), *extra)
        for_up = (for_down[0], *(project(x) for project, x in zip(self.for_up, pyramid[1:], strict=True)), *extra)
        for cell in self.cells:
            for_down = for_up = cell(for_down, for_up)
        return for_up


class NASFPNCell(nn.Module):
    """ReLU, 3x3 convolution and batch norm, after two maps are fused."""

    def __init__(self, merge: nn.Module) -> None:
        super().__init__()
        self.conv = merge.get_submodule("conv.conv")
        self.norm = merge.get_submodule("conv.norm")

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(F.relu(x)))


class NASFPNStage(nn.Module):
    """The seven cells of figure 6."""

    def __init__(self, neck: GraphNeck, suffix: str) -> None:
        super().__init__()
        self.p4_attended, self.p4_summed, self.p3, self.p4, self.p5, self.p7, self.p6 = (
            NASFPNCell(neck.get_submodule(f"merges.{name}{suffix}"))
            for name in ("gp_64", "sum_44", "out_3", "out_4", "out_5", "out_7", "out_6")
        )

    def forward(self, p3: Tensor, p4: Tensor, p5: Tensor, p6: Tensor, p7: Tensor) -> Pyramid:
        p4_summed = self.p4_summed(self.p4_attended(attend_globally(resize(p6, p4), p4)) + p4)
        p3 = self.p3(resize(p4_summed, p3) + p3)
        p4 = self.p4(resize(p3, p4) + p4_summed)
        p5 = self.p5(p5 + attend_globally(resize(p4, p5), resize(p3, p5)))
        p7 = self.p7(p7 + attend_globally(resize(p5, p7), resize(p4_summed, p7)))
        p6 = self.p6(attend_globally(resize(p7, p6), resize(p5, p6)))
        return p3, p4, p5, p6, p7


class PlainNASFPN(Neck):
    """Ghiasi, Lin, Pang and Le, arXiv:1904.07392, section 3."""

    def __init__(self, neck: GraphNeck) -> None:
        super().__init__()
        self.features = neck.features
        given = neck.plan.levels
        more = range(given[-1] + 1, given[0] + len(neck.features))
        self.laterals = nn.ModuleList(neck.get_submodule(f"merges.P{n}.conv") for n in given)
        self.extra = nn.ModuleList(neck.get_submodule(f"merges.E{n}.conv") for n in more)
        self.stages = nn.ModuleList(NASFPNStage(neck, suffix) for suffix in _suffixes(neck))

    def forward(self, pyramid: Pyramid) -> Pyramid:
        maps = [lateral(x) for lateral, x in zip(self.laterals, pyramid, strict=True)]
        for project in self.extra:
            x = project(maps[-1])
            window = [min(2, side) for side in x.shape[2:]]  # one cell stays one
            maps.append(F.max_pool2d(x, window, stride=window))
        for stage in self.stages:
            maps = stage(*maps)
        return tuple(maps)


def _suffixes(neck: GraphNeck) -> list[str]:
    """What the merges of each time end in."""
    return [""] if neck.graph.stack == 1 else [f"_{time + 1}" for time in range(neck.graph.stack)]


def _projection(neck: GraphNeck, edge: str) -> nn.Module:
    """The 1x1 convolution of an edge to the neck's channels, if it has one."""
    project = getattr(neck.get_submodule(f"merges.{edge}"), "project", None)
    return project if isinstance(project, nn.Module) else nn.Identity()


def create_plain_asff(neck: GraphNeck) -> ASFF:
    """`ASFF`, which is no graph, with copies of the parameters of ``neck``."""
    plain = ASFF(neck.features)
    for level, merge in zip(plain.levels, neck.merges.values(), strict=True):
        pairs = [(level.get_submodule("expand"), merge.get_submodule("conv"))]
        pairs += [(level.get_submodule(name), merge.get_submodule(f"fusion.{name}")) for name in ("squeezes", "weigh")]
        for source in range(len(neck.features)):
            edge = list(merge.get_submodule(f"edges.{source}").children())
            pairs += [(level.get_submodule(f"resizes.{source}.project"), part) for part in edge]
        for ours, theirs in pairs:
            ours.load_state_dict(theirs.state_dict())
    return plain


PLAIN_FORMS: Mapping[str, tuple[Callable[[PyramidSpec], GraphNeck], Callable[[GraphNeck], Neck]]] = {
    "asff": (lambda inputs: GraphNeck(inputs, asff_graph(inputs)), create_plain_asff),
    "bifpn": (bifpn, PlainBiFPN),
    "fpn": (fpn, PlainFPN),
    "nas_fpn": (nas_fpn, PlainNASFPN),
    "pafpn": (pafpn, PlainPAFPN),
}
"""Of each neck: the graph on what comes in, and the plain form of that graph."""
