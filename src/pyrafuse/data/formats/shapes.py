"""A generated data set: shapes of five kinds, small ones beside large ones, on noisy ground; written as COCO JSON.

A small detector learns it from nothing in minutes on a processor, so every part of the way can be tried without data.
"""

import colorsys
import json
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pyrafuse.base.errors import DataError, unknown_name
from pyrafuse.base.folders import cache_folder
from pyrafuse.base.locking import part_suffix, remove_leftovers

SHAPES = ("circle", "square", "triangle", "star", "cross")

_MANIFEST = "shapes.json"
_VERSION = 1  # another one, and what lies in the caches is drawn anew

_LATER = ("rare", "smaller")  # what was drawn before these options does not name them

# Shares of the image's side: a few large shapes and a crowd of small ones, as many again in between.
_SIZES = ((0.30, 0.48), (0.13, 0.28), (0.06, 0.12))
_COUNTS = ((0, 2), (1, 4), (2, 7))  # lowest and, not reached, highest number of each
_MAX_OVERLAP = 0.05
_MAX_ATTEMPTS = 30
_BOUNDS = {
    "train": (1, 10**6),
    "val": (1, 10**6),
    "size": (32, 4096),
    "seed": (0, 2**63 - 1),
    "rare": (1, 10**6),
    "smaller": (1, 64),
}


@dataclass(frozen=True)
class ShapesSettings:
    """What is drawn.

    Attributes:
        train: Number of training images.
        val: Number of validation images.
        size: Side of an image in pixels.
        seed: Seed of all of them.
        rare: Factor by which the last class is rarer than each other one in training; validation has all alike.
        smaller: Factor by which objects are smaller and more numerous.
    """

    train: int = 400
    val: int = 100
    size: int = 256
    seed: int = 0
    rare: int = 1
    smaller: int = 1

    def __post_init__(self) -> None:
        for name, (least, most) in _BOUNDS.items():
            if not least <= getattr(self, name) <= most:
                raise DataError(f"shapes:{name}={getattr(self, name)}: {name} must lie within {least} and {most}")


def is_shapes(text: str) -> bool:
    """Whether ``text`` asks for the generated data set instead of naming a path."""
    return text == "shapes" or text.startswith("shapes:")


def parse_shapes(text: str) -> ShapesSettings:
    """Read ``shapes`` or ``shapes:train=400,val=100,size=256,seed=0,rare=1,smaller=1``, or some of these values.

    Raises:
        DataError: If a value is no whole number or out of its bounds.
        UnknownNameError: If there is no such option.
    """
    options: dict[str, int] = {}
    for option in filter(None, text.removeprefix("shapes").removeprefix(":").split(",")):
        name, _, value = option.partition("=")
        if name.strip() not in asdict(ShapesSettings()):
            raise unknown_name("option of shapes", name.strip(), asdict(ShapesSettings()))
        try:
            options[name.strip()] = int(value)
        except ValueError as error:
            raise DataError(f"{text!r}: {name.strip()} is {value!r}, not a whole number") from error
    return ShapesSettings(**options)


def draw_shapes(
    index: int, *, size: int = 256, seed: int = 0, split: str = "train", rare: int = 1, smaller: int = 1
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.int64]]:
    """Draw image ``index``: (size, size, 3) uint8 RGB, its (G, 4) xyxy boxes in pixels and its (G,) labels.

    The same arguments give the same image.
    """
    rng = np.random.default_rng((seed, int(split != "train"), index))
    image = _draw_ground(rng, size)
    boxes = np.zeros((0, 4))
    labels = []
    for (smallest, largest), (fewest, most) in zip(_SIZES, _COUNTS, strict=True):
        for _ in range(smaller * rng.integers(fewest, most)):
            label = _draw_label(rng, rare if split == "train" else 1)
            side = max(size * float(rng.uniform(smallest, largest)) / smaller, 6.0)
            placed = _place(_outline(SHAPES[label], rng) * side, boxes, rng, size)
            if placed is None:
                continue
            # fillPoly counts in sixteenths of a pixel, from the middle of the first one
            corners = np.round((placed - 0.5) * 16).astype(np.int32)
            cv2.fillPoly(image, [corners], _color(label, rng), lineType=cv2.LINE_AA, shift=4)
            boxes = np.vstack([boxes, [*placed.min(0), *placed.max(0)]])
            labels.append(label)
    noisy = image + rng.normal(0, 8, image.shape).astype(np.float32)
    return np.clip(noisy, 0, 255).astype(np.uint8), boxes.astype(np.float32), np.array(labels, np.int64)


