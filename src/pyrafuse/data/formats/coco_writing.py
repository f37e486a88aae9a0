"""COCO JSON written: splits with places for their images -> one file a split."""

import json
from collections.abc import Iterator, Sequence

from pyrafuse.data.reading.rules import BoxFormat
from pyrafuse.data.writing.encoding import encode_split
from pyrafuse.data.writing.layouts import KEPT, PlacedSplit, Writing

_WRITTEN = BoxFormat("pixels", "sizes")


def _write(splits: Sequence[PlacedSplit]) -> Iterator[tuple[str, str]]:
    for split in splits:
        data, annotations = split.data, []
        boxes = encode_split(data, _WRITTEN)
        for record, numbers in zip(data.records, boxes, strict=True):
            areas = [float(str(area)) for area in record.areas]  # of float32 the shortest decimals
            columns = zip(record.labels.tolist(), numbers, areas, record.crowd.tolist(), strict=True)
            annotations += [
                {
                    "id": len(annotations) + rank + 1, "image_id": record.image_id,
                    "category_id": data.category_ids[label], "bbox": box, "area": area, "iscrowd": int(is_crowd),
                    "segmentation": [],
                }
                for rank, (label, box, area, is_crowd) in enumerate(columns)
            ]  # fmt: skip
        images = [
            {"id": record.image_id, "file_name": _name(place), "width": record.width, "height": record.height}
            for record, place in zip(data.records, split.places, strict=True)
        ]
        categories = [
            {"id": category_id, "name": name} for category_id, name in zip(data.category_ids, data.names, strict=True)
        ]
        content = {"info": {}, "licenses": [], "categories": categories, "images": images, "annotations": annotations}
        yield f"annotations/instances_{data.split or 'default'}.json", json.dumps(content, ensure_ascii=False)


def _name(place: str) -> str:
    return place if place.startswith("/") or ":" in place.partition("/")[0] else place.rpartition("/")[2]


COCO_WRITING = Writing(texts=_write, image_folder="images/{split}", keeps=frozenset(KEPT), refers=True)
