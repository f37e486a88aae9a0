"""The ResNets and ResNeXts of mmdetection's detectors, as their keys tell them.

keys and shapes -> `Trunk`
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from pyrafuse.base.errors import CheckpointError
from pyrafuse.importers.engine import File

DEPTHS = {(False, 2): 18, (False, 6): 34, (True, 6): 50, (True, 23): 101, (True, 36): 152}
"""(has bottlenecks, blocks of the third stage) -> depth of the ResNet."""


@dataclass(frozen=True)
class Trunk:
    """A ResNet or ResNeXt.

    Attributes:
        depth: Number of its layers.
        groups: Options of a ResNeXt; empty of a ResNet.
    """

    depth: int
    groups: Mapping[str, int] = field(default_factory=dict)

    @property
    def grouping(self) -> str:
        """``32x4d`` of a ResNeXt; empty of a ResNet."""
        return f"{self.groups['groups']}x{self.groups['base_width']}d" if self.groups else ""

    def __str__(self) -> str:
        if self.groups:
            return f"a ResNeXt of {self.depth} layers and groups of {self.grouping}"
        return f"a ResNet of {self.depth} layers"

    def edit(self, style: str) -> dict[str, str | int]:
        """The backbone, which strides as ``style`` says."""
        return {"name": f"resnet{self.depth}", "style": style, **self.groups}


def read_trunk(file: File, *, reads_deformable_heads: bool = False) -> Trunk:
    """The trunk of ``file``.

    Raises:
        CheckpointError: If it is none of these, or has deformable convolutions; if the towers of the head have, unless
            ``reads_deformable_heads``.
    """
    places = {"its backbone": r"backbone\..*\.conv(2|2\.conv)_offset\."}
    if not reads_deformable_heads:
        places["its head's towers"] = r"bbox_head\.(cls|reg)_convs\.\d+\.conv\.conv_offset\."
    for place, pattern in places.items():
        if found := next((key for key in file.state if re.match(pattern, key)), None):
            raise CheckpointError(
                f"{file.source} has deformable convolutions in {place}, which are not read here: {found}"
            )
    depth = read_depth(file, "backbone")
    if depth is None:
        blocks = file.distinct(r"backbone\.layer3\.(\d+)\.")
        raise CheckpointError(
            f"{file.source} has a ResNet with {len(blocks)} blocks in its third stage, which none has"
        )
    key, layout = "backbone.layer1.0.conv2.weight", "a ResNet of mmdetection"
    width, of_group = file.shape(key, layout=layout)[:2]
    if width % of_group:
        raise CheckpointError(
            f"{file.source} looks like {layout}, but does not fit; of another shape: {key}, whose {width} channels are "
            f"no groups of {of_group}"
        )
    groups = {} if width == of_group else {"groups": width // of_group, "base_width": of_group}
    return Trunk(depth, groups)


def read_depth(file: File, prefix: str) -> int | None:
    """Depth of the ResNet whose keys begin with ``prefix`` and a dot; None if it is none of ``DEPTHS``."""
    has_bottlenecks = file.has(rf"{prefix}\.layer\d\.\d+\.conv3\.")
    return DEPTHS.get((has_bottlenecks, len(file.distinct(rf"{prefix}\.layer3\.(\d+)\."))))
