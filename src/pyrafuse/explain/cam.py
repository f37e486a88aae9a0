"""Where the classification and the regression of a detection look: Grad-CAM on the level that it came from.

Selvaraju et al., "Grad-CAM", arXiv:1610.02391, equations 1 and 2, on a map of the neck's output instead of the last one
of a classifier. maps -> head -> score or box -> gradients at the maps -> channels weighed by their mean gradient
"""

import torch
from torch import Tensor

from pyrafuse.base.explanations import DetectionCAM, Map
from pyrafuse.core.pyramid import Pyramid
from pyrafuse.explain.ablation import decode_pyramid
from pyrafuse.models.detector import Detector

MAX_CAMS = 4
"""So many detections of an image, the best ones, are looked into: each takes five backward passes of the head."""


def compute_cams(
    detector: Detector, pyramid: Pyramid, rows: Tensor, labels: Tensor, levels: Tensor
) -> tuple[DetectionCAM, ...]:
    """Grad-CAM of N detections of one image.

    Args:
        detector: Detector in evaluation mode.
        pyramid: The output of its neck for a batch of one.
        rows: (N,) of the candidates that became the detections.
        labels: (N,), their classes.
        levels: (N,), the level of ``pyramid`` that each came from.
    """
    cams = []
    with torch.inference_mode(False), torch.enable_grad():
        # clones: what an inference pass made takes no part in autograd
        leaves = tuple(x.clone().requires_grad_() for x in pyramid)
        candidates = decode_pyramid(detector, leaves)
        for row, label, level in zip(rows.tolist(), labels.tolist(), levels.tolist(), strict=True):
            leaf = leaves[level]
            score = _weigh(candidates.scores[0, row, label], leaf)
            box = candidates.boxes[0, row]
            sides = [_weigh(side, leaf).abs() for side in (box if box.ndim == 1 else box[label])]
            cams.append(DetectionCAM(_normalize(score.clamp(min=0)), _normalize(torch.stack(sides).mean(dim=0))))
    return tuple(cams)


def _weigh(value: Tensor, leaf: Tensor) -> Tensor:
    """(H, W): channels of ``leaf`` (1, C, H, W), weighed by the mean over positions of the gradient of ``value``."""
    (gradient,) = torch.autograd.grad(value, (leaf,), retain_graph=True, materialize_grads=True)
    return (gradient[0].mean(dim=(1, 2), keepdim=True) * leaf[0]).sum(dim=0).detach()


def _normalize(values: Tensor) -> Map:
    values = values.float() / values.float().max().clamp(min=torch.finfo(torch.float32).tiny)
    return values.cpu().numpy()