def write_shapes(
    folder: str | os.PathLike[str],
    *,
    num_train: int = 400,
    num_val: int = 100,
    size: int = 256,
    seed: int = 0,
    rare: int = 1,
    smaller: int = 1,
) -> Path:
    """Write the data set as COCO JSON: images/, instances_train.json and instances_val.json; returns ``folder``.

    It appears whole or not at all. What is there already, drawn with the same arguments, is kept as it is.

    Raises:
        DataError: If something else lies in ``folder``, or it cannot be written.
    """
    folder = Path(folder)
    settings = ShapesSettings(num_train, num_val, size, seed, rare, smaller)
    manifest = {"version": _VERSION, **asdict(settings)}
    manifest = {name: value for name, value in manifest.items() if name not in _LATER or value != 1}
    if _holds(folder, manifest):
        return folder
    is_ours = (folder / _MANIFEST).is_file()
    if folder.exists() and not is_ours and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder} holds something else already; name a new folder for the shapes")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder.parent)
        with tempfile.TemporaryDirectory(
            prefix=f".{folder.name}.", suffix=part_suffix(), dir=folder.parent
        ) as temporary:
            drawn = Path(temporary, folder.name)
            _write(drawn, settings)
            (drawn / _MANIFEST).write_text(json.dumps(manifest))
            if folder.exists() and not _holds(folder, manifest):
                folder.rename(Path(temporary, "earlier"))  # as a whole: whatever ends the process, half is never there
            if not folder.exists():  # else another process was faster
                drawn.rename(folder)
    except OSError as error:
        if not _holds(folder, manifest):
            raise DataError(
                f"cannot write {folder}: {error.strerror or error}; free space or choose another place"
            ) from error
    return folder


def cached_shapes(text: str) -> Path:
    """The folder of what ``text`` (see `parse_shapes`) asks for, drawn when asked for first.

    It lies in `cache_folder`.

    Raises:
        DataError: On the same faults as `parse_shapes` and `write_shapes`.
    """
    settings = parse_shapes(text)
    name = f"shapes-v{_VERSION}-{settings.train}-{settings.val}-{settings.size}px-seed{settings.seed}"
    name += "".join(f"-{option}{getattr(settings, option)}" for option in _LATER if getattr(settings, option) != 1)
    return write_shapes(
        cache_folder() / name,
        num_train=settings.train,
        num_val=settings.val,
        size=settings.size,
        seed=settings.seed,
        rare=settings.rare,
        smaller=settings.smaller,
    )


def _draw_ground(rng: np.random.Generator, size: int) -> NDArray[np.uint8]:
    """Blotches of muted colours."""
    grid = rng.uniform(50, 170, (6, 6, 1)) + rng.uniform(-25, 25, (6, 6, 3))
    ground = cv2.resize(grid.astype(np.uint8), (size, size), interpolation=cv2.INTER_CUBIC)
    return ground.astype(np.uint8, copy=False)


def _draw_label(rng: np.random.Generator, rare: int) -> int:
    """A class, the last one ``rare`` times as seldom as each other."""
    if rare == 1:
        return int(rng.integers(len(SHAPES)))
    place = float(rng.uniform(0, len(SHAPES) - 1 + 1 / rare))
    return min(int(place), len(SHAPES) - 1)


