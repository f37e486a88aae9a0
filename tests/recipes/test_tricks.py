"""Each trick of the strong baseline is a switch, and each switch acts."""

import itertools
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from torch import nn

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.cli.main import main
from pyrafuse.core.targets import Targets
from pyrafuse.data.augment.settings import Augmentation
from pyrafuse.data.formats.layout import read_splits
from pyrafuse.data.loading.loaders import create_train_loader
from pyrafuse.layers.deformable import FeatureAdaption
from pyrafuse.layers.dropblock import DropBlock
from pyrafuse.layers.rfb import RFB
from pyrafuse.layers.spp import YOLOSPP
from pyrafuse.models.checkpoint import save
from pyrafuse.models.factory import create_model
from pyrafuse.recipes.registry import RECIPES
from pyrafuse.recipes.tricks import TRICKS, switch, tricks_of
from pyrafuse.training import processes, run
from pyrafuse.training.modes import set_dropblocks, set_modes
from pyrafuse.training.processes import Place
from pyrafuse.training.schedule import block_sizes, lr_factor
from pyrafuse.training.settings import (
    DataSettings,
    DropBlockSettings,
    ModelSettings,
    Recipe,
    ScheduleSettings,
    to_plain,
)
from pyrafuse.training.starting import settle

PAGE = Path(__file__).resolve().parents[2] / "docs/how_to/paper_recipes.md"
BASELINE = set(TRICKS) - {"rfb", "dropblock"}
NARROW = {"backbone": {"width": 0.125, "depths": [1, 1, 1, 1, 1]}, "necks": {"yolo_fpn": {"width": 0.1}}}


def configure(capsys, *words: str) -> dict:
    """What `pyrafuse train` would use."""
    assert main(["train", *words, "--print_config"]) == 0
    return yaml.safe_load(capsys.readouterr().out)


def test_the_recipes_have_the_paper_s_tricks():
    assert set(tricks_of(to_plain(RECIPES.create("yolov3_coco")))) == BASELINE
    assert set(tricks_of(to_plain(RECIPES.create("yolov3_asff_coco")))) == BASELINE
    assert set(tricks_of(to_plain(RECIPES.create("yolov3_asff_star_coco")))) == set(TRICKS)


@pytest.mark.parametrize("name", TRICKS)
def test_a_switch_turns_both_ways(name):
    values = to_plain(RECIPES.create("yolov3_asff_star_coco"))
    off = switch(values, name, on=False)
    assert name not in tricks_of(off)
    assert name in tricks_of(values)  # the argument is as it was
    on = switch(off, name, on=True)
    assert name in tricks_of(on)
    lost = {"guided_anchoring": {"feature_adaption", "rfb"}, "feature_adaption": {"rfb"}}.get(name, set())
    assert set(tricks_of(off)) == set(TRICKS) - {name} - lost
    assert set(tricks_of(on)) == set(TRICKS) - lost


@pytest.mark.parametrize("name", TRICKS)
def test_from_the_command_line(name, capsys):
    recipe = "yolov3_asff_star_coco"
    got = configure(capsys, "--recipe", recipe, "--without", name.replace("_", "-"))
    assert got == switch(to_plain(RECIPES.create(recipe)), name, on=False)


def test_several_at_once_and_on_the_default_recipe(capsys):
    got = configure(capsys, "photos", "--with=label_smoothing,dropblock", "--without", "spp,cosine", "--epochs", "3")
    assert got["model"]["options"] == {
        "criterion": {"label_smoothing": True},
        "necks": {"yolo_fpn": {"spp": False}},
    }
    assert got["dropblock"]["phases"] == [[5, 5, 3, 1], [80, 7, 5, 3], [150, 7, 7, 7]]
    assert (got["schedule"]["kind"], got["run"]["epochs"], got["data"]["path"]) == ("step", 3, "photos")


