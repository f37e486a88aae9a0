import pytest
import torch
from torch import nn

from pyrafuse.backbones.weights import read_state_dict, rename, unwrap_state
from pyrafuse.base.errors import CheckpointError
from pyrafuse.importers.renaming import by_modules, by_parts, by_patterns, load_renamed


def model() -> nn.ModuleDict:
    return nn.ModuleDict({"stem": nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)), "last": nn.Linear(4, 2)})


NAMES = by_modules([("stem.0", "conv1"), ("stem.1", "bn1"), ("last", "fc")])


def their_state(naming=NAMES) -> dict[str, torch.Tensor]:
    return {naming(key): torch.full_like(value, i) for i, (key, value) in enumerate(model().state_dict().items())}


class TestNamings:
    def test_the_deepest_module_decides(self):
        name = by_modules([("a", "x"), ("a.0.b", "y"), ("", "rest")])
        assert [name(k) for k in ("a.0.weight", "a.0.b.weight", "a.0.bc.weight", "ab.weight", "a")] == [
            "x.0.weight",
            "y.weight",
            "x.0.bc.weight",
            "rest.ab.weight",
            "x",
        ]

    def test_patterns_follow_each_other(self):
        name = by_patterns([(r"^laterals\.(\d+)\.", r"lateral_convs.\1."), (r"\.norm\.", ".bn.")])
        assert name("laterals.2.norm.bias") == "lateral_convs.2.bn.bias"
        assert name("other.weight") == "other.weight"

    def test_parts(self):
        upper = str.upper
        name = by_parts({"neck": ("fpn", upper), "neck.necks.1": ("bfp", str.title), "head": ("", upper)})
        assert name("neck.a.b") == "fpn.A.B"
        assert name("neck.necks.1.a") == "bfp.A"
        assert name("head.a") == "A"
        with pytest.raises(LookupError, match=r"their key of 'heads\.a'; rules are for neck, neck\.necks\.1, head"):
            name("heads.a")

    def test_a_key_without_rule(self):
        with pytest.raises(LookupError, match=r"'stem\.2\.weight'; rules are for last"):
            by_modules([("last", "fc")])("stem.2.weight")


class TestLoading:
    def test_every_value_finds_its_place(self):
        ours = model()
        load_renamed(ours, their_state(), NAMES, source="x.pth", layout="a toy")
        for i, value in enumerate(ours.state_dict().values()):
            assert (value == i).all()

    def test_counters_do_not_matter(self):
        state = {k: v for k, v in their_state().items() if not k.endswith("num_batches_tracked")}
        state["bn9.num_batches_tracked"] = torch.zeros(())
        ours = model()
        load_renamed(ours, state, NAMES, source="x.pth", layout="a toy")
        values = [value for name, value in ours.state_dict().items() if not name.endswith("num_batches_tracked")]
        assert all(
            any((value == theirs).all() for theirs in state.values() if theirs.shape == value.shape) for value in values
        )

    def test_values_may_change_on_the_way(self):
        state = their_state()
        state["fc.weight"] = torch.arange(8.0).view(4, 2)

        def change(key, value):
            return value.T if key == "last.weight" else value

        values = rename(state, model(), NAMES, complaint="x", change=change)
        assert values["last.weight"].tolist() == [[0, 2, 4, 6], [1, 3, 5, 7]]

    def test_one_of_theirs_for_several_of_ours(self):
        name = by_modules([("0", "shared"), ("1", "shared")])
        pair = nn.Sequential(nn.Linear(2, 1), nn.Linear(2, 1))
        values = rename({"shared.weight": torch.ones(1, 2), "shared.bias": torch.ones(1)}, pair, name, complaint="x")
        assert sorted(values) == ["0.bias", "0.weight", "1.bias", "1.weight"]

    def test_complaints_are_in_their_words(self):
        state = their_state()
        del state["bn1.bias"]
        state["fc.weight"] = torch.zeros(3, 4)
        state["aux.weight"] = state["anchors"] = torch.zeros(1)
        with pytest.raises(CheckpointError) as caught:
            load_renamed(model(), state, NAMES, source="x.pth", layout="a toy", unused=["anchors"])
        assert str(caught.value) == (
            "x.pth looks like a toy, but does not fit; missing: bn1.bias; extra: aux.weight; "
            "of another shape: fc.weight is (3, 4), needs (2, 4)"
        )


def test_unwrap():
    weight = torch.ones(1)
    assert unwrap_state({"state_dict": {"module.a": weight, "epoch": 3}, "meta": {}}) == {"a": weight}
    assert unwrap_state({"model": {"state_dict": {"module.module.a": weight}}}) == {"a": weight}
    assert unwrap_state({"module.a": weight, "b": weight}) == {"module.a": weight, "b": weight}
    assert unwrap_state({"meta": 1}) == {}
    assert unwrap_state([weight]) == {}


def test_entries_that_are_no_tensors_are_named(tmp_path):
    file = tmp_path / "a.pth"
    torch.save({"model": {"a": torch.ones(1), "bn.num_batches_tracked": 3}}, file)
    assert read_state_dict(file).keys() == {"a"}
    torch.save({"model": {"a": torch.ones(1), "b": [1.0]}}, file)
    with pytest.raises(CheckpointError, match=r"a\.pth has entries .* no tensors: b is of type list"):
        read_state_dict(file)
