"""What is told of parts: from their own words, and by measuring them."""

import json

import pytest
import torch

from pyrafuse.base.errors import UnknownNameError
from pyrafuse.base.registry import Entry
from pyrafuse.cli.main import main
from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.inference.benching import bench_necks
from pyrafuse.inference.listing import KINDS, Cost, _read_costs, describe_part, find_kinds, measure_cost, tell_cost
from pyrafuse.inference.measuring import count_gflops
from pyrafuse.necks.registry import NECKS, create_neck


def test_a_part_in_its_own_words():
    part = describe_part("neck", "asff")
    assert (part.paper, part.summary) == ("1911.09516", "ASFF over any number of levels.")
    (option,) = (o for o in part.options if o.name == "weight_channels")
    assert option.default == "16"
    assert option.meaning.startswith("Channels that each level is squeezed to")
    assert all(o.meaning for o in describe_part("model", "atss").options)
    assert {o.name for o in describe_part("backbone", "timm/resnet18").options} >= {"strides", "pretrained"}


def test_kinds_of_a_name():
    assert find_kinds("fcos") == ("model", "head")
    assert find_kinds("timm/resnet18") == ("backbone",)
    with pytest.raises(UnknownNameError, match="unknown timm model 'resnet19'; did you mean 'resnet1"):
        find_kinds("timm/resnet19")
    with pytest.raises(UnknownNameError, match="unknown part 'asf'; did you mean 'asff'"):
        find_kinds("asf")
    with pytest.raises(UnknownNameError, match="unknown kind of part 'necks'; did you mean 'neck'"):
        describe_part("necks", "asff")


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("neck", "bifpn"),
        ("backbone", "mobilenet_v2"),
        ("head", "yolov3"),
        ("model", "efficientdet_d0"),
    ],
)
def test_costs_that_come_with_the_package_are_what_is_measured(kind, name):
    assert tell_cost(kind, name) == measure_cost(kind, name)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_all_costs_are_those_measured_now(kind):
    for name, cost in _read_costs()[kind].items():
        assert measure_cost(kind, name) == (None if cost is None else Cost(**cost)), name


def test_costs_are_of_parts_that_exist():
    assert _read_costs().keys() == KINDS.keys()
    for kind, costs in _read_costs().items():
        assert set(costs) <= set(KINDS[kind].names())


def test_figures_known_or_worked_by_hand():
    cost = tell_cost("backbone", "resnet18")
    assert cost is not None
    assert cost.parameters == 11_176_512  # the published 11 689 512 without the classifier's 513 000
    inputs = PyramidSpec((3,), (16,))
    neck = create_neck("fpn", inputs, out_channels=2)
    expected = 2 * 4 * 4 * (3 * 2 + 2 * 2 * 9) / 1e9  # a 1x1 and a 3x3 convolution of 4 x 4 cells
    assert count_gflops(neck, (torch.zeros(1, 3, 4, 4),)) == pytest.approx(expected)


def test_necks_side_by_side():
    inputs = PyramidSpec((8, 16), (8, 16))
    necks = {"one": create_neck("fpn", inputs), "other": create_neck("identity", inputs)}
    found = bench_necks(necks, inputs, size=64, batch_size=2, rounds=2)
    assert [f.latency_ms for f in found] == sorted(f.latency_ms for f in found)
    identity, fpn = sorted(found, key=lambda f: f.parameters)
    assert (identity.name, identity.parameters, identity.gflops, identity.peak_memory_mb) == ("other", 0, 0, 0)
    assert fpn.parameters == 256 * (8 + 16 + 2) + 2 * 256 * (256 * 9 + 1)
    assert fpn.peak_memory_mb >= 2 * 256 * (8 * 8 + 4 * 4) * 4 / 1e6  # its output at least


class TestCommands:
    def test_one_part(self, capsys):
        assert main(["models", "fpn"]) == 0
        said = capsys.readouterr().out
        assert "arXiv:1612.03144" in said
        assert "out_channels = 256" in said

    def test_one_kind_with_what_was_imported(self, capsys, tmp_path, monkeypatch):
        monkeypatch.setitem(NECKS._entries, "tiny", Entry(lambda inputs: create_neck("identity", inputs)))
        assert main(["models", "--kind", "neck", "--json", str(tmp_path / "a.json")]) == 0
        assert "retinanet" not in capsys.readouterr().out
        written = json.loads((tmp_path / "a.json").read_text())
        assert set(written) == {"neck"}
        assert Cost(**written["neck"]["tiny"]) == Cost(0, 0.0)

    def test_bench(self, capsys, tmp_path):
        argv = ["bench", "necks", "--necks", "fpn+asff,identity", "--size", "32", "--channels", "4,8", "--strides"]
        assert main([*argv, "8,16", "--rounds", "1", "--device", "cpu", "--json", str(tmp_path / "a.json")]) == 0
        written = json.loads((tmp_path / "a.json").read_text())
        assert written["channels"] == [4, 8]
        assert {neck["name"] for neck in written["necks"]} == {"fpn+asff", "identity"}
        assert "fpn+asff" in capsys.readouterr().out

    def test_bench_against_plain_forms(self, capsys, tmp_path):
        argv = ["bench", "necks", "--against-plain", "--necks", "fpn,bifpn", "--size", "32", "--channels", "4,8"]
        argv += ["--strides", "8,16", "--rounds", "1", "--device", "cpu", "--json", str(tmp_path / "a.json")]
        assert main(argv) == 0
        written = json.loads((tmp_path / "a.json").read_text())["necks"]
        assert [f["name"] for f in written] == ["fpn", "fpn, plain", "bifpn", "bifpn, plain"]
        assert written[0]["parameters"] == written[1]["parameters"]
        assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]] == ["neck", "fpn", "bifpn"]

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["--against-plain", "--necks", "bfp"], "unknown neck with a plain form 'bfp'"),
            (["--necks", "fqn"], "unknown neck 'fqn'; did you mean 'fpn'"),
            (["--rounds", "0"], "size, batch and rounds are 1 or more, got 416, 1 and 0"),
            (["--channels", "1,2"], "one stride a level"),
            (["--necks", "nas_fpn", "--strides", "1,2,4,8,16,32", "--channels", "1,1,1,1,1,1"], "cannot build nas_fpn"),
        ],
    )
    def test_what_is_wrong(self, words, said, capsys):
        assert main(["bench", "necks", "--device", "cpu", *words]) == 2
        assert said in capsys.readouterr().err