def test_on_a_file(tmp_path, capsys):
    (tmp_path / "mine.yaml").write_text("run: {epochs: 7}\n")
    got = configure(capsys, "--recipe", str(tmp_path / "mine.yaml"), "--with", "mixup")
    assert (got["run"]["epochs"], got["augmentation"]["mixup_probability"]) == (7, 1.0)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--with", "mixupp"], "unknown trick 'mixupp'; did you mean 'mixup'?"),
        (["--without"], "--without needs a "),
        (["--with="], "--with needs a trick, or several with commas between: mixup, "),
    ],
)
def test_what_is_no_trick(words, said, capsys):
    assert main(["train", *words]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sizes"),
    [
        ("--with multi_scale", (320, 608)),
        ("--with multi_scale --size 64", (32, 96)),
        ("--size 320 --with multi_scale", (224, 480)),
        ("--recipe yolov3_asff_coco", (320, 608)),
        ("--recipe yolov3_asff_coco --without multi_scale --with multi_scale", (320, 608)),
        ("--recipe yolov3_asff_coco --size 128", (96, 192)),
        ("--size 320 --recipe ssd300_voc --with multi_scale", (224, 480)),
        ("--recipe yolov3_asff_coco --size 128 --data.sizes 256,512", (256, 512)),
    ],
)
def test_sizes_lie_around_the_size(capsys, words, sizes):
    got = configure(capsys, *words.split())["data"]["sizes"]
    assert (got[0], got[-1]) == sizes


