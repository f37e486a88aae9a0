"""The names that mmdetection's detectors were published under, taken apart and compared with what keys tell.

name, file's name or URL -> `PublishedName` -> of the same family as another, or not
"""

import re
from dataclasses import dataclass

DATA_WORDS = frozenset({"coco", "voc0712"})
KIND_WORDS = frozenset({"crop640", "detectors", "nasfpn", "pafpn", "rfp"})
"""Words that stand for other layers, or for another use of the same: a name has exactly those of its family."""


@dataclass(frozen=True)
class PublishedName:
    """A name such as ``retinanet_r50_caffe_fpn_mstrain_2x_coco_20200131-...``, taken apart.

    Attributes:
        family: ``retinanet``.
        depth: 50; of a ResNeXt too.
        is_caffe: Whether the ResNet is in caffe style.
        words: All that follows, and what stands for a way of training in the family's name, or in front of it.
        grouping: Groups and width of a ResNeXt, ``32x8d``; else empty.
        is_whole: Whether it names its data or ends in a published file's date or digest.
    """

    family: str
    depth: int
    is_caffe: bool
    words: tuple[str, ...]
    grouping: str = ""
    is_whole: bool = False

    def __str__(self) -> str:
        kinds = ", ".join(sorted(KIND_WORDS & set(self.words)))
        layers = f"{self.family} on {self.depth} layers{f' in groups of {self.grouping}' if self.grouping else ''}"
        return f"{layers}{f' with {kinds}' if kinds else ''}"


_NAME = re.compile(
    r"(?P<family>[a-z][a-z0-9]*(?:_[a-z][a-z0-9]*)*?)_(?P<kind>[rx])(?P<depth>\d{2,3})(?:_(?P<grouping>\d+x\d+d))?(?P<caffe>_caffe)?_(?P<words>\w+)"
)
_KNOWN_WORDS = re.compile(
    r"\d+[ekx]|\d+xb?\d+|[1-9]\d{2,3}|mstrain|ms|fpn|pafpn|nasfpn|rfp|gn|head|coco|voc0712|crop640|fp16|amp|upgraded"
    r"|center|normbbox|centeronreg|bounded|[cg]?iou"
)
_TRAINING_WORDS = frozenset({"center", "normbbox", "centeronreg", "giou"})
"""Older names of FCOS have them in front."""
_HASH = re.compile(r"(_\d{8}(_\d{6})?)?-[0-9a-f]{8}$")


def parse_name(name: str) -> PublishedName | None:
    """Take a published name, a file's name or a URL apart; None if it is not of the published kind.

    A name that says more than is known here, such as ``dcn``, is none either.
    """
    whole = re.sub(r"\.pth$", "", name.rstrip("/").rpartition("/")[2].lower())
    stem = _HASH.sub("", whole)
    is_detectors = stem.startswith("detectors_")
    stem = re.sub(r"_bbox_map-[\d.]+(?=_|$)", "", stem.removeprefix("detectors_"))
    stem = re.sub(r"_\d{8}(_\d{6})?$", "", stem).replace("-", "_")
    found = _NAME.fullmatch(stem)
    if found is None:
        return None
    words = tuple(found["words"].split("_"))
    if not all(_KNOWN_WORDS.fullmatch(word) for word in words):
        return None
    family = found["family"].split("_")
    ways = tuple(word for word in family if word in _TRAINING_WORDS)
    family = "_".join(word for word in family if word not in _TRAINING_WORDS)
    return PublishedName(
        family,
        int(found["depth"]),
        found["caffe"] is not None,
        (*(("detectors",) if is_detectors else ()), *ways, *words),
        found["grouping"] or "",
        is_whole=bool(DATA_WORDS & set(words)) or _HASH.search(whole) is not None,
    )


def is_like(name: PublishedName, example: str) -> bool:
    """Whether ``name`` and ``example``, another published name, are of the same family."""
    other = parse_name(example)
    kinds, others = (KIND_WORDS & set(found.words) if found else None for found in (name, other))
    return other is not None and (name.family, kinds) == (other.family, others)
