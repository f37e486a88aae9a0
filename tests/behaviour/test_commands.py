"""The command line as a person uses it: the whole way on a tiny data set; bad inputs named, nothing half-written."""

import json
import pickle
import shutil
import signal
import struct
import zlib
from pathlib import Path

import pytest
import torch
import yaml

from pyrafuse.cli.main import main
from pyrafuse.data.formats.shapes import SHAPES, write_shapes
from pyrafuse.training import loop
from pyrafuse.training import run as running

TINY = {
    "model": {
        "name": "yolov3_asff",
        "options": {
            "backbone": {"width": 0.25, "depths": [1, 1, 1, 1, 1]},
            "necks": {"yolo_fpn": {"width": 0.125}, "asff": {"out_channels": [16, 24, 32]}},
            "head": {"adaption": False},
        },
    },
    "data": {"size": 64, "workers": 0},
    "run": {"batch_size": 4, "accelerator": "cpu"},
}


@pytest.fixture(scope="module")
def shapes(tmp_path_factory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("data") / "shapes", num_train=8, num_val=3, size=64)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY))
    return path


@pytest.fixture(scope="module")
def run(shapes, recipe, tmp_path_factory) -> Path:
    """The folder of a training of one epoch, whose data were named from another folder."""
    folder = tmp_path_factory.mktemp("runs") / "first"
    argv = ["train", "./shapes", "--recipe", str(recipe), "--epochs", "1", "--output", str(folder)]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(shapes.parent)
        assert main(argv) == 0
    return folder


def test_a_training_leaves_everything_in_its_folder(run, shapes):
    names = {path.name for path in run.iterdir()}
    assert names >= {"best.ckpt", "last.ckpt", "recipe.yaml", "metrics.csv", "results.json", "curves.png"}
    written = yaml.safe_load((run / "recipe.yaml").read_text())
    assert (written["data"]["path"], written["data"]["size"], written["run"]["epochs"]) == (str(shapes), 64, 1)


def test_a_run_goes_on_where_it_stopped_from_any_folder(run, tmp_path, capsys, monkeypatch):
    folder = shutil.copytree(run, tmp_path / "again")
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--resume", "--output", str(folder), "--epochs", "2"]) == 0
    out, err = capsys.readouterr()
    assert f"best checkpoint  {folder / 'best.ckpt'}" in out
    assert "epoch   2/2" in err
    assert "epoch   1/2" not in err
    assert torch.load(folder / "last.ckpt", weights_only=True)["epoch"] == 1


@pytest.mark.parametrize(
    ("stopped", "message"),
    [
        (0, "interrupted; no step was saved, there is nothing to resume"),
        (1, "interrupted; 1 of 2 epochs are saved in "),
    ],
)
def test_an_interrupt_says_how_to_go_on(stopped, message, shapes, recipe, tmp_path, capsys, monkeypatch):
    learn = loop.learn

    def stop(state, course, step, *, epoch):
        yield from learn(state, course, step, epoch=epoch)
        if epoch == stopped:
            raise KeyboardInterrupt

    handler = signal.getsignal(signal.SIGINT)
    output = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(loop, "learn", stop)
        argv = ["train", str(shapes), "--recipe", str(recipe), "--epochs", "2", "--output", str(output)]
        assert main(argv) == 130
    assert signal.getsignal(signal.SIGINT) is handler
    err = capsys.readouterr().err
    assert message in err
    assert (output / "report.html").exists() is bool(stopped)  # what is there
    if stopped:
        page = (output / "report.html").read_text()
        assert "1 of 2 epochs are trained so far" in page
        assert f"<pre>pyrafuse train --resume --output {output}</pre>" in page
        assert "<dt>AP</dt>" in page
        command = err.partition("go on with: pyrafuse ")[2].split("\n")[0]
        assert main(command.split()) == 0
        assert torch.load(output / "last.ckpt", weights_only=True)["epoch"] == 1
        assert "epochs are trained so far" not in (output / "report.html").read_text()


def test_a_folder_is_not_trained_into_twice(run, shapes, recipe, capsys):
    before = {path: path.stat().st_mtime_ns for path in run.iterdir()}
    argv = ["train", str(shapes), "--recipe", str(recipe), "--epochs", "1", "--output", str(run)]
    assert main(argv) == 2
    assert f"{run} holds a run already: choose another --output, or go on with --resume" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in run.iterdir()} == before


