"""What is fuzzed: each reader of pyrafuse with good files to begin with, and how a changed one is read.

A reader is made in a folder of its own. `Reader.change` gives the next input as bytes, and `Reader.read` reads it; it
raises a `PyrafuseError` for what is refused.
"""

import argparse
import asyncio
import base64
import collections
import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from safetensors.torch import save as save_safetensors
from torch import nn

from mutations import change_bytes, change_tree, change_words, write_json
from pyrafuse.backbones.registry import BACKBONES
from pyrafuse.base.card import Card, card_to_dict
from pyrafuse.base.detections import Detections
from pyrafuse.base.exported import METADATA_KEY, Interface, read_metadata, write_metadata
from pyrafuse.base.images.reading import read_header, read_picture
from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.base.typed_values import to_plain
from pyrafuse.cli.train import read_recipe_file
from pyrafuse.core.pyramid import Backbone, PyramidSpec
from pyrafuse.core.storage import read_tensors
from pyrafuse.data.formats.layout import read_all
from pyrafuse.data.formats.registry import FORMATS
from pyrafuse.data.sharding.writing import write_shards
from pyrafuse.data.writing.converting import plan, write
from pyrafuse.importers.loading import load
from pyrafuse.importers.mmdetection.config import find_config, parse_config
from pyrafuse.inference.results_file import read_results
from pyrafuse.models.building import build, build_without_weights
from pyrafuse.models.describing import describe, read_file, write_yaml
from pyrafuse.necks.graph import plan_graph
from pyrafuse.necks.graph_text import read_graph
from pyrafuse.recipes.small import small
from pyrafuse.runtime.loading import load as load_exported
from pyrafuse.search.journal import read_trials
from pyrafuse.serving.limits import Limits
from pyrafuse.serving.rest import create_app
from pyrafuse.serving.service import Service
from pyrafuse.training.reporting import read_history

Values = list[Any]


@dataclass
class Reader:
    """One reader.

    Attributes:
        read: Reads one input.
        seeds: Good inputs; what is read must accept each.
        others: Further inputs to begin with, which are refused.
        trees: The same as plain values, where there are such; changed by nodes.
        is_text: Whether words and numbers are changed too.
        pack: What is made of a changed tree.
        leads_elsewhere: Whether an input may name files anywhere, as annotations name images by absolute paths. They
            may be looked at, never changed.
    """

    read: Callable[[bytes], object]
    seeds: list[bytes]
    others: list[bytes] = field(default_factory=list)
    trees: list[Any] = field(default_factory=list)
    is_text: bool = False
    pack: Callable[[Any], bytes] = write_json
    leads_elsewhere: bool = False

    def change(self, chance: Random, values: Values) -> bytes:
        """The next input."""
        kind = chance.random()
        if self.trees and kind < 0.6:
            return self.pack(change_tree(chance.choice(self.trees), chance, values))
        if self.is_text and kind < 0.85:
            return change_words(chance.choice(self.seeds), chance)
        return change_bytes(chance.choice(self.seeds), chance, self.seeds)


def make_readers(names: list[str] | None = None) -> dict[str, Callable[[Path], Reader]]:
    """By name, what makes each reader in a folder; all of them, or those of ``names``."""
    formats = {f"data: {name}": _over_format(name) for name in FORMATS.names()}
    known = {**formats, **_OTHERS}
    if names and (unknown := set(names) - known.keys()):
        raise SystemExit(f"no reader {', '.join(sorted(unknown))}; choose from {', '.join(known)}")
    return {name: known[name] for name in names or known}


# --- data sets ---


def _over_format(name: str) -> Callable[[Path], Reader]:
    return lambda folder: _data_set(name, folder)


