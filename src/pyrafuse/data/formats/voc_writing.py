"""Pascal VOC written: splits with places for their images -> an XML file an image, a list a split, and classes.txt."""

from collections.abc import Iterator, Sequence
from xml.etree import ElementTree

from pyrafuse.base.records import ImageRecord
from pyrafuse.data.reading.names import without_suffix
from pyrafuse.data.writing.encoding import whole_pixels
from pyrafuse.data.writing.layouts import ASIDE, BARE_CLASSES, PlacedSplit, Writing


def _write(splits: Sequence[PlacedSplit]) -> Iterator[tuple[str, str]]:
    names = splits[0].data.names
    yield "classes.txt", "".join(f"{name}\n" for name in names)
    for split in splits:
        files = [place.rpartition("/")[2] for place in split.places]
        if split.data.split:
            lines = "".join(f"{without_suffix(file)}\n" for file in files)
            yield f"ImageSets/Main/{split.data.split}.txt", lines
        for record, file, boxes in zip(split.data.records, files, whole_pixels(split.data), strict=True):
            yield f"Annotations/{without_suffix(file)}.xml", _write_image(record, file, boxes.tolist(), names)


def _write_image(record: ImageRecord, file: str, boxes: Sequence[Sequence[int]], names: Sequence[str]) -> str:
    root = ElementTree.Element("annotation")
    ElementTree.SubElement(root, "folder").text = "JPEGImages"
    ElementTree.SubElement(root, "filename").text = file
    size = ElementTree.SubElement(root, "size")
    for tag, value in (("width", record.width), ("height", record.height), ("depth", 3)):
        ElementTree.SubElement(size, tag).text = str(value)
    for label, box, is_aside in zip(record.labels.tolist(), boxes, record.crowd.tolist(), strict=True):
        item = ElementTree.SubElement(root, "object")
        ElementTree.SubElement(item, "name").text = str(names[label])
        ElementTree.SubElement(item, "difficult").text = str(int(is_aside))
        x1, y1, x2, y2 = box
        corners = ElementTree.SubElement(item, "bndbox")
        for tag, value in (("xmin", x1 + 1), ("ymin", y1 + 1), ("xmax", x2), ("ymax", y2)):
            ElementTree.SubElement(corners, tag).text = f"{value}"
    ElementTree.indent(root, " ")
    return f"{ElementTree.tostring(root, encoding='unicode')}\n"


VOC_WRITING = Writing(texts=_write, image_folder="JPEGImages", keeps=frozenset({ASIDE, BARE_CLASSES}))
