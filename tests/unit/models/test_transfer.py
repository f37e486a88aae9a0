"""Classes matched by name, rows copied to their places, and what is said of it."""

import pytest
import torch

from pyrafuse.core.class_rows import ClassRows
from pyrafuse.models.factory import create_model
from pyrafuse.models.transfer import ClassMatch, describe_transfer, find_class_rows, match_classes, transfer

SMALL = {"backbone": {"width": 0.25}}


class TestClassRows:
    def test_rows_by_hand(self):
        # two anchors of 1 row before, 2 for each class, 1 after: three classes there, two here
        rows = ClassRows(before=1, width=2, after=1)
        theirs = torch.arange(16.0)
        ours = -torch.ones(12)
        assert rows.copy(theirs, ours, [(2, 0)], num_theirs=3, num_ours=2)
        assert ours.tolist() == [0, 5, 6, -1, -1, 7, 8, 13, 14, -1, -1, 15]

    def test_no_class_in_common(self):
        ours = -torch.ones(3, 2)
        assert ClassRows(after=1).copy(torch.arange(4.0).view(2, 2), ours, [], num_theirs=1, num_ours=2)
        assert ours.tolist() == [[-1, -1], [-1, -1], [2, 3]]

    @pytest.mark.parametrize(
        ("theirs", "ours"),
        [((6, 4), (2, 5)), ((6, 4), (4, 4)), ((7, 4), (2, 4)), ((6, 4), (3, 4))],
        ids=["other channels", "other anchors", "odd rows there", "odd rows here"],
    )
    def test_other_shapes(self, theirs, ours):
        filled = torch.zeros(ours)
        assert not ClassRows().copy(torch.ones(theirs), filled, [(0, 0)], num_theirs=6, num_ours=2)
        assert not filled.any()

    def test_memory_of_channels_last(self):
        theirs = torch.arange(2 * 3 * 3 * 3.0).view(2, 3, 3, 3)
        ours = torch.zeros(1, 3, 3, 3).contiguous(memory_format=torch.channels_last)
        assert ClassRows().copy(theirs, ours, [(1, 0)], num_theirs=2, num_ours=1)
        assert torch.equal(ours[0], theirs[1])


class TestNames:
    def test_exactly_then_without_case(self):
        found = match_classes(("Cat", "dog", "Bird", "cat"), ("cat", "DOG", "fish"), num_theirs=4)
        assert found == ClassMatch(((3, 0), (1, 1)), {"DOG": "dog"}, ("fish",), 2)

    def test_each_class_once(self):
        found = match_classes(("cat",), ("Cat", "CAT"), num_theirs=1)
        assert found.pairs == ((0, 0),)
        assert found.fresh == ("CAT",)

    def test_a_name_twice_is_the_first(self):
        assert match_classes(("cat", "cat"), ("cat",), num_theirs=2).pairs == ((0, 0),)

    @pytest.mark.parametrize("theirs", [(), ("0", "1")])
    def test_unnamed_classes_are_taken_in_their_order_if_they_are_as_many(self, theirs):
        found = match_classes(theirs, ("b", "a"), num_theirs=2)
        assert found == ClassMatch(((0, 0), (1, 1)), {}, (), 0, is_by_order=True)
        found = match_classes(theirs, ("b", "a", "c"), num_theirs=2)
        assert found == ClassMatch((), {}, ("b", "a", "c"), 2)

    def test_numbers_that_are_names(self):
        assert match_classes(("0", "1"), ("0", "1"), num_theirs=2) == ClassMatch(((0, 0), (1, 1)), {}, (), 0)
        assert match_classes(("0", "1", "2"), ("1",), num_theirs=3).pairs == ((1, 0),)


@pytest.fixture(scope="module")
def start():
    torch.manual_seed(0)
    return create_model("yolov3_small", num_classes=3, **SMALL)


def move(start, theirs, ours, *, options=SMALL, name="yolov3_small", **given):
    torch.manual_seed(1)
    made = create_model(name, num_classes=len(ours), **options)
    before = {key: value.clone() for key, value in made.state_dict().items()}
    classes = match_classes(theirs, ours, num_theirs=len(theirs))
    done = transfer(made, start.state_dict(), classes, num_theirs=len(theirs), num_ours=len(ours), **given)
    return made, before, describe_transfer(done, classes, find_class_rows(made), source="a.ckpt")


