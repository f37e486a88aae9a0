"""Data sets as tar shards: the same samples as from the folder, and no trust in what an index says."""

import json
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pyrafuse.base.errors import DataError
from pyrafuse.base.members import Member, find_member, read_bytes
from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.cli.main import main
from pyrafuse.data.augment.settings import Augmentation
from pyrafuse.data.checks.checking import check
from pyrafuse.data.formats.layout import read_split, read_splits
from pyrafuse.data.formats.shapes import write_shapes
from pyrafuse.data.images.of_records import read_record
from pyrafuse.data.loading.loaders import create_train_loader
from pyrafuse.data.sharding.index import IMAGES, OBJECTS, checksum
from pyrafuse.data.writing.converting import plan, write


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """COCO data with whatever an index has to keep: crowds, an image without objects, one that EXIF turns, text ids."""
    root = write_shapes(tmp_path_factory.mktemp("data") / "shapes", num_train=6, num_val=2, size=64)
    path = next(root.glob("*train*.json"))
    content = json.loads(path.read_text())
    first, empty, turned = content["images"][:3]
    gone = {empty["id"], turned["id"]}
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] not in gone]
    content["annotations"][0]["iscrowd"] = 1
    content["annotations"][1]["area"] = 12.5
    content["annotations"].append(
        {"id": 999, "image_id": turned["id"], "category_id": 1, "bbox": [4.25, 5, 20, 50], "area": 900, "iscrowd": 0}
    )
    for annotation in content["annotations"]:
        annotation["image_id"] = f"img/{annotation['image_id']}"
    for image in content["images"]:
        image["id"] = f"img/{image['id']}"
    file = next(root.rglob(Path(turned["file_name"]).name))
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.open(file).crop((0, 0, 64, 48))
    image.save(file, exif=exif)
    turned["width"], turned["height"] = 48, 64  # of the upright image
    path.write_text(json.dumps(content))
    assert first["id"].startswith("img/")
    return root


@pytest.fixture(scope="module")
def shards(folder, tmp_path_factory) -> Path:
    destination = tmp_path_factory.mktemp("shards") / "set"
    assert main(["data", "shard", str(folder), str(destination)]) == 0
    return destination


def equal(first, second) -> None:
    assert (first.names, first.category_ids, first.split, len(first)) == (
        second.names,
        second.category_ids,
        second.split,
        len(second),
    )
    for a, b in zip(first.records, second.records, strict=True):
        assert (a.image_id, a.width, a.height, a.path.name) == (b.image_id, b.width, b.height, b.path.name)
        for name in ("boxes", "labels", "crowd", "areas"):
            one, other = getattr(a, name), getattr(b, name)
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(read_record(a), read_record(b))
        assert read_bytes(a.path) == read_bytes(b.path)


def test_shards_are_the_folder_sample_by_sample(folder, shards):
    expected, found = read_splits(folder), read_splits(shards)
    assert (found.layout, found.problems) == ("shards", ())
    equal(found.train, expected.train)
    equal(found.val, expected.val)
    assert any(record.crowd.any() for record in found.train.records)
    assert any(not len(record.labels) for record in found.train.records)
    assert (found.train.records[-1].image_id, found.train.records[2].height) == ("img/6", 64)
    equal(read_split(shards, "val").data, expected.val)


def test_batches_are_the_same_from_the_middle_of_an_epoch_too(folder, shards):
    def batches(path: Path) -> list:
        loader = create_train_loader(
            read_splits(path).train,
            preprocessing=Preprocessing(size=(64, 64)),
            augmentation=Augmentation(mosaic_probability=0.5, mixup_probability=0.5),
            batch_size=2,
            num_workers=2,
            seed=3,
        )
        loader.batch_sampler.start_at(1, 1)
        return list(loader)

    for one, other in zip(batches(shards), batches(folder), strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.targets.boxes, other.targets.boxes)


def test_any_program_reads_the_tar_files(folder, tmp_path):
    small = tmp_path / "small"
    assert main(["data", "shard", str(folder), str(small), "--shard-mb", "1"]) == 0
    data = read_splits(small).train
    with tarfile.open(small / "train-000000.tar") as tar:
        names = tar.getnames()
        told = json.load(tar.extractfile("000000000.json"))
        image = tar.extractfile(names[0]).read()
    first = data.records[0]
    assert [name.partition(".")[0] for name in names[:4]] == ["000000000", "000000000", "000000001", "000000001"]
    assert image == read_bytes(first.path)
    assert [one["box"] for one in told["objects"]] == [[float(str(v)) for v in box] for box in first.boxes]
    assert [one["class"] for one in told["objects"]] == [data.names[label] for label in first.labels]


