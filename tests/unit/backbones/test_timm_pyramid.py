"""timm's models as backbones: what is frozen, what is fetched, and what is said of wrong options and names."""

import pytest
import timm
import torch
import torchvision

from pyrafuse.backbones import timm_pyramid
from pyrafuse.backbones import weights as weights_module
from pyrafuse.backbones.registry import create_backbone
from pyrafuse.base.errors import CheckpointError, PyrafuseError, UnknownNameError
from pyrafuse.core.pyramid import InputSizes
from pyrafuse.models.classifier import create_classifier

ALL_STRIDES = (4, 8, 16, 32)


class TestFreezing:
    @pytest.mark.parametrize("frozen_stages", [-1, 0, 1, 4])
    @pytest.mark.parametrize(("name", "stem"), [("resnet18", 3), ("mobilenetv2_100", 9), ("convnext_atto", 4)])
    def test_maps_of_frozen_stages_need_no_gradient(self, name, stem, frozen_stages):
        with torch.device("meta"):
            backbone = create_backbone(f"timm/{name}", strides=ALL_STRIDES, frozen_stages=frozen_stages).train()
            maps = backbone(torch.zeros(2, 3, 64, 64))
        frozen = sum(not p.requires_grad for p in backbone.parameters())
        assert [m.requires_grad for m in maps] == [i >= frozen_stages for i in range(4)]
        assert frozen == {-1: 0, 0: stem}.get(frozen_stages, frozen)
        assert any(not p.requires_grad for p in backbone.parameters()) == (frozen_stages >= 0)

    def test_a_switch_to_training_thaws_nothing(self):
        backbone = create_backbone("timm/resnet18", frozen_stages=1)
        backbone.eval().train()
        before = {key: value.clone() for key, value in backbone.named_buffers()}
        backbone(torch.randn(2, 3, 32, 32))
        kept = {key for key, value in backbone.named_buffers() if torch.equal(value, before[key])}
        assert kept == {key for key in before if key.startswith(("trunk.bn1.", "trunk.layer1."))}
        assert backbone.trunk.layer2.training

    def test_stages_behind_the_last_map_are_not_there_to_freeze(self):
        backbone = create_backbone("timm/resnet18", strides=(8,), frozen_stages=4)
        assert not any(p.requires_grad for p in backbone.parameters())

    def test_norms_in_evaluation_mode_learn_and_count_nothing(self):
        backbone = create_backbone("timm/resnet18", strides=(4,), norm_eval=True).train()
        before = {key: value.clone() for key, value in backbone.named_buffers()}
        (m,) = backbone(torch.randn(2, 3, 32, 32))
        assert all(torch.equal(value, before[key]) for key, value in backbone.named_buffers())
        m.square().mean().backward()
        assert all(p.grad is not None for p in backbone.parameters())

    def test_no_such_stage_and_stages_that_run_side_by_side(self):
        with torch.device("meta"):
            with pytest.raises(PyrafuseError, match="up to 4 stages, got 5"):
                create_backbone("timm/resnet18", frozen_stages=5)
            with pytest.raises(PyrafuseError, match=r"timm/twins_pcpvt_small does not tell .*frozen_stages=1"):
                create_backbone("timm/twins_pcpvt_small", frozen_stages=1)


@torch.no_grad()
def test_windowed_families_pad_to_whole_patches():
    torch.manual_seed(0)
    backbone = create_backbone("timm/swin_tiny_patch4_window7_224", strides=(4, 8)).eval()
    images = torch.randn(1, 3, 65, 70)
    padded = torch.nn.functional.pad(images, (0, 2, 0, 3))
    for ours, whole, side in zip(backbone(images), backbone(padded), [(17, 18), (9, 9)], strict=True):
        assert ours.shape[2:] == side
        assert ours.is_contiguous(memory_format=torch.channels_last)  # as the trunk has them, without a copy
        assert torch.equal(ours, whole)


class TestOptions:
    def test_unknown_ones(self):
        with torch.device("meta"):
            with pytest.raises(
                PyrafuseError, match=r"timm/resnet18 takes no option 'frozen_stage'; did you mean 'frozen_stages'"
            ):
                create_backbone("timm/resnet18", frozen_stage=1)
            with pytest.raises(PyrafuseError, match=r"cannot build timm/resnet18: .*'foo'"):
                create_classifier("timm/resnet18", foo=3)
            with pytest.raises(
                PyrafuseError, match=r"the backbone resnet18 takes no option 'foo'; choose from attention, .*width"
            ):
                create_backbone("resnet18", foo=3)

    @pytest.mark.parametrize("name", ["timm/resnet18", "resnet18", "darknet53", "mobilenet_v2", "vgg16", "dpn68"])
    def test_strides_that_do_not_grow(self, name):
        with torch.device("meta"), pytest.raises(PyrafuseError, match=r"strides must grow .*got \(16, 8\)"):
            create_backbone(name, strides=(16, 8))


@pytest.fixture
def asked(monkeypatch):
    """The trainings whose files are fetched; each is said to have none."""
    create, names = timm.create_model, []
    monkeypatch.setattr(timm_pyramid, "find_timm_file", names.append)
    monkeypatch.setattr(
        timm_pyramid.timm, "create_model", lambda name, *, pretrained=False, **options: create(name, **options)
    )
    return names


