"""What is compared with what, what is refused, and whose folder it is."""

from dataclasses import replace

import pytest
import yaml

from pyrafuse.base.errors import PyrafuseError, UnknownNameError
from pyrafuse.comparison.planning import (
    Comparison,
    Settled,
    Variant,
    claim_folder,
    keep,
    name_data_sets,
    plan_runs,
    refuse_own_settings,
    with_neck,
)
from pyrafuse.training.settings import ModelSettings, Recipe

BASE = Recipe(model=ModelSettings(name="yolov3_asff"))
HOT = replace(BASE, optimizer=replace(BASE.optimizer, lr=0.5))
DATA = {"shapes": "shapes"}
PAIR = (Variant("base", BASE), Variant("hot", HOT))


def having(**changes) -> Comparison:
    return Comparison(**{"variants": PAIR, "data": DATA, "seeds": (0, 1), **changes})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"variants": ()}, "nothing to compare: name necks"),
        ({"data": {}}, "nothing to train on"),
        ({"seeds": ()}, "no seeds: a run needs one"),
        ({"seeds": (0, 2, 0)}, "seed 0 is there twice"),
        ({"seeds": (-1,)}, "seeds must be 0 or more, got -1"),
        ({"minutes": 0.0}, "minutes must be positive, got 0.0"),
        ({"variants": (PAIR[0], Variant("base", HOT))}, "variant 'base' is there twice"),
        ({"variants": (PAIR[0], Variant("same", BASE))}, "variants 'base' and 'same' are the same recipe"),
        ({"variants": (Variant("a/b", BASE),)}, "cannot be called 'a/b'"),
        ({"variants": (Variant("..", BASE),)}, "cannot be called '..'"),
        (
            {"variants": (PAIR[0], Variant("long", replace(HOT, run=replace(HOT.run, epochs=99))))},
            "variant 'long' has run.epochs 99 where others have 24, but it belongs to the whole comparison: --epochs",
        ),
    ],
)
def test_what_cannot_be_compared(changes, said):
    with pytest.raises(PyrafuseError) as error:
        having(**changes)
    assert said in str(error.value)


def test_a_variant_keeps_to_the_seeds_of_all():
    with pytest.raises(PyrafuseError, match=r"has run\.seed 3 where others have 0, .* use --seeds"):
        refuse_own_settings(Variant("x", replace(BASE, run=replace(BASE.run, seed=3))), BASE)
    refuse_own_settings(PAIR[1], BASE)


def test_runs_go_seed_by_seed(tmp_path):
    comparison = having(data={"a": "x/a", "b": "shapes"})
    runs = plan_runs(comparison, tmp_path, {"a": 3, "b": 5})
    assert [(r.recipe.run.seed, r.data, r.variant, r.recipe.run.epochs) for r in runs] == [
        (0, "a", "base", 3), (0, "a", "hot", 3), (0, "b", "base", 5), (0, "b", "hot", 5),
        (1, "a", "base", 3), (1, "a", "hot", 3), (1, "b", "base", 5), (1, "b", "hot", 5),
    ]  # fmt: skip
    assert runs[5].folder == tmp_path / "a/hot/seed-1"
    assert runs[5].recipe.optimizer.lr == 0.5
    assert runs[5].recipe.data.path == "x/a"
    assert runs[5].title == "hot on a, seed 1"
    assert len({run.folder for run in runs}) == 8


def test_data_sets_get_names_of_their_own(tmp_path):
    (tmp_path / "my data").mkdir()
    (tmp_path / "val.json").touch()
    paths = [str(tmp_path / "my data"), "shapes", "shapes:train=8,val=4", str(tmp_path / "val.json")]
    assert list(name_data_sets(paths)) == ["my_data", "shapes", "shapes-2", "val"]
    with pytest.raises(PyrafuseError, match="data set shapes is there twice"):
        name_data_sets(["shapes", "shapes"])


