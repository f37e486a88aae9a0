"""What each source level brings to a neck's output and to each detection: the level is flattened, the change measured.

pyramid that the neck reads, one level replaced by its mean over positions -> neck -> head -> scores of the same rows
"""

import torch
from torch import Tensor

from pyrafuse.base.detections import Detections
from pyrafuse.base.explanations import Ablation
from pyrafuse.core.predictions import Candidates
from pyrafuse.core.pyramid import Pyramid
from pyrafuse.explain.recording import Given, RecordingNeck, replace_parts
from pyrafuse.models.detector import Detector
from pyrafuse.models.two_stage import TwoStageDetector


@torch.inference_mode()
def ablate(detector: Detector, neck: RecordingNeck, found: Detections, rows: Tensor) -> Ablation:
    """Flatten each level that ``neck`` has read in its last pass over one image, and measure what changes.

    Args:
        detector: Detector of the neck.
        neck: After a pass.
        found: N detections of that image.
        rows: (N,) of the candidates that became them.
    """
    labels = found.labels.to(rows.device)
    whole = _scores(detector, neck.made, rows, labels)
    output_changes: list[list[Tensor]] = [[] for _ in neck.made]
    score_changes = []
    read = neck.read[0]
    for source, x in enumerate(read):
        flat = x.mean(dim=(2, 3), keepdim=True).expand_as(x)
        made = detector.neck((*read[:source], flat, *read[source + 1 :]))
        for changes, before, after in zip(output_changes, neck.made, made, strict=True):
            changes.append(torch.linalg.vector_norm((before - after)[0].float(), dim=0))
        score_changes.append(whole - _scores(detector, made, rows, labels))
    changes = torch.stack(score_changes, dim=1)
    return Ablation(
        strides=detector.backbone.features.strides,
        output_shares=tuple(_to_shares(torch.stack(c), dim=0).cpu().numpy() for c in output_changes),
        score_changes=changes.float().cpu().numpy(),
        shares=_to_shares(changes.float().abs(), dim=1).cpu().numpy(),
    )


def decode_pyramid(detector: Detector, pyramid: Pyramid) -> Candidates:
    """The candidates for the output of the neck."""
    twin = replace_parts(detector, backbone=Given(pyramid), neck=torch.nn.Identity())
    stride, finest = detector.neck.features.strides[0], pyramid[0]
    # an image that takes no memory: of a given pyramid nothing but its size is read
    images = finest.new_zeros(1).expand(len(finest), 3, finest.shape[-2] * stride, finest.shape[-1] * stride)
    return twin.decode(images)


def hold_regions(detector: Detector, pyramid: Pyramid, size: tuple[int, int]) -> Detector:
    """The same detector; a two-stage one keeps the proposals that it finds in ``pyramid``, whatever comes.

    So its candidates stay in their rows when the pyramid changes, and only their predictions change.

    Args:
        detector: Any.
        pyramid: Output of its neck for a batch of one.
        size: Height and width of the image in the network's input.
    """
    if not isinstance(detector, TwoStageDetector):
        return detector
    with torch.inference_mode(False), torch.no_grad():  # what inference mode makes takes no part in autograd later
        return detector.looking_into(detector.propose(detector.head(pyramid), [size]))


def _scores(detector: Detector, pyramid: Pyramid, rows: Tensor, labels: Tensor) -> Tensor:
    return decode_pyramid(detector, pyramid).scores[0][rows, labels]


def _to_shares(changes: Tensor, *, dim: int) -> Tensor:
    total = changes.sum(dim=dim, keepdim=True)
    return torch.where(total > 0, changes / total.where(total > 0, 1), 0)
