"""One image explained: weights as ASFF computes them, maps that end where the image does, files that agree."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from pyrafuse.base.detections import Detections
from pyrafuse.base.errors import DataError, PyrafuseError
from pyrafuse.base.explanations import Ablation, Fusion, FusionExplanation
from pyrafuse.base.images.normalizing import normalize
from pyrafuse.base.images.sources import Frame
from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.data.images.fitting import fit_image
from pyrafuse.explain.fusion import explain_image
from pyrafuse.explain.writing import name_of, save_explanation
from pyrafuse.visualization.explanations import draw_cams, draw_fusion

STRIDES = (8, 16, 32)
NAMES = tuple(f"stride_{s}" for s in STRIDES)


@pytest.fixture(scope="module")
def explained(asff, photo):
    return explain_image(asff, Frame("photos/reef.jpg", photo), score=0)


@pytest.fixture(scope="module")
def pyramid(asff, photo):
    """What ASFF reads."""
    images = normalize(asff.card.preprocessing, fit_image(photo, asff.card.preprocessing)[0][None])
    with torch.inference_mode():
        return asff.neck.necks[0](asff.backbone(images))


def fuse_by_hand(level, pyramid):
    """Weights and weighted sum of one image, from the parameters of ``level`` alone."""
    sources = []
    for source, x in enumerate(pyramid):
        if source != level.level:
            x = level.resizes[source].project(x)
            x = x.repeat_interleave(pyramid[level.level].shape[-1] // x.shape[-1], dim=-1)
            x = x.repeat_interleave(pyramid[level.level].shape[-2] // x.shape[-2], dim=-2)
        sources.append(x)
    squeezed = torch.cat([squeeze(x) for squeeze, x in zip(level.squeezes, sources, strict=True)], dim=1)
    logits = torch.einsum("oc,bchw->bohw", level.weigh.weight[:, :, 0, 0], squeezed) + level.weigh.bias[:, None, None]
    weights = logits.exp() / logits.exp().sum(dim=1, keepdim=True)
    return weights[0], sum(w * x[0] for w, x in zip(weights[0], sources, strict=True))


def test_weights_and_fused_maps_are_those_of_asff_where_the_image_is(asff, explained, pyramid):
    assert explained.strides == STRIDES
    assert explained.scale == (0.8, 0.8)
    assert [f.weights.shape for f in explained.fusions] == [(3, 6, 12), (3, 3, 6), (3, 2, 3)]
    assert [f.shape for f in explained.fused] == [(6, 12), (3, 6), (2, 3)]
    assert [(f.name, f.stride) for f in explained.fusions] == list(zip(NAMES, STRIDES, strict=True))
    for level, fusion, fused in zip(asff.neck.necks[1].levels, explained.fusions, explained.fused, strict=True):
        weights = fusion.weights
        assert fusion.sources == NAMES
        np.testing.assert_array_equal(fusion.strength, fused)
        with torch.inference_mode():
            expected_weights, expected_sum = fuse_by_hand(level, pyramid)
        rows, columns = fused.shape
        np.testing.assert_allclose(weights, expected_weights[:, :rows, :columns], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(fused, expected_sum.abs().mean(dim=0)[:rows, :columns], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(weights.sum(axis=0), 1, rtol=1e-5)
        assert weights.std() > 0.01  # not a constant that anything would equal


def test_shares_are_means_over_the_image(explained):
    for fusion in explained.fusions:
        np.testing.assert_allclose(fusion.shares.sum(), 1, rtol=1e-5)
        np.testing.assert_allclose(fusion.shares, fusion.weights.reshape(3, -1).mean(axis=1), rtol=1e-6)


def test_a_detection_has_the_weights_of_the_cell_that_its_centre_is_in(explained):
    found = explained.detections
    assert 20 < len(found) < 40  # some lie in the padding
    assert len(set(found.levels.tolist())) > 1
    assert explained.detection_weights.shape == (len(found), 3)
    for (x1, y1, x2, y2), level, got in zip(
        found.boxes.tolist(), found.levels.tolist(), explained.detection_weights, strict=True
    ):
        cell_px = STRIDES[level] / 0.8  # image pixels
        weights = explained.fusions[level].weights
        column = min(max(int((x1 + x2) / 2 // cell_px), 0), weights.shape[2] - 1)
        row = min(max(int((y1 + y2) / 2 // cell_px), 0), weights.shape[1] - 1)
        np.testing.assert_array_equal(got, weights[:, row, column])


def test_detections_are_those_of_predict(asff, photo, explained):
    (expected,) = asff.predict(photo, score=0, keep_images=True)
    found = explained.detections
    for name in ("boxes", "scores", "labels", "levels", "image"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=0, atol=0)
    assert (found.image_size, found.names, found.source) == ((60, 120), ("fish", "shark", "ray"), "photos/reef.jpg")
    assert explained.source == "photos/reef.jpg"


def test_the_backbone_runs_once_and_the_neck_once_more_a_level(asff, photo):
    passes = []
    handles = [
        part.register_forward_hook(lambda part, *_: passes.append(type(part).__name__))
        for part in (asff.backbone, asff.neck.necks[0], asff.neck.necks[1].levels[0].weigh, asff.head)
    ]
    explain_image(asff, photo)
    for handle in handles:
        handle.remove()
    assert passes.count("MobileNetV2") == 1
    assert passes.count("GraphNeck") == passes.count("Conv2d") == 1 + 3


def test_padding_changes_with_the_fit(asff, photo, plain):
    stretched = replace(asff.card, preprocessing=Preprocessing(size=(96, 96), fit="stretch"))
    letterboxed, asff.card = asff.card, stretched
    try:
        explained = explain_image(asff, photo)
    finally:
        asff.card = letterboxed
    assert explained.scale == (0.8, 1.6)
    assert [f.weights.shape for f in explained.fusions] == [(3, 12, 12), (3, 6, 6), (3, 3, 3)]
    upright = explain_image(plain, photo.transpose(1, 0, 2))
    assert [f.shape for f in upright.fused] == [(12, 6), (6, 3), (3, 2)]


def test_a_neck_without_weights_shows_its_output(plain, photo):
    explained = explain_image(plain, photo, score=0)
    assert (explained.fusions, explained.detection_weights) == ((), None)
    images = normalize(plain.card.preprocessing, fit_image(photo, plain.card.preprocessing)[0][None])
    with torch.inference_mode():
        output = plain.neck(plain.backbone(images))
    for got, expected in zip(explained.fused, output, strict=True):
        np.testing.assert_allclose(
            got, expected[0].abs().mean(dim=0)[: got.shape[0], : got.shape[1]], rtol=1e-4, atol=1e-6
        )
    titles = [axes.get_title() for axes in draw_fusion(explained).axes if axes.get_title()]
    means = explained.ablation.mean_output_shares()
    assert titles[0] == f"{len(explained.detections)} detections; no fusion weights"
    assert titles[1:4] == [f"from stride {s}, mean {mean:.2f}" for s, mean in zip(STRIDES, means[0], strict=True)]
    assert [t for t in titles if t.startswith("output")] == [f"output of stride {s}, own scale" for s in STRIDES]
    assert "detection_weights" not in explained.arrays()
    assert explained.to_dict()["shares"] is None


def test_nothing_found(asff, photo):
    explained = explain_image(asff, photo, score=1)
    assert len(explained.detections) == 0
    assert explained.detection_weights.shape == (0, 3)
    assert explained.to_dict()["objects"] == []
    assert explained.ablation.shares.shape == (0, 3)
    assert draw_cams(explained) is None


def test_maps_lie_over_the_image_alone():
    """Two rows of stride 32 over 48 network pixels: at the image's middle, 24, the ramp 0..1 has come to a quarter."""
    ramp = np.asarray([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]], np.float32)
    none = torch.zeros(0)
    found = Detections(
        none.view(0, 4), none, none.long(), none.long(), image_size=(60, 120), image=torch.zeros(3, 60, 120).byte()
    )
    explained = FusionExplanation(
        source="a", detections=found, strides=(32,), scale=(0.8, 0.8),
        fusions=(Fusion("stride_32", ("a",), 32, ramp[None], ramp),), fused=(ramp,),
        detection_weights=np.zeros((0, 1), np.float32),
        ablation=Ablation((32,), (ramp[None],), np.zeros((0, 1), np.float32), np.zeros((0, 1), np.float32)),
    )  # fmt: skip
    drawn = [np.asarray(axes.images[1].get_array()) for axes in draw_fusion(explained).axes if len(axes.images) == 2]
    assert len(drawn) == 2
    for values in drawn:
        height = len(values)
        at = [values[min(int(t * height), height - 1), 5] for t in (0, 1 / 3, 1 / 2, 2 / 3, 1)]
        np.testing.assert_allclose(at, (0, 0, 0.25, 0.5, 1), atol=0.05)

    whole = replace(explained, detections=replace(found, image_size=(80, 120)))  # 64 network pixels: two whole cells
    np.testing.assert_array_equal(draw_fusion(whole).axes[1].images[1].get_array(), ramp)


