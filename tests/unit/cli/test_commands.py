import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.cli.main import main
from pyrafuse.core.devices import choose_device
from pyrafuse.importers.loading import load
from pyrafuse.models.checkpoint import save
from pyrafuse.models.factory import create_model, list_models


@pytest.fixture
def coco(tmp_path):
    """Four images of noise with a box each; returns the folder and the annotations' own file."""
    rng = np.random.default_rng(0)
    root = tmp_path / "set"
    root.mkdir()
    for name in "abcd":
        Image.fromarray(rng.integers(0, 255, (40, 60, 3), np.uint8)).save(root / f"{name}.png")
    content = {
        "images": [{"id": i, "file_name": f"{n}.png", "width": 60, "height": 40} for i, n in enumerate("abcd")],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 5, "bbox": [1, 2, 20, 10], "area": 200, "iscrowd": 0}
            for i in range(4)
        ],
        "categories": [{"id": 5, "name": "cell"}],
    }
    (root / "instances_train.json").write_text(json.dumps(content))
    return root


def test_data_check_of_a_sound_set(coco, tmp_path, capsys):
    report = tmp_path / "report.json"
    assert main(["data", "check", str(coco), "--strict", "--val-fraction", "0.25", "--json", str(report)]) == 0
    assert "COCO JSON: 3 training and 1 validation images" in capsys.readouterr().out
    written = json.loads(report.read_text())
    assert (written["num_images"], written["errors"], written["warnings"]) == (4, [], [])


