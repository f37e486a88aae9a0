"""From a recipe to what trains: data read and checked, detector built, anchors fitted, weights taken over."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pyrafuse.backbones.registry import BACKBONES
from pyrafuse.backbones.weights import fetch_published, read_weights
from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.parts import Part
from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.base.records import DetectionData
from pyrafuse.base.spec import DetectorSpec, read_spec
from pyrafuse.core.pyramid import Backbone
from pyrafuse.data.checks.sizes import find_shapes
from pyrafuse.data.formats.shapes import is_shapes
from pyrafuse.data.reading.folders import SPLIT_WORDS
from pyrafuse.layers.dropblock import DropBlock
from pyrafuse.losses.classification import smoothed_targets
from pyrafuse.models.building import build, build_without_weights, resolve
from pyrafuse.models.detector import Detector
from pyrafuse.training.settings import DataSettings, DropBlockSettings, ModelSettings, Recipe, RunSettings
from pyrafuse.training.start_files import check_start_files, is_published
from pyrafuse.training.starting import (
    Start,
    choose_preprocessing,
    describe_preprocessing,
    find_preprocessing,
    name_weights,
    of_preprocessing,
    settle,
    take_over,
)


def create_detector(
    recipe: Recipe, data: DetectionData, *, say: Callable[[str], None], start: Start | None = None
) -> Detector:
    """Build the recipe's detector for the classes of ``data``, and fill it with the weights that it starts from.

    Args:
        recipe: May leave open what its checkpoint decides.
        data: The training images.
        say: Called with sentences on the origin of the weights and on settings that do not fit together.
        start: Start that `settle` gives with the recipe; by default it is read now.

    Raises:
        PyrafuseError: If the model cannot be built so, has not the DropBlocks of the recipe, or weights do not fit.
    """
    if start is None:
        recipe, start = settle(recipe)
    settings, size = recipe.model, recipe.data.size
    assert size is not None, "a settled recipe has a size"
    is_resumed = start is not None and start.is_resumed
    before = find_preprocessing(settings, start)
    preprocessing = choose_preprocessing(recipe, before)
    weights = None if is_resumed else settings.backbone_weights
    if settings.frozen and not settings.brings_weights:
        raise PyrafuseError(
            f"model.frozen={settings.frozen} would keep random weights: give --weights FILE, or drop it"
        )
    spec = spec_of(settings, num_classes=len(data.names))
    if settings.anchors == "data":
        own: Any = resolve(spec).head.options["anchors"]
        num_levels, per_level = len(own), len(own[0])
        seed = recipe.run.seed
        anchors = fit_anchors(data, preprocessing, num_levels=num_levels, per_level=per_level, seed=seed)
        spec = spec.with_parts(head={"anchors": anchors})
        say("anchors fitted to the data, finest level first: " + "; ".join(_anchor_words(row) for row in anchors))
    detector = build(spec, backbone_weights=weights)
    made_for = getattr(detector.head, "made_for", None)
    if made_for not in (None, size):
        say(
            f"the anchors of {settings.name} are made for {made_for} px, and the images will have {size}: "
            f"train with --size {made_for}, or give sizes in model.options.head"
        )
    if getattr(detector.criterion, "label_smoothing", False) and len(data.names) < 3:
        own, other = smoothed_targets(len(data.names))
        say(
            f"label smoothing with two classes: the targets are {own:.2f} and {other:.2f}, as 1/K would make both 0.5"
            if other
            else "label smoothing does nothing with one class: its target stays 1"
        )
    find_dropblocks(detector, recipe.dropblock)
    detector.card = replace(
        detector.card,
        model=settings.name or "",
        names=data.names,
        category_ids=data.category_ids,
        preprocessing=preprocessing,
    )
    if not is_resumed:
        for sentence in _fill(detector, weights, start, before):
            say(sentence)
    return detector


def _fill(detector: Detector, weights: str | None, start: Start | None, before: Preprocessing | None) -> Iterator[str]:
    """Copy the weights of ``start`` into ``detector``; gives sentences that say where its weights come from."""
    if weights is not None:
        count = len(detector.backbone.state_dict())
        if os.path.isfile(weights):
            yield from (f"{weights}: {note}" for note in read_weights(weights).notes)
        yield f"{count} of {count} entries of the backbone read from {weights}"
    if start is not None:
        yield from start.notes
        yield take_over(detector, start, without_backbone=weights is not None)
        yield describe_preprocessing(detector.card.preprocessing, before, start.path)
    elif weights is not None:
        chosen = detector.card.preprocessing
        if of_preprocessing(chosen) != of_preprocessing(Preprocessing()):
            at_chosen = before and replace(before, size=chosen.size, fit=chosen.fit)
            yield describe_preprocessing(chosen, at_chosen, weights)
    else:
        assert detector.card.spec is not None
        published = name_weights(detector.card.spec.backbone)
        start_of_backbone = f"--weights {published} would start the backbone from ImageNet"
        yield f"weights: from nothing; {start_of_backbone if published else '--weights FILE starts from a checkpoint'}"


def spec_of(settings: ModelSettings, *, num_classes: int) -> DetectorSpec:
    """The detector of a settled recipe for so many classes."""
    spec = read_spec({**settings.spec, "num_classes": num_classes})
    return replace(spec, backbone=_freeze(spec.backbone, settings.frozen)) if settings.frozen else spec


def _freeze(backbone: Part, count: int) -> Part:
    """``backbone`` with its first ``count`` stages, the stem among them, as they are; so its own, where it has one."""
    if isinstance(inner := backbone.options.get("backbone"), Part):
        return backbone.with_options(backbone=_freeze(inner, count))
    if "frozen_stages" not in BACKBONES.options(backbone.name):
        raise PyrafuseError(
            f"model.frozen={count}: the backbone {backbone.name} has no option frozen_stages to keep a part of it"
        )
    return backbone.with_options(frozen_stages=count - 1)


def check_model(recipe: Recipe, start: Start | None = None) -> None:
    """Refuse a model that cannot be built, or weights that are not there, before any data are read.

    Args:
        recipe: May leave open what its checkpoint decides.
        start: Start that `settle` gives with the recipe; by default it is read now.

    Raises:
        PyrafuseError: On the same faults as `create_detector`, as far as that can be told without the data.
    """
    if not recipe.run.resume:
        check_start_files(recipe.model)
    if start is None:
        recipe, start = settle(recipe)
    spec = spec_of(recipe.model, num_classes=1)
    detector = build_without_weights(spec)
    head = (detector.card.spec or spec).head  # with all its options
    if recipe.model.anchors == "data" and "anchors" not in head.options:
        raise PyrafuseError(
            f"model.anchors=data fits widths and heights for each level, and the head {head.name} takes none: "
            "leave it out, or choose a model with the head yolov3 or yolov3_plain"
        )
    find_dropblocks(detector, recipe.dropblock)
    check_sizes(detector.backbone, recipe.data)
    if recipe.model.backbone_weights and not recipe.run.resume:
        fetch_published(recipe.model.backbone_weights)


def check_sizes(backbone: Backbone, data: DataSettings) -> None:
    """Refuse input sizes that the backbone cannot take.

    Raises:
        PyrafuseError: If there is one, with the sizes that it can take.
    """
    if data.fit == "keep_ratio" and not backbone.sizes.fit(32, 64):
        raise PyrafuseError(
            f"data.fit keep_ratio makes images of many sizes, and the backbone takes {backbone.sizes}: give "
            "--data.fit letterbox, or choose another backbone"
        )
    for side in () if data.fit == "keep_ratio" else (data.size, *data.sides):
        if side is not None:
            backbone.check_size(side, side)


def find_dropblocks(detector: nn.Module, settings: DropBlockSettings) -> list[DropBlock]:
    """The DropBlocks that ``settings`` speak of, finest level first; none where they are off.

    Raises:
        PyrafuseError: If ``detector`` has more of them, or fewer.
    """
    if not settings.phases:
        return []
    blocks = [part for part in detector.modules() if isinstance(part, DropBlock)]
    num_levels = len(settings.phases[0]) - 1
    if len(blocks) != num_levels:
        remedy = (
            "give one size for each" if blocks else "take one with yolo_fpn, as --recipe yolov3_asff_star_coco does"
        )
        raise PyrafuseError(
            f"dropblock.phases speak of {num_levels} levels, but the neck has {len(blocks)} DropBlocks; {remedy}, or "
            "switch it off with --without dropblock"
        )
    return blocks


def choose_devices(run: RunSettings) -> int | list[int]:
    """How many devices the trainer takes, or their numbers.

    Raises:
        PyrafuseError: If they are not here.
    """
    devices = run.devices
    if devices == "auto":
        devices = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # torchrun says how many; otherwise one
    num_gpus, num_mps = _count_gpus()
    if is_on_cpu(run) and isinstance(devices, int):
        return devices
    num_here = 0 if is_on_cpu(run) else num_mps if run.accelerator == "mps" else num_gpus
    wanted = range(devices) if isinstance(devices, int) else devices
    if missing := [number for number in wanted if number >= num_here]:
        what = run.accelerator if run.devices == "auto" else f"number {missing[0]}"
        choices = ["auto", "cpu", *map(str, range(num_gpus)), *(["mps"] if num_mps else [])]
        raise PyrafuseError(f"no device {what} here to train on; choose --device from {', '.join(choices)}")
    return devices if isinstance(devices, int) else list(devices)


def is_on_cpu(run: RunSettings) -> bool:
    """Whether the run trains on the processor."""
    return run.accelerator == "cpu" or (run.accelerator == "auto" and not _count_gpus()[0])


def _count_gpus() -> tuple[int, int]:
    """GPUs of any kind here, and how many of them are a Mac's."""
    num_cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    num_mps = int(torch.backends.mps.is_available())
    return num_cuda or num_mps, num_mps


