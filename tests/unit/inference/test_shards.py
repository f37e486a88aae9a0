"""Predictions in shards without Ray: what is planned, committed, refused, and what comes out."""

import json
import os
import socket
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pyrafuse.base.card import Card
from pyrafuse.base.detections import Detections
from pyrafuse.base.errors import DataError, PyrafuseError
from pyrafuse.base.locking import hold_folder
from pyrafuse.base.terminal import Terminal
from pyrafuse.inference.finding import Settings
from pyrafuse.inference.predicting import predict_to
from pyrafuse.inference.shards.plan import read_plan
from pyrafuse.inference.shards.ray import ShardWorker
from pyrafuse.inference.shards.running import predict_in_shards
from pyrafuse.inference.shards.shard import Job, Outcome, predict_shard
from pyrafuse.inference.shards.sources import Listing, read_entries
from pyrafuse.inference.tables import DETECTIONS, IMAGES, UNREADABLE


class Levels:
    """Finds in each frame as many dogs as the first pixel says, one below the other."""

    card = Card(names=("cat", "dog"), category_ids=(3, 17))

    def __init__(self):
        self.seen: list[str] = []

    def predict_frames(self, frames, *, batch_size=1, score_threshold=None, **asked):
        readable = (frame for frame in frames if frame.image is not None)
        while batch := list(islice(readable, batch_size)):
            for frame in batch:
                self.seen.append(Path(frame.name).name)
                height, width, _ = frame.image.shape
                count = int(frame.image[0, 0, 0])
                rows = np.arange(count, dtype=np.float32)
                yield Detections(
                    boxes=np.stack([rows * 0, rows, rows * 0 + width, rows + 1], axis=1),
                    scores=np.full(count, 0.5, np.float32),
                    labels=np.ones(count, np.int64),
                    levels=np.zeros(count, np.int64),
                    names=self.card.names,
                    image_size=(height, width),
                    source=frame.name,
                )


def write_image(path: Path, count: int, size=(20, 10)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (count, count, count)).save(path)
    return path


def job_for(output: Path, formats=("parquet",), **settings) -> Job:
    return Job(output, lambda device, threads: Levels(), Settings(**settings), formats)


def run(sources, output: Path, *, detector=None, facts=None, formats=("parquet",), **options):
    given = [os.fspath(source) for source in sources]
    return predict_in_shards(
        detector or Levels(), given, job_for(output, formats), facts=facts or {"score": 0.25}, **options
    )


def rows_of(folder: Path) -> list[dict]:
    return [row for file in sorted(folder.glob("*.parquet")) for row in pq.read_table(file).to_pylist()]


@pytest.fixture
def folder(tmp_path):
    """Five images that count 0 to 4, one that is none, and one that is no image at all."""
    for count in range(5):
        write_image(tmp_path / "photos" / f"{count}.png", count)
    (tmp_path / "photos" / "10.jpg").write_bytes(b"no image")
    (tmp_path / "photos" / "notes.txt").write_text("")
    return tmp_path / "photos"


def test_each_image_is_in_one_shard_with_the_id_of_its_place(folder, tmp_path):
    out = tmp_path / "out"
    summary = run([folder], out, shard_images=2, formats=("parquet", "coco", "json"))
    assert (summary.num_images, summary.num_objects, summary.num_failed) == (5, 10, 1)
    assert (summary.num_shards, summary.num_earlier) == (3, 0)
    assert sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()) == sorted([
        "manifest.json", "sources.parquet",
        *(f"{name}/0000{n}{suffix}" for n in range(3) for name, suffix in (
            ("coco_results", ".json"), ("images", ".parquet"), ("predictions", ".json"), ("detections", ".parquet"),
            ("unreadable", ".parquet"),
        )),
    ])  # fmt: skip
    images = rows_of(out / "images")
    assert [list(images[0]), *(list(row.values()) for row in images)] == [
        list(IMAGES), *([n, str(folder / f"{n}.png"), 20, 10, n] for n in range(5))
    ]  # fmt: skip
    (bad,) = rows_of(out / "unreadable")
    assert list(bad) == list(UNREADABLE)
    assert (bad["image_id"], bad["source"]) == (5, str(folder / "10.jpg"))
    assert "10.jpg is no image that can be read" in bad["reason"]
    found = rows_of(out / "detections")
    assert list(found[0]) == list(DETECTIONS)
    assert [(row["image_id"], row["y1"]) for row in found] == [(n, y) for n in range(5) for y in range(n)]
    assert list(found[-1].values()) == [4, str(folder / "4.png"), 20, 10, 1, "dog", 0.5, 0.0, 3.0, 20.0, 4.0, 0]
    coco = [row for n in range(3) for row in json.loads((out / f"coco_results/0000{n}.json").read_text())]
    assert [(row["image_id"], row["category_id"], row["bbox"]) for row in coco] == [
        (n, 17, [0.0, float(y), 20.0, 1.0]) for n in range(5) for y in range(n)
    ]