def _data_set(name: str, folder: Path) -> Reader:
    """A data set of two splits; in each input one of its texts is another one."""
    root = folder / "set"
    _write_coco(folder / "coco")
    if FORMATS.create(name).writing is None:
        _WRITTEN_OTHERWISE[name](root)
    else:
        write(plan(read_all(folder / "coco"), name, allow_loss=True), root)
    outside = folder / "outside"
    outside.mkdir()
    (outside / "secret.txt").write_text("secret\n")
    _picture(outside / "secret.png")
    images = {".png", ".jpg"}
    texts = [path for path in sorted(root.rglob("*")) if path.is_file() and path.suffix not in images]
    good = {path: path.read_bytes() for path in texts}

    def read(data: bytes) -> None:
        number, _, content = data.partition(b"|")
        path = texts[int(number) % len(texts)]
        path.write_bytes(content)
        try:
            read_all(root)
        finally:
            path.write_bytes(good[path])

    reader = _Numbered(read, [b"%d|%s" % (number, good[path]) for number, path in enumerate(texts)], is_text=True)
    reader.leads_elsewhere = True
    for number, path in enumerate(texts):
        if path.suffix == ".json":
            reader.trees.append([number, json.loads(good[path])])
    return reader


class _Numbered(Reader):
    """Inputs that begin with the number of the file which they replace; that number stays."""

    def change(self, chance: Random, values: Values) -> bytes:
        if self.trees and chance.random() < 0.6:
            number, tree = chance.choice(self.trees)
            return b"%d|%s" % (number, write_json(change_tree(tree, chance, values)))
        number, _, content = chance.choice(self.seeds).partition(b"|")
        others = [seed.partition(b"|")[2] for seed in self.seeds]
        changed = change_words(content, chance) if chance.random() < 0.6 else change_bytes(content, chance, others)
        return number + b"|" + changed


def _picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((32, 48, 3), 200, np.uint8)).save(path)


def _write_coco(root: Path) -> None:
    for split in ("train", "val"):
        images = [{"id": i, "file_name": f"{split}{i}.png", "width": 48, "height": 32} for i in (1, 2)]
        for image in images:
            _picture(root / split / image["file_name"])
        objects = [
            {
                "id": i,
                "image_id": i % 2 + 1,
                "category_id": i % 2 + 1,
                "bbox": [i, 2, 10.5, 8],
                "area": 80,
                "iscrowd": 0,
            }
            for i in range(3)
        ]
        categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "big dog"}]
        content = {"images": images, "annotations": objects, "categories": categories}
        (root / split / "_annotations.coco.json").write_text(json.dumps(content))


def _write_label_studio(root: Path) -> None:
    _picture(root / "a.png")
    _picture(root / "b.png")
    box = {"x": 10, "y": 20, "width": 30, "height": 40, "rotation": 5, "rectanglelabels": ["cat"]}
    points = {"points": [[1, 1], [50, 1], [1, 50]], "polygonlabels": ["dog"]}
    shape = {"original_width": 48, "original_height": 32, "from_name": "l", "to_name": "i"}
    results = [
        {"id": "p", **shape, "type": "rectanglelabels", "value": box},
        {"id": "q", **shape, "type": "polygonlabels", "value": points},
        {"id": "r", **shape, "type": "choices", "value": {"choices": ["night"]}},
    ]
    tasks = [{"id": 1, "data": {"image": "a.png"}, "annotations": [{"result": results, "updated_at": "2026-01-01"}]}]
    tasks.append({"id": 2, "data": {"image": "b.png"}, "annotations": [{"result": results[:1]}]})
    (root / "export.json").write_text(json.dumps(tasks))


def _write_open_images(root: Path) -> None:
    titles = (
        "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside"
    )
    for split in ("train", "validation"):
        _picture(root / split / f"{split}0.png")
        line = f"{split}0,xclick,/m/01yrx,1,0.1,0.5,0.2,0.6,0,0,0,0,0\n"
        (root / f"{split}-annotations-bbox.csv").write_text(f"{titles}\n{line}{line.replace('01yrx', '0bt9lr')}")
    (root / "class-descriptions-boxable.csv").write_text("/m/01yrx,Cat\n/m/0bt9lr,Dog\n")


def _write_shards(root: Path) -> None:
    write_shards(read_all(root.parent / "coco"), root, shard_bytes=10_000)


_WRITTEN_OTHERWISE = {
    "label_studio": _write_label_studio, "open_images": _write_open_images, "shards": _write_shards,
}  # fmt: skip
"""Data sets of formats that `pyrafuse data convert` does not write."""


# --- texts in one file ---


def _of_file(
    folder: Path,
    name: str,
    read: Callable[[Path], object],
    seeds: list[bytes],
    trees: Values = (),
    **more: Any,  # type: ignore[assignment]
) -> Reader:
    path = folder / name

    def read_one(data: bytes) -> None:
        path.write_bytes(data)
        read(path)

    return Reader(read_one, seeds, trees=list(trees), **more)