def with_absolute_paths(recipe: Recipe) -> Recipe:
    """The same recipe for any working folder: paths that lead somewhere are absolute, names stay as they are."""

    def absolute(path: str | None) -> str | None:
        return os.path.abspath(path) if path and not is_published(path) and os.path.exists(path) else path

    def split(given: str | None) -> str | None:
        base = data.path if os.path.isdir(data.path) else os.path.dirname(data.path)
        is_inside = given is None or given in SPLIT_WORDS or os.path.exists(os.path.join(base, given))
        return given if is_inside else absolute(given)

    data, model = recipe.data, recipe.model
    path = data.path if is_shapes(data.path) else absolute(data.path)
    return replace(
        recipe,
        data=replace(data, path=path, train=split(data.train), val=split(data.val)),
        model=replace(model, backbone_weights=absolute(model.backbone_weights), start_from=absolute(model.start_from)),
    )


def fit_anchors(
    data: DetectionData,
    preprocessing: Preprocessing,
    *,
    num_levels: int,
    per_level: int,
    seed: int,
    rounds: int = 100,
    most: int | None = None,
) -> tuple[tuple[tuple[float, float], ...], ...]:
    """Cluster the boxes' shapes by 1 - IoU (YOLOv2's k-means, arXiv:1612.08242), small ones first.

    Args:
        data: The training images.
        preprocessing: How the network sees them.
        num_levels: Rows of anchors.
        per_level: Anchors of a row.
        seed: Seed of the start.
        rounds: Rounds at most.
        most: Boxes at most, drawn at random where there are more; by default all.

    Returns:
        Width and height in pixels of the network's input, under the fit of ``preprocessing``; a row a level, finest
        first.

    Raises:
        PyrafuseError: If the data have no boxes.
    """
    shapes = find_shapes(data, preprocessing)
    if not len(shapes):
        raise PyrafuseError("anchors cannot be fitted: the training images have no objects; use model.anchors=model")
    shapes = shapes if most is None or len(shapes) <= most else np.random.default_rng(seed).choice(shapes, most)
    points = torch.from_numpy(shapes).double().clamp(min=1)
    count = num_levels * per_level
    generator = torch.Generator().manual_seed(seed)
    by_area = points[points.prod(dim=1).argsort()]
    centers = by_area[torch.linspace(0, len(points) - 1, count).round().long()]
    centers = centers * (1 + 0.05 * torch.rand(centers.shape, generator=generator, dtype=torch.float64))
    for _ in range(rounds):
        nearest = shape_overlaps(points, centers).argmax(dim=1)
        moved = torch.stack(
            [points[nearest == i].median(dim=0).values if (nearest == i).any() else centers[i] for i in range(count)]
        )
        if torch.equal(moved, centers):
            break
        centers = moved
    ordered = centers[centers.prod(dim=1).argsort()].round(decimals=1).tolist()
    rows = [tuple((w, h) for w, h in ordered[i : i + per_level]) for i in range(0, count, per_level)]
    return tuple(rows)


def shape_overlaps(points: Tensor, centers: Tensor) -> Tensor:
    """(N, A) IoU of widths and heights (N, 2) with others (A, 2), all at one centre."""
    shared = torch.minimum(points[:, None], centers).prod(dim=-1)
    return shared / (points.prod(dim=1)[:, None] + centers.prod(dim=1) - shared)


def _anchor_words(row: Sequence[tuple[float, float]]) -> str:
    return ", ".join(f"{w:g}x{h:g}" for w, h in row)
