"""Images in ImageNet's layout, FOLDER/CLASS/image.jpg: which files there are, and what the labels are.

folder -> class folders -> labels by ImageNet's ids, by number or by rank -> `LabelledImage`s
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from timm.data import ImageNetInfo  # type: ignore[attr-defined]

from pyrafuse.base.errors import DataError
from pyrafuse.base.images.reading import IMAGE_SUFFIXES


@dataclass(frozen=True)
class LabelledImage:
    """An image file and its class.

    Attributes:
        path: Path of the file.
        label: Class index, 0..K-1.
    """

    path: Path
    label: int


def read_class_folders(root: Path, num_classes: int) -> tuple[LabelledImage, ...]:
    """Every image below the class folders of ``root``, in order.

    Folders called by ImageNet's ids (n01440764) have the labels of its 1000 classes, though some be missing; folders
    called by numbers have that number; others, one a class, their rank among the sorted names.

    Args:
        root: The folder that holds one folder a class.
        num_classes: K, of the classifier.

    Raises:
        DataError: If there are no class folders or no images, or the classes do not fit the classifier.
    """
    if not root.is_dir():
        raise DataError(f"no such folder: {root}; give one that holds one folder a class")
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not folders:
        raise DataError(f"{root} holds no folders; images must lie in one folder a class, {root}/CLASS/image.jpg")
    labels = _label([folder.name for folder in folders], root, num_classes)
    found = tuple(
        LabelledImage(path, label)
        for folder, label in zip(folders, labels, strict=True)
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()
    )
    if not found:
        raise DataError(f"no images in the folders of {root}; looked for {', '.join(sorted(IMAGE_SUFFIXES))}")
    return found


def _label(names: Sequence[str], root: Path, num_classes: int) -> list[int]:
    ids = {name: label for label, name in enumerate(ImageNetInfo().label_names())} if num_classes == 1000 else {}
    if all(name in ids for name in names):
        return [ids[name] for name in names]
    if all(name.isdecimal() for name in names):
        labels = [int(name) for name in names]
        if max(labels) >= num_classes:
            raise DataError(f"{root} has class {max(labels)}, and the classifier tells {num_classes}, from 0 on")
        return labels
    if len(names) != num_classes:
        raise DataError(
            f"{root} has {len(names)} class folders, and the classifier tells {num_classes} classes; call the folders "
            "by ImageNet's ids (n01440764) or by the classes' numbers (0, 1, ...) to evaluate on some of them"
        )
    return list(range(num_classes))