class TestNamedWeights:
    @pytest.mark.parametrize("create", [create_backbone, create_classifier])
    @pytest.mark.parametrize(
        ("name", "weights"),
        [
            ("ecaresnet50d", "ecaresnet50d.miil_in1k"),
            ("ecaresnet50d", "ecaresnet50d"),
            ("resnet18.tv_in1k", "resnet18.a1_in1k"),
            ("resnet18.tv_in1k", "resnet18.tv_in1k"),
        ],
    )
    def test_timm_fetches_the_training_that_is_named(self, asked, create, name, weights):
        with torch.device("meta"):
            create(f"timm/{name}", weights=f"timm/{weights}")
        assert set(asked) == {weights}

    def test_torchvision_fetches_for_models_of_the_same_keys(self, monkeypatch, tmp_path):
        state, path = torchvision.models.resnet18().state_dict(), tmp_path / "published.pth"
        torch.save(state, path)
        monkeypatch.setitem(weights_module._LIBRARIES, "torchvision", (lambda name: path, lambda: ["resnet18"]))
        classifier = create_classifier("timm/resnet18", weights="torchvision/resnet18")
        assert torch.equal(classifier.trunk.fc.weight, state["fc.weight"])
        backbone = create_backbone("timm/resnet18", weights="torchvision/resnet18")
        assert torch.equal(backbone.trunk.layer4[1].conv2.weight, state["layer4.1.conv2.weight"])
        with pytest.raises(CheckpointError, match=r"torchvision/resnet18 does not fit timm/resnet34; .*layer1"):
            create_backbone("timm/resnet34", weights="torchvision/resnet18")

    @pytest.mark.parametrize("weights", ["timm/resnet18.a0_in1k", "timm/resnet34", "none.pth"])
    def test_others_are_refused_and_the_possible_ones_named(self, weights):
        with (
            torch.device("meta"),
            pytest.raises(CheckpointError, match=rf"{weights}[,;] .*choose from .*timm/resnet18\.a1_in1k"),
        ):
            create_backbone("timm/resnet18", weights=weights)
        with torch.device("meta"), pytest.raises(UnknownNameError, match="did you mean 'resnet18'"):
            create_backbone("timm/resnet18", weights="torchvision/resnet_18")


class TestSizes:
    @pytest.mark.parametrize("name", ["dla34", "hrnet_w18_small", "resnet18", "csatv2", "swin_tiny_patch4_window7_224"])
    def test_maps_are_those_at_the_strides(self, name):
        """DLA's maps begin at stride 1, HRNet's at 2, those of CSATv2 stand twice at one stride."""
        with torch.device("meta"):
            backbone = create_backbone(f"timm/{name}").eval()
            maps = backbone(torch.zeros(1, 3, 96, 160))
        assert [tuple(m.shape[2:]) for m in maps] == [(12, 20), (6, 10), (3, 5)]
        assert tuple(m.shape[1] for m in maps) == backbone.features.channels

    @pytest.mark.parametrize(
        ("name", "sizes", "said"),
        [
            (
                "maxvit_rmlp_pico_rw_256",
                InputSizes(unit=256),
                "multiples of 256 px, and these have 320 x 320 px; give --size 256 or 512, or build it for 320 px",
            ),
            (
                "mobilevitv2_050",
                InputSizes(unit=64),
                "multiples of 64 px, .*; give --size 320 or 384$",
            ),
            (
                "hiera_tiny_224",
                InputSizes(only=224),
                "224 x 224 px alone, .* give --size 224, or build it for",
            ),
            ("coat_lite_tiny", InputSizes(only=224), r"alone, .*options.backbone '\{img_size: 320\}'"),
        ],
    )
    def test_sizes_that_it_cannot_take_are_refused_with_those_that_it_can(self, name, sizes, said):
        with torch.device("meta"):
            backbone = create_backbone(f"timm/{name}").eval()
            assert backbone.sizes == sizes
            side = sizes.only or sizes.unit
            assert backbone(torch.zeros(1, 3, side, side))[2].shape[2:] == (side // 32, side // 32)
            size = (352, 352) if name == "mobilevitv2_050" else (320, 320)
            with pytest.raises(PyrafuseError, match=said):
                backbone(torch.zeros(1, 3, *size))

    def test_built_for_another_size(self):
        with torch.device("meta"):
            backbone = create_backbone("timm/coat_lite_tiny", img_size=320).eval()
            assert backbone.sizes == InputSizes(only=320)
            assert [tuple(m.shape[2:]) for m in backbone(torch.zeros(1, 3, 320, 320))] == [(40, 40), (20, 20), (10, 10)]

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("inception_v3", "no maps that cover an image at strides .* at 299 x 299 px its maps have 35 x 35"),
            ("levit_128", r"offers maps at strides \(16, 32, 64\), and \(8, 16, 32\) are needed"),
            ("crossvit_9_240", r"offers maps at strides \(12, .*choose a hierarchical model"),
        ],
    )
    def test_models_without_the_maps_are_refused(self, name, said):
        with pytest.raises(PyrafuseError, match=said):
            create_backbone(f"timm/{name}")

    @pytest.mark.parametrize("name", timm.list_models()[::100])
    def test_no_model_ends_in_an_error_of_timm(self, name):
        """Each is built, or refused in our words; a sample of all."""
        with torch.device("meta"):
            try:
                backbone = create_backbone(f"timm/{name}").eval()
            except PyrafuseError:
                return
            side = backbone.sizes.only or max(backbone.sizes.unit, 64)
            maps = backbone(torch.zeros(1, 3, side, side))
        assert [tuple(m.shape[2:]) for m in maps] == [(side // stride,) * 2 for stride in (8, 16, 32)]
