"""What the originals call our necks' parameters, where no golden vector shows it."""

from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.importers.effdet import detectors as effdet
from pyrafuse.importers.mmdetection import necks as mmdetection_necks
from pyrafuse.importers.torchvision import blocks as torchvision_blocks
from pyrafuse.necks.bifpn import bifpn
from pyrafuse.necks.fpn import fpn
from pyrafuse.necks.nas_fpn import nas_fpn
from pyrafuse.necks.pafpn import pafpn

FOUR = PyramidSpec((4, 4, 6, 8), (4, 8, 16, 32))


def test_every_key_has_a_name_of_its_own():
    for neck, name in (
        (fpn(FOUR, out_channels=4, num_levels=6, start_level=1, extra="input"), mmdetection_necks.name_fpn),
        (fpn(FOUR, out_channels=32, num_levels=5, norm="group_norm"), mmdetection_necks.name_fpn),
        (pafpn(FOUR, out_channels=4, num_levels=5, extra="output"), mmdetection_necks.name_fpn),
        (nas_fpn(FOUR, out_channels=4, stack=1, start_level=1), mmdetection_necks.name_nas_fpn),
        (nas_fpn(FOUR, out_channels=4, stack=3), mmdetection_necks.name_nas_fpn),
        (fpn(FOUR, out_channels=4, num_levels=6, extra="output"), torchvision_blocks.name_fpn),
        (bifpn(FOUR, out_channels=4, num_levels=6), effdet.name_bifpn),
        (bifpn(FOUR, out_channels=4, form="qufpn", repeats=1), effdet.name_bifpn),
    ):
        naming = name(neck)
        names = [naming(key) for key in neck.state_dict()]
        assert len(set(names)) == len(names)
        assert not any("merges" in name for name in names)


def test_group_norm_is_called_so():
    naming = mmdetection_necks.name_fpn(fpn(FOUR, out_channels=32, norm="group_norm"))
    assert naming("merges.L2.conv.norm.weight") == "lateral_convs.0.gn.weight"
    assert naming("merges.P5.conv.conv.weight") == "fpn_convs.3.conv.weight"


def test_levels_are_counted_from_the_first_that_is_read():
    neck = pafpn(FOUR, out_channels=4, start_level=1, num_levels=4, extra="lateral")
    naming = mmdetection_necks.name_fpn(neck)
    assert naming("merges.L3.conv.conv.bias") == "lateral_convs.0.conv.bias"
    assert naming("merges.F4.conv.conv.bias") == "fpn_convs.1.conv.bias"
    assert naming("merges.P4.conv.conv.bias") == "pafpn_convs.0.conv.bias"
    assert naming("merges.B5.edges.1.halve.0.conv.bias") == "downsample_convs.1.conv.bias"
    assert naming("merges.P6.edges.0.halve.0.conv.bias") == "fpn_convs.3.conv.bias"


def test_old_files_of_torchvision():
    neck = fpn(FOUR, out_channels=4, num_levels=6, extra="input")
    old, new = torchvision_blocks.name_fpn(neck, is_nested=False), torchvision_blocks.name_fpn(neck)
    assert old("merges.L4.conv.conv.weight") == "inner_blocks.2.weight"
    assert new("merges.L4.conv.conv.weight") == "inner_blocks.2.0.weight"
    assert new("merges.P6.edges.0.halve.0.conv.bias") == old("merges.P6.edges.0.halve.0.conv.bias")
    assert new("merges.P7.edges.0.halve.0.conv.bias") == "extra_blocks.p7.bias"