def test_shards_and_one_file_hold_the_same(folder, tmp_path):
    run([folder], tmp_path / "shards", shard_images=2)
    predict_to(Levels(), folder, tmp_path / "one", formats=("parquet",))
    one = pq.read_table(tmp_path / "one/detections.parquet")
    assert one.num_rows == 10
    assert pa.concat_tables(map(pq.read_table, sorted((tmp_path / "shards/detections").glob("*.parquet")))) == one


class Stops(Levels):
    """Is interrupted at the image ``at``."""

    def __init__(self, at, error):
        super().__init__()
        self.at, self.error = at, error

    def predict_frames(self, frames, **asked):
        for found in super().predict_frames(frames, **asked):
            if Path(found.source).name == self.at:
                raise self.error
            yield found


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("broken")])
def test_what_was_stopped_goes_on_after_the_last_whole_shard(folder, tmp_path, error):
    out = tmp_path / "out"
    told = "broken" if isinstance(error, RuntimeError) else "out holds 1 of 3 shards; the same command goes on"
    with pytest.raises(type(error), match=told):
        run([folder], out, shard_images=2, detector=Stops("3.png", error))
    files = sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file())
    assert files == [
        "detections/00000.parquet", "images/00000.parquet", "manifest.json", "sources.parquet",
        "unreadable/00000.parquet",
    ]  # fmt: skip
    kept = {name: (out / name).stat().st_mtime_ns for name in files if "0000" in name}
    detector = Levels()
    summary = run([folder], out, shard_images=2, detector=detector)
    assert detector.seen == ["2.png", "3.png", "4.png"]
    assert (summary.num_images, summary.num_objects, summary.num_failed, summary.num_earlier) == (5, 10, 1, 1)
    assert {name: (out / name).stat().st_mtime_ns for name in kept} == kept
    again = run([folder], out, shard_images=2, detector=detector)
    assert len(detector.seen) == 3
    assert replace(again, seconds=0) == replace(summary, seconds=0, num_earlier=3)


def test_a_shard_without_its_table_of_images_is_made_anew(folder, tmp_path):
    out = tmp_path / "out"
    run([folder], out, shard_images=2)
    (out / "images/00001.parquet").unlink()
    (out / "detections/00001.parquet").write_bytes(b"half")
    detector = Levels()
    run([folder], out, shard_images=2, detector=detector)
    assert detector.seen == ["2.png", "3.png"]
    assert len(rows_of(out / "detections")) == 10


def test_a_shard_that_another_worker_has_made_meanwhile_is_left(folder, tmp_path):
    out, detector = tmp_path / "out", Levels()
    run([folder], out, shard_images=2)
    assert predict_shard(job_for(out), detector, 1)[:4] == (1, 2, 5, 0)
    assert detector.seen == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"facts": {"score": 0.5}}, "score 0.25 there, 0.5 here"),
        ({"shard_images": 3}, "shard_images 2 there, 3 here"),
        ({"formats": ("parquet", "coco")}, r'formats \["parquet"\] there, \["coco", "parquet"\] here'),
        ({"limit": 4}, "num_images 6 there, 4 here; sources_sha256"),
    ],
)
def test_another_prediction_into_the_folder_is_refused(folder, tmp_path, change, told):
    out = tmp_path / "out"
    run([folder], out, shard_images=2)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(PyrafuseError, match=f"out holds another prediction: {told}.*Give the same, or a new --output"):
        run([folder], out, **{"shard_images": 2, **change})
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_other_images_are_refused(folder, tmp_path):
    run([folder], tmp_path / "out", shard_images=2)
    (folder / "4.png").rename(folder / "5.png")
    with pytest.raises(PyrafuseError, match="sources_sha256"):
        run([folder], tmp_path / "out", shard_images=2)