def test_evaluation_needs_the_checkpoint_alone(run, tmp_path, capsys):
    checkpoint, output = str(run / "best.ckpt"), tmp_path / "out"
    assert main(["evaluate", checkpoint, "--output", str(output), "--workers", "0", "--device", "cpu"]) == 0
    out, err = capsys.readouterr()
    assert "3 images of what it was trained on (val), 5 classes, 64 px, on cpu" in err
    assert out.splitlines()[0].split()[:4] == ["class", "objects", "images", "AP"]
    assert "AR100" in out
    assert sorted(path.name for path in output.iterdir()) == [
        "coco_results.json", "evaluation.json", "precision_recall.png", "report.html",
    ]  # fmt: skip
    assert f"report      {output / 'report.html'}" in out.splitlines()
    evaluation = json.loads((output / "evaluation.json").read_text())
    page = (output / "report.html").read_text()
    assert f"<h1>Evaluation of {checkpoint}</h1>" in page
    assert f"<dt>AP</dt><dd>{evaluation['ap']:.3f}</dd>" in page
    assert "Judged on 3 val images" in page
    results = json.loads((output / "coco_results.json").read_text())
    assert evaluation["num_images"] == 3
    assert evaluation["num_detections"] == len(results)
    assert {row["image_id"] for row in results} <= {1, 2, 3}
    assert {row["category_id"] for row in results} <= {1, 2, 3, 4, 5}


def test_evaluation_without_a_folder_goes_where_predictions_go(run, shapes, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", str(run / "best.ckpt"), str(shapes), "--workers", "0", "--device", "cpu"]) == 0
    assert "written to  evaluation" in capsys.readouterr().out
    assert (tmp_path / "evaluation/report.html").is_file()


def test_confusion_is_drawn_where_it_is_asked_for(run, shapes, tmp_path, capsys):
    file = tmp_path / "matrix.svg"
    argv = ["evaluate", str(run / "best.ckpt"), str(shapes), "--workers", "0", "--device", "cpu"]
    assert main([*argv, "--output", str(tmp_path / "out"), "--confusion", str(file)]) == 0
    assert "<svg" in file.read_text()
    assert not list((tmp_path / "out").glob("confusion*"))
    assert main([*argv, "--output", str(tmp_path / "no"), "--confusion", str(tmp_path / "matrix.txt")]) == 2
    assert "matrix.txt: choose a suffix from .png, .jpg" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


def test_a_split_without_objects_is_no_evaluation(run, shapes, tmp_path, capsys):
    bare = shutil.copytree(shapes, tmp_path / "bare")
    content = json.loads((bare / "instances_val.json").read_text())
    for annotations, what in (
        ([{**a, "iscrowd": 1} for a in content["annotations"]], "objects are crowds or marked difficult"),
        ([], "none of the 3 images has an annotated object"),
    ):
        (bare / "instances_val.json").write_text(json.dumps({**content, "annotations": annotations}))
        argv = ["--workers", "0", "--device", "cpu", "--output", str(tmp_path / "out")]
        assert main(["evaluate", str(run / "best.ckpt"), str(bare), *argv]) == 2
        err = capsys.readouterr().err
        assert "the val split cannot be evaluated on" in err
        assert what in err
        assert "pyrafuse predict MODEL IMAGES" in err
        assert not (tmp_path / "out").exists()


def test_missing_images_are_skipped_only_if_asked_for(run, recipe, shapes, tmp_path, capsys):
    part = shutil.copytree(shapes, tmp_path / "part")
    for split in ("train", "val"):
        listed = json.loads((part / f"instances_{split}.json").read_text())["images"]
        next(path for path in part.rglob(listed[0]["file_name"].rpartition("/")[2]) if path.is_file()).unlink()
    argv = ["evaluate", str(run / "best.ckpt"), str(part), "--workers", "0", "--device", "cpu"]
    assert main(argv) == 2
    assert "1 image is missing, named above; put them there, or measure on the others by" in capsys.readouterr().err
    assert main([*argv, "--missing", "skip"]) == 0
    err = capsys.readouterr().err
    assert "warning: missing images (1): left out with their objects, as --missing skip asks" in err
    assert "1 of 3 images are not there" in err
    argv = ["train", str(part), "--recipe", str(recipe), "--epochs", "1", "--output", str(tmp_path / "run")]
    assert main(argv) == 2
    assert "leave such images out by --missing skip" in capsys.readouterr().err
    assert main([*argv, "--missing", "skip"]) == 0
    assert "1 of 8 images are not there" in capsys.readouterr().err
    assert yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())["data"]["missing"] == "skip"
    argv = ["evaluate", str(tmp_path / "run" / "best.ckpt"), "--workers", "0", "--device", "cpu"]
    assert main(argv) == 0  # read as it was trained
    assert "2 images of what it was trained on (val)" in capsys.readouterr().err


