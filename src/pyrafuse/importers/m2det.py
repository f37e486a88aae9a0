"""The authors' M2Det checkpoints -> ours: VGG-16 and ResNets, with and without SFAM's attention.

arXiv:1811.04533. What a key means was learnt from published files' keys and shapes.
state dict -> trunk, levels and scales -> ours, every key renamed, none left over but aliases of shared layers
"""

import re
from typing import Any

from torch import Tensor

from pyrafuse.backbones.resnet import name_resnet
from pyrafuse.backbones.vgg import name_vgg16
from pyrafuse.base.errors import CheckpointError
from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.heads.multibox import M2DET_FORMS
from pyrafuse.importers import origins
from pyrafuse.importers.class_names import name_classes
from pyrafuse.importers.engine import File, Found, Importer, Keys
from pyrafuse.importers.mmdetection.trunks import read_depth
from pyrafuse.importers.renaming import Naming, by_modules, by_parts, by_patterns

LAYOUT = "an M2Det"
_INNER = by_patterns([(r"\bnorm\.", "bn.")])


def naming_ffm1() -> Naming:
    """Of `FFMv1` with two maps."""
    return by_modules([("shallow", "reduce"), ("deep.0", "up_reduce")], then=_INNER)


def naming_ffm2(place: str = "leach") -> Naming:
    """Of FFMv2's convolution, `MLFPN.reduce`; in a whole checkpoint its place has a number behind it."""
    return lambda key: f"{place}.{_INNER(key)}"


def naming_tum(num_scales: int) -> Naming:
    """Of a `TUM`; the original numbers laterals and smoothing from the smallest map to the largest."""
    pairs = [("down", "layers"), ("top", "toplayer.0")]
    for i in range(num_scales - 1):
        pairs += [(f"laterals.{i}", f"latlayer.{num_scales - 2 - i}"), (f"smooth.{i}", f"smooth.{num_scales - 2 - i}")]
    return by_modules(pairs, then=_INNER)


def naming_sfam(num_scales: int) -> Naming:
    """Of `SFAM`; the original lists its two layers once a scale, and the last entry is the one in effect."""
    return by_modules([("reduce", f"fc1.{num_scales - 1}"), ("expand", f"fc2.{num_scales - 1}")])


def naming_mlfpn(num_levels: int, num_scales: int) -> Naming:
    """Of an `MLFPN` in a whole checkpoint; as there, the shared reduction is the last of its aliases."""
    tum = naming_tum(num_scales)
    return by_parts(
        {
            "base": ("", naming_ffm1()),
            "reduce": ("", naming_ffm2(f"leach.{num_levels - 1}")),
            **{f"tums.{level}": (f"unet{level + 1}", tum) for level in range(num_levels)},
            "sfam": ("sfam_module", naming_sfam(num_scales)),
            "norm": ("Norm", str),
        }
    )


def aliases_mlfpn(num_levels: int, num_scales: int) -> Naming:
    """Their key -> the last of those that list the same shared layer, which is the one in effect."""
    levels, scales = ("|".join(map(str, range(number))) for number in (num_levels, num_scales))
    return by_patterns(
        [
            (rf"^leach\.({levels})\.", f"leach.{num_levels - 1}."),
            (rf"^((?:sfam_module\.)?fc[12])\.({scales})\.", rf"\1.{num_scales - 1}."),
        ]
    )


def describe_m2det(file: File) -> Found:
    """Which M2Det ``file`` is; its name tells the size of the input, which the anchors depend on and no key does."""
    size = _size_of(file)
    mlfpn = _read_mlfpn(file)
    slots = file.shape("loc.0.weight", layout=LAYOUT, least=4)[0] // 4
    num_classes = file.shape("conf.0.weight", layout=LAYOUT, least=2 * slots)[0] // slots - 1
    depth = read_depth(file, "base")
    if depth is None and not file.has(r"base\.\d+\."):
        raise CheckpointError(
            f"{file.source} has an M2Det's neck on a trunk that is neither VGG-16 nor a ResNet known here"
        )
    backbone = "vgg16" if depth is None else f"resnet{depth}"
    layout = f"M2Det-{size} on {backbone}{' with SFAM' if mlfpn['attention'] else ''}"
    count = mlfpn["num_levels"], mlfpn["num_scales"]
    naming = by_parts(
        {
            "backbone": ("base", name_vgg16 if backbone == "vgg16" else name_resnet),
            "neck": ("", naming_mlfpn(*count)),
            "head": ("", by_patterns([(r"^classes\.", "conf."), (r"^deltas\.", "loc.")])),
        }
    )

    def change(key: str, value: Tensor) -> Tensor:
        # their background comes first, ours last
        return value.unflatten(0, (slots, -1)).roll(-1, dims=1).flatten(0, 1) if ".classes." in key else value

    unused = () if backbone == "vgg16" else (r"base\.fc\.(weight|bias)$",)
    return Found(
        layout=layout,
        model="m2det",
        edits=[{"backbone": backbone, "neck": mlfpn, "head": {"size": size}}],
        keys=lambda _: Keys(naming, aliases_mlfpn(*count), unused, change),
        classes=name_classes(num_classes),
        preprocessing=Preprocessing(
            size=(size, size),
            interpolation="opencv",
            mean=(123 / 255, 117 / 255, 104 / 255),
            std=(1 / 255, 1 / 255, 1 / 255),
            bgr=True,
        ),
        origin=f"official {layout}, {num_classes} classes",
    )


M2DET = Importer(origins.M2DET, (r"leach\.\d+\.", r"unet1\.", r"loc\.\d+\."), describe_m2det)


def _size_of(file: File) -> int:
    found = re.search(r"m2det[_-]?(\d{3})(?!\d)", file.name, re.IGNORECASE)
    if found is None or int(found[1]) not in M2DET_FORMS:
        known = ", ".join(f"m2det{size}" for size in M2DET_FORMS)
        raise CheckpointError(
            f"{file.source} is an M2Det, and neither it nor the name {file.name!r} tells the size of its input; name "
            f"it by one of {known}: --as m2det512 on the command line, load(..., source='m2det512') in Python"
        )
    return int(found[1])


def _read_mlfpn(file: File) -> dict[str, Any]:
    """The neck's options, as keys and shapes tell them."""
    levels = max(map(int, file.distinct(r"unet(\d+)\.")), default=1)

    def width(key: str) -> int:
        return file.shape(key, layout=LAYOUT)[0]

    return {
        "num_levels": levels,
        "num_scales": len(file.distinct(r"unet1\.layers\.(\d+)\.")) + 1,
        "channels": 2 * width(f"leach.{levels - 1}.conv.weight"),
        "shallow_channels": width("reduce.conv.weight"),
        "deep_channels": width("up_reduce.conv.weight"),
        "attention": file.has(r"sfam_module\."),
        "smooth": file.has(r"unet\d+\.smooth\."),
    }
