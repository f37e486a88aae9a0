"""Files of any command, judged from outside: what is there must be whole, and nothing may be left over."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import yaml
from PIL import Image

from pyrafuse.core.storage import read_tensors


def find_faults(root: Path) -> list[str]:
    """What below ``root`` has a final name and cannot be read, a sentence each."""
    faults = []
    for path in visible_files(root):
        try:
            read = _read(path)
        except FileNotFoundError:
            continue
        except Exception as error:
            faults.append(f"{path.relative_to(root)}: {type(error).__name__}: {error}")
        else:
            if read is False:
                faults.append(f"{path.relative_to(root)} is cut off")
    return faults


def _read(path: Path) -> bool:
    suffix = path.suffix
    if suffix == ".ckpt":
        return bool(read_tensors(path))
    if suffix == ".json":
        return json.loads(path.read_text()) is not None
    if suffix == ".jsonl":  # its last line may be cut off: the search passes it over
        return all(isinstance(json.loads(line), dict) for line in path.read_bytes().split(b"\n")[:-1])
    if suffix in {".jpg", ".png"}:
        with Image.open(path) as image:
            image.load()
        return True
    if suffix == ".mp4":
        capture = cv2.VideoCapture(str(path))
        try:
            return capture.isOpened() and capture.read()[0]
        finally:
            capture.release()
    if suffix == ".html":
        return path.read_text().rstrip().endswith("</html>")
    if suffix in {".yaml", ".yml"}:
        return yaml.safe_load(path.read_text()) is not None
    if suffix == ".csv":
        rows = [*csv.reader(io.StringIO(path.read_text()))]
        return len(rows) > 1 and len({len(row) for row in rows}) == 1
    if suffix == ".onnx":
        import onnx

        onnx.checker.check_model(onnx.load(path))
    return True


def visible_files(root: Path) -> Iterator[Path]:
    """The files below ``root`` that are not hidden, nor in a hidden folder."""
    for path in sorted(root.rglob("*")):
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(root).parts):
            yield path


def find_leftovers(root: Path) -> list[str]:
    """Temporary files and locks below ``root``."""
    return [
        str(path.relative_to(root))
        for path in sorted(root.rglob(".*"))
        if path.name.endswith((".part", ".lock")) and not path.name.startswith(".maps")
    ]


def contents(root: Path) -> dict[str, bytes]:
    """The bytes of each visible file below ``root``, or of the file ``root``."""
    if root.is_file():
        return {"": root.read_bytes()}
    return {str(path.relative_to(root)): path.read_bytes() for path in visible_files(root)}


def find_differences(found: dict[str, bytes], expected: dict[str, bytes]) -> list[str]:
    """The names of files that differ, or that one side lacks."""
    return sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
