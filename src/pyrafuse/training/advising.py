"""What the data advise a recipe to change: figures of the objects -> advice -> settings, where the user gave none.

recipe, training images -> `advise` -> `apply` -> recipe, sentences for the screen
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.base.records import DetectionData
from pyrafuse.base.spec import DetectorSpec, read_spec
from pyrafuse.data.checks.advice import MANY_IMAGES, advise_balance, advise_epochs, advise_levels, advise_size
from pyrafuse.data.checks.report import Advice
from pyrafuse.data.checks.sizes import find_shapes
from pyrafuse.data.loading.balancing import count_images
from pyrafuse.models.building import build_without_weights
from pyrafuse.models.describing import change
from pyrafuse.training.preparing import fit_anchors, shape_overlaps, spec_of
from pyrafuse.training.settings import Recipe
from pyrafuse.training.starting import Start, choose_preprocessing, find_preprocessing

STRIDES = "model.options.backbone.strides"

MOST_FITTED = 10_000
"""Boxes that anchors are fitted to for the advice."""

MET_IOU = 0.5
"""Overlap of shapes from which an anchor meets an object."""


def advise(recipe: Recipe, data: DetectionData, start: Start | None = None) -> tuple[Advice, ...]:
    """What the training images advise on input size, levels, anchors, recipe, epochs and rare classes.

    Args:
        recipe: A settled one.
        data: The training images.
        start: The detector that training starts from.
    """
    if not any((~record.crowd).any() for record in data.records):
        return ()
    preprocessing = choose_preprocessing(recipe, find_preprocessing(recipe.model, start))
    on_size = advise_size(data, preprocessing)
    seen = preprocessing.at_size(_settings_to_come(recipe, on_size).get("data.size", min(preprocessing.size)))
    detector = build_without_weights(spec_of(recipe.model, num_classes=len(data.names)))
    neck: Any = getattr(detector, "neck", None)
    spec = detector.card.spec
    advice = [on_size]
    if neck is not None and spec is not None:
        advice.append(_in_settings(advise_levels(data, seen, neck.features.strides), spec))
        advice += _advise_anchors(spec, data, seen, recipe)
    on_balance = advise_balance(data)
    to_come = _settings_to_come(recipe, on_balance)
    run = recipe.run
    num_images = count_images(data, to_come.get("data.repeat_threshold", recipe.data.repeat_threshold))
    on_epochs = advise_epochs(num_images, epochs=run.epochs, batch_size=run.batch_size)
    return (*advice, _advise_recipe(len(data)), on_epochs, on_balance)


def apply(recipe: Recipe, advice: Sequence[Advice]) -> tuple[Recipe, list[str]]:
    """The recipe with what was advised and not given by hand, if it asks for that; and what to say of the advice.

    Nothing is changed that the detector which training starts from decides, and nothing in a run that is resumed.
    """
    if recipe.run.resume:
        said = ["not applied: a resumed run keeps the settings it began with"] if recipe.run.advice else []
        return _without_asking(recipe), said
    open_advice = [each for each in advice if each.settings]
    if not recipe.run.advice:
        if not open_advice:
            return recipe, ["nothing to change: size, levels, epochs and classes fit the data"] if advice else []
        told = [f"{each.topic}: {each.text} ({each.options})" for each in open_advice]
        return recipe, [*told, "--advice applies this"]
    said, changed = [], recipe
    for each in open_advice:
        done = _why_left(recipe, each)
        if done is None:
            changed, done = _with_settings(changed, dict(each.settings)), f"applied {each.options}"
        said.append(f"{done}; {each.topic}: {each.text}")
    return _without_asking(changed), said or ["nothing to apply: size, levels, epochs and classes fit the data"]


def _why_left(recipe: Recipe, advice: Advice) -> str | None:
    """Why ``advice`` is not applied; None where it is."""
    given = [name for name, _ in advice.settings if any(_is_within(name, other) for other in recipe.run.by_hand)]
    if given:
        return f"left as given by hand, {', '.join(given)}"
    if recipe.model.start_from and advice.topic in {"size", "levels"}:
        return f"left as in {recipe.model.start_from}"
    return "left, as data.fit is keep_ratio" if advice.topic == "size" and recipe.data.fit == "keep_ratio" else None


def _settings_to_come(recipe: Recipe, advice: Advice) -> dict[str, Any]:
    """The settings of ``advice`` that later advice has to reckon with: none where they are known to be left."""
    return {} if recipe.run.advice and _why_left(recipe, advice) else dict(advice.settings)


def _without_asking(recipe: Recipe) -> Recipe:
    return replace(recipe, run=replace(recipe.run, advice=False, by_hand=()))


def _is_within(name: str, other: str) -> bool:
    """Whether one of two settings is the other, or holds it; a backbone or neck given by hand brings its own levels."""
    if name.startswith("model.options.") and other in {"model.backbone", "model.neck", "model.spec"}:
        return True
    return f"{name}.".startswith(f"{other}.") or f"{other}.".startswith(f"{name}.")


def _with_settings(recipe: Recipe, settings: dict[str, Any]) -> Recipe:
    sections: dict[str, dict[str, Any]] = {}
    parts: dict[str, Any] = {}
    for name, value in settings.items():
        section, field, *rest = name.split(".")
        if field == "options":
            inner = parts
            for key in rest[:-1]:
                inner = inner.setdefault(key, {})
            inner[rest[-1]] = value
        else:
            sections.setdefault(section, {})[field] = value
    if parts:
        spec = read_spec({**recipe.model.spec, "num_classes": 1})
        values = change(spec, **parts).to_plain()
        sections.setdefault("model", {})["spec"] = {k: v for k, v in values.items() if k != "num_classes"}
    return replace(recipe, **{name: replace(getattr(recipe, name), **values) for name, values in sections.items()})


def _in_settings(advice: Advice, spec: DetectorSpec) -> Advice:
    """``advice`` on strides as settings of the detector, where it has the options for them."""
    strides = dict(advice.settings).get("strides")
    if strides is None:
        return advice
    settings: dict[str, Any] = {STRIDES: list(strides)}
    changes: dict[str, Any] = {"backbone": {"strides": strides}, "necks": {}}
    for neck in spec.necks:
        channels = neck.options.get("out_channels")
        if isinstance(channels, list | tuple) and len(channels) == len(strides) - 1:
            wider = [channels[0], *channels]
            changes["necks"][neck.name] = {"out_channels": wider}
            settings[f"model.options.necks.{neck.name}.out_channels"] = wider
    try:
        build_without_weights(change(spec, **{name: value for name, value in changes.items() if value}))
    except (PyrafuseError, ValueError):
        return Advice(advice.topic, f"{advice.text}; this model has no option for it: choose another one")
    return Advice(advice.topic, advice.text, tuple(settings.items()))


def _advise_anchors(
    spec: DetectorSpec, data: DetectionData, preprocessing: Preprocessing, recipe: Recipe
) -> list[Advice]:
    """How many objects the anchors meet, and how many fitted ones would; nothing where the head takes no anchors.

    No setting follows. Fitted anchors are shared evenly among the levels, so that objects of small data or small inputs
    move to coarse levels, and the assigners of these heads give an object its best anchor however badly that fits.
    """
    own: Any = spec.head.options.get("anchors")
    if not own or recipe.model.anchors == "data":
        return []
    fitted = fit_anchors(
        data, preprocessing, num_levels=len(own), per_level=len(own[0]), seed=recipe.run.seed, most=MOST_FITTED
    )
    shapes = torch.from_numpy(find_shapes(data, preprocessing)).double().clamp(min=1)
    before, after = (_measure_recall(shapes, anchors) for anchors in (own, fitted))
    text = (
        f"the model's own stay: at {min(preprocessing.size)} px they meet {100 * before:.0f} % of the objects by "
        f"{MET_IOU:g} (IoU of the shapes), and anchors fitted to the data {100 * after:.0f} %; in measured trainings "
        "these gave no higher AP"
    )
    return [Advice("anchors", text)]


def _measure_recall(shapes: torch.Tensor, anchors: Sequence[Sequence[tuple[float, float]]]) -> float:
    rows = torch.tensor([shape for row in anchors for shape in row], dtype=torch.float64)
    return float((shape_overlaps(shapes, rows).amax(dim=1) >= MET_IOU).double().mean())


def _advise_recipe(num_images: int) -> Advice:
    if num_images > MANY_IMAGES:
        text = f"with {num_images:,} training images and a GPU, a larger one: --recipe yolov3_asff_coco, or retinanet"
    else:
        text = f"small is made for sets of this size ({num_images:,} training images), from ImageNet weights"
    return Advice("recipe", text)