def test_a_large_image_is_reduced_for_the_picture_with_its_boxes(plain):
    explained = explain_image(plain, np.zeros((1000, 4096, 3), np.uint8), score=0)
    axes = draw_fusion(explained).axes[0]
    assert axes.images[0].get_array().shape == (250, 1024, 3)
    drawn = np.concatenate([path.vertices for boxes in axes.collections for path in boxes.get_paths()])
    np.testing.assert_allclose(drawn[:, 0].max(), explained.detections.boxes[:, 2].max() / 4, rtol=1e-5)


def test_files_hold_what_was_explained(explained, tmp_path):
    paths = save_explanation(explained, tmp_path / "new")
    assert [p.name for p in paths] == ["reef_fusion.png", "reef_fusion.npz", "reef_fusion.json"]
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == sorted(["reef_cam.png", *(p.name for p in paths)])
    picture, arrays, values = paths
    with Image.open(picture) as opened:
        assert opened.format == "PNG"
        assert opened.size[0] > 1000
    with np.load(arrays) as stored:
        assert set(stored) == {
            *(f"weights_stride{s}" for s in STRIDES), *(f"fused_stride{s}" for s in STRIDES), "boxes", "scores",
            "labels", "levels", "strides", "scale", "detection_weights", *(f"changes_stride{s}" for s in STRIDES),
            "attributions", "score_changes", *(f"cam_{what}_{rank}" for what in ("class", "box") for rank in range(4)),
        }  # fmt: skip
        np.testing.assert_array_equal(stored["attributions"], explained.ablation.shares)
        for level, stride in enumerate(STRIDES):
            np.testing.assert_array_equal(stored[f"weights_stride{stride}"], explained.fusions[level].weights)
            np.testing.assert_array_equal(stored[f"fused_stride{stride}"], explained.fused[level])
        for name in ("boxes", "scores", "labels", "levels"):
            np.testing.assert_array_equal(stored[name], getattr(explained.detections, name).numpy())
        np.testing.assert_array_equal(stored["detection_weights"], explained.detection_weights)
        np.testing.assert_array_equal(stored["strides"], STRIDES)
        np.testing.assert_array_equal(stored["scale"], (0.8, 0.8))
    content = json.loads(values.read_text())
    assert (content["source"], content["height"], content["width"]) == ("photos/reef.jpg", 60, 120)
    assert content["shares"]["stride16"]["stride8"] == pytest.approx(explained.fusions[1].shares[0])
    first = content["objects"][0]
    assert first["stride"] == STRIDES[explained.detections.levels[0]]
    assert first["weights"] == pytest.approx(
        {f"stride{s}": w for s, w in zip(STRIDES, explained.detection_weights[0].tolist(), strict=True)}
    )


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("photos/reef.jpg", "reef"),
        ("photos/reef.tar.jpg", "reef.tar"),
        ("clip.mp4#12", "clip_12"),
        ("camera0#3", "camera0_3"),
        ("image0", "image0"),
        ("https://example.org/a%20b/reef.jpg?size=1", "reef"),
        ("https://example.org/", "image"),
    ],
)
def test_a_name_for_the_files(source, name):
    assert name_of(source) == name


