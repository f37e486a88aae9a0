"""Time and memory of reading a data set as it grows: COCO JSON beside single images, and the index of tar shards.

    python benchmarks/scale.py [--coco 10000,100000] [--index 10000,100000,1000000] [--folder DIR]
    python benchmarks/scale.py --coco "" --index "" --processes 1,2,4

COCO data are one small JPEG under many names, with 7 boxes in each; shards are written of them by the code of
`pyrafuse data shard`. An index of more images is made without shards. Every figure is of a process of its own: seconds
of processor time, and how much its resident memory grows over that of the imports, mapped files included. A thousand
records are taken in the order of an epoch, as a loader takes them.

With ``--processes`` a small detector is trained by so many processes, joined by gloo, on generated images. An epoch is
the difference between a training of five epochs and one of one, divided by four: the start is not in it.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
from PIL import Image

from pyrafuse.data.formats.layout import read_all, read_split
from pyrafuse.data.loading.batching import EpochBatchSampler
from pyrafuse.data.sharding.index import (
    BLOCK,
    IMAGES,
    INDEX_FILE,
    NUMBER_ID,
    OBJECTS,
    VERSION,
    Manifest,
    ShardFacts,
    SplitFacts,
    TableFacts,
    checksum,
    table_files,
)
from pyrafuse.data.sharding.writing import write_shards

IN_EACH, CLASSES, A_FOLDER, A_SHARD = 7, 80, 1000, 2000
TRAINED, ONE_THREAD = 128, {"OMP_NUM_THREADS": "1"}


def write_coco(folder: Path, num_images: int) -> None:
    """Write COCO data of one split, whose images are links to one file a folder."""
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (48, 64, 3), np.uint8))
    corners = rng.integers(0, 20, (num_images, IN_EACH, 4)).tolist()
    images, annotations = [], []
    for i in range(num_images):
        place = folder / f"images/{i // A_FOLDER:04}"
        if i % A_FOLDER == 0:
            place.mkdir(parents=True)
            picture.save(place / "first.tmp", "JPEG")
        os.link(place / "first.tmp", place / f"{i:09}.jpg")
        images.append({"id": i, "file_name": f"{i // A_FOLDER:04}/{i:09}.jpg", "width": 64, "height": 48})
        annotations += [
            {"id": i * IN_EACH + j, "image_id": i, "category_id": j, "bbox": [x, y, 8 + w, 8 + h], "iscrowd": 0}
            for j, (x, y, w, h) in enumerate(corners[i])
        ]
    content = {"images": images, "annotations": annotations, "categories": _categories()}
    (folder / "instances_train.json").write_text(json.dumps(content))


def write_index(folder: Path, num_images: int) -> None:
    """Write the index alone of shards of images of 100 kB."""
    rows = np.arange(num_images)
    images, objects = np.zeros(num_images, IMAGES), np.zeros(num_images * IN_EACH, OBJECTS)
    images["size"], images["shard"], images["width"], images["height"] = 100_000, rows // A_SHARD, 640, 480
    images["start"] = BLOCK + (rows % A_SHARD) * 200 * BLOCK
    images["objects_end"], images["id"], images["id_size"] = (rows + 1) * IN_EACH, rows, NUMBER_ID
    images["text_start"], images["name_size"] = rows * 13, 13
    corners = np.random.default_rng(0).integers(0, 200, (len(objects), 2))
    objects["box"] = np.concatenate([corners, corners + 100], axis=1)
    objects["area"], objects["label"] = 10_000, np.arange(len(objects)) % CLASSES
    names = "".join(f"{row:09}.jpg" for row in range(num_images)).encode()
    folder.mkdir()
    tables = {}
    for kind, content in {"images": images, "objects": objects, "names": np.frombuffer(names, np.uint8)}.items():
        path = folder / table_files("train")[kind][0]
        content.tofile(path)
        tables[kind] = TableFacts(len(content), checksum(path))
    shards = [ShardFacts(f"train-{i:06}.tar", A_SHARD * 200 * BLOCK + 10240) for i in range(-(-num_images // A_SHARD))]
    classes = _categories()
    manifest = Manifest(
        VERSION,
        tuple(one["name"] for one in classes),
        tuple(one["id"] for one in classes),
        {"train": SplitFacts(tuple(shards), tables)},
    )
    (folder / INDEX_FILE).write_text(json.dumps(asdict(manifest)))


def _categories() -> list[dict]:
    return [{"id": i, "name": f"class {i}"} for i in range(CLASSES)]


def measure(what: str, source: Path, destination: Path) -> dict[str, float]:
    """Seconds and MiB of one piece of work in this process."""
    before, start = peak_mib(), time.process_time()
    if what == "write shards":
        write_shards(read_all(source), destination, shard_bytes=256 * 10**6)
        seconds = time.process_time() - start
    else:
        data = read_split(source, "train").data
        seconds = time.process_time() - start
        batches = iter(EpochBatchSampler(len(data), 10, seed=0))
        for _ in range(100):
            assert all(len(data.records[request.index].labels) == IN_EACH for request in next(batches))
    return {"seconds": seconds, "mib": peak_mib() - before}


def train(processes: int, epochs: int, folder: Path) -> dict[str, float]:
    """Seconds by the clock and of all processors, and MiB of the largest process, of one training."""
    words = [sys.executable, "-m", "pyrafuse", "train", f"shapes:train={TRAINED},val=4,size=64", "--size", "64"]
    words += ["--model", "yolov3_small", "--batch", "16", "--epochs", str(epochs), "--data.workers", "0"]
    words += ["--run.evaluate_every", str(epochs), "--run.accelerator", "cpu", "--run.devices", str(processes)]
    start = time.perf_counter()
    subprocess.run(
        [*words, "--output", str(folder)], check=True, stdout=subprocess.DEVNULL, env=os.environ | ONE_THREAD
    )
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "wall": time.perf_counter() - start,
        "seconds": used.ru_utime + used.ru_stime,
        "mib": used.ru_maxrss / 1024,
    }


def peak_mib() -> float:
    """The largest resident memory of this process so far; `resource` tells that of the process that started it, too."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def measured(what: str, source: str, destination: str) -> dict[str, float]:
    """One figure, of a process of its own."""
    words = [sys.executable, __file__, "--measure", what, source, destination]
    return json.loads(subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout)


