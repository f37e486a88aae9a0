"""What a training starts from: a detector's checkpoint gives its model, its preprocessing and what fits of its weights.

recipe -> checkpoint read -> recipe with nothing left open, and the `Start` -> weights copied into the new detector
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from pyrafuse.backbones.inputs import find_input
from pyrafuse.backbones.published import name_published
from pyrafuse.backbones.registry import BACKBONES
from pyrafuse.backbones.weights import check_entries
from pyrafuse.base.errors import CheckpointError, PyrafuseError
from pyrafuse.base.parts import Part, plain, read_part
from pyrafuse.base.paths import find_checkpoint
from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.base.registry import NEEDED
from pyrafuse.base.spec import DetectorSpec, read_spec
from pyrafuse.core.state_dicts import find_weights
from pyrafuse.core.storage import read_tensors
from pyrafuse.importers.loading import build, holds_detector
from pyrafuse.models.building import resolve
from pyrafuse.models.checkpoint import card_of, is_own
from pyrafuse.models.describing import change, describe, is_description, presets_of
from pyrafuse.models.detector import Card, Detector
from pyrafuse.models.transfer import describe_transfer, find_class_rows, match_classes, transfer
from pyrafuse.training.preprocessing import PreprocessingSettings
from pyrafuse.training.settings import AUTO_WEIGHTS, DEFAULT_MODEL, DEFAULT_SIZE, ModelSettings, Recipe

OWN_PARTS = ("backbone.", "neck.", "head.")
"""How the keys of a detector's bare parameters begin."""

FREEZING = "frozen_stages"
"""Option of a backbone that says how it was trained, not what it is: the next training has its own."""


@dataclass(frozen=True)
class Start:
    """A detector that a training starts from, or goes on with.

    Attributes:
        path: Its file.
        card: What it is; None for bare parameters without a description.
        state: Its parameters; None where a run goes on, whose weights come with the rest of its state.
        notes: Sentences that say which of several parameters in the file were chosen.
    """

    path: str
    card: Card | None
    state: Mapping[str, Tensor] | None
    notes: tuple[str, ...] = ()

    @property
    def is_resumed(self) -> bool:
        """Whether it is the run's own last checkpoint."""
        return self.state is None


def settle(recipe: Recipe) -> tuple[Recipe, Start | None]:
    """The recipe with everything decided that it leaves to the checkpoint it starts from, and that checkpoint.

    A recipe that is settled already stays as it is. A run that is resumed starts from its own last checkpoint: the
    file in ``model.start_from`` is not read again, and may be gone.

    Raises:
        CheckpointError: If the checkpoint cannot be read, or holds no detector.
        PyrafuseError: If the settings that are given do not go with it.
    """
    start = _find_start(recipe)
    card = None if start is None else start.card
    model = recipe.model
    if start is None or not (start.is_resumed and model.spec):  # a run's own recipe is settled already
        model = _settle_model(model, card)
    if model.backbone_weights == AUTO_WEIGHTS:
        model = replace(model, backbone_weights=_choose_weights(read_part(model.spec["backbone"]), start))
    before = find_preprocessing(model, start)
    preprocessing = choose_preprocessing(recipe, before)
    colours = of_preprocessing(preprocessing)
    if start is not None and start.is_resumed and before is not None and colours != of_preprocessing(before):
        raise PyrafuseError(
            f"a run goes on with the preprocessing it began with, {in_words(before)}, and this recipe asks for "
            f"{in_words(preprocessing)}: leave its preprocessing out, or begin a new run from its weights"
        )
    try:
        data = replace(recipe.data, size=min(preprocessing.size), fit=preprocessing.fit)
    except PyrafuseError as error:
        if start is None:
            raise
        raise PyrafuseError(f"{error} (images are made ready as in {start.path}, but for what is given)") from error
    return replace(recipe, model=model, data=data, preprocessing=colours), start