def test_data_check_of_a_damaged_image(coco, capsys):
    whole = (coco / "b.png").read_bytes()
    (coco / "b.png").write_bytes(whole[: len(whole) // 2])  # the header is sound
    assert main(["data", "check", str(coco)]) == 2
    assert "b.png" in capsys.readouterr().out


def test_a_warning_counts_only_when_strict(coco, capsys):
    (coco / "b.png").write_bytes((coco / "a.png").read_bytes())
    assert main(["data", "check", str(coco)]) == 0
    assert main(["data", "check", str(coco), "--strict"]) == 2
    assert "0 errors, 1 warning" in capsys.readouterr().out


def test_data_check_of_nothing(tmp_path, capsys):
    assert main(["data", "check", str(tmp_path / "none")]) == 2
    assert str(tmp_path / "none") in capsys.readouterr().err


def test_models_names_every_model(capsys):
    assert main(["models"]) == 0
    listed = capsys.readouterr().out.split()
    assert set(list_models()) <= set(listed)
    assert {"darknet53", "asff", "yolo_fpn"} <= set(listed)


def test_models_names_what_was_imported(tmp_path, capsys, monkeypatch):
    (tmp_path / "my_neck_for_models.py").write_text(
        "from pyrafuse.necks.registry import NECKS\nNECKS.add('my_own_neck', object)\n"
    )
    monkeypatch.chdir(tmp_path)
    assert main(["models", "--import", "my_neck_for_models.py"]) == 0
    assert "my_own_neck" in capsys.readouterr().out.split()
    from pyrafuse.necks.registry import NECKS

    NECKS._entries.pop("my_own_neck")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    detector = create_model("yolov3_small", num_classes=2)
    path = tmp_path_factory.mktemp("model") / "small.ckpt"
    save(detector, path)
    return path


def test_predict_that_finds_nothing_says_what_to_type_and_does_not_read_its_own_pictures(
    checkpoint, coco, capsys, monkeypatch
):
    monkeypatch.chdir(coco)
    for passed_over in ("", "passed over: "):
        assert main(["predict", str(checkpoint), ".", "--score", "1", "--device", "cpu"]) == 0
        out, err = capsys.readouterr()
        assert out.startswith("0 objects in 4 images, written to predictions; 0 could not be read")
        assert out.endswith("nothing has a score of 1 or more: --score 0.2, say, shows what is less certain\n")
        assert passed_over in err
        assert ("5 in predictions, the folder of results" in err) == bool(passed_over)


def test_predict_writes_what_the_detector_finds_and_reports_what_it_cannot_read(checkpoint, coco, tmp_path, capsys):
    (coco / "c.png").write_bytes(b"")
    output = tmp_path / "out"
    argv = ["predict", str(checkpoint), str(coco), "--output", str(output), "--score", "0", "--max-detections", "5"]
    assert main([*argv, "--formats", "image,json", "--batch", "2", "--device", "cpu"]) == 1
    out, err = capsys.readouterr()
    assert out.startswith(f"15 objects in 3 images, written to {output}; 1 could not be read")
    assert f"passed over: {coco}/c.png is empty; remove or replace it\n" in err
    assert sorted(p.name for p in (output / "images").iterdir()) == ["a.jpg", "b.jpg", "d.jpg"]

    images = json.loads((output / "predictions.json").read_text())["images"]
    sources = [coco / name for name in ("a.png", "b.png", "d.png")]
    expected = list(load(checkpoint).predict(sources, score=0, max_detections=5))
    assert [image["source"] for image in images] == [found.source for found in expected]
    for image, found in zip(images, expected, strict=True):
        torch.testing.assert_close(torch.tensor([o["score"] for o in image["objects"]]), found.scores)
        torch.testing.assert_close(
            torch.tensor([o["box_xyxy"] for o in image["objects"]]), found.boxes, rtol=1e-4, atol=1e-2
        )


def test_predict_on_several_sources(checkpoint, coco, tmp_path):
    argv = ["predict", str(checkpoint), str(coco / "a.png"), str(coco / "b.png"), "--output", str(tmp_path / "out")]
    assert main([*argv, "--formats", "yolo"]) == 0
    assert sorted(p.name for p in (tmp_path / "out/labels").iterdir()) == ["a.txt", "b.txt"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "none.ckpt"}, "no such checkpoint: none.ckpt"),
        ({"source": "none.png"}, "no such file or folder: none.png"),
        ({"option": ["--score", "2"]}, "score must be in 0..1, got 2.0"),
        ({"option": ["--device", "cuda:99"]}, "no device 'cuda:99' here; choose from auto, cpu"),
    ],
)
def test_predict_says_what_is_wrong(checkpoint, coco, capsys, tmp_path, change, message):
    model, source = change.get("model", str(checkpoint)), change.get("source", str(coco))
    argv = ["predict", model, source, "--output", str(tmp_path / "out"), *change.get("option", [])]
    assert main(argv) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_predict_stops_where_it_was_told_to(checkpoint, coco, tmp_path, capsys):
    (coco / "b.png").write_bytes(b"")
    argv = ["predict", str(checkpoint), str(coco), "--output", str(tmp_path / "out"), "--formats", "json"]
    assert main([*argv, "--limit", "3", "--batch", "2"]) == 1
    assert "in 2 images" in capsys.readouterr().out
    images = json.loads((tmp_path / "out/predictions.json").read_text())["images"]
    assert [Path(image["source"]).name for image in images] == ["a.png", "c.png"]
    assert main([*argv, "--limit", "0"]) == 2
    assert "limit must be 1 or more, got 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["explain", "none.ckpt", "none", "--score", "7"], "score must be in 0..1, got 7.0"),
        (["explain", "none.ckpt", "none", "--gradients", "--limit", "-1"], "limit must be 1 or more, got -1"),
        (["evaluate", "none.ckpt", "none", "--nms-iou", "1.5"], "nms_iou must be in 0..1, got 1.5"),
        (["evaluate", "a.file", ".", "--output", "a.file/b"], "a.file is a file, and no folder"),
        (["train", "shapes", "--model", "yolov3_smal"], "unknown model 'yolov3_smal'; did you mean 'yolov3_small'?"),
        (["train", "shapes", "--model.neck", "bifpm"], "unknown neck 'bifpm'; did you mean 'bifpn'?"),
        (["train", "shapes", "--model.backbone", "timm/nosuch"], "unknown timm model 'nosuch'; choose from"),
        (["train", "shapes", "--weights", "nosuch.pth"], "no such checkpoint: nosuch.pth"),
        (["train", "shapes", "--output", "a.file/b"], "a.file is a file, and no folder"),
        (["train", "shapes:train=0"], "shapes:train=0: train must lie within 1 and 1000000"),
        (["models", "timm/nosuch"], "unknown timm model 'nosuch'; choose from"),
        (["train", ""], "the data set's path is empty; for the current folder give '.'"),
        (["data", "check", " "], "the data set's path is empty; for the current folder give '.'"),
        (["explain", "a.file", ""], "the source is empty text; for the current folder give '.'"),
        (["train", "shapes", "--lr", "-1"], "optimizer.lr must be 0 or more, got -1.0"),
        (["train", "shapes", "--optimizer.momentum", "2"], "optimizer.momentum must be in 0..0.9999, got 2"),
        (["train", "shapes", "--seed", "-1"], "run.seed must be in 0..4294967295, got -1"),
        (["models", "--json", "."], "it is a folder; name a file in it"),
        (["data", "check", ".", "--json", "a.file/b"], "a.file is a file, and no folder"),
        (["bench", "necks", "--size", "16"], "--size 16 is less than a cell of stride 32; give 32 or more"),
        (["bench", "necks", "--strides", "8,4,32"], "--strides: strides must grow from the finest level"),
        (["bench", "necks", "--json", "a.file/b"], "a.file is a file, and no folder"),
    ],
)
def test_what_is_wrong_in_the_words_is_found_before_any_work(tmp_path, monkeypatch, capsys, argv, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.file").write_bytes(b"x")
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert (out, [p.name for p in tmp_path.iterdir()]) == ("", ["a.file"])


def test_a_recipe_that_is_no_text(checkpoint, capsys):
    assert main(["train", "none", "--recipe", str(checkpoint)]) == 2
    assert capsys.readouterr().err == f"pyrafuse: --recipe {checkpoint} is no YAML file: it is not text\n"


def test_a_place_without_permission(monkeypatch, capsys):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied", "a.json")

    monkeypatch.setattr("pyrafuse.data.formats.layout.read_splits", refuse)
    assert main(["data", "check", "shapes"]) == 2
    assert capsys.readouterr().err == "pyrafuse: a.json may not be read or written; change its rights\n"


def test_a_device_by_its_name(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: None)
    assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")
    with pytest.raises(PyrafuseError, match="no device '0' here; choose from auto, cpu"):
        choose_device("0")
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    assert choose_device("auto") == choose_device("cuda") == torch.device("cuda")
    assert choose_device("1") == choose_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(PyrafuseError, match="no device '2' here; choose from auto, cpu, cuda:0, cuda:1"):
        choose_device("2")
