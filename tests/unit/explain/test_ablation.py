"""What each level brings: by levels taken away by hand, by detections found again, by necks of which it is known."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pyrafuse.base.images.normalizing import normalize
from pyrafuse.base.images.sources import Frame
from pyrafuse.data.images.fitting import fit_image
from pyrafuse.explain.cam import compute_cams
from pyrafuse.explain.fusion import explain_image


def images_of(detector, photo):
    return normalize(detector.card.preprocessing, fit_image(photo, detector.card.preprocessing)[0][None])


@pytest.mark.parametrize("name", ["asff", "plain"])
def test_changes_are_those_of_a_level_replaced_by_its_mean(name, photo, request):
    detector = request.getfixturevalue(name)
    explained = explain_image(detector, Frame("reef.jpg", photo), score=0)
    found, ablation = explained.detections, explained.ablation
    assert ablation.strides == (8, 16, 32)
    with torch.inference_mode():
        prepared, fit = fit_image(photo, detector.card.preprocessing)
        images = normalize(detector.card.preprocessing, prepared[None])
        pyramid = detector.backbone(images)
        before = detector.neck(pyramid)
        whole = detector.decode(images)
        # the boxes that are told are means of several rows; without votes they are the rows' own
        (kept,) = replace(detector.postprocess, score=0.0, vote_iou=0.0)(whole)
        (told,) = replace(detector.postprocess, score=0.0)(whole)
        # what lies outside the image is not told
        is_told = replace(told, boxes=fit.to_image(told.boxes), image_size=photo.shape[:2]).is_visible()
        kept = kept[is_told]
        rows = found.rows
        torch.testing.assert_close(whole.boxes[0][rows], kept.boxes, rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(whole.scores[0][rows, found.labels], found.scores)
        changes, scores = [], []
        for source in range(3):
            flat = [x.clone() for x in pyramid]
            flat[source][:] = flat[source].mean(dim=(2, 3), keepdim=True)
            after = detector.neck(tuple(flat))
            changes.append([(a - b)[0].norm(dim=0) for a, b in zip(after, before, strict=True)])
            ablated = detector._decode(detector.head(after))
            scores.append(whole.scores[0][rows, found.labels] - ablated.scores[0][rows, found.labels])
    for level in range(3):
        of_level = torch.stack([c[level] for c in changes])
        expected = of_level / of_level.sum(dim=0)
        got = ablation.output_shares[level]
        np.testing.assert_allclose(got, expected[:, : got.shape[1], : got.shape[2]], rtol=1e-3, atol=1e-5)
    score_changes = torch.stack(scores, dim=1).numpy()
    np.testing.assert_allclose(ablation.score_changes, score_changes, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(ablation.shares.sum(axis=1), 1, rtol=1e-5)
    share = np.abs(score_changes) / np.abs(score_changes).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(ablation.shares, share, atol=1e-3)
    objects = explained.to_dict()["objects"]
    assert objects[3]["attribution"] == {
        f"stride{s}": pytest.approx(w, abs=1e-3) for s, w in zip((8, 16, 32), share[3], strict=True)
    }


def test_a_top_down_pyramid_brings_nothing_fine_to_its_coarse_levels(plain, photo):
    shares = explain_image(plain, photo, score=0).ablation.mean_output_shares()
    np.testing.assert_allclose(shares[2], (0, 0, 1), atol=1e-6)
    assert shares[1][0] == 0
    assert (shares[0] > 0.01).all()


def test_a_cam_is_the_sum_of_channels_weighed_by_their_mean_gradient(plain, photo):
    with torch.no_grad():
        pyramid = plain.neck(plain.backbone(images_of(plain, photo)))
    rows, labels = torch.tensor([5, 400]), torch.tensor([1, 0])
    levels = plain.head(pyramid).grid.levels[rows]
    cams = compute_cams(plain, pyramid, rows, labels, levels)
    for row, label, level, cam in zip(rows, labels, levels.tolist(), cams, strict=True):
        leaves = [x.clone().requires_grad_() for x in pyramid]
        candidates = plain._decode(plain.head(tuple(leaves)))

        def weigh(value, leaf=leaves[level]):
            gradient = torch.autograd.grad(value, leaf, retain_graph=True)[0][0]
            return torch.einsum("c,chw->hw", gradient.mean(dim=(1, 2)), leaf.detach()[0])

        score = weigh(candidates.scores[0, row, label]).relu()
        expected = score / score.max() if score.max() > 0 else score
        np.testing.assert_allclose(cam.classification, expected, rtol=1e-3, atol=1e-5)
        box = sum(weigh(side).abs() for side in candidates.boxes[0, row])
        np.testing.assert_allclose(cam.regression, box / box.max(), rtol=1e-3, atol=1e-5)
    assert not any(p.grad is not None for p in plain.parameters())
