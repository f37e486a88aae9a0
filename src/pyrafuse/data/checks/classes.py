"""Classes that cannot be learnt or measured, and how they are called: records -> counts of each class -> problems."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pyrafuse.base.errors import fold_name
from pyrafuse.base.members import folder_of
from pyrafuse.base.printable import counted, printable
from pyrafuse.base.records import DetectionData
from pyrafuse.data.checks.sizes import ClassSizes
from pyrafuse.data.formats.registry import format_of
from pyrafuse.data.reading.problems import Problem

FEW_TO_LEARN, FEW_TO_MEASURE = 20, 10
"""Objects of a class in training below which it is hardly learnt, and in validation below which figures are chance."""


def find_bare(data: DetectionData, purpose: str) -> list[Problem]:
    """Tell of a split without an object that counts."""
    if not all(record.crowd.all() for record in data.records):
        return []
    place, split = folder_of(data.records[0].path), f"split {data.split}" if data.split else ""
    what = f"none of the {counted(len(data), 'image')} for {purpose} holds an object"
    if num_aside := sum(len(record.crowd) for record in data.records):
        word, remedy = format_of(data.layout).set_aside
        return [
            Problem("error", "only objects that are set aside", place, split,
                    f"{what} to be found: all {num_aside} are {word}", remedy)
        ]  # fmt: skip
    return [
        Problem("error", "no objects at all", place, split, what,
                "check that these are the images that were annotated, and that the annotations are whole")
    ]  # fmt: skip


def find_set_aside(splits: Sequence[DetectionData]) -> list[Problem]:
    """Tell how many objects are neither to be found nor missed, and of which classes: a warning from half of all on."""
    records = [record for data in splits for record in data.records]
    names = splits[0].names
    aside, total = count_set_aside(splits)
    if not aside.sum():
        return []
    largest = np.argsort(-aside, kind="stable")[: np.count_nonzero(aside)].tolist()
    shown = ", ".join(f"{printable(names[label], limit=60)} {aside[label]} of {total[label]}" for label in largest[:10])
    more = f" and {len(largest) - 10} more classes" if len(largest) > 10 else ""
    is_much = 2 * aside.sum() >= total.sum()
    word, remedy = format_of(splits[0].layout).set_aside
    return [
        Problem("warning" if is_much else "note", "objects set aside", folder_of(records[0].path), "",
                f"{aside.sum()} of {total.sum()} objects are {word}: {shown}{more}",
                remedy if is_much else "they count neither as found nor as missed")
    ]  # fmt: skip


def count_set_aside(splits: Sequence[DetectionData]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(K,) the crowds and difficult objects of each class, and (K,) all objects of it."""
    records = [record for data in splits for record in data.records]
    labels = np.concatenate([record.labels for record in records] or [np.zeros(0, np.int64)])
    crowd = np.concatenate([record.crowd for record in records] or [np.zeros(0, bool)])
    count = len(splits[0].names)
    return np.bincount(labels[crowd], minlength=count), np.bincount(labels, minlength=count)


def find_bare_classes(splits: Sequence[DetectionData], sizes: Sequence[ClassSizes]) -> list[Problem]:
    """Tell of classes that no split has an object of, or none that counts."""
    place, aside = folder_of(splits[0].records[0].path), count_set_aside(splits)[0].tolist()
    word, remedy = format_of(splits[0].layout).set_aside
    problems = []
    for row, num_aside in zip(sizes[:-1], aside, strict=True):
        if row.num_objects:
            continue
        if num_aside:
            message = f"all {num_aside} objects of the class {row.name} are {word}"
            problems.append(Problem("warning", "class with all objects set aside", place, row.name, message, remedy))
        else:
            message = f"no object of the class {row.name} in any split"
            remedy_bare = "it cannot be learnt; delete it or annotate some"
            problems.append(Problem("warning", "class without objects", place, row.name, message, remedy_bare))
    return problems


def find_alike_names(names: Sequence[str], place: Path) -> list[Problem]:
    """Tell of classes whose names differ in case, spaces, hyphens or underscores alone."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        groups[fold_name(name)].append(name)
    return [
        Problem("warning", "classes with almost the same name", place, "",
                f"{' and '.join(map(repr, alike))} are {len(alike)} classes",
                "they are learnt apart; give them one name if they are one class")
        for alike in groups.values() if len(set(alike)) > 1
    ]  # fmt: skip


def find_bare_names(data: DetectionData) -> list[Problem]:
    """Tell of classes that are called by their numbers, since no file names them."""
    naming = format_of(data.layout).naming
    if not naming or data.names != tuple(map(str, range(len(data.names)))):
        return []
    return [
        Problem("note", "classes without names", folder_of(data.records[0].path), "",
                f"no file names the classes: they are called by their numbers, 0 to {len(data.names) - 1}",
                f"to name them, {naming}")
    ]  # fmt: skip


def find_few(train: DetectionData, val: DetectionData) -> list[Problem]:
    """Tell of classes that one split lacks, and of those with too few objects to be learnt or to be measured."""
    (learnt, measured), names = (count_objects(data) for data in (train, val)), train.names
    place, problems = folder_of(train.records[0].path), []
    for name, here, there in zip(names, learnt.tolist(), measured.tolist(), strict=True):
        shown = printable(name, limit=60)
        if not here and there:
            message = f"{counted(there, 'object')} of the class {shown} for validation, and none for training"
            remedy = "it cannot be learnt; divide the images anew (pyrafuse data split)"
            problems.append(Problem("warning", "class without training objects", place, name, message, remedy))
        if 0 < here < FEW_TO_LEARN:
            message = f"{counted(here, 'object')} of the class {shown} for training"
            remedy = f"annotate more, {FEW_TO_LEARN} at least, or leave the class out"
            problems.append(Problem("hint", "class with few training objects", place, name, message, remedy))
        if here and there < FEW_TO_MEASURE:
            message = f"{counted(there, 'object')} of the class {shown} for validation"
            remedy = f"its figures will be chance; annotate more, or divide anew: {FEW_TO_MEASURE} at least"
            problems.append(Problem("hint", "class with few validation objects", place, name, message, remedy))
    return problems


def count_objects(data: DetectionData) -> NDArray[np.int64]:
    """(K,) the objects of each class that are not set aside."""
    labels = [record.labels[~record.crowd] for record in data.records]
    return np.bincount(np.concatenate([np.zeros(0, np.int64), *labels]), minlength=len(data.names))