@pytest.mark.parametrize(
    ("words", "size", "sizes"),
    [
        ("--with multi_scale", 128, (96, 192)),
        ("--recipe yolov3_asff_coco", 128, (96, 192)),
        ("--size 64 --with multi_scale", 64, (32, 96)),
        ("--recipe yolov3_asff_coco --size 64", 64, (32, 96)),
        ("--with multi_scale --without multi_scale", 128, ()),
        ("--data.sizes 64,96", 128, (64, 96)),
        ("--recipe file.yaml", 128, (64, 96)),
        ("--recipe around.yaml", 64, (32, 96)),
    ],
)
def test_sizes_lie_around_that_of_the_start(words, size, sizes, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    Path("file.yaml").write_text("data: {sizes: [64, 96]}")
    Path("around.yaml").write_text("data: {size: 64, sizes: around}")
    detector = create_model("yolov3_small", num_classes=1)
    detector.card = replace(detector.card, preprocessing=Preprocessing(size=(128, 128)))
    save(detector, "start.ckpt")
    given = configure(capsys, "--model", "start.ckpt", *words.split())
    data = dict(given["data"])
    data["sizes"] = data["sizes"] if data["sizes"] == "around" else tuple(data["sizes"])
    settled, _ = settle(Recipe(model=ModelSettings(start_from="start.ckpt"), data=DataSettings(**data)))
    assert settled.data.size == size
    assert settled.data.sides[:1] + settled.data.sides[-1:] == sizes


def test_sizes_do_not_go_with_images_of_many_sizes(tmp_path):
    detector = create_model("yolov3_small", num_classes=1)
    detector.card = replace(detector.card, preprocessing=Preprocessing(size=(64, 96), fit="keep_ratio"))
    save(detector, tmp_path / "start.ckpt")
    recipe = Recipe(model=ModelSettings(start_from=str(tmp_path / "start.ckpt")), data=DataSettings(sizes="around"))
    with pytest.raises(PyrafuseError, match=r"data\.sizes are squares.*--without multi_scale"):
        settle(recipe)


def test_the_table_in_the_pages():
    for name, trick in TRICKS.items():
        row = next(line for line in PAGE.read_text().splitlines() if line.startswith(f"| `{name}` |"))
        for path in trick.on:
            assert f"`{path}`" in row


def test_the_paper_s_table_line_by_line(capsys):
    """The lines in the pages are read, and each adds to the one before it what its remark says."""
    block = next(text for text in PAGE.read_text().split("```") if "--model.neck [yolo_fpn,sum_fusion]" in text)
    lines = [line.partition("#")[0].split()[2:] for line in block.strip().splitlines()]
    recipes = [configure(capsys, *words) for words in lines]
    tricks = [set(tricks_of(recipe)) for recipe in recipes]
    added = [now - before for before, now in itertools.pairwise(tricks)]
    assert tricks[0] == {"multi_scale", "spp"}
    assert added == [
        {"mixup", "cosine", "sync_bn", "label_smoothing"},
        {"guided_anchoring", "feature_adaption"},
        {"iou_loss"},
        set(),
        set(),
        set(),
        {"rfb"},
        {"dropblock"},
    ]
    assert all(before <= now for before, now in itertools.pairwise(tricks))
    necks = [(recipe["model"]["name"], (recipe["model"]["neck"] or ["asff"])[-1]) for recipe in recipes[3:7]]
    assert necks == [
        ("yolov3", "asff"),
        ("yolov3_asff", "sum_fusion"),
        ("yolov3_asff", "concat_fusion"),
        ("yolov3_asff", "asff"),
    ]
    alike = [{**recipe, "model": {**recipe["model"], "neck": None}} for recipe in recipes[4:7]]
    assert alike[0] == alike[1] == alike[2]  # table 3: all else is equal


def build(**switches: bool):
    """A narrow detector of the paper's kind, with tricks switched."""
    values = {"model": {"options": NARROW}}
    for name, on in switches.items():
        values = switch(values, name, on=on)
    torch.manual_seed(0)
    return create_model("yolov3_asff", num_classes=4, **values["model"]["options"])


def count(detector, kind) -> int:
    return sum(isinstance(part, kind) for part in detector.modules())


@pytest.mark.parametrize(
    ("name", "kind", "on", "off"),
    [("spp", YOLOSPP, 1, 0), ("feature_adaption", FeatureAdaption, 3, 0), ("rfb", RFB, 3, 0)],
)
def test_modules(name, kind, on, off):
    assert count(build(**{name: True}), kind) == on
    assert count(build(**{name: False}), kind) == off


def test_guided_anchoring():
    assert build(guided_anchoring=True).head.num_slots == 4
    plain = build(guided_anchoring=False)
    assert (plain.head.num_slots, plain.head.guides, plain.head.adaptions) == (3, None, None)
    assert plain(torch.zeros(1, 3, 64, 64)).classes.shape == (1, 3 * (64 + 16 + 4), 4)


def losses_of(**switches: bool):
    detector = build(**switches).eval()
    targets = Targets.pad([torch.tensor([[8.0, 8.0, 40.0, 50.0]])], [torch.tensor([2])])
    with torch.no_grad():
        return detector.criterion(detector(torch.ones(1, 3, 64, 64)), targets)


def test_iou_loss():
    on, off = losses_of(iou_loss=True), losses_of(iou_loss=False)
    assert set(on) - set(off) == {"iou"}
    assert all(torch.equal(on[term], off[term]) for term in off)


def test_boxes_need_one_loss():
    with pytest.raises(ValueError, match="switch on iou or l1"):
        create_model("yolov3_small", criterion={"iou": False, "l1": False})


def test_label_smoothing():
    on, off = losses_of(label_smoothing=True), losses_of(label_smoothing=False)
    assert {term for term in on if not torch.equal(on[term], off[term])} == {"classification"}


def loader_of(name: str, on: bool, monkeypatch, tmp_path):
    monkeypatch.setenv("PYRAFUSE_CACHE", str(tmp_path))
    values = switch({"augmentation": {}, "data": {}}, name, on=on)
    loader = create_train_loader(
        read_splits("shapes:train=8,val=2,size=64").train,
        preprocessing=Preprocessing(size=(64, 64)),
        augmentation=replace(Augmentation.none(), **values["augmentation"]),
        batch_size=4,
        num_workers=0,
        seed=0,
        sizes=[size // 10 * 2 for size in DataSettings(**values["data"]).sides],
        change_every=1,
    )
    return list(loader)


def test_mixup(monkeypatch, tmp_path):
    for on in (True, False):
        batches = loader_of("mixup", on, monkeypatch, tmp_path)
        weights = torch.cat([batch.targets.weights[batch.targets.valid] for batch in batches])
        assert bool((weights < 1).any()) is on


def test_multi_scale(monkeypatch, tmp_path):
    assert len({batch.images.shape for batch in loader_of("multi_scale", True, monkeypatch, tmp_path)}) == 2
    assert {batch.images.shape[-1] for batch in loader_of("multi_scale", False, monkeypatch, tmp_path)} == {64}


def test_cosine():
    for on, expected in ((True, 0.505), (False, 1.0)):
        values = switch({}, "cosine", on=on)
        settings = ScheduleSettings(burn_in_epochs=0, kind=values["schedule"]["kind"])
        assert lr_factor(settings, epoch=5, step=0, steps_per_epoch=4, epochs=10) == pytest.approx(expected)
        assert lr_factor(settings, epoch=8, step=0, steps_per_epoch=4, epochs=10) == pytest.approx(
            0.01 if not on else 0.01 + 0.99 * (1 + torch.cos(torch.tensor(0.8 * torch.pi)).item()) / 2
        )


def test_sync_bn(monkeypatch):
    monkeypatch.setattr(processes, "DistributedDataParallel", lambda module, **_: module)
    for on in (True, False):
        sync_bn = switch({}, "sync_bn", on=on)["run"]["sync_bn"]
        module = nn.Sequential(nn.BatchNorm2d(3))
        spread = Place(torch.device("cuda", 0), world_size=2).spread(module, sync_bn=sync_bn)
        assert isinstance(spread[0], nn.SyncBatchNorm) is on
        assert spread[0].weight is module[0].weight  # the optimiser has it already
    assert Place(torch.device("cuda", 0)).spread(module, sync_bn=True) is module


class TestDropBlock:
    SETTINGS = DropBlockSettings(phases=((5, 5, 3, 1), (80, 7, 5, 3)), keep_prob=0.8)

    def start(self, detector, epoch: int, settings: DropBlockSettings = SETTINGS) -> list[DropBlock]:
        set_dropblocks(detector, settings, epoch=epoch)
        return [part for part in detector.modules() if isinstance(part, DropBlock)]

    def test_a_training_that_begins_anywhere_finds_its_phase(self):
        for epoch, sizes in ((0, [0, 0, 0]), (4, [0, 0, 0]), (5, [5, 3, 1]), (79, [5, 3, 1]), (200, [7, 5, 3])):
            assert [block.block_size for block in self.start(build(), epoch)] == sizes

    def test_levels_are_finest_first(self):
        detector = build()
        self.start(detector, 80)
        for level, size in enumerate((7, 5, 3)):
            stack = detector.get_submodule(f"neck.necks.0.stacks.{level}")
            assert [part.block_size for part in stack.modules() if isinstance(part, DropBlock)] == [size]

    def test_it_drops(self):
        detector = build().train()
        images = torch.ones(2, 3, 64, 64)
        plain = detector(images).classes
        self.start(detector, 5)
        assert not torch.equal(detector(images).classes, plain)
        self.start(detector, 0)
        assert torch.equal(detector(images).classes, plain)

    def test_a_training_drops_when_it_is_on(self):
        for on in (True, False):
            settings = DropBlockSettings(**switch({}, "dropblock", on=on)["dropblock"])
            detector = build()
            set_modes(detector, replace(Recipe(), dropblock=settings), epoch=200)
            blocks = [part for part in detector.modules() if isinstance(part, DropBlock)]
            assert any(block.block_size > 0 for block in blocks) is on

    def test_a_neck_with_other_levels(self):
        with pytest.raises(PyrafuseError, match="speak of 2 levels, but the neck has 3 DropBlocks"):
            self.start(build(), 0, DropBlockSettings(phases=((5, 3, 3),)))

    @pytest.mark.parametrize(
        ("phases", "said"),
        [
            (((5,),), r"\[5\] is no row"),
            (((5, 2, 1, 1),), "no row of a first epoch and one odd side"),
            (((-1, 3, 1, 1),), "no row"),
            (((5, 3, 1), (9, 3)), "rows need one side a level"),
            (((5, 3), (5, 1)), "each its own first epoch"),
        ],
    )
    def test_phases_that_make_no_sense(self, phases, said):
        with pytest.raises(PyrafuseError, match=said):
            DropBlockSettings(phases=phases)
        with pytest.raises(PyrafuseError, match=r"keep_prob must lie in 0\.\.1"):
            DropBlockSettings(keep_prob=0)

    def test_order_of_the_rows_does_not_matter(self):
        assert block_sizes(DropBlockSettings(phases=((9, 3), (2, 1))), epoch=20) == (3,)


def test_closing_epochs_apart(monkeypatch, tmp_path):
    given = {}
    monkeypatch.setattr(
        run,
        "create_train_loader",
        lambda *_, **options: given.update(options) or SimpleNamespace(batch_sampler=SimpleNamespace(set_epoch=int)),
    )
    for changes, mixed, scaled in (
        ({}, 20, 20),
        ({"unmixed_epochs": 2}, 22, 20),
        ({"unmixed_epochs": 0, "one_size_epochs": 7}, 24, 17),
    ):
        recipe = replace(Recipe(), schedule=replace(ScheduleSettings(closing_epochs=4), **changes))
        splits = SimpleNamespace(train=range(8))
        run.create_course(recipe, splits, build(), precision="32", place=Place(torch.device("cpu")))  # type: ignore[arg-type]
        assert (given["mix_epochs"], given["scale_epochs"]) == (mixed, scaled)
    with pytest.raises(PyrafuseError, match="unmixed_epochs must be 0 or more, got -1"):
        ScheduleSettings(unmixed_epochs=-1)
