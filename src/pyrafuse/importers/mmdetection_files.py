"""mmdetection's files, of 2.x and 3.x, dense and two-stage: which detector, how it is used, and both together.

content -> keys tell the detector, settings or a name its use -> detector with its card
"""

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from pyrafuse.base.errors import CheckpointError
from pyrafuse.importers.class_names import tell_classes
from pyrafuse.importers.mmdetection import (
    SEPARATE_NORMS,
    Family,
    depth_of,
    family_of,
    grouping_of,
    import_mmdetection,
    renew,
)
from pyrafuse.importers.mmdetection_two_stage import family_name_of, import_mmdetection_two_stage, title_of
from pyrafuse.importers.mmdetection_usage import Usage, tell_usage
from pyrafuse.importers.renaming import unwrap_state
from pyrafuse.models.detector import Detector


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
    check_convolutions(state, family, source)
    usage = _tell_usage(
        content,
        state,
        source=source,
        published=published,
        family="retinanet_level_norms" if family is SEPARATE_NORMS else family.model,
        title=family.title,
    )
    options: dict[str, Any] = {"postprocess_options": usage.postprocess, "head_options": usage.head}
    if usage.neck:
        options["neck_options"] = {"fpn": usage.neck}
    detector = import_mmdetection(content, source=source, style=usage.style, options=options)
    return fill_card(detector, usage, source=source)


def import_mmdetection_two_stage_file(
    content: Any, *, source: str | os.PathLike[str], published: str | None = None
) -> Detector:
    """Build the two-stage detector that ``content`` is; arguments and errors are those of `import_mmdetection_file`."""
    state = unwrap_state(content)
    check_convolutions(state, None, source)
    usage = _tell_usage(
        content, state, source=source, published=published, family=family_name_of(state), title=title_of(state)
    )
    options: dict[str, Any] = {"postprocess_options": usage.postprocess, "proposal_options": usage.proposals}
    detector = import_mmdetection_two_stage(content, source=source, style=usage.style, options=options)
    return fill_card(detector, usage, source=source)


def check_convolutions(state: Mapping[str, Tensor], family: Family | None, source: str | os.PathLike[str]) -> None:
    """Refuse deformable convolutions where none are read: in the backbone, and in the towers of all but DDOD.

    Raises:
        CheckpointError: Naming a key of theirs.
    """
    places = {"its backbone": r"backbone\..*\.conv(2|2\.conv)_offset\."}
    if family is None or family.model != "ddod":
        places["its head's towers"] = r"bbox_head\.(cls|reg)_convs\.\d+\.conv\.conv_offset\."
    for place, pattern in places.items():
        found = next((key for key in state if re.match(pattern, key)), None)
        if found is not None:
            raise CheckpointError(f"{source} has deformable convolutions in {place}, which are not read here: {found}")


def _tell_usage(
    content: Any,
    state: Mapping[str, Tensor],
    *,
    source: str | os.PathLike[str],
    published: str | None,
    family: str,
    title: str,
) -> Usage:
    depth, grouping = depth_of(state, source), grouping_of(state, source)
    of_groups = f"{grouping['groups']}x{grouping['base_width']}d" if grouping else ""
    trunk = f"a ResNeXt of {depth} layers and groups of {of_groups}" if of_groups else f"a ResNet of {depth} layers"
    return tell_usage(
        content,
        source=source,
        published=published,
        family=family,
        depth=depth,
        grouping=of_groups,
        what=f"mmdetection's {title} on {trunk}",
    )


def fill_card(detector: Detector, usage: Usage, *, source: str | os.PathLike[str]) -> Detector:
    """``detector`` with what ``usage`` says in its card.

    Raises:
        CheckpointError: If ``source`` names another number of classes than its parameters tell apart.
    """
    card = detector.card
    if usage.names:
        names, category_ids = tell_classes(usage.names, len(card.names), source=source)
        card = replace(card, names=names, category_ids=category_ids)
    detector.card = replace(card, preprocessing=usage.preprocessing, origin=f"{card.origin}; {usage.origin}")
    return detector