def test_anything_that_is_one_image_can_be_explained(asff, photo, explained, tmp_path):
    Image.fromarray(photo).save(tmp_path / "reef.png")
    tensor = torch.from_numpy(photo).permute(2, 0, 1)
    for given in (photo, tensor, Image.fromarray(photo), tmp_path / "reef.png"):
        np.testing.assert_array_equal(explain_image(asff, given).fusions[1].weights, explained.fusions[1].weights)


def test_what_is_not_one_image(asff, photo):
    with pytest.raises(DataError, match="one image is explained at a time; give one, or use explain_to"):
        explain_image(asff, [photo, photo])
    with pytest.raises(DataError, match="is empty"):
        explain_image(asff, Frame("reef.jpg", None, "reef.jpg is empty"))
    with pytest.raises(PyrafuseError, match=r"score must be in 0\.\.1, got 2"):
        explain_image(asff, photo, score=2)


def test_scalars_of_merges(bifpn, photo):
    """One number a source, the same for all detections of a level."""
    explained = explain_image(bifpn, photo, score=0)
    assert len(explained.fusions) == 3 * 8
    assert not any(f.is_spatial for f in explained.fusions)
    last = explained.fusion_at(1)
    assert (last.name, last.sources, last.stride) == ("P4_3", ("P4_2", "T4_3", "P3_3"), 16)
    np.testing.assert_allclose(last.weights, np.asarray([1, 2, 3]) / 6.0001, rtol=1e-5)
    found = explained.detections
    assert len(found) > 0
    for level, weights in zip(found.levels.tolist(), explained.detection_weights, strict=True):
        fusion = explained.fusion_at(level)
        np.testing.assert_array_equal(weights[: len(fusion.sources)], fusion.weights)
        assert np.isnan(weights[len(fusion.sources) :]).all()
    first = explained.to_dict()["objects"][0]
    expected = explained.fusion_at(first["level"])
    assert first["weights"] == pytest.approx(dict(zip(expected.sources, expected.weights.tolist(), strict=True)))
    titles = [axes.get_title() for axes in draw_fusion(explained).axes]
    assert titles[0] == f"{len(found)} detections"
    assert "fused at stride 8, own scale" in titles
    assert "weights_P4_3" in explained.arrays()
