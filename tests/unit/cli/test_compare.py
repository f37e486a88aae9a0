"""What may be typed after `pyrafuse compare`, and what it becomes."""

import functools

import pytest

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.cli.arguments import call
from pyrafuse.cli.compare import compare, read_variant, read_variants
from pyrafuse.cli.main import main
from pyrafuse.cli.train import make_recipe
from pyrafuse.recipes.registry import RECIPES
from pyrafuse.recipes.tricks import tricks_of
from pyrafuse.training.settings import to_plain


def parse(*argv: str) -> dict:
    seen = []

    @functools.wraps(compare)
    def remember(**values) -> int:
        seen.append(values)
        return 0

    assert call(remember, argv, prog="pyrafuse compare") == 0
    return seen[0]


def test_words_and_options_in_any_order():
    found = parse("a", "--necks", "asff,sum_fusion", "b", "--seeds=3", "--size", "96", "--optimizer.name", "sgd",
                  "--vary", "x: lr=1, y", "--vary=y: epochs=[1]", "--no-run.sync-bn")  # fmt: skip
    assert found["data"] == ("a", "b")
    assert found["necks"] == ("asff", "sum_fusion")
    assert found["seeds"] == (3,)
    assert found["vary"] == ("x: lr=1, y", "y: epochs=[1]")
    assert found["shared"] == (("data.size", 96), ("optimizer.name", "sgd"), ("run.sync_bn", False))
    assert parse("a", "--data.strict", "--model.options.head.x", "1")["shared"] == (
        ("data.strict", True), ("model.options.head.x", 1),
    )  # fmt: skip


def test_a_recipe_is_that_of_train():
    assert make_recipe([("recipe", "small")]) == RECIPES.create("small")
    changed = make_recipe([("data.size", 96), ("recipe", "small"), ("run.sync_bn", False)])
    assert (changed.data.size, changed.run.sync_bn) == (96, False)


def test_tricks_of_one_variant_and_of_all():
    shared = parse("a", "--without", "mixup,spp", "--with=rfb")["shared"]
    assert shared == (("without", ("mixup", "spp")), ("with", ("rfb",)))
    assert {"mixup", "spp", "rfb"} & set(tricks_of(to_plain(make_recipe([("recipe", "small"), *shared])))) == {"rfb"}
    variant = read_variant("plain: without=rfb,cosine lr=0.5", "small", shared)
    assert not {"mixup", "spp", "rfb", "cosine"} & set(tricks_of(to_plain(variant.recipe)))
    assert variant.recipe.optimizer.lr == 0.5
    with pytest.raises(PyrafuseError, match="variant 'x': unknown trick 'mixupp'; did you mean 'mixup'"):
        read_variant("x: without=mixupp", "small", [])
    with pytest.raises(PyrafuseError, match="--without needs a value"):
        parse("a", "--without")


def test_a_variant_as_typed():
    variant = read_variant(
        "hot: lr=0.5 model.options={head: {reach: 1.0}, x: [1, 2]} model.neck=[yolo_fpn,asff]",
        "small",
        [("data.size", 96)],
    )
    assert variant.name == "hot"
    assert variant.recipe.optimizer.lr == 0.5
    assert variant.recipe.data.size == 96
    assert variant.recipe.model.options == {"head": {"reach": 1.0}, "x": [1, 2]}
    assert variant.recipe.model.neck == ("yolo_fpn", "asff")
    assert read_variant("base:", "small", []).recipe == RECIPES.create("small")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model.neck=asff", "names no variant: write"),
        ("asff", "names no variant: write"),
        ("a b: lr=1", "names no variant: write"),
        ("x: lr 1", "'lr 1' is no KEY=VALUE"),
        ("x: learning=1", "variant 'x': unknown option --learning; choose from --"),
        ("x: run.epoch=1", "variant 'x': unknown option --run.epoch; did you mean --run.epochs?"),
        ("x: data.size=100", "variant 'x': data.size must be a multiple of 32, got 100"),
        ("x: lr=fast", "variant 'x': --optimizer.lr: expected float, got 'fast'"),
    ],
)
def test_a_variant_that_is_none(text, said):
    with pytest.raises(PyrafuseError, match=said.replace("?", r"\?")):
        read_variant(text, "small", [])


def test_variants_of_a_file(tmp_path):
    path = tmp_path / "variants.yaml"
    path.write_text(
        "a: {model.name: yolov3_small, run.precision: '32'}\n"
        "b: {optimizer: {lr: 0.5}, model: {options: {head: {}}}}\nc:\n"
    )
    a, b, c = read_variants(path, "small", [("data.size", 96)])
    assert (a.name, a.recipe.model.name, a.recipe.data.size) == ("a", "yolov3_small", 96)
    assert (b.recipe.optimizer.lr, b.recipe.model.options) == (0.5, {"head": {}})
    assert c.recipe.data.size == 96


def test_variants_of_a_file_share_what_is_merged_in(tmp_path):
    path = tmp_path / "variants.yaml"
    path.write_text("a: &a {model.name: yolov3_small, run.epochs: 7}\nb: {<<: *a, run.epochs: 9}\n")
    a, b = read_variants(path, "small", [])
    assert (a.recipe.model.name, b.recipe.model.name) == ("yolov3_small", "yolov3_small")
    assert (a.recipe.run.epochs, b.recipe.run.epochs) == (7, 9)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: {lr: 1}\na: {lr: 2}\n", r"--variants \S+: line 2: there are two of a; rename one"),
        ("- a\n- b\n", "must hold a line NAME"),
        ("a: 3\n", "must hold a line NAME"),
        ("a: {model: {nck: x}}\n", "variant 'a': unknown option --model.nck; did you mean --model.neck"),
        ("a: [\n", r"--variants \S+ is no YAML: .* in line 2, column 1"),
    ],
)
def test_a_file_that_is_none(tmp_path, text, said):
    path = tmp_path / "variants.yaml"
    path.write_text(text)
    with pytest.raises(PyrafuseError, match=said):
        read_variants(path, "small", [])


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["shapes"], "nothing to compare: name necks"),
        (["--necks", "asff"], "--data is required"),
        (["shapes", "--necks", "asff,sum_fuson"], "unknown neck 'sum_fuson'; did you mean 'sum_fusion'"),
        (["shapes", "--necks", "asff,asff"], "variant 'asff' is there twice"),
        (["shapes", "--necks", "asff", "--vary", "base:"], "are the same recipe"),
        (["shapes", "--necks", "asff", "--seeds="], "no seeds"),
        (["shapes", "--necks", "asff", "--run.seed", "3"], "--run.seed is set by the comparison: use --seeds"),
        (["shapes", "--vary", "x: seed=3"], "variant 'x' has run.seed 3 where others have 0"),
        (["shapes", "--necks", "asff", "--minutes", "2", "--epochs", "3"], "two budgets: give one of them"),
        (["shapes", "--necks", "asff", "--data.strict", "perhaps"], "no such data set: perhaps"),
        (["no/such/folder", "--necks", "asff", "--device", "cpu"], "no such data set: "),
        (["shapes", "--necks", "asff", "--recipe", "smal"], "unknown recipe 'smal'; did you mean 'small'"),
    ],
)
def test_complaints_come_before_any_training(argv, said, tmp_path, capsys):
    assert main(["compare", *argv, "--output", str(tmp_path / "out")]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
