"""Guided YOLO predictions -> candidates."""

from pyrafuse.core.predictions import Candidates, GuidedPredictions
from pyrafuse.ops.coders import decode_guided
from pyrafuse.postprocess.registry import DECODERS


@DECODERS.register("yolov3")
def decode_yolov3(predictions: GuidedPredictions) -> Candidates:
    """Boxes in pixels, and objectness times class as the score of each class."""
    scores = predictions.objectness.sigmoid()[..., None] * predictions.classes.sigmoid()
    return Candidates(boxes=decode_guided(predictions), scores=scores, levels=predictions.grid.levels)


@DECODERS.register("likely")
def decode_likely(predictions: GuidedPredictions, *, least_objectness: float = 0.005) -> Candidates:
    """Boxes in pixels and scores of the classes alone, which objectness multiplies later; 0 where that is less."""
    objectness = predictions.objectness.sigmoid()
    return Candidates(
        boxes=decode_guided(predictions),
        scores=predictions.classes.sigmoid() * (objectness >= least_objectness)[..., None],
        levels=predictions.grid.levels,
        quality=objectness,
    )