def test_evaluation_on_other_data_matches_classes_by_name(run, shapes, tmp_path, capsys):
    other = shutil.copytree(shapes, tmp_path / "other")
    content = json.loads((other / "instances_val.json").read_text())
    content["categories"].reverse()
    (other / "instances_val.json").write_text(json.dumps(content))
    argv = ["--workers", "0", "--device", "cpu", "--output", str(tmp_path / "out")]
    assert main(["evaluate", str(run / "best.ckpt"), str(shapes), *argv]) == 0
    expected = capsys.readouterr().out.splitlines()
    assert main(["evaluate", str(run / "best.ckpt"), str(other), *argv]) == 0
    assert sorted(capsys.readouterr().out.splitlines()) == sorted(expected)

    content["categories"][0]["name"] = "hexagon"
    (other / "instances_val.json").write_text(json.dumps(content))
    assert main(["evaluate", str(run / "best.ckpt"), str(other), *argv]) == 2
    err = capsys.readouterr().err
    assert "does not know hexagon. It knows circle, square, triangle, star, cross; the data have " in err


def test_prediction_and_explanation(run, shapes, tmp_path, capsys):
    checkpoint, images = str(run / "best.ckpt"), str(shapes / "images")
    argv = ["--score", "0", "--device", "cpu", "--output"]
    assert main(["predict", checkpoint, images, *argv, str(tmp_path / "predictions")]) == 0
    predictions = json.loads((tmp_path / "predictions/predictions.json").read_text())["images"]
    assert len(predictions) == 11
    assert {o["name"] for image in predictions for o in image["objects"]} <= set(SHAPES)
    assert main(["explain", checkpoint, images, "--limit", "1", *argv, str(tmp_path / "explanation")]) == 0
    assert (tmp_path / "explanation/report.html").is_file()
    capsys.readouterr()


# ---------------------------------------------------------------------------------------------------------- bad inputs


