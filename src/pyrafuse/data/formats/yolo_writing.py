"""YOLO text written: splits with places for their images -> a text an image, and data.yaml."""

from collections.abc import Iterator, Sequence

import yaml

from pyrafuse.data.reading.names import without_suffix
from pyrafuse.data.reading.rules import BoxFormat
from pyrafuse.data.writing.encoding import encode_split, spell_number
from pyrafuse.data.writing.layouts import BARE_CLASSES, FRACTIONS, PlacedSplit, Writing

_WRITTEN = BoxFormat("shares", "centers")


def _write(splits: Sequence[PlacedSplit]) -> Iterator[tuple[str, str]]:
    names = splits[0].data.names
    if any(split.data.split == "train" for split in splits):
        places = {split.data.split: f"images/{split.data.split}" for split in splits}
        listing = {**places, "names": dict(enumerate(names))}
        yield "data.yaml", yaml.safe_dump(listing, sort_keys=False, allow_unicode=True)
    else:
        yield "classes.txt", "".join(f"{name}\n" for name in names)
    for split in splits:
        boxes = encode_split(split.data, _WRITTEN)
        for record, place, numbers in zip(split.data.records, split.places, boxes, strict=True):
            objects = zip(record.labels.tolist(), numbers, strict=True)
            lines = [" ".join([str(label), *map(spell_number, box)]) + "\n" for label, box in objects]
            yield f"labels/{without_suffix(place.removeprefix('images/'))}.txt", "".join(lines)


YOLO_WRITING = Writing(texts=_write, image_folder="images/{split}", keeps=frozenset({FRACTIONS, BARE_CLASSES}))