def test_folders_of_others_and_held_ones_are_refused(folder, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/diary.txt").write_text("")
    with pytest.raises(PyrafuseError, match=r"mine holds diary.txt, and no shards of predictions: choose a new --outp"):
        run([folder], tmp_path / "mine")
    (tmp_path / "mine/manifest.json").write_text("[]")
    with pytest.raises(PyrafuseError, match=r"manifest.json is no manifest of predictions in shards"):
        run([folder], tmp_path / "mine")
    with hold_folder(tmp_path / "out"), pytest.raises(PyrafuseError, match="out is in use: another process"):
        run([folder], tmp_path / "out")


@pytest.mark.parametrize("name", ["image", "yolo", "crop"])
def test_formats_of_a_file_an_image_are_refused_before_anything_is_written(folder, tmp_path, name):
    with pytest.raises(
        PyrafuseError, match=r"write no file an image, which those .* are: give --formats of parquet, coco"
    ):
        run([folder], tmp_path / "out", formats=(name,))
    assert not (tmp_path / "out").exists()


def entries(*sources, column=None, leave_out=None):
    listing = Listing()
    return list(read_entries(tuple(map(str, sources)), listing, column=column, leave_out=leave_out)), listing


def test_a_list_names_paths_beside_it_and_addresses_each_once(tmp_path):
    lines = ["\ufeffb.png", "", "/far/a.png", "s3://key:secret@bucket/c.png", "b.png", "clip.mp4"]
    (tmp_path / "list.txt").write_text("\r\n".join(lines), encoding="utf-8")
    found, listing = entries(tmp_path / "list.txt", tmp_path / "list.txt")
    assert [(entry.source, entry.row) for entry in found] == [
        (str(tmp_path / "b.png"), 1), ("/far/a.png", 3), ("s3://bucket/c.png", 4), (str(tmp_path / "clip.mp4"), 6),
    ]  # fmt: skip
    assert [bool(entry.problem) for entry in found] == [False, False, False, True]
    assert listing.passwords == {"s3://bucket": "key:secret"}
    assert listing.repeated == 6


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"a.png\n\xff.png\n", "list.txt, line 2 is no text in UTF-8"),
        (b"a.png\n\n" + b"x" * 50_000, "list.txt, line 3 is no path"),
        (b"a\0.png", "list.txt, line 1 is no path"),
        (b"\n\n", "the sources name no image"),
        (b"s3://a:b@h/1.png\ns3://a:c@h/2.png", "s3://h is given with two passwords"),
    ],
)
def test_a_list_that_is_none_is_refused_with_its_line(tmp_path, content, told):
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(DataError, match=told) as caught:
        run([tmp_path / "list.txt"], tmp_path / "out")
    assert "a:b" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def write_parquet(place: Path, **columns) -> Path:
    pq.write_table(pa.table(columns), place, row_group_size=3)
    return place


def test_a_parquet_file_names_images_in_a_column_that_is_told(folder, tmp_path):
    names = ["photos/1.png", None, "photos/3.png", "photos/none.png"]
    table = write_parquet(tmp_path / "t.parquet", label=[0, 1, 2, 3], path=names)
    console = Terminal(width=200)
    with console.capture() as shown:
        summary = run([table], tmp_path / "out", console=console)
    assert f"{table}: paths of the column path, 4 rows" in shown.get()
    assert (summary.num_images, summary.num_objects) == (2, 4)
    assert [(row["image_id"], row["source"]) for row in rows_of(tmp_path / "out/images")] == [
        (0, str(folder / "1.png")), (2, str(folder / "3.png")),
    ]  # fmt: skip
    assert [(row["image_id"], row["source"], row["reason"]) for row in rows_of(tmp_path / "out/unreadable")] == [
        (1, f"{table}#1", f"{table}, row 1: the column path is empty"),
        (3, str(folder / "none.png"), f"{table}, row 3: no such image: {folder / 'none.png'}"),
    ]