def _recipe(folder: Path) -> Reader:
    tree = to_plain(small())
    return _of_file(
        folder,
        "recipe.yaml",
        lambda path: read_recipe_file(str(path)),
        [yaml.dump(tree).encode()],
        [tree],
        is_text=True,
    )


GRAPH = {
    "channels": 16,
    "defaults": {"fusion": "fast_normalized", "conv": {"separable": True, "before": "silu", "norm": "batch_norm"}},
    "merges": {"T4": ["C4", "C5"], "P3": ["C3", "T4"], "P4": {"inputs": ["C4", "T4", "P3"], "fusion": "sum"},
               "P5": ["C5", "P4"]},
    "outputs": ["P3", "P4", "P5"],
    "stack": 2,
}  # fmt: skip


def _graph(folder: Path) -> Reader:
    inputs = PyramidSpec((8, 16, 32), (8, 16, 32))

    def read(path: Path) -> None:
        plan_graph(read_graph(str(path)), inputs)

    return _of_file(folder, "graph.yaml", read, [yaml.dump(GRAPH, sort_keys=False).encode()], [GRAPH], is_text=True)


@BACKBONES.register("fuzzed", is_listed=False)
class _Fuzzed(Backbone):
    """Three convolutions: the least that a detector can stand on."""

    def __init__(self, *, width: int = 4) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(width if i else 3, width, 3, 2, 1) for i in range(5))
        self.features = PyramidSpec((width,) * 3, (8, 16, 32))

    def forward(self, images: torch.Tensor) -> Any:
        maps = []
        for conv in self.convs:
            images = conv(images)
            maps.append(images)
        return tuple(maps[2:])


def _small_spec() -> Any:
    neck = ("fpn", {"out_channels": 8, "num_levels": 3})
    return describe(
        "retinanet", num_classes=2, backbone="fuzzed", neck={"name": neck[0], **neck[1]}, head={"num_convs": 1}
    )


def _description(folder: Path) -> Reader:
    detector = build(_small_spec())
    assert detector.card.spec is not None
    text = write_yaml(detector.card.spec)

    def read(path: Path) -> None:
        build_without_weights(read_file(str(path)))

    return _of_file(folder, "spec.yaml", read, [text.encode()], [yaml.safe_load(text)], is_text=True)


def _settings(_: Path) -> Reader:
    text = (
        b"a = dict(type='FPN', in_channels=[256, 512], num_outs=5)\nb = [a, a]\nmodel = dict(type='RetinaNet', neck=a,"
        b" backbone=dict(type='ResNet', depth=50), bbox_head=dict(**a, loss=-1.5))\ntest = {'x': (1, 2), 'y': b}\n"
    )

    def read(data: bytes) -> None:
        text = data.decode("utf-8", "replace")
        parse_config(text)
        find_config({"meta": {"config": text}})

    return Reader(read, [text], is_text=True)


def _results(folder: Path) -> Reader:
    _write_coco(folder / "coco")
    data = read_all(folder / "coco")[0].data
    tree = [
        {"image_id": i, "category_id": i, "bbox": [1, 2, 10.5, 8], "score": 0.5, "file_name": f"train{i}.png"}
        for i in (1, 2)
    ]
    return _of_file(
        folder, "results.json", lambda path: read_results(path, data), [write_json(tree)], [tree], is_text=True
    )


def _history(folder: Path) -> Reader:
    text = b"epoch,loss,AP\n1,0.5,\n2,0.25,0.125\n"
    return _of_file(folder, "metrics.csv", lambda path: read_history(path.parent), [text], is_text=True)


def _journal(folder: Path) -> Reader:
    lines = [
        {"event": "begun", "number": 0, "source": "random", "answers": {"stack": 1}, "fingerprint": "a", "size": 64,
         "cost": {}},
        {"event": "failed", "number": 0, "reason": "x"},
    ]  # fmt: skip
    head = {"version": 1, "journal": "pyrafuse search"}
    text = b"".join(json.dumps(line).encode() + b"\n" for line in (head, *lines))
    return _of_file(folder, "journal.jsonl", read_trials, [text], is_text=True)


# --- checkpoints ---


