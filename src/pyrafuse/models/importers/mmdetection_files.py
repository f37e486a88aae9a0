"""mmdetection's files, of 2.x and 3.x, dense and two-stage: which detector, how it is used, and both together.

content -> keys tell the detector, settings or a name its use -> detector with its card
"""

import os
from dataclasses import replace
from typing import Any

from pyrafuse.core.errors import CheckpointError
from pyrafuse.models.detector import Detector
from pyrafuse.models.importers.class_names import COCO_IDS, COCO_NAMES
from pyrafuse.models.importers.mmdetection import depth_of, family_of, import_mmdetection, renew
from pyrafuse.models.importers.mmdetection_two_stage import TITLES, import_mmdetection_two_stage, model_of
from pyrafuse.models.importers.mmdetection_usage import Usage, tell_usage
from pyrafuse.models.importers.renaming import unwrap_state

PREFIXES = {
    "retinanet_nas_fpn": "retinanet",
    "libra_rcnn": "libra_faster_rcnn",
    "cascade_rcnn_rfp": "cascade_rcnn",
}
"""Our model -> how its published names begin, where that is another word."""


def import_mmdetection_file(content: Any, *, source: str | os.PathLike[str], published: str | None = None) -> Detector:
    """Build the dense detector that ``content`` is, with its preprocessing, test settings and classes.

    Args:
        content: As `read_tensors` gives it.
        source: Of the file, for messages; its name is asked where the settings in it are not enough.
        published: The name that the model was published under, where neither tells.

    Raises:
        CheckpointError: If it does not fit, or nothing tells how it is used.
    """
    state = renew(content)
    family = family_of(state)
    if family is None:
        raise CheckpointError(f"{source} is no dense detector of mmdetection")
    depth = depth_of(state, source)
    usage = tell_usage(
        content,
        source=source,
        published=published,
        family=PREFIXES.get(family.model, family.model),
        depth=depth,
        what=f"mmdetection's {family.title} on a ResNet of {depth} layers",
    )
    options: dict[str, Any] = {"postprocess_options": usage.postprocess, "head_options": usage.head}
    if usage.neck:
        options["neck_options"] = {"fpn": usage.neck}
    detector = import_mmdetection(content, source=source, style=usage.style, options=options)
    return fill_card(detector, usage)


def import_mmdetection_two_stage_file(
    content: Any, *, source: str | os.PathLike[str], published: str | None = None
) -> Detector:
    """Build the two-stage detector that ``content`` is; arguments and errors are those of `import_mmdetection_file`."""
    state = unwrap_state(content)
    model, depth = model_of(state), depth_of(state, source)
    usage = tell_usage(
        content,
        source=source,
        published=published,
        family=PREFIXES.get(model, model),
        depth=depth,
        what=f"mmdetection's {TITLES[model]} on a ResNet of {depth} layers",
    )
    options: dict[str, Any] = {"postprocess_options": usage.postprocess, "proposal_options": usage.proposals}
    detector = import_mmdetection_two_stage(content, source=source, style=usage.style, options=options)
    return fill_card(detector, usage)


def fill_card(detector: Detector, usage: Usage) -> Detector:
    """``detector`` with what ``usage`` says in its card."""
    card = detector.card
    if len(usage.names) == len(card.names):
        is_coco = usage.names == COCO_NAMES
        ids = COCO_IDS if is_coco else tuple(range(1, len(usage.names) + 1))
        card = replace(card, names=usage.names, category_ids=ids)
    detector.card = replace(card, preprocessing=usage.preprocessing, origin=f"{card.origin}; {usage.origin}")
    return detector