def _find_start(recipe: Recipe) -> Start | None:
    if recipe.run.resume and recipe.run.output is not None:
        last = Path(recipe.run.output) / "last.ckpt"
        if last.is_file():
            return Start(str(last), card_of(read_tensors(last), source=last), None)
    if recipe.model.start_from is None:
        return None
    return read_start(recipe.model.start_from, published=recipe.model.published)


def read_start(path: str | os.PathLike[str], *, published: str | None = None) -> Start:
    """Read the detector in ``path``: ours, of any origin that can be imported, or bare parameters in our own keys.

    Args:
        path: The file, or the folder of a run.
        published: The ``source`` of `pyrafuse.models.checkpoint.load`.

    Raises:
        CheckpointError: If the file cannot be read, or holds no detector.
    """
    path = str(find_checkpoint(path))
    content = read_tensors(path)
    weights = find_weights(content)
    if not holds_detector(content) and _is_bare(content):
        check_entries(content, source=path)
        return Start(path, None, weights.entries, weights.notes)
    try:
        detector = build(content, source=path, published=published)
    except CheckpointError as error:
        if holds_detector(content):
            raise
        raise CheckpointError(
            f"{error}. Pretrained weights of a backbone alone are given as --weights {path} (model.backbone_weights)"
        ) from error
    return Start(path, detector.card, detector.state_dict(), () if is_own(content) else weights.notes)


def holds_start(path: str | os.PathLike[str]) -> bool:
    """Whether the file holds a detector to start from, and not the weights of a backbone.

    Raises:
        CheckpointError: If it cannot be read.
    """
    content = read_tensors(path)
    return holds_detector(content) or _is_bare(content)


def _is_bare(content: Any) -> bool:
    """Whether ``content`` are parameters in our own keys without a card."""
    keys = find_weights(content).entries
    return all(any(key.startswith(part) for key in keys) for part in OWN_PARTS)


def _settle_model(settings: ModelSettings, card: Card | None) -> ModelSettings:
    """``settings`` with the whole description, and nothing that still changes it; of another model nothing is taken."""
    if not settings.spec and card is not None and card.spec is not None and settings.name in (None, card.model):
        name, base = card.model or card.spec.head.name, _without_training(card.spec)
    else:
        name = settings.name or DEFAULT_MODEL
        base = read_spec(settings.spec) if settings.spec else describe(name)
        name = Path(name).stem if is_description(name) else name
    spec = resolve(describe_model(replace(settings, name=name), base))
    plain = {key: value for key, value in spec.to_plain().items() if key != "num_classes"}
    return replace(settings, name=name, spec=plain, backbone=None, neck=None, options={})


def _choose_weights(backbone: Part, start: Start | None) -> str | None:
    """Published weights of ``backbone``; None where there are none, or ``start`` has its own."""
    if start is not None and not start.is_resumed:
        own = None if start.card is None or start.card.spec is None else start.card.spec.backbone.name
        if own in (None, backbone.name):
            return None
    return name_weights(backbone)


def name_weights(backbone: Part) -> str | None:
    """Name of the weights that are published for ``backbone`` with the options that it has; None without any."""
    own = BACKBONES.options(backbone.name)
    changed = [
        key for key, value in backbone.options.items() if own.get(key, NEEDED) is NEEDED or plain(own[key]) != value
    ]
    return name_published(backbone.name, changed)


def describe_model(settings: ModelSettings, base: DetectorSpec) -> DetectorSpec:
    """``base`` with the parts that ``settings`` name, and then their options."""
    if "num_classes" in settings.options:
        raise PyrafuseError("the data say how many classes there are: leave out model.options.num_classes")
    presets = presets_of(settings.name)
    names = {"backbone": settings.backbone, "neck": settings.neck}
    spec = change(base, presets=presets, **{field: name for field, name in names.items() if name is not None})
    return change(spec, presets=presets, **settings.options)