def _packed(content: Any, *, is_zip: bool) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, _use_new_zipfile_serialization=is_zip)
    return stream.getvalue()


class _Archive(Reader):
    """Zip archives of which one entry is changed, packed anew, or bytes of the whole."""

    def change(self, chance: Random, values: Values) -> bytes:
        seed = chance.choice([*self.seeds, *self.others])
        if not seed.startswith(b"PK") or chance.random() < 0.3:
            return change_bytes(seed, chance, self.seeds)
        output = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(seed)) as archive, zipfile.ZipFile(output, "w") as changed:
            names = archive.namelist()
            chosen = {chance.choice(names), names[0]} if chance.random() < 0.5 else {names[0]}
            for name in names:
                content = archive.read(name)
                if name in chosen:
                    content = change_bytes(content, chance, [content, *self.seeds])
                kind = zipfile.ZIP_DEFLATED if chance.random() < 0.02 else zipfile.ZIP_STORED
                changed.writestr(zipfile.ZipInfo(name), content, compress_type=kind)
        return output.getvalue()


def _tensors(folder: Path) -> Reader:
    nested = collections.OrderedDict(a=torch.arange(6.0).view(2, 3), b=torch.ones(2, dtype=torch.bfloat16))
    content = {
        "state_dict": nested,
        "args": argparse.Namespace(lr=0.1, names=["cat"], path=Path("x")),
        "array": np.arange(4.0),
        "number": np.float64(0.5),
        "epoch": 3,
    }
    seeds = [_packed(content, is_zip=True), _packed(content, is_zip=False), _packed(nested, is_zip=True)]
    path = folder / "a.pth"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        read_tensors(path)

    return _Archive(read, seeds)


def _safetensors(folder: Path) -> Reader:
    raw = save_safetensors({"a": torch.arange(6.0).view(2, 3), "b": torch.ones(2, dtype=torch.bfloat16)})
    length = int.from_bytes(raw[:8], "little")
    head, body = json.loads(raw[8 : 8 + length]), raw[8 + length :]

    def pack(tree: Any) -> bytes:
        text = write_json(tree)
        return len(text).to_bytes(8, "little") + text + body

    return _of_file(folder, "a.safetensors", read_tensors, [raw], [head], pack=pack)


def _detector(folder: Path) -> Reader:
    """Our own checkpoints, whose card, names or shapes are changed, and which are loaded to the end."""
    detector = build(_small_spec())
    state = detector.state_dict()
    card = card_to_dict(detector.card)
    shapes = {name: list(value.shape) for name, value in state.items()}

    def pack(tree: Any) -> bytes:
        shapes = tree.get("shapes", {}) if isinstance(tree, dict) else {}
        given = {
            str(name): _of_shape(shape, state.get(str(name)))
            for name, shape in (shapes.items() if isinstance(shapes, dict) else ())
        }
        content = {"pyrafuse": {"card": tree.get("card")} if isinstance(tree, dict) else tree, "state_dict": given}
        try:
            return _packed(content, is_zip=True)
        except (OverflowError, pickle.PicklingError, UnicodeEncodeError):
            return b"x"

    tree = {"card": card, "shapes": shapes}
    return _of_file(folder, "a.ckpt", load, [pack(tree)], [tree], pack=pack)


def _of_shape(shape: Any, like: torch.Tensor | None) -> torch.Tensor:
    if like is not None and shape == list(like.shape):
        return like
    sides = [side % 2048 for side in shape if isinstance(side, int)][:4] if isinstance(shape, list) else []
    return torch.zeros(()).expand(sides)


