"""Names and ids of the classes that published detectors tell apart, as far as their number says so."""

import os
from collections.abc import Sequence

from pyrafuse.base.errors import CheckpointError
from pyrafuse.base.printable import list_names

COCO_NAMES = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant",
    "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard",
    "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli",
    "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet",
    "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator",
    "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip
COCO_IDS = tuple(i for i in range(1, 91) if i not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83))
VOC_NAMES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
"""Pascal VOC's, in the order of its alphabet."""

Classes = tuple[tuple[str, ...], tuple[int, ...]]
"""Names and the data's own ids."""


def name_classes(num_classes: int, *, knows_voc: bool = True) -> Classes:
    """COCO's 80, and with ``knows_voc`` Pascal VOC's 20; any other number is told by rank."""
    if num_classes == len(COCO_NAMES):
        return COCO_NAMES, COCO_IDS
    is_voc = knows_voc and num_classes == len(VOC_NAMES)
    return VOC_NAMES if is_voc else tuple(map(str, range(num_classes))), tuple(range(1, num_classes + 1))


def name_by_coco_id(num_classes: int, *, first: int) -> Classes:
    """Classes numbered by COCO's own ids from ``first`` on, of which ten stand for nothing: named by their id.

    Other numbers of classes than 90 from 1 or 91 from 0 are told by rank.
    """
    if num_classes + first != 91:
        return name_classes(num_classes)
    known = dict(zip(COCO_IDS, COCO_NAMES, strict=True))
    ids = tuple(range(first, first + num_classes))
    return tuple(known.get(i, f"unused {i}") for i in ids), ids


def tell_classes(
    told: Sequence[str], num_classes: int, *, source: str | os.PathLike[str], knows_voc: bool = True
) -> Classes:
    """The classes that a file names; where it names none, as `name_classes` has it.

    Raises:
        CheckpointError: If there are more or fewer names than classes.
    """
    if told and len(told) != num_classes:
        shown = list_names(told, most=3)
        raise CheckpointError(
            f"{source} names {len(told)} classes ({shown}), and its parameters tell {num_classes} apart; which of "
            "these have the names is not told: save the file without these names, or with one for each output"
        )
    # older files have underscores: traffic_light
    if not told or tuple(name.replace("_", " ") for name in told) == COCO_NAMES:
        return name_classes(num_classes, knows_voc=knows_voc)
    return tuple(told), tuple(range(1, num_classes + 1))