def works(root: Path, coco: list[int], index: list[int]) -> Iterator[tuple[int, str, Path, Path]]:
    """Number of images, name, source and destination of each piece of work, with its data written."""
    for num_images in coco:
        source, shards = root / f"coco-{num_images}", root / f"shards-{num_images}"
        write_coco(source, num_images)
        yield num_images, "read COCO", source, shards
        yield num_images, "write shards", source, shards
    for num_images in index:
        source = root / f"index-{num_images}"
        write_index(source, num_images)
        yield num_images, "read shards", source, root


def main() -> None:
    """Measure every number of images."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--coco", default="10000,100000", help="numbers of images of COCO data, with commas between")
    parser.add_argument("--index", default="10000,100000,1000000", help="numbers of images of an index of shards")
    parser.add_argument("--folder", type=Path, help="where the data are written; by default a temporary folder")
    parser.add_argument("--measure", nargs=3, metavar=("WHAT", "SOURCE", "DESTINATION"), help="one figure, as JSON")
    parser.add_argument("--processes", default="", help="numbers of processes of a training, with commas between")
    arguments = parser.parse_args()
    if arguments.measure:
        what, source, destination = arguments.measure
        if what.startswith("train "):
            print(json.dumps(train(*map(int, what.split()[1:]), Path(destination))))
        else:
            print(json.dumps(measure(what, Path(source), Path(destination))))
        return
    lists = (arguments.coco, arguments.index, arguments.processes)
    *numbers, processes = [[int(number) for number in text.split(",") if number] for text in lists]
    if processes:
        print("| processes | seconds an epoch | processor seconds an epoch | MiB a process |\n|---|---|---|---|")
    for count in processes:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as temporary:
            short, long = (measured(f"train {count} {epochs}", "", f"{temporary}/{epochs}") for epochs in (1, 5))
        wall, seconds = ((long[name] - short[name]) / 4 for name in ("wall", "seconds"))
        print(f"| {count} | {wall:.2f} | {seconds:.2f} | {long['mib']:.0f} |", flush=True)
    if not any(numbers):
        return
    print("| images | work | processor seconds | MiB | MB of annotations |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as temporary:
        for num_images, what, source, destination in works(Path(temporary), *numbers):
            told = measured(what, str(source), str(destination))
            size = sum(path.stat().st_size for path in source.iterdir() if path.is_file()) / 1e6
            print(f"| {num_images:,} | {what} | {told['seconds']:.1f} | {told['mib']:.0f} | {size:.0f} |", flush=True)


if __name__ == "__main__":
    main()
