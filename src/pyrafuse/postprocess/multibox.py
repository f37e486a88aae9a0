"""Predictions whose classes exclude each other -> candidates."""

from pyrafuse.core.predictions import Candidates, DensePredictions
from pyrafuse.ops.coders import BoxCoder
from pyrafuse.postprocess.registry import DECODERS


@DECODERS.register("multibox")
def decode_multibox(predictions: DensePredictions, *, coder: BoxCoder) -> Candidates:
    """Boxes in pixels, and softmax scores of all classes but the last, the background."""
    return Candidates(
        boxes=coder.decode(predictions.anchors, predictions.deltas),
        scores=predictions.classes.softmax(dim=-1)[..., :-1],
        levels=predictions.grid.levels,
        counts=predictions.grid.counts,
    )