@pytest.mark.parametrize("kind", ["bytes", "structure"])
def test_a_parquet_file_holds_images(folder, tmp_path, kind):
    data = [(folder / f"{n % 5}.png").read_bytes() for n in range(11)]
    data[4], data[7] = None, b"no image"
    if kind == "structure":
        column = pa.array([None if one is None else {"bytes": one, "path": "x"} for one in data])
    else:
        column = pa.array(data, pa.large_binary())
    table = write_parquet(tmp_path / "t.parquet", url=["http://127.0.0.1:1/a.png"] * 11, image=column)
    run([table], tmp_path / "out", shard_images=4)
    assert [(row["image_id"], row["source"], row["objects"]) for row in rows_of(tmp_path / "out/images")] == [
        (n, f"{table}#{n}", n % 5) for n in range(11) if n not in {4, 7}
    ]
    reasons = [row["reason"] for row in rows_of(tmp_path / "out/unreadable")]
    assert reasons[0].startswith(f"{table}, row 4: {table}#4 is empty")
    assert reasons[1].startswith(f"{table}, row 7: {table}#7 is no image that can be read")


def test_columns_are_chosen_by_name_and_type(tmp_path):
    table = write_parquet(tmp_path / "t.parquet", where=["a.png"], width=[3], image=["b.png"])
    assert [entry.source for entry in entries(table)[0]] == [str(tmp_path / "b.png")]
    assert [entry.source for entry in entries(table, column="where")[0]] == [str(tmp_path / "a.png")]
    with pytest.raises(
        DataError, match=r"t.parquet has no column 'wher'; did you mean where\?: it has where, width, i"
    ):
        entries(table, column="wher")
    with pytest.raises(DataError, match=r"t.parquet: the column width holds neither texts nor bytes"):
        entries(table, column="width")
    with pytest.raises(DataError, match=r"no column is known to hold images .*: give --column NAME, one of a, b"):
        entries(write_parquet(tmp_path / "u.parquet", a=["x"], b=[1]))
    (tmp_path / "v.parquet").write_bytes(b"PAR1 and nothing more PAR1")
    with pytest.raises(DataError, match=r"v.parquet cannot be read as Parquet: .*copy or write it anew"):
        entries(tmp_path / "v.parquet")


def test_a_folder_of_parquet_files_is_read_in_natural_order(tmp_path):
    (tmp_path / "t").mkdir()
    for number in (10, 2):
        write_parquet(tmp_path / f"t/{number}.parquet", path=[f"{number}.png"])
    assert [Path(entry.source).name for entry in entries(tmp_path / "t")[0]] == ["2.png", "10.png"]


def test_folders_are_in_natural_order_without_videos_and_results(folder, tmp_path):
    (folder / "clip.mp4").write_bytes(b"")
    run([folder], folder / "out")
    found, listing = entries(folder, leave_out=folder / "out")
    assert [Path(entry.source).name for entry in found] == [*(f"{n}.png" for n in range(5)), "10.jpg"]
    assert listing.passed_over[".mp4"] == 1
    assert listing.passed_over[".txt"] == 1


@pytest.fixture
def memory(folder):
    """The folder of images and a list of them, in the memory of this process."""
    system = pytest.importorskip("fsspec").filesystem("memory")
    for path in folder.iterdir():
        system.pipe_file(f"/ray/{path.name}", path.read_bytes())
    system.pipe_file("/ray/list.txt", b"3.png\nmemory://ray/4.png\nmissing.png\n")
    yield system
    system.rm("/ray", recursive=True)


def test_addresses_are_listed_and_read_by_fsspec(memory, tmp_path):
    summary = run(["memory://ray"], tmp_path / "out", shard_images=4)
    assert (summary.num_images, summary.num_objects, summary.num_failed) == (5, 10, 1)
    assert [row["source"] for row in rows_of(tmp_path / "out/images")] == [f"memory://ray/{n}.png" for n in range(5)]
    run(["memory://ray/[23].png"], tmp_path / "glob")
    assert [row["objects"] for row in rows_of(tmp_path / "glob/images")] == [2, 3]
    summary = run(["memory://ray/list.txt"], tmp_path / "list")
    assert (summary.num_images, summary.num_objects) == (2, 7)
    (row,) = rows_of(tmp_path / "list/unreadable")
    assert row["reason"].startswith("memory://ray/list.txt, line 3: memory://ray/missing.png cannot be read")


def test_no_password_is_written_or_told(folder, tmp_path):
    (tmp_path / "list.txt").write_text(
        "http://[::1\nnowhere://key:verysecret@host/a.png\n"
        f"http://key:verysecret@127.0.0.1:1/b.png\n{folder / '1.png'}\n"
    )
    console = Terminal(width=200)
    with console.capture() as shown:
        summary = run([tmp_path / "list.txt"], tmp_path / "out", console=console)
    assert (summary.num_images, summary.num_failed) == (1, 3)
    assert "secret" not in shown.get()
    for path in (tmp_path / "out").rglob("*"):
        assert path.is_dir() or b"secret" not in path.read_bytes(), path
    reasons = [row["reason"] for row in rows_of(tmp_path / "out/unreadable")]
    assert "nowhere://host/a.png cannot be read" in reasons[1]
    assert "http://127.0.0.1:1/b.png" in reasons[2]
    assert "secret" not in repr(job_for(tmp_path))


