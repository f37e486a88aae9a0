"""EfficientDet's heads, anchors and whole detectors, against what effdet computed."""

import pytest
import torch

from pyrafuse.base.errors import CheckpointError
from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.heads.efficientdet import Branch, EfficientDetHead
from pyrafuse.importers.effdet.detectors import EFFDET, naming_branch, reorder_boxes
from pyrafuse.importers.renaming import load_renamed

NAMES = ("tf_efficientdet_d0", "efficientdet_d0")


def state_of(vectors, name: str) -> dict[str, torch.Tensor]:
    manifest = vectors.json(f"misc/manifest_effdet_{name}.json")
    state = vectors.state(manifest, [(r"^backbone\.", 1.0), ("", 0.85)])
    edges = {key: shape for key, shape in manifest if key.endswith("edge_weights")}
    for key, shape in edges.items():
        state[key] = torch.from_numpy(vectors.fill.value(f"{key}.weight", shape))
    return state


@torch.no_grad()
@pytest.mark.parametrize("name", ["head_repfirst", "head_levelfirst"])
def test_branches(vectors, name):
    case = vectors.json("misc/index_effdet.json")[name]
    state = vectors.state(vectors.json(f"misc/manifest_effdet_{name}.json"))
    channels, outputs = case["channels"], case["anchors"] * case["num_outputs"]
    branch = Branch(channels, outputs, num_convs=case["repeats"], num_levels=case["levels"], redundant_bias=True)
    load_renamed(branch.eval(), state, naming_branch(state), source=name, layout="a head")
    maps = branch(tuple(map(vectors.image, case["inputs"])))
    golden = vectors.npz("misc/effdet.npz")
    for level, x in enumerate(maps, start=3):
        assert vectors.error(golden, f"{name}/P{level}", x) < 3e-6


def test_anchors(vectors):
    strides = (8, 16, 32, 64, 128)
    head = EfficientDetHead(PyramidSpec((1,) * 5, strides), num_classes=1)
    grid = head.eval()(tuple(torch.zeros(1, 1, 512 // s, 512 // s) for s in strides)).grid
    assert vectors.error(vectors.npz("misc/effdet.npz"), "anchors512", grid.anchors[:, [1, 0, 3, 2]]) < 1e-6


def test_anchors_where_the_coarsest_stride_does_not_fit():
    head = EfficientDetHead(PyramidSpec((1, 1), (64, 128)), num_classes=1, scales_per_octave=1, shapes=((1, 1),))
    grid = head.eval()((torch.zeros(1, 1, 3, 2), torch.zeros(1, 1, 2, 1))).grid
    # 192 x 128 px: two cells of the coarse map are 96 px high
    assert grid.anchors[-2:].tolist() == [[-192, -144, 320, 240], [-192, -48, 320, 336]]


@torch.no_grad()
@pytest.mark.parametrize("name", NAMES)
def test_whole_detectors(vectors, name):
    state, golden = state_of(vectors, name), vectors.npz("misc/effdet.npz")
    assert EFFDET.recognizes(state)
    detector = EFFDET.build(state, source=f"{name}.pth").eval()
    assert detector.card.model == name
    assert sum(p.numel() for p in detector.parameters()) == vectors.json("misc/index_effdet.json")[name]["params"]
    assert (detector.card.preprocessing.size, detector.card.preprocessing.fit) == ((512, 512), "letterbox")
    assert (detector.card.names[0], detector.card.names[11], detector.card.category_ids[-1]) == (
        "person",
        "unused 12",
        90,
    )
    if f"{name}/class3" not in golden.files:
        return
    pyramid = detector.neck(detector.backbone(vectors.image("image(0,(1,3,512,512))")))
    classes, boxes = detector.head.classes(pyramid), detector.head.boxes(pyramid)
    for level, (x, seen, box) in enumerate(zip(pyramid, classes, boxes, strict=True), start=3):
        assert vectors.error(golden, f"{name}/P{level}", x) < 1e-5
        assert vectors.error(golden, f"{name}/class{level}", seen) < 1e-5
        assert vectors.error(golden, f"{name}/box{level}", reorder_boxes(box[0])[None]) < 1e-5


def test_what_a_trainer_wraps(vectors):
    state = state_of(vectors, "efficientdet_d0")
    wrapped = {f"model.{key}": value for key, value in state.items()} | {"anchors.boxes": torch.zeros(49104, 4)}
    detector = EFFDET.build({"state_dict_ema": wrapped}, source="bench.pth")
    assert torch.equal(detector.state_dict()["backbone.trunk.conv_stem.weight"], state["backbone.conv_stem.weight"])


def test_other_trunks_and_scalings(vectors):
    state = state_of(vectors, "efficientdet_d0")
    narrow = {key: value for key, value in state.items() if not key.startswith("fpn.cell.2.")}
    with pytest.raises(CheckpointError, match="64 channels, 2 cells and 5 levels and towers of 3 on maps of up to 320"):
        EFFDET.build(narrow, source="x.pth")
    other = {key: value for key, value in state.items() if ".blocks.6." not in key}
    with pytest.raises(CheckpointError, match=r"missing: backbone.blocks.6.0.conv_pw.weight, "):
        EFFDET.build(other, source="x.pth")
    fewer = {key: value for key, value in state.items() if ".fnode.7." not in key}
    with pytest.raises(CheckpointError, match="cells of 7 merges on 5 levels are no BiFPN, PAN or QuFPN"):
        EFFDET.build(fewer, source="x.pth")
    del state["class_net.conv_rep.1.conv_pw.weight"]
    with pytest.raises(CheckpointError, match=r"missing: class_net.conv_rep.1.conv_pw.weight"):
        EFFDET.build(state, source="x.pth")