def _foreign(folder: Path) -> Reader:
    """A detector of torchvision that is loaded to the end, its weights one value each; and names of other projects."""
    from torchvision.models.detection import ssdlite320_mobilenet_v3_large

    with torch.device("meta"):
        model = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=3)
    whole = {"shapes": {name: list(value.shape) for name, value in model.state_dict().items()}, "config": ""}
    names = (
        "backbone.conv1.weight", "neck.lateral_convs.0.conv.weight", "bbox_head.retina_cls.weight",
        "bbox_head.atss_cls.weight", "backbone.body.layer1.0.conv1.weight",
        "head.classification_head.cls_logits.weight", "module.backbone.bn1.weight",
        "rpn_head.rpn_conv.weight", "roi_head.bbox_head.fc_cls.weight", "vgg.0.weight", "backbone.conv_stem.weight",
        "class_net.predict.conv_pw.weight", "box_net.predict.conv_pw.weight", "fpn.cell.0.fnode.0.combine.edge_weights",
    )  # fmt: skip
    tree = {
        "shapes": {name: [4, 4, 1, 1] for name in names},
        "config": "model = dict(type='RetinaNet', backbone=dict(type='ResNet', depth=50), neck=dict(type='FPN'))",
    }

    def pack(tree: Any) -> bytes:
        tree = tree if isinstance(tree, dict) else {}
        shapes = tree.get("shapes") if isinstance(tree.get("shapes"), dict) else {}
        state = {str(name): _of_shape(shape, None) for name, shape in shapes.items()}
        meta = {"config": tree.get("config"), "CLASSES": ("cat", "dog"), "epoch": 1}
        try:
            return _packed({"meta": meta, "state_dict": state}, is_zip=True)
        except (OverflowError, pickle.PicklingError, UnicodeEncodeError):
            return b"x"

    return _of_file(folder, "retinanet_r50_fpn_1x_coco.pth", load, [pack(whole)], [whole, tree, tree, tree], pack=pack)


# --- exported files, images, archives, requests ---


def _interface() -> tuple[Card, Interface]:
    card = Card(names=("cat", "dog"), category_ids=(1, 2), preprocessing=Preprocessing(size=(32, 32)))
    return card, Interface(input="image", output="nms", size=(32, 32), takes_sizes=True)


def _metadata(_: Path) -> Reader:
    texts = write_metadata(*_interface())

    def read(data: bytes) -> None:
        read_metadata({METADATA_KEY: data.decode("utf-8", "replace")}, source="a.onnx")

    own = texts[METADATA_KEY]
    return Reader(read, [own.encode()], trees=[json.loads(own)], is_text=True)


def _onnx(folder: Path) -> Reader:
    from onnx import TensorProto, helper

    from pyrafuse.base.exported import DETECTION_OUTPUTS

    card, interface = _interface()
    kinds = {"images": TensorProto.UINT8, "sizes": TensorProto.INT64}
    given = [helper.make_tensor_value_info(name, kinds.get(name, TensorProto.FLOAT), None) for name in interface.inputs]
    nodes, outputs = [], []
    for name in DETECTION_OUTPUTS:
        tensor = helper.make_tensor(name, TensorProto.FLOAT, (1, 4), [1.0, 2.0, 3.0, 4.0])
        nodes.append(helper.make_node("Constant", [], [name], value=tensor))
        outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    graph = helper.make_graph(nodes, "g", given, outputs)
    texts = write_metadata(card, interface)

    def pack(tree: Any) -> bytes:
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        helper.set_model_props(model, {**texts, METADATA_KEY: write_json(tree).decode()})
        return model.SerializeToString()

    tree = json.loads(texts[METADATA_KEY])
    return _of_file(folder, "a.onnx", lambda path: load_exported(path, threads=1), [pack(tree)], [tree], pack=pack)


def _images(folder: Path) -> Reader:
    chance = np.random.default_rng(0)
    pixels = Image.fromarray(chance.integers(0, 255, (24, 32, 3), dtype=np.uint8))
    seeds = []
    for kind in ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "JPEG2000"):
        for image in (pixels, pixels.convert("L"), pixels.quantize(16)):
            stream = io.BytesIO()
            try:
                image.save(stream, kind)
            except (OSError, ValueError):
                continue
            seeds.append(stream.getvalue())
    exif = Image.Exif()
    exif[0x0112] = 6
    stream = io.BytesIO()
    pixels.save(stream, "JPEG", exif=exif)
    deep = io.BytesIO()
    Image.fromarray(chance.integers(0, 65535, (8, 8), dtype=np.uint16)).save(deep, "PNG")
    seeds += [stream.getvalue(), deep.getvalue()]
    path = folder / "a.png"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        try:
            read_header(path)
        finally:
            read_picture(path, max_pixels=1_000_000)

    return Reader(read, seeds)


