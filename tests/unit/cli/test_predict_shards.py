"""`pyrafuse predict --shard-images`: the results of a detector equal those without shards, and what is refused."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from kill import write_checkpoint
from pyrafuse.cli.main import main


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A checkpoint, and seven images of several sizes of which one cannot be read."""
    root = tmp_path_factory.mktemp("predict")
    write_checkpoint(root / "a.ckpt")
    (root / "images").mkdir()
    rng = np.random.default_rng(0)
    for number in range(7):
        Image.fromarray(rng.integers(0, 256, (60 + 9 * number, 90, 3), np.uint8)).save(root / f"images/{number}.png")
    (root / "images/4.png").write_bytes(b"no image")
    return root


def predict(root, output, *words):
    given = [str(root / "a.ckpt"), str(root / "images"), "--score", "0.001", "--max-detections", "9"]
    return main(["predict", *given, "--device", "cpu", "--output", str(output), *words])


@pytest.mark.parametrize("words", [(), ("--tile", "64", "--batch", "4"), ("--size", "96", "--augment", "flip")])
def test_shards_hold_what_one_file_holds_image_by_image(root, tmp_path, capsys, words):
    assert predict(root, tmp_path / "one", "--formats", "parquet,coco", *words) == 1
    shards = ["--shard-images", "3", "--formats", "parquet,coco"]
    assert predict(root, tmp_path / "shards", *shards, *words) == 1
    out, err = capsys.readouterr()
    assert "in 6 images" in out.splitlines()[-1]
    assert (
        out.splitlines()[-1]
        .partition(" (")[0]
        .endswith(
            f"written to {tmp_path / 'shards'} in 3 shards; 1 could not be read: see {tmp_path / 'shards'}/unreadable/"
        )
    )
    assert "goes on" not in err
    one = pq.read_table(tmp_path / "one/detections.parquet")
    assert one.num_rows > 20
    files = sorted((tmp_path / "shards/detections").glob("*.parquet"))
    assert pa.concat_tables(map(pq.read_table, files)) == one
    coco = [
        row for file in sorted((tmp_path / "shards/coco_results").iterdir()) for row in json.loads(file.read_text())
    ]
    assert [row["image_id"] for row in coco] == one.column("image_id").to_pylist()
    assert [row["score"] for row in coco] == one.column("score").to_pylist()


def test_the_same_command_goes_on_and_another_is_refused(root, tmp_path, capsys):
    words = ["--shard-images", "3"]
    predict(root, tmp_path / "out", *words)
    (tmp_path / "out/images/00001.parquet").unlink()
    assert predict(root, tmp_path / "out", *words) == 1
    out, err = capsys.readouterr()
    assert "goes on: 2 of 3 shards are done" in err
    assert "in 3 shards (2 of them earlier)" in out
    assert predict(root, tmp_path / "out", *words, "--classes", "cell") == 2
    assert 'another prediction: classes none there, ["cell"] here. Give the same' in capsys.readouterr().err
    assert predict(root, tmp_path / "out", *words, "--tile", "64") == 2
    assert "another prediction: tile none there, 64 here; overlap" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--workers", "2"], "--workers is for --engine ray: give that, or leave --workers out"),
        (["--ray-address", "a:1", "--shard-images", "2"], "--ray-address is for --engine ray"),
        (["--column", "path"], "--column is for shards of Parquet files: give --shard-images 1000, or leave it out"),
        (
            ["--crop", "--shard-images", "2"],
            "--crop is not for shards of images: leave it out, or leave --engine ray and --sha",
        ),
        (["--stride", "2", "--engine", "ray"], "--stride is not for shards"),
        (
            ["--formats", "image", "--shard-images", "2"],
            "--engine ray and --shard-images write no file an image, which those in images/ are",
        ),
        (["--formats", "png", "--shard-images", "2"], "unknown output format 'png'"),
        (["--engine", "ray", "--device", "1"], "--device 1: Ray gives each worker a GPU of its own"),
        (["--shard-images", "0"], "shard_images must be 1 or more, got 0"),
        (["--engine", "spark"], "--engine: 'spark'"),
    ],
)
def test_what_has_no_effect_is_refused(root, tmp_path, capsys, words, told):
    assert predict(root, tmp_path / "out", *words) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