def _without_training(spec: DetectorSpec) -> DetectorSpec:
    """``spec`` without what of its backbone was frozen."""

    def thaw(part: Part) -> Part:
        inner = {key: thaw(value) if isinstance(value, Part) else value for key, value in part.options.items()}
        return Part(part.name, {key: value for key, value in inner.items() if key != FREEZING})

    return replace(spec, backbone=thaw(spec.backbone))


def find_preprocessing(settings: ModelSettings, start: Start | None) -> Preprocessing | None:
    """That of the weights which training starts from, a detector's or a backbone's; None where nothing is known."""
    if start is not None and start.card is not None:
        return start.card.preprocessing
    if settings.backbone_weights is None:
        return None
    backbone = settings.spec["backbone"]  # a settled recipe has it
    return find_input(settings.backbone_weights, backbone=backbone["name"], style=backbone.get("style", ""))


def choose_preprocessing(recipe: Recipe, before: Preprocessing | None = None) -> Preprocessing:
    """How images become the network's input: as ``before``, but for what the recipe gives.

    Args:
        recipe: Its ``data`` give size and fit, its ``preprocessing`` all else.
        before: Preprocessing of the weights that training starts from.
    """
    data = recipe.data
    given = {name: value for name, value in vars(recipe.preprocessing).items() if value is not None}
    base = replace(before or Preprocessing(size=(DEFAULT_SIZE, DEFAULT_SIZE)), **given)
    fit = data.fit or base.fit
    short = data.size or min(base.size)
    is_as_before = before is not None and fit == base.fit and short == min(base.size)
    if is_as_before and data.longest in (None, max(base.size)):
        return base
    if fit != "keep_ratio":
        return replace(base, size=(short, short), fit=fit)
    in_proportion = short * max(base.size) / min(base.size) if base.fit == "keep_ratio" else short * 5 / 3
    return replace(base, size=(short, data.longest or round(in_proportion)), fit=fit)


def of_preprocessing(given: Preprocessing) -> PreprocessingSettings:
    """The section of a recipe that asks for ``given``."""
    return PreprocessingSettings(**{field.name: getattr(given, field.name) for field in fields(PreprocessingSettings)})


def take_over(detector: Detector, start: Start, *, without_backbone: bool = False) -> str:
    """Copy what fits of ``start`` into ``detector``, classes by name; returns a sentence that says what was taken.

    Args:
        detector: Its card has the names of the classes.
        start: With parameters.
        without_backbone: The backbone has weights of its own.

    Raises:
        PyrafuseError: If nothing fits.
    """
    assert start.state is not None
    card = start.card or Card(spec=detector.card.spec)
    num_theirs, num_ours = card.num_classes, detector.card.num_classes
    classes = match_classes(card.names, detector.names, num_theirs=num_theirs)
    done = transfer(
        detector,
        start.state,
        classes,
        num_theirs=num_theirs,
        num_ours=num_ours,
        without=("backbone.",) if without_backbone else (),
    )
    if not any(key for key in (*done.whole, *done.partial) if not key.endswith("num_batches_tracked")):
        raise PyrafuseError(
            f"nothing in {start.path} fits {detector.card.model}: no entry has the same name and shape; leave out "
            "--model NAME to train the model of that file"
        )
    return describe_transfer(done, classes, find_class_rows(detector), source=start.path)


def describe_preprocessing(chosen: Preprocessing, before: Preprocessing | None, source: str) -> str:
    """How images are made ready, and what differs from ``before``, that of the weights in ``source``."""
    text = f"images: {in_words(chosen)}"
    if before is None:
        return text
    return f"{text}, as in {source}" if before == chosen else f"{text}; in {source}: {in_words(before)}"


def in_words(given: Preprocessing) -> str:
    """Size, fit, colours and their normalisation."""
    height, width = given.size
    numbers = ("/".join(f"{255 * x:.5g}" for x in values) for values in (given.mean, given.std))
    mean, std = numbers
    return (
        f"{height} x {width} px, {given.fit}, {'BGR' if given.bgr else 'RGB'}, mean {mean}, deviation {std}, "
        f"{given.interpolation} resizing"
    )