class TestFolder:
    def test_the_same_comparison_goes_on(self, tmp_path):
        assert claim_folder(tmp_path / "out", having()) == Settled()
        keep(tmp_path / "out", having(), Settled({"shapes": 24}, "bf16"))
        assert claim_folder(tmp_path / "out", having()) == Settled({"shapes": 24}, "bf16")

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"seeds": (0, 2)}, r"seeds is \[0, 1\] there and \[0, 2\] here"),
            ({"data": {"shapes": "other"}}, "data.shapes is shapes there and other here"),
            ({"minutes": 3.0}, "minutes is None there and 3.0 here"),
            ({"variants": PAIR[:1]}, "variants.hot is there, and is not asked for"),
            ({"variants": (*PAIR, Variant("new", with_neck(BASE, "sum_fusion")))}, "variants.new is asked for"),
            ({"variants": (PAIR[1],)}, "variants.base is there"),
            (
                {"variants": (PAIR[0], Variant("hot", replace(HOT, optimizer=replace(HOT.optimizer, lr=0.4))))},
                "variants.hot.optimizer.lr is 0.5 there and 0.4 here",
            ),
        ],
    )
    def test_another_comparison_is_refused_by_its_difference(self, tmp_path, changes, said):
        claim_folder(tmp_path, having())
        before = (tmp_path / "comparison.yaml").read_text()
        with pytest.raises(PyrafuseError, match=f"holds another comparison: {said}"):
            claim_folder(tmp_path, having(**changes))
        assert (tmp_path / "comparison.yaml").read_text() == before

    def test_other_things_are_left_alone(self, tmp_path):
        (tmp_path / "thesis.tex").touch()
        with pytest.raises(PyrafuseError, match="is there already and holds no comparison"):
            claim_folder(tmp_path, having())
        (tmp_path / "comparison.yaml").write_text("- no\n- comparison\n")
        with pytest.raises(PyrafuseError, match="is damaged"):
            claim_folder(tmp_path, having())

    def test_what_is_written_can_be_read_by_people(self, tmp_path):
        claim_folder(tmp_path, having())
        content = yaml.safe_load((tmp_path / "comparison.yaml").read_text())
        assert list(content["variants"]) == ["base", "hot"]
        assert content["variants"]["hot"]["run"]["epochs"] == 24
        assert "seed" not in content["variants"]["hot"]["run"]


class TestNeck:
    def test_takes_the_place_of_the_last(self):
        assert with_neck(BASE, "sum_fusion").model.neck == ("yolo_fpn", "sum_fusion")
        assert with_neck(BASE, "asff") == BASE
        assert with_neck(BASE, "yolo_fpn").model.neck == ("yolo_fpn",)
        assert with_neck(BASE, "asff+asff").model.neck == ("asff", "asff")
        given = replace(BASE, model=ModelSettings(name="yolov3", neck=("asff",)))
        assert with_neck(given, "sum_fusion").model.neck == ("sum_fusion",)

    def test_options_go_over_where_they_fit(self):
        by_neck = {"yolo_fpn": {"width": 0.5}, "asff": {"out_channels": [8, 12, 16], "weight_channels": 4}}
        recipe = replace(BASE, model=ModelSettings(name="yolov3_asff", options={"necks": by_neck}))
        assert with_neck(recipe, "sum_fusion").model.options == {
            "necks": {"yolo_fpn": {"width": 0.5}, "sum_fusion": {"out_channels": [8, 12, 16]}}
        }
        assert with_neck(recipe, "yolo_fpn").model.options == {"necks": {"yolo_fpn": {"width": 0.5}}}
        assert recipe.model.options["necks"] is by_neck
        assert set(by_neck) == {"yolo_fpn", "asff"}

    def test_unknown(self):
        with pytest.raises(UnknownNameError, match="unknown neck 'sum_fuson'; did you mean 'sum_fusion'"):
            with_neck(BASE, "sum_fuson")
        with pytest.raises(UnknownNameError, match="unknown model"):
            with_neck(replace(BASE, model=ModelSettings(name="yolo9")), "asff")