class TestTransfer:
    TOTAL = len(create_model("yolov3_small", num_classes=3, **SMALL).state_dict())

    def test_the_same_classes_in_another_order(self, start):
        made, _, said = move(start, ("a", "b", "c"), ("c", "a", "b"))
        assert said == f"{self.TOTAL} of {self.TOTAL} entries taken from a.ckpt"
        weight = made.head.outputs[1].classes.weight.unflatten(0, (-1, 3))
        assert torch.equal(weight, start.head.outputs[1].classes.weight.unflatten(0, (-1, 3))[:, [2, 0, 1]])

    def test_a_new_class(self, start):
        made, before, said = move(start, ("a", "b", "c"), ("b", "x"))
        assert said == (
            f"{self.TOTAL} of {self.TOTAL} entries taken from a.ckpt, 6 of them in part; new: the outputs for 1 class "
            "(x); left out of the file: 2 classes"
        )
        bias = made.head.outputs[0].classes.bias.view(-1, 2)
        assert torch.equal(bias[:, 0], start.head.outputs[0].classes.bias.view(-1, 3)[:, 1])
        assert torch.equal(bias[:, 1], before["head.outputs.0.classes.bias"].view(-1, 2)[:, 1])

    def test_other_classes(self, start):
        _, _, said = move(start, ("a", "b", "c"), ("helmet",))
        assert said == (
            f"{self.TOTAL - 6} of {self.TOTAL} entries taken from a.ckpt; new: the outputs for 1 class (helmet); left "
            "out of the file: 3 classes and 6 entries"
        )

    def test_another_neck(self, start):
        options = {**SMALL, "neck": ("fpn", "sum_fusion"), "necks": {"sum_fusion": {"out_channels": 96}}}
        made, before, said = move(start, ("a", "b", "c"), ("a", "b", "c"), options=options)
        fpn, fresh = "neck.necks.0.", [key for key in before if key.startswith("neck.necks.1.")]
        assert said == f"{len(before) - len(fresh)} of {len(before)} entries taken from a.ckpt" + (
            f"; new: {len(fresh)} entries of the neck" if fresh else ""
        )
        ours, theirs = made.state_dict(), start.state_dict()
        assert all(torch.equal(ours[fpn + key[5:]], value) for key, value in theirs.items() if key.startswith("neck."))

    def test_a_row_of_necks_made_one(self):
        row = create_model("yolov3_asff_small", num_classes=1, **SMALL)
        made, _, _ = move(row, ("a",), ("a",))
        first = {k: v for k, v in row.state_dict().items() if k.startswith("neck.necks.0.")}
        assert first
        assert all(torch.equal(made.state_dict()[f"neck.{k[13:]}"], value) for k, value in first.items())

    def test_class_outputs_of_another_shape(self, start):
        options = {**SMALL, "head": {"branches": 32}}
        made, before, said = move(start, ("a", "b", "c"), ("a", "b", "c"), options=options)
        assert "new: 3 entries of the class outputs, which have another shape there; new: " in said
        assert "entries of the head" in said
        assert torch.equal(made.state_dict()["head.outputs.0.classes.weight"], before["head.outputs.0.classes.weight"])

    def test_without_the_backbone(self, start):
        made, before, said = move(start, ("a", "b", "c"), ("a", "b", "c"), without=("backbone.",))
        count = sum(key.startswith("backbone.") for key in before)
        assert f"new: {count} entries of the backbone; left out of the file: {count} entries" in said
        assert torch.equal(made.state_dict()["backbone.layers.0.0.weight"], before["backbone.layers.0.0.weight"])

    def test_unnamed_classes(self, start):
        _, _, said = move(start, ("0", "1", "2"), ("a", "b", "c"))
        assert said.endswith("; the file does not name its 3 classes: they are taken in their order")

    def test_names_in_another_case(self, start):
        _, _, said = move(start, ("Car", "b", "c"), ("car", "b", "c"))
        assert said.endswith("; matched without regard to case: car (there Car)")
