"""A checkpoint that was trained on tiles is used on such tiles, and that is said, unless --tile says otherwise."""

import io

import pytest
import torch

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.terminal import Terminal
from pyrafuse.base.views.cutting import Views
from pyrafuse.cli.detectors import choose_views
from pyrafuse.cli.main import main
from pyrafuse.cli.train import make_recipe


@pytest.fixture
def choose(tmp_path):
    def choose(name, **options):
        console = Terminal(file=io.StringIO(), stderr=False)
        given = {"tile": None, "overlap": None, "augment": (), "merge": None, **options}
        return choose_views(tmp_path / name, console, **given), console.file.getvalue()

    data = {"path": "my_data", "val_fraction": 0.2, "train": None, "val": None}
    recipes = {"tiles.ckpt": {**data, "tile": 96, "overlap": 0.3}, "whole.ckpt": {**data, "tile": None}}
    for name, of_data in recipes.items():
        torch.save({"pyrafuse": {"recipe": {"data": of_data, "run": {"seed": 0}}}}, tmp_path / name)
    torch.save({"weight": torch.zeros(1)}, tmp_path / "foreign.pth")
    (tmp_path / "broken.ckpt").write_text("no checkpoint")
    (tmp_path / "exported.onnx").write_text("not read")
    return choose


def test_the_tiles_of_the_training_are_taken_and_said(choose):
    views, said = choose("tiles.ckpt")
    assert views == Views(tile=96, overlap=0.3)
    assert said.startswith("in tiles of 96 px, overlap 0.3, as ")
    assert said.endswith("tiles.ckpt was trained; --tile 0 takes whole images\n")
    assert choose("tiles.ckpt", overlap=0.5, augment=("flip",))[0] == Views(tile=96, overlap=0.5, flip=True)


@pytest.mark.parametrize(("tile", "views"), [(0, Views()), (64, Views(tile=64))])
def test_what_is_given_counts(choose, tile, views):
    assert choose("tiles.ckpt", tile=tile) == (views, "")


@pytest.mark.parametrize("name", ["whole.ckpt", "foreign.pth", "broken.ckpt", "exported.onnx", "absent.ckpt"])
def test_others_take_whole_images(choose, name):
    assert choose(name) == (Views(), "")
    with pytest.raises(PyrafuseError, match=r"overlap 0\.2 is for tiles"):
        choose(name, overlap=0.2)


def test_a_training_refuses_an_overlap_without_tiles(tmp_path, capsys):
    assert main(["train", "shapes", "--overlap", "0.3", "--output", str(tmp_path / "run")]) == 2
    assert "overlap 0.3 is for tiles, and images stay whole: give a tile" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    tiled = make_recipe([("data.overlap", 0.3), ("data.tile", 64)])
    assert (tiled.data.tile, tiled.data.overlap) == (64, 0.3)
    (tmp_path / "whole.yaml").write_text("data: {tile: null, overlap: 0.2}\n")  # as a run writes its recipe
    assert make_recipe([("recipe", str(tmp_path / "whole.yaml"))]).data.tile is None