def test_an_address_that_is_none_cannot_be_read(tmp_path):
    assert run(["http://[::1"], tmp_path / "out").num_failed == 1
    (row,) = rows_of(tmp_path / "out/unreadable")
    assert row["reason"].startswith("http://[::1 is no address: Invalid IPv6 URL")


@pytest.mark.parametrize("source", ["0", "rtsp://host/stream"])
def test_cameras_and_streams_are_refused(tmp_path, source):
    with pytest.raises(DataError, match="no shards are made of a"):
        run([source], tmp_path / "out")


def test_the_plan_holds_a_group_of_rows_a_shard(folder, tmp_path):
    run([folder], tmp_path / "out", shard_images=4)
    found, first = read_plan(tmp_path / "out", 1)
    assert first == 4
    assert [Path(entry.source).name for entry in found] == ["4.png", "10.jpg"]


def test_a_worker_leaves_a_shard_at_which_others_have_ended_and_tells_what_is_wrong(folder, tmp_path):
    out = tmp_path / "out"
    run([folder], out, shard_images=2)
    for number in range(3):
        (out / f"images/0000{number}.parquet").unlink()
    (out / ".begun").mkdir()
    (out / ".begun/00001").write_bytes(b"...")
    (out / ".begun/00002").write_bytes(b"..")
    answer = ShardWorker(job_for(out), "cpu", 1)({"item": np.arange(3)})
    assert answer == {
        "shard": [0, 1, 2], "images": [2, 0, 1], "objects": [1, 0, 4], "unreadable": [0, 0, 1], "problem": [""] * 3,
    }  # fmt: skip
    assert [file.name for file in (out / ".begun").iterdir()] == ["00001"]

    def load(device, threads):
        raise PyrafuseError(f"no {device} with {threads} threads")

    broken = ShardWorker(replace(job_for(out), load=load), "gpu", 4)
    assert broken({"item": [1]})["problem"] == [f"no gpu with 4 threads (on {socket.gethostname()})"]
    elsewhere = ShardWorker(job_for(tmp_path / "none"), "cpu", 1)({"item": [1]})
    assert "none is not there: put it into a folder that all machines share" in elsewhere["problem"][0]


def test_shards_that_were_left_are_named_and_the_others_kept(folder, tmp_path):
    @contextmanager
    def leaving(job, detector, tell):
        yield lambda numbers: (Outcome(n) if n == 1 else predict_shard(job, detector, n) for n in numbers)

    with pytest.raises(
        PyrafuseError, match=r"1 shard of 3 is not done: .*shards 1, images 2 to 3 of .*sources.parquet"
    ):
        run([folder], tmp_path / "out", shard_images=2, engine=leaving)
    summary = run([folder], tmp_path / "out", shard_images=2)
    assert (summary.num_images, summary.num_earlier) == (5, 2)


def test_a_fault_of_a_shard_ends_the_work_with_its_words(folder, tmp_path):
    @contextmanager
    def failing(job, detector, tell):
        yield lambda numbers: iter([predict_shard(job, detector, 0), Outcome(1, problem="the disk is full (on a)")])

    with pytest.raises(PyrafuseError, match=r"^the disk is full \(on a\)$"):
        run([folder], tmp_path / "out", shard_images=2, engine=failing)
    assert run([folder], tmp_path / "out", shard_images=2).num_earlier == 1


def test_a_full_disk_leaves_no_half_of_a_shard(folder, tmp_path, full_disk):
    out = tmp_path / "out"
    run([folder], out, shard_images=3)
    (out / "images/00001.parquet").unlink()
    (out / "detections/00001.parquet").unlink()
    with (
        full_disk(100),
        pytest.raises(PyrafuseError, match=r"cannot write .*00001.parquet: File too large; free space"),
    ):
        predict_shard(job_for(out), Levels(), 1)
    assert not (out / "images/00001.parquet").exists()
    assert run([folder], out, shard_images=3).num_objects == 10