def test_shards_end_where_the_next_image_would_not_fit(tmp_path, capsys):
    root, rng = tmp_path / "data/images/train", np.random.default_rng(0)
    root.mkdir(parents=True)
    (tmp_path / "data/labels/train").mkdir(parents=True)
    for i in range(5):
        Image.fromarray(rng.integers(0, 256, (400, 400, 3), np.uint8)).save(root / f"{i}.png")  # 480 kB of noise
        (tmp_path / f"data/labels/train/{i}.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (root / "4.png").write_bytes(b"\x89PNG and nothing else")
    (tmp_path / "data/classes.txt").write_text("thing\n")
    assert main(["data", "shard", str(tmp_path / "data"), str(tmp_path / "set"), "--shard-mb", "1"]) == 1
    told = capsys.readouterr()
    assert "train 4 images in 2 shards" in told.out
    assert "left out: 1 image or object with an error, told above" in told.out
    assert "4.png" in told.err
    sizes = [path.stat().st_size for path in sorted((tmp_path / "set").glob("*.tar"))]
    assert len(sizes) == 2
    assert max(sizes) < 1_100_000


def test_an_image_that_changed_since_it_was_listed_is_left_out_and_told(folder, tmp_path, monkeypatch, capsys):
    """Between reading and writing; its neighbours keep their places."""
    copy = shutil.copytree(folder, tmp_path / "copy")
    from pyrafuse.data.sharding import writing

    victim = read_splits(copy).train.records[1].path
    read = writing.read_bytes
    monkeypatch.setattr(writing, "read_bytes", lambda path: b"" if path == victim else read(path))
    assert main(["data", "shard", str(copy), str(tmp_path / "set")]) == 1
    assert f"{victim} is empty" in capsys.readouterr().err
    kept = [record for record in read_splits(copy).train.records if record.path != victim]
    equal(replace(read_splits(copy).train, records=kept), read_splits(tmp_path / "set").train)


def test_an_address_is_read_by_ranges(shards, folder, tmp_path, monkeypatch):
    fsspec = pytest.importorskip("fsspec")
    monkeypatch.setenv("PYRAFUSE_CACHE", str(tmp_path / "cache"))
    system = fsspec.filesystem("memory")
    system.put(str(shards), "/bucket/set", recursive=True)
    try:
        found = read_splits("memory://bucket/set")
        equal(found.train, read_splits(folder).train)
        system.pipe("/bucket/set/train-000000.tar", system.cat("/bucket/set/train-000000.tar")[:2000])
        with pytest.raises(DataError, match=r"train-000000.tar gave [\d,]+ bytes of [\d,]+ from byte [\d,]+ on"):
            read_record(found.train.records[2])
        equal(read_splits("memory://bucket/set").val, read_splits(folder).val)  # the index is here
        system.rm("/bucket/set/train-000000.tar")
        with pytest.raises(DataError, match=r"memory://bucket/set/train-000000\.tar cannot be read"):
            read_record(found.train.records[0])
    finally:
        system.rm("/bucket", recursive=True)
    with pytest.raises(DataError, match=r"memory://bucket/none/shards\.json cannot be read"):
        read_splits("memory://bucket/none")


def test_a_check_and_a_conversion_find_the_same(folder, shards, tmp_path):
    def found(path: Path) -> list:
        problems = check(read_splits(path)).problems
        return sorted((problem.severity, problem.kind, problem.record) for problem in problems)

    assert ("note", "objects set aside", "") in found(shards)
    assert {p.file for p in check(read_splits(shards)).problems if p.kind == "objects set aside"} == {shards}
    assert found(shards) == found(folder)
    back = plan([read_split(shards, "train"), read_split(shards, "val")], "coco")
    write(back, tmp_path / "back")
    equal(read_splits(tmp_path / "back").train, read_splits(folder).train)


def test_a_copied_image_is_told_by_its_checksum(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    data = read_splits(copy)
    shutil.copy(data.train.records[0].path, data.val.records[0].path)
    assert main(["data", "shard", str(copy), str(tmp_path / "set")]) == 0
    kinds = [problem.kind for problem in check(read_splits(tmp_path / "set"), decode=False).problems]
    assert kinds.count("image in both splits") == 1


def edit(folder: Path, table: str, row: int, column: str, value) -> None:
    """Change a row of a table, and the checksum with it."""
    path, kind = folder / f"train.{table}", {"images": IMAGES, "objects": OBJECTS}[table]
    rows = np.fromfile(path, kind)
    rows[column][row] = value
    rows.tofile(path)
    manifest = json.loads((folder / "shards.json").read_text())
    manifest["splits"]["train"]["tables"][table]["sha256"] = checksum(path)
    (folder / "shards.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("table", "row", "column", "value", "said"),
    [
        ("images", 2, "start", 2**63, r"train.images, image 3: 9223372036854775808 begins at a byte at which"),
        ("images", 2, "start", 513, "image 3: 513 begins at a byte"),
        ("images", 0, "size", 2**64 - 1, "image 1: .* begins at a byte"),
        ("images", 0, "size", 0, "image 1: .* begins at a byte"),
        ("images", 5, "shard", 1, "image 6: 1 is in a shard above 0"),
        ("images", 1, "width", 0, "image 2: 0 has no such width in pixels"),
        ("images", 1, "objects_end", 2**63, "image 2: 9223372036854775808 ends at such an object"),
        ("images", 5, "objects_end", 3, "image 6: 3 ends at such an object"),
        ("images", 3, "text_start", 1, "image 4: 1 is no byte at which its name begins"),
        ("images", 3, "name_size", 2**32 - 1, "image 4: .* is no byte at which its name begins"),
        ("images", 3, "id_size", -2, "image 4: .* is no byte at which its name begins"),
        ("objects", 0, "label", 5, "train.objects, object 1: 5 is of a class above 4"),
        ("objects", 0, "label", -1, "object 1: -1 is of a class above 4"),
        ("objects", 1, "box", (0, 0, np.nan, 5), "object 2: .* has no such box in its image"),
        ("objects", 1, "box", (0, 0, 65, 5), "object 2: .* has no such box in its image"),
        ("objects", 1, "area", -1, "object 2: -1.0 has no such area"),
    ],
)
def test_rows_that_cannot_be_are_refused(shards, tmp_path, table, row, column, value, said):
    copy = shutil.copytree(shards, tmp_path / "copy")
    edit(copy, table, row, column, value)
    with pytest.raises(DataError, match=said):
        read_splits(copy)


@pytest.mark.parametrize("name", [b"../0.png", b"/.png", b"..\\a.png"])
def test_names_lead_to_no_other_folder(shards, tmp_path, name):
    copy = shutil.copytree(shards, tmp_path / "copy")
    texts = bytearray((copy / "train.names").read_bytes())
    texts[: len(name)] = name
    (copy / "train.names").write_bytes(texts)
    manifest = json.loads((copy / "shards.json").read_text())
    manifest["splits"]["train"]["tables"]["names"]["sha256"] = checksum(copy / "train.names")
    (copy / "shards.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="image 1: 0 is the byte of a name that is none of a file"):
        read_splits(copy)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: m.update(version=2), "version 2 of the layout is not known"),
        (lambda m: m.update(splits=[]), "shards.json: splits: expected "),
        (lambda m: m["splits"].update({"../x": m["splits"]["val"]}), "unknown split '../x'"),
        (lambda m: m["splits"]["train"]["shards"][0].update(file="../a.tar"), "'../a.tar' is no name of a shard"),
        (lambda m: m["splits"]["train"]["shards"][0].update(bytes=10), "its index says 10: copy it anew"),
        (lambda m: m["splits"]["train"]["tables"]["images"].update(rows=10**13), "and 10,000,000,000,000 rows have"),
        (lambda m: m["splits"]["train"]["tables"]["images"].update(rows=-1), "rows"),
        (lambda m: m["splits"]["train"]["tables"]["images"].update(sha256="0"), "is not the table that shards.json"),
        (lambda m: m["splits"]["train"]["tables"].pop("names"), "the tables are images, objects, names"),
        (lambda m: m.update(classes=["a", "a"]), "2 classes, 1 names, 5 ids"),
        (lambda m: m.update(classes=m["classes"][:2], category_ids=[1, 2]), "is of a class above 1"),
    ],
)
def test_an_index_that_cannot_be_is_refused(shards, tmp_path, change, said):
    copy = shutil.copytree(shards, tmp_path / "copy")
    manifest = json.loads((copy / "shards.json").read_text())
    change(manifest)
    (copy / "shards.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match=said):
        read_splits(copy)


def test_shards_that_were_damaged_are_told_with_their_place(shards, tmp_path):
    copy = shutil.copytree(shards, tmp_path / "copy")
    record = read_splits(copy).train.records[1]
    member = find_member(record.path)
    assert member is not None
    content = bytearray(member.shard.read_bytes())
    content[member.start + 40] ^= 1
    member.shard.write_bytes(content)
    with pytest.raises(DataError, match=f"holds other bytes than its index says, from byte {member.start:,} on; copy"):
        read_record(record)
    with pytest.raises(DataError, match="gave 0 bytes of 999,999,999,999 from byte 512 on: it is cut off"):
        read_bytes(Member(member.shard, 512, 999_999_999_999, 0).path("a.png"))  # and no memory is taken for them
    member.shard.unlink()
    with pytest.raises(DataError, match=r"no such shard: .*train-000000\.tar; copy it beside its index"):
        read_record(record)


def test_nothing_is_left_of_shards_that_could_not_be_written(folder, tmp_path, monkeypatch):
    from pyrafuse.data.sharding import writing

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing, "checksum", fail)
    assert main(["data", "shard", str(folder), str(tmp_path / "set")]) == 2
    assert list(tmp_path.iterdir()) == []
