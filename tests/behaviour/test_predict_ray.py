"""`pyrafuse predict --engine ray` on two workers: one is killed, then the command itself, and each image comes once."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from kill import write_checkpoint
from process_families import family, wait_until_gone

pytest.importorskip("ray")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

NUM_IMAGES, SHARD_IMAGES = 60, 5
SLOW = """
import os, time
from pyrafuse.inference.shards import shard
read = shard.read_still
def read_slowly(path, name, **options):
    time.sleep(float(os.environ.get("SECONDS_AN_IMAGE", 0)))
    return read(path, name, **options)
shard.read_still = read_slowly
"""


class Run:
    """A prediction in a process of its own."""

    def __init__(self, root: Path, output: str, *words: str, **variables: str):
        self.output, self.log = root / output, root / f"{output}.log"
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
        environment.pop("RAY_ADDRESS", None)
        command = [
            sys.executable,
            "-m",
            "pyrafuse",
            "predict",
            str(root / "a.ckpt"),
            str(root / "images"),
            "--score",
            "0",
        ]
        command += ["--device", "cpu", "--formats", "parquet,coco", "--shard-images", str(SHARD_IMAGES)]
        command += ["--import", str(root / "slow.py"), "--output", str(self.output)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([*command, *words], stdout=log, stderr=log, env=environment)

    def done(self) -> list[Path]:
        """The tables of images of the shards that are done."""
        return sorted((self.output / "images").glob("*.parquet"))

    def wait_for_shards(self, number: int) -> None:
        until = time.monotonic() + 300
        while len(self.done()) < number:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < until, self.log.read_text()
            time.sleep(0.02)


def tables(output: Path) -> dict[str, bytes]:
    """All that is written but the manifest, by name."""
    return {
        path.relative_to(output).as_posix(): path.read_bytes()
        for path in output.rglob("*")
        if path.is_file() and path.suffix in {".parquet", ".json"}
    }


@pytest.fixture
def root(tmp_path):
    write_checkpoint(tmp_path / "a.ckpt")
    (tmp_path / "images").mkdir()
    rng = np.random.default_rng(0)
    for number in range(NUM_IMAGES):
        image = Image.fromarray(rng.integers(0, 256, (40 + number, 64, 3), np.uint8))
        image.save(tmp_path / "images" / f"{number}.png")
    (tmp_path / "images/17.png").write_bytes(b"no image")
    (tmp_path / "slow.py").write_text(SLOW)
    return tmp_path


def test_each_image_comes_once_whatever_is_killed(root):
    local = Run(root, "local")
    assert local.process.wait(300) == 1, local.log.read_text()

    ray = ["--engine", "ray", "--workers", "2"]
    first = Run(root, "ray", *ray, SECONDS_AN_IMAGE="0.1")
    first.wait_for_shards(2)
    processes = family(first.process.pid)
    workers = [one for one, title in processes.items() if title.startswith("ray::MapWorker")]
    assert len(workers) == 2, processes.values()
    os.kill(workers[0], signal.SIGKILL)
    first.wait_for_shards(5)
    processes = family(first.process.pid)
    assert workers[0] not in processes
    first.process.send_signal(signal.SIGKILL)
    first.process.wait(60)
    kept = first.done()[:5]  # orphans may finish what they are at
    times = [path.stat().st_mtime_ns for path in kept]
    assert len(first.done()) < NUM_IMAGES // SHARD_IMAGES

    second = Run(root, "ray", *ray)
    assert second.process.wait(400) == 1, second.log.read_text()
    told = second.log.read_text()
    assert " of 12 shards are done" in told
    assert " of them earlier); 1 could not be read" in told
    assert [path.stat().st_mtime_ns for path in kept] == times
    assert tables(second.output) == tables(local.output)
    images = pq.read_table(second.output / "images").column("image_id").to_pylist()
    assert sorted(images) == [number for number in range(NUM_IMAGES) if number != 17]
    assert pq.read_table(second.output / "unreadable").column("image_id").to_pylist() == [17]
    wait_until_gone(processes)
    assert [path.name for path in second.output.iterdir() if path.name.startswith(".")] == []