def _archives(folder: Path) -> Reader:
    """Archives in place of checkpoints: zip of anything, tar and gzip."""
    import gzip
    import tarfile

    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("model/data.pkl", pickle.dumps({"a": 1}, 2))
        archive.writestr("model/version", "3")
        archive.writestr("../../outside/secret.txt", "x")
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("../x"), io.BytesIO())
    path = folder / "a.pt"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        read_tensors(path)

    others = [tar.getvalue(), gzip.compress(pickle.dumps({"a": 1}, 2))]
    return _Archive(read, [packed.getvalue()], others=others)


class Corners:
    """A detector that finds one object a class, as far from the corner as its number."""

    def __init__(self) -> None:
        self.card = Card(names=("cat", "dog"), preprocessing=Preprocessing(size=(32, 32)))

    def predict_frames(self, frames: Any, *, labels: Any, max_detections: Any, **_: Any) -> Iterator[Detections]:
        for frame in frames:
            kept = np.array([k for k in range(2) if not labels or k in labels], np.int64)[:max_detections]
            boxes = np.stack([kept, kept, kept + 9, kept + 9], axis=1).astype(np.float32)
            yield Detections(boxes, np.ones(len(kept), np.float32), kept, kept, self.card.names, frame.image.shape[:2])


def _requests(_: Path) -> Reader:
    stream = io.BytesIO()
    Image.new("RGB", (24, 16), (90,) * 3).save(stream, "PNG")
    image = stream.getvalue()
    body = {
        "image": base64.b64encode(image).decode(),
        "score": 0.1,
        "classes": ["cat", 1],
        "max_detections": 5,
        "nms_iou": 0.5,
    }
    form = (
        b'--edge\r\nContent-Disposition: form-data; name="score"\r\n\r\n0.2\r\n'
        b'--edge\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
        + image
        + b"\r\n--edge--\r\n"
    )
    kinds = (b"application/json", b"multipart/form-data; boundary=edge", b"image/png")
    bodies = (json.dumps(body).encode(), form, image)
    seeds = [b"POST /predict?score=0.3\n%s\n%s" % (kind, content) for kind, content in zip(kinds, bodies, strict=True)]
    made: dict[int, Any] = {}

    def ask(data: bytes) -> None:
        if os.getpid() not in made:  # its thread would not live on in a child
            made[os.getpid()] = create_app(Service({"a": Corners()}, Limits(megapixels=1, wait_ms=0, batch=1)))  # type: ignore[dict-item]
        head, _, rest = data.partition(b"\n")
        kind, _, content = rest.partition(b"\n")
        method, _, target = head.partition(b" ")
        path, _, query = target.partition(b"?")
        status = asyncio.run(_ask(made[os.getpid()], method, path, query, kind, content))
        if status >= 500:
            raise AssertionError(f"the server answers {status}")
        if status >= 400:
            from pyrafuse.base.errors import DataError

            raise DataError(str(status))

    def pack(tree: Any) -> bytes:
        return b"POST /predict\napplication/json\n" + write_json(tree)

    return Reader(ask, seeds, trees=[body], is_text=True, pack=pack)


async def _ask(app: Any, method: bytes, path: bytes, query: bytes, kind: bytes, body: bytes) -> int:
    scope = {
        "type": "http", "http_version": "1.1", "method": method.decode("latin-1"), "path": path.decode("latin-1"),
        "raw_path": path, "query_string": query, "headers": [(b"host", b"127.0.0.1"), (b"content-type", kind)],
        "scheme": "http", "server": ("127.0.0.1", 80), "client": ("127.0.0.1", 1), "root_path": "",
    }  # fmt: skip
    sent: list[Any] = []
    parts = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive() -> Any:
        return next(parts, {"type": "http.disconnect"})

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    json.loads(b"".join(message.get("body", b"") for message in sent[1:]) or b"0") if path != b"/docs" else None
    return sent[0]["status"]


_OTHERS: dict[str, Callable[[Path], Reader]] = {
    "recipe": _recipe, "graph": _graph, "description": _description, "settings of mmdetection": _settings,
    "results": _results, "metrics.csv": _history, "journal of a search": _journal,
    "tensors": _tensors, "safetensors": _safetensors, "checkpoint": _detector, "foreign checkpoint": _foreign,
    "exported metadata": _metadata, "exported file": _onnx, "images": _images,
    "archives": _archives, "requests": _requests,
}  # fmt: skip