def write_huge_png(path: Path) -> None:
    """A sound PNG of 20,000 x 20,000 pixels, one bit each."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 20_000, 20_000, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(20_000 * 2_501), 1)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b""))


def no_such_path(folder: Path) -> str:
    shutil.rmtree(folder)
    return "no such data set: "


def empty_folder(folder: Path) -> str:
    shutil.rmtree(folder)
    folder.mkdir()
    return "which holds nothing; looked for COCO JSON"


def annotations_cut(folder: Path) -> str:
    file = folder / "instances_train.json"
    file.write_text(file.read_text()[: file.stat().st_size // 2])
    return "instances_train.json"


def images_missing(folder: Path) -> str:
    for path in list((folder / "images").glob("train_00000[0-3].jpg")):
        path.unlink()
    return "train_000000.jpg"


def class_out_of_range(folder: Path) -> str:
    images = sorted((folder / "images").glob("*.jpg"))
    shutil.rmtree(folder / "labels", ignore_errors=True)
    (folder / "labels").mkdir()
    for path in images:
        (folder / "labels" / f"{path.stem}.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (folder / "labels" / f"{images[0].stem}.txt").write_text("7 0.5 0.5 0.2 0.2\n")
    for file in folder.glob("*.json"):
        file.unlink()
    (folder / "data.yaml").write_text("path: .\ntrain: images\nnames: [cat, dog]\n")
    return f"{images[0].stem}.txt"


def huge_image(folder: Path) -> str:
    write_huge_png(folder / "images/train_000000.jpg")
    return "train_000000.jpg"


def truncated_jpeg(folder: Path) -> str:
    path = folder / "images/train_000000.jpg"
    path.write_bytes(path.read_bytes()[:-600])
    return "train_000000.jpg"


@pytest.mark.parametrize(
    "damage",
    [no_such_path, empty_folder, annotations_cut, images_missing, class_out_of_range, huge_image, truncated_jpeg],
)
def test_faulty_data_are_named_before_anything_is_written(damage, shapes, recipe, tmp_path, capsys):
    folder = shutil.copytree(shapes, tmp_path / "data")
    message = damage(folder)
    output = tmp_path / "run"
    assert main(["train", str(folder), "--recipe", str(recipe), "--epochs", "1", "--output", str(output)]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("unreadable image (1)") <= 1
    assert "Traceback" not in err
    assert not output.exists()
    assert main(["data", "check", str(folder)]) in {1, 2}
    assert message in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--device", "7"], "no device number 7 here to train on; choose --device from auto, cpu"),
        (["--data.workers", "-1"], "data.workers must be 0 or more, got -1"),
        (["--run.ema", "2"], "run.ema is the share that stays at each step, from 0 to below 1; got 2"),
        (["--model.name", "yolov3_small", "--model.options", "{}", "--with", "dropblock"], "but the neck has 0 DropB"),
    ],
)
def test_settings_that_cannot_be_are_named_before_anything_is_written(
    options, message, shapes, recipe, tmp_path, capsys
):
    output = tmp_path / "run"
    assert main(["train", str(shapes), "--recipe", str(recipe), "--output", str(output), *options]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert len(err.splitlines()) == 1
    assert not output.exists()


def test_many_images_are_not_decoded_and_that_is_said(shapes, recipe, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(running, "DECODED_IN_CHECK", 10)
    folder = shutil.copytree(shapes, tmp_path / "data")
    truncated_jpeg(folder)
    content = (folder / "images/train_000001.jpg").read_bytes()
    (folder / "images/train_000002.jpg").write_bytes(content)
    argv = ["train", str(folder), "--recipe", str(recipe), "--output", str(tmp_path / "run"), "--data.strict"]
    assert main(argv) == 2
    err = capsys.readouterr().err
    assert "11 images: only their headers were checked; `pyrafuse data check` decodes all" in err
    assert "unreadable" not in err
    assert err.count("image twice in one split (1)") == 1
    assert "the data set has faults, told above: 0 to mend, 1 warnings" in err


class Attack:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


def no_checkpoint(path: Path) -> str:
    path.write_text("weights, honestly\n")
    return "is no checkpoint that can be read, or is damaged"


def empty_file(path: Path) -> str:
    path.touch()
    return "is empty"


def cut_checkpoint(path: Path) -> str:
    torch.save({"weight": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:2000])
    return "is no checkpoint that can be read, or is damaged"


def foreign_tensors(path: Path) -> str:
    torch.save({"weight": torch.zeros(3)}, path)
    return "is no checkpoint of pyrafuse and of no layout that is known here"


def code_inside(path: Path) -> str:
    torch.save({"state_dict": Attack(path.with_name("executed"))}, path)
    return "holds code or objects that are not loaded: pathlib.Path"


def code_inside_plain_pickle(path: Path) -> str:
    path.write_bytes(pickle.dumps(Attack(path.with_name("executed"))))
    return "holds code or objects that are not loaded: pathlib.Path"


@pytest.mark.parametrize(
    "write", [no_checkpoint, empty_file, cut_checkpoint, foreign_tensors, code_inside, code_inside_plain_pickle]
)
@pytest.mark.parametrize("command", ["evaluate", "predict", "explain"])
def test_a_faulty_checkpoint_is_named_and_never_executed(command, write, shapes, tmp_path, capsys):
    checkpoint, output = tmp_path / "model.ckpt", tmp_path / "out"
    message = write(checkpoint)
    source = shapes if command == "evaluate" else shapes / "images"
    assert main([command, str(checkpoint), str(source), "--output", str(output)]) == 2
    err = capsys.readouterr().err
    assert f"{checkpoint}" in err
    assert message in err
    assert not output.exists()
    assert not (tmp_path / "executed").exists()


def test_faulty_images_are_reported_and_passed_over(run, shapes, tmp_path, capsys):
    images = tmp_path / "images"
    images.mkdir()
    sound = (shapes / "images/val_000000.jpg").read_bytes()
    (images / "a.jpg").write_bytes(sound)
    (images / "b.jpg").write_bytes(sound[:-600])
    write_huge_png(images / "c.png")
    (images / "d.jpg").write_text("no image")
    output = tmp_path / "out"
    assert main(["predict", str(run / "best.ckpt"), str(images), "--output", str(output), "--device", "cpu"]) == 1
    out, err = capsys.readouterr()
    assert "in 1 image," in out
    assert "3 could not be read" in out
    for name in ("b.jpg", "c.png", "d.jpg"):
        assert f"passed over: {images / name}" in err
    assert "20000" in err.replace(",", "")
    (image,) = json.loads((output / "predictions.json").read_text())["images"]
    assert image["source"] == str(images / "a.jpg")
