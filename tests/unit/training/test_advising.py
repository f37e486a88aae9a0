"""Advice becomes settings, unless the user gave them; a training applies it and goes whole."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from pyrafuse.cli.main import main
from pyrafuse.cli.train import make_recipe
from pyrafuse.data.checks.report import Advice
from pyrafuse.data.formats.layout import read_splits
from pyrafuse.recipes.small import small
from pyrafuse.training import run
from pyrafuse.training.advising import advise, apply
from pyrafuse.training.preparing import check_model, create_detector
from pyrafuse.training.resuming import Begun, compare_options
from pyrafuse.training.settings import to_plain
from pyrafuse.training.starting import settle

LARGER = Advice("size", "larger", (("data.size", 640),))
LONGER = Advice("epochs", "longer", (("run.epochs", 99),))
FITS = Advice("classes", "balanced enough")


@pytest.fixture(scope="module")
def settled():
    recipe, _ = settle(replace(small(), data=replace(small().data, path="shapes:train=8,val=4,size=64", size=64)))
    return recipe


def asking(recipe, *by_hand, **model):
    changed = replace(recipe.run, advice=True, by_hand=by_hand)
    return replace(recipe, run=changed, model=replace(recipe.model, **model))


def test_advice_is_told_and_applied_when_asked_for(settled):
    recipe, said = apply(settled, [LARGER, LONGER, FITS])
    assert recipe == settled
    assert said == ["size: larger (--data.size 640)", "epochs: longer (--run.epochs 99)", "--advice applies this"]
    recipe, said = apply(asking(settled), [LARGER, LONGER, FITS])
    assert (recipe.data.size, recipe.run.epochs, recipe.run.advice) == (640, 99, False)
    assert said == ["applied --data.size 640; size: larger", "applied --run.epochs 99; epochs: longer"]
    assert apply(settled, [FITS])[1] == ["nothing to change: size, levels, epochs and classes fit the data"]


def test_what_is_given_by_hand_stays(settled):
    recipe, said = apply(asking(settled, "run.epochs", "data.path"), [LARGER, LONGER])
    assert (recipe.data.size, recipe.run.epochs, recipe.run.by_hand) == (640, settled.run.epochs, ())
    assert said[1] == "left as given by hand, run.epochs; epochs: longer"
    recipe, said = apply(asking(settled, start_from="a.ckpt"), [LARGER, LONGER])
    assert (recipe.data.size, recipe.run.epochs) == (64, 99)
    assert said[0] == "left as in a.ckpt; size: larger"


def test_a_resumed_run_keeps_its_settings(settled):
    resumed = asking(replace(settled, run=replace(settled.run, resume=True)), "run.resume")
    recipe, said = apply(resumed, [LARGER])
    assert (recipe.data.size, recipe.run.advice, recipe.run.by_hand) == (64, False, ())
    assert said == ["not applied: a resumed run keeps the settings it began with"]
    begun = Begun(Path("run/last.ckpt"), 1, 0, to_plain(settled), (), is_complete=False, best=None, precision=None)
    assert compare_options(resumed, begun) == []


def test_the_command_line_tells_what_was_given_by_hand(tmp_path):
    (tmp_path / "own.yaml").write_text("optimizer: {lr: 0.1}\n")
    given = [("recipe", str(tmp_path / "own.yaml")), ("data.size", 320), ("run.advice", True)]
    assert make_recipe(given).run.by_hand == ("data.size", "optimizer.lr")
    assert make_recipe([("data.size", 320)]).run.by_hand == ()
    (tmp_path / "asking.yaml").write_text("run: {epochs: 7, advice: true}\n")
    assert make_recipe([("recipe", str(tmp_path / "asking.yaml"))]).run.by_hand == ("run.epochs",)


def test_small_objects_bring_a_finer_level_and_keep_the_anchors(settled):
    data = read_splits("shapes:train=8,val=4,size=64").train
    boxes = [np.concatenate([r.boxes[:, :2], r.boxes[:, :2] + (3, 9)], axis=1) for r in data.records]
    records = tuple(replace(r, boxes=box.astype(np.float32)) for r, box in zip(data.records, boxes, strict=True))
    data = replace(data, records=records)
    advice = {each.topic: each for each in advise(settled, data)}
    assert advice["size"].settings == (("data.size", 128),)
    assert dict(advice["levels"].settings) == {
        "model.options.backbone.strides": [4, 8, 16, 32],
        "model.options.necks.asff.out_channels": [128, 128, 128, 128],
    }
    assert advice["anchors"].settings == ()
    assert (
        "at 128 px they meet 0 % of the objects by 0.5 (IoU of the shapes), and anchors fitted to the data 100 %"
        in (advice["anchors"].text)
    )
    recipe, said = apply(asking(settled), [advice["levels"], advice["anchors"]])
    assert [each.partition(";")[0] for each in said] == [f"applied {advice['levels'].options}"]
    detector = create_detector(
        replace(recipe, model=replace(recipe.model, backbone_weights=None)), data, say=said.append
    )
    assert detector.neck.features.strides == (4, 8, 16, 32)
    assert len(detector.card.spec.head.options["anchors"]) == 4
    check_model(settle(recipe)[0])  # as a run is resumed from its own recipe.yaml
    kept, said = apply(asking(settled, "model.neck"), [advice["levels"]])
    assert kept.model.spec == settled.model.spec
    assert said[0].startswith("left as given by hand")


def test_later_advice_is_for_the_size_that_comes(settled):
    """Objects of 5 px at 64 px, and of 10 at the advised 128."""
    data = read_splits("shapes:train=8,val=4,size=64").train
    boxes = [np.concatenate([r.boxes[:, :2], r.boxes[:, :2] + (5, 5)], axis=1) for r in data.records]
    records = tuple(replace(r, boxes=box.astype(np.float32)) for r, box in zip(data.records, boxes, strict=True))
    data = replace(data, records=records)
    for recipe, size in ((settled, 128), (asking(settled), 128), (asking(settled, "data.size"), 64)):
        levels = next(each for each in advise(recipe, data) if each.topic == "levels")
        assert f"at {size} px 100 % of the objects are under 12 px" in levels.text


def test_no_objects_no_advice(settled):
    data = read_splits("shapes:train=8,val=4,size=64").train
    empty = tuple(replace(r, boxes=r.boxes[:0], labels=r.labels[:0], crowd=r.crowd[:0]) for r in data.records)
    assert advise(settled, replace(data, records=empty)) == ()


def test_a_training_applies_the_advice_and_writes_the_values(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(run, "fit", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))  # all is told by then
    words = "train shapes:train=8,val=4,size=64 --advice --size 64 --batch 4 --weights none --device cpu"
    more = ["--data.workers", "0", "--run.precision", "32", "--model.neck", "[fpn]", "--output", str(tmp_path / "run")]
    assert main([*words.split(), *more]) == 130
    out = "".join(capsys.readouterr())
    assert "applied --run.epochs 300; epochs: 300 instead of 30: 30 epochs of 2 steps make 60 steps" in out
    assert "left as given by hand, model.options.backbone.strides" in out
    recipe = yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())
    assert (recipe["model"]["anchors"], recipe["data"]["size"], recipe["run"]["epochs"]) == ("model", 64, 300)
    assert (recipe["run"]["advice"], recipe["run"]["by_hand"]) == (False, [])
