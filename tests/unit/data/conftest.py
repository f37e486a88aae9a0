"""Tiny data sets, written file by file."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def write_image() -> Callable[..., Path]:
    """Writes an image of random colours, the same for the same seed, with an EXIF orientation if asked for."""

    def write(path: Path, width: int = 100, height: int = 80, *, orientation: int = 1, seed: int | None = None) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        seed = sum(path.as_posix().encode()) if seed is None else seed
        colors = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
        exif = Image.Exif()
        if orientation != 1:
            exif[0x0112] = orientation
        Image.fromarray(colors).save(path, exif=exif)
        return path

    return write


@pytest.fixture
def write_coco() -> Callable[..., Path]:
    """Writes COCO JSON: images as (id, name, width, height), objects as (image id, category id, box, extras...)."""

    def write(
        path: Path,
        images: Sequence[tuple[Any, str, int, int]],
        objects: Sequence[tuple[Any, ...]],
        categories: Sequence[tuple[int, str]] = ((3, "cat"), (1, "dog")),
    ) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {
            "images": [dict(zip(("id", "file_name", "width", "height"), image, strict=True)) for image in images],
            "annotations": [
                {"id": 10 + rank, "image_id": image_id, "category_id": category, "bbox": box}
                | (more[0] if more else {})
                for rank, (image_id, category, box, *more) in enumerate(objects)
            ],
            "categories": [{"id": category_id, "name": name} for category_id, name in categories],
        }
        path.write_text(json.dumps(content))
        return path

    return write