def _outline(shape: str, rng: np.random.Generator) -> NDArray[np.float64]:
    """(P, 2) corners around 0, 0 of a shape that is about one unit wide, turned a little."""
    if shape == "circle":
        angles, radii = np.arange(48) * (2 * np.pi / 48), np.full(48, 0.5)
    elif shape == "square":
        angles, radii = np.pi / 4 + np.arange(4) * (np.pi / 2), np.full(4, 0.62)
    elif shape == "triangle":
        angles, radii = -np.pi / 2 + np.arange(3) * (2 * np.pi / 3), np.full(3, 0.57)
    elif shape == "star":
        angles, radii = -np.pi / 2 + np.arange(10) * (np.pi / 5), np.where(np.arange(10) % 2, 0.23, 0.55)
    else:  # a cross: three corners an arm
        arm = np.array([[0.5, -0.16], [0.5, 0.16], [0.16, 0.16]])
        corners = np.concatenate([_turn(arm, quarter * np.pi / 2) for quarter in range(4)])
        angles, radii = np.arctan2(corners[:, 1], corners[:, 0]), np.hypot(*corners.T)
    angles = angles + rng.uniform(-0.25, 0.25)
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1) * rng.uniform(0.85, 1.0, 2)


def _turn(points: NDArray[np.float64], angle: float) -> NDArray[np.float64]:
    cos, sin = np.cos(angle), np.sin(angle)
    return points @ np.array([[cos, sin], [-sin, cos]])


def _place(
    outline: NDArray[np.float64], boxes: NDArray[np.float64], rng: np.random.Generator, size: int
) -> NDArray[np.float64] | None:
    """Move ``outline`` to where it lies inside the image and hardly covers anything, or None if that is not found."""
    low, high = outline.min(0), outline.max(0)
    for _ in range(_MAX_ATTEMPTS):
        shift = rng.uniform(-low + 1, size - 1 - high)
        x1, y1, x2, y2 = *(low + shift), *(high + shift)
        width = np.minimum(boxes[:, 2], x2) - np.maximum(boxes[:, 0], x1)
        height = np.minimum(boxes[:, 3], y2) - np.maximum(boxes[:, 1], y1)
        if not ((width > 0) & (height > 0) & (width * height > _MAX_OVERLAP * (x2 - x1) * (y2 - y1))).any():
            return outline + shift
    return None


def _color(label: int, rng: np.random.Generator) -> tuple[float, float, float]:
    """A bright colour around the hue of its class."""
    hue = (label / len(SHAPES) + rng.normal(0, 0.03)) % 1
    red, green, blue = colorsys.hsv_to_rgb(hue, rng.uniform(0.65, 1), rng.uniform(0.7, 1))
    return 255 * red, 255 * green, 255 * blue


def _write(folder: Path, settings: ShapesSettings) -> None:
    (folder / "images").mkdir(parents=True)
    categories = [{"id": label + 1, "name": name} for label, name in enumerate(SHAPES)]
    for split, count in (("train", settings.train), ("val", settings.val)):
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for index in range(count):
            pixels, boxes, labels = draw_shapes(
                index,
                size=settings.size,
                seed=settings.seed,
                split=split,
                rare=settings.rare,
                smaller=settings.smaller,
            )
            name = f"{split}_{index:06d}.jpg"
            _, encoded = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
            (folder / "images" / name).write_bytes(encoded.tobytes())
            images.append({"id": index + 1, "file_name": name, "width": settings.size, "height": settings.size})
            for (x1, y1, x2, y2), label in zip(boxes.astype(float).round(2).tolist(), labels.tolist(), strict=True):
                width, height = round(x2 - x1, 2), round(y2 - y1, 2)
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": index + 1,
                        "category_id": label + 1,
                        "bbox": [x1, y1, width, height],
                        "area": round(width * height, 2),
                        "iscrowd": 0,
                    }
                )
        content = {"images": images, "annotations": annotations, "categories": categories}
        (folder / f"instances_{split}.json").write_text(json.dumps(content))


def _holds(folder: Path, manifest: dict[str, int]) -> bool:
    try:
        return json.loads((folder / _MANIFEST).read_text()) == manifest
    except (OSError, ValueError):
        return False
