"""Faults of a data set, found before training: splits + every image decoded -> report."""

from collections.abc import Callable, Sequence

import numpy as np

from pyrafuse.base.members import folder_of
from pyrafuse.base.printable import counted
from pyrafuse.base.records import DetectionData
from pyrafuse.data.checks.boxes import Objects, find_odd, find_stacked, find_tiny
from pyrafuse.data.checks.classes import (
    find_alike_names,
    find_bare,
    find_bare_classes,
    find_bare_names,
    find_few,
    find_set_aside,
)
from pyrafuse.data.checks.differences import find_differences
from pyrafuse.data.checks.pictures import find_copies, find_damaged, find_near_copies, find_unlike, look_at
from pyrafuse.data.checks.report import SEVERITIES, Report
from pyrafuse.data.checks.sizes import compute_sizes
from pyrafuse.data.formats.layout import Splits
from pyrafuse.data.reading.passed_over import tell_one_folder
from pyrafuse.data.reading.problems import Problem

COUNTED_DETECTIONS = 100
"""So many detections of an image and class COCO's evaluation counts."""


def check(splits: Splits, *, decode: bool = True, progress: Callable[[int, int], None] | None = None) -> Report:
    """Gather the faults found while reading, and look for those that reading does not see.

    These are damaged images, images that lie in both splits or twice in one, near-duplicates, images unlike all others,
    boxes that are tiny, on each other, or far from what is usual in their class, classes with few objects or none, and
    splits that differ.

    Args:
        splits: What `read_splits` gave.
        decode: Decode every image; without it, only a damaged header is seen, and pictures are not compared.
        progress: Called with the images done and the number of all.
    """
    both = (splits.train, splits.val)
    records = [record for data in both for record in data.records]
    place, names = folder_of(records[0].path), splits.train.names
    sizes, objects = compute_sizes(both), Objects.of(records)
    one_folder = tell_one_folder(splits.train, splits.val)
    copies = [p for p in find_copies(*both) if not one_folder or p.kind != "image in both splits"]
    problems = [
        *splits.problems,
        *find_bare(splits.train, "training"),
        *find_bare(splits.val, "validation"),
        *(_check_pictures(splits, copies, progress, is_one_folder=bool(one_folder)) if decode else ()),
        *one_folder,
        *copies,
        *find_tiny(objects),
        *find_stacked(objects, names),
        *find_set_aside(both),
        *_tell_crowded(both),
        *find_bare_classes(both, sizes),
        *find_alike_names(names, place),
        *find_few(*both),
        *find_differences(*both),
        *find_odd(objects, names),
        *find_bare_names(splits.train),
    ]
    return Report(
        finding=splits.finding,
        problems=tuple(sorted(problems, key=lambda problem: SEVERITIES.index(problem.severity))),
        num_images=len(records),
        num_empty=sum(not len(record.labels) for record in records),
        sizes=sizes,
    )


def _check_pictures(
    splits: Splits, copies: Sequence[Problem], progress: Callable[[int, int], None] | None, *, is_one_folder: bool
) -> list[Problem]:
    """Problems that decoding finds; files listed as ``copies`` are not reported again as near-duplicates."""
    records = [*splits.train.records, *splits.val.records]
    pictures = look_at([record.path for record in records], progress=progress)
    known = frozenset(problem.file for problem in copies)
    near = find_near_copies(
        records, pictures.hashes, num_train=len(splits.train), train_name=splits.train.split, known=known
    )
    return [
        *find_damaged(records, pictures),
        *(problem for problem in near if not is_one_folder),
        *find_unlike(records, pictures),
    ]


def _tell_crowded(splits: Sequence[DetectionData]) -> list[Problem]:
    crowded = tell_crowded(splits, None)
    place = folder_of(splits[0].records[0].path)
    what = "images with many objects"
    return [Problem("note", what, place, "", crowded, "all objects are trained on")] if crowded else []


def tell_crowded(splits: Sequence[DetectionData], max_detections: int | None) -> str:
    """One sentence on images with more objects than are counted: ``max_detections``, COCO's 100 if None; or nothing."""
    limit = max_detections or COUNTED_DETECTIONS
    counts = np.array([np.count_nonzero(~record.crowd) for data in splits for record in data.records], np.int64)
    many = counts[counts > limit]
    if not len(many):
        return ""
    return (
        f"{len(many)} of {counted(len(counts), 'image')} hold more than {limit} objects, up to {many.max()}: "
        f"evaluation counts {limit} detections an image and class{'' if max_detections else ', as COCO does'}; "
        f"--max-detections {many.max()} counts more"
    )
