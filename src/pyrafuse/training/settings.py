"""A recipe: everything that decides a training run, as plain typed values; free of torch, so that --help is fast."""

from dataclasses import dataclass, field
from typing import Any, Literal

from pyrafuse.base.errors import PyrafuseError, check_between
from pyrafuse.base.typed_values import to_plain as to_plain  # of a recipe, for a file and a checkpoint
from pyrafuse.base.views.cutting import MOST_OVERLAP, SMALLEST_TILE
from pyrafuse.data.augment.settings import Augmentation
from pyrafuse.data.reading.rules import ReadingRules
from pyrafuse.training.preprocessing import PreprocessingSettings


@dataclass(frozen=True)
class ModelSettings:
    """Which detector, and what it starts from.

    Attributes:
        name: One of `pyrafuse models`, or a YAML file that describes a detector, as ``pyrafuse models NAME --spec``
            does; by default that of ``start_from``, and ``yolov3_asff_small`` without it.
        spec: The whole description, with every option of every part, as a run's own recipe holds it; what else is
            given here changes it.
        backbone: Another backbone than the model's own; ``timm/NAME`` for any of timm's.
        backbone_weights: Pretrained weights of the backbone: a file, ``pyrafuse/NAME``, ``torchvision/NAME`` or
            ``timm/NAME``; ``auto`` for those that are published for it, where there are. None trains from nothing.
        frozen: Number of leading stages of the backbone that keep the weights they start from, for little data: 1 is
            its stem, 2 the stem and the first stage, and so on; the same for every backbone.
        neck: Other necks than the model's own, in a row.
        options: Other parts than the model's own, or other options of them: by ``head``, ``necks``, ``criterion``,
            ``postprocess`` and so on.
        start_from: Checkpoint of a detector to start from, ours or any that `pyrafuse import` reads. It gives model,
            all of its parts and preprocessing; what is given besides changes these. Weights that do not fit are
            left out, and counted.
        published: Published name of the model in ``start_from``, for foreign files that do not tell how they are used.
        anchors: ``model`` keeps the model's own; ``data`` fits them to the boxes of the training images.
    """

    name: str | None = None
    spec: dict[str, Any] = field(default_factory=dict)
    backbone: str | None = None
    backbone_weights: str | None = None
    frozen: int = 0
    neck: tuple[str, ...] | None = None
    options: dict[str, Any] = field(default_factory=dict)
    start_from: str | None = None
    published: str | None = None
    anchors: Literal["model", "data"] = "model"

    def __post_init__(self) -> None:
        check_between("model.frozen", self.frozen, 0)

    @property
    def brings_weights(self) -> bool:
        """Whether the backbone starts from weights."""
        return bool(self.backbone_weights or self.start_from)


DEFAULT_MODEL = "yolov3_asff_small"
DEFAULT_SIZE = 416

AUTO_WEIGHTS = "auto"
"""Weights that are named by the backbone, once it is known."""

SIZES = tuple(range(320, 609, 32))
"""Sides in pixels that ASFF is trained at, around 416; and also where it is evaluated at 608."""

ODD_SIZES = (300,)
"""Sides of the input that are no multiples of 32 and yet published: SSD300's."""


def sizes_around(size: int) -> tuple[int, ...]:
    """Multiples of 32 from 10/13 to 19/13 of ``size``, as 320 to 608 lie around YOLOv3's 416; for 608 ASFF's own."""
    if size == SIZES[-1]:
        return SIZES
    return tuple(range(max(32, size * 10 // 13 // 32 * 32), -(-size * 19 // (13 * 32)) * 32 + 1, 32))


@dataclass(frozen=True)
class DataSettings:
    """Which images, and at which size and fit the network sees them.

    Attributes:
        path: Folder, data.yaml or annotation file; or ``shapes``, the generated data.
        train: Name of the training split, where the data has several.
        val: Name of the validation split.
        val_fraction: Part held out for validation where the data has one split only.
        missing: ``error`` stops at images that are listed and not there; ``skip`` leaves them out and counts them.
        exif: Frame of boxes in images that EXIF turns, where the annotated size cannot tell: ``stored``, ``upright``,
            or ``auto``, which is upright with a warning.
        boxes: What the numbers of a box are: ``auto`` is what the layout has. Else one of ``pixels``, ``shares`` and
            ``percent``, one of ``corners``, ``sizes`` and ``centers``, or one of each: ``shares,corners``.
        size: Side of the network's input in pixels; where ``keep_ratio`` fits, the limit of the image's shorter side.
            By default that of ``model.start_from``, and 416 without it.
        longest: Limit of its longer side, where ``keep_ratio`` fits; by default in the proportion of
            ``model.start_from``, and five thirds of ``size`` without it.
        fit: ``stretch`` to the square; ``letterbox`` to keep the aspect ratio within it; ``keep_ratio`` to keep it and
            let the input's size follow the images, as mmdetection does. By default that of ``model.start_from``, and
            ``stretch`` without it.
        sizes: Sides to draw from in training, one for ten batches; ``around`` for those around ``size``; empty keeps
            ``size``.
        tile: Side in pixels of the tiles that larger images are cut into, to learn and to validate on; by default
            images stay whole. An object of which a tile shows less than half is neither to be found nor missed there.
        overlap: Least share of a tile's side that it has in common with the next one.
        repeat_threshold: Share of the training images below which a class is rare: its images come more often, by the
            square root of this over its share. 0 repeats none; 0.001 is LVIS's, and 0.1 suits a few hundred images.
        class_weights: How much the class of an object counts in the class loss: ``none`` for all alike, ``balanced``
            by 1 over the number of its objects, ``effective`` by 1 over their effective number, or a weight by name.
        workers: Processes that load; by default as many as there are cores for it.
        cache_mb: Memory for decoded images, in MiB a process.
        strict: Stop on warnings about the data as well.
    """

    path: str = "shapes"
    train: str | None = None
    val: str | None = None
    val_fraction: float = 0.2
    missing: Literal["error", "skip"] = "error"
    exif: Literal["auto", "stored", "upright"] = "auto"
    boxes: str = "auto"
    size: int | None = None
    longest: int | None = None
    fit: Literal["stretch", "letterbox", "keep_ratio"] | None = None
    sizes: tuple[int, ...] | Literal["around"] = ()
    tile: int | None = None
    overlap: float = 0.2
    repeat_threshold: float = 0.0
    class_weights: Literal["none", "balanced", "effective"] | dict[str, float] = "none"
    workers: int | None = None
    cache_mb: int = 1024
    strict: bool = False

    def __post_init__(self) -> None:
        own = () if self.sizes == "around" else self.sizes
        for name, sizes in (("data.size", (self.size,)), ("data.sizes", own)):
            for size in sizes:
                is_padded = self.fit == "keep_ratio"  # to whole multiples, whatever the size is
                if size is not None and (size < 32 or (size % 32 and size not in ODD_SIZES and not is_padded)):
                    near = f"{size // 32 * 32} or {size // 32 * 32 + 32}" if size > 32 else "32 or more"
                    raise PyrafuseError(f"{name} must be a multiple of 32, got {size}; give {near}")
        if self.longest is not None and (self.fit not in ("keep_ratio", None) or self.longest < (self.size or 0)):
            raise PyrafuseError(
                f"data.longest is the limit of the longer side where data.fit is keep_ratio, at least data.size "
                f"({self.size}); got {self.longest} with data.fit={self.fit}"
            )
        if self.sizes and self.fit == "keep_ratio":
            raise PyrafuseError(
                "data.sizes are squares, and data.fit is keep_ratio: leave the sizes out (--without multi_scale), or "
                "give --data.fit letterbox"
            )
        if not 0 < self.val_fraction < 1:
            raise PyrafuseError(f"data.val_fraction must lie between 0 and 1, got {self.val_fraction}")
        check_between("data.tile", self.tile, SMALLEST_TILE)
        check_between("data.overlap", self.overlap, 0, MOST_OVERLAP)
        check_between("data.repeat_threshold", self.repeat_threshold, 0, 1)
        check_between("data.workers", self.workers, 0)
        check_between("data.cache_mb", self.cache_mb, 0)
        ReadingRules.from_values(vars(self))  # refuses what is none

    @property
    def sides(self) -> tuple[int, ...]:
        """The numbers that ``sizes`` stand for."""
        return sizes_around(self.size or DEFAULT_SIZE) if self.sizes == "around" else self.sizes

    @property
    def reading(self) -> ReadingRules:
        """How the data set is read."""
        return ReadingRules.from_values(vars(self))


@dataclass(frozen=True)
class OptimizerSettings:
    """The optimiser: how weights are updated.

    Attributes:
        name: ``sgd`` with momentum, or ``adamw``.
        lr: Learning rate for a batch of ``lr_batch`` images; it grows and shrinks with the batch.
        lr_batch: Images of the batch that ``lr`` is for.
        momentum: Momentum of SGD, or the first beta of AdamW.
        weight_decay: Weight decay of weights, and of norms and biases if ``decay_all``.
        decay_all: Decay norms and biases too, as the original ASFF does.
        backbone_lr: The learning rate, relative to the rest, of a backbone that starts from weights; a fresh one learns
            as fast as the rest.
        offset_lr: The learning rate, relative to what is around them, of the layers that say where deformable
            convolutions look. By default 1 with SGD, and 0.01 with AdamW, which moves all of their weights at once by
            as much as the rate and so the places by whole cells.
        clip_norm: Largest gradient norm; 0 does not clip.
    """

    name: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.01
    lr_batch: int = 64
    momentum: float = 0.9
    weight_decay: float = 5e-4
    decay_all: bool = False
    backbone_lr: float = 1.0
    offset_lr: float | None = None
    clip_norm: float = 35.0

    def __post_init__(self) -> None:
        for name in ("lr", "weight_decay", "backbone_lr", "offset_lr", "clip_norm"):
            check_between(f"optimizer.{name}", getattr(self, name), 0)
        check_between("optimizer.lr_batch", self.lr_batch, 1)
        check_between("optimizer.momentum", self.momentum, 0, 0.9999)


@dataclass(frozen=True)
class ScheduleSettings:
    """The learning rate over time.

    Attributes:
        kind: ``cosine`` or ``step``.
        burn_in_epochs: Epochs over which the learning rate rises with the given power.
        burn_in_power: Power of the rise; 4 in ASFF and Darknet.
        burn_in_steps: Steps over which the rate rises, instead of epochs; 0 counts epochs.
        burn_in_start: Learning rate at the start of the rise, relative to ``lr``.
        hold_epochs: Epochs, counted from the start, before the cosine falls.
        min_lr: Learning rate at the end of the cosine, relative to ``lr``.
        steps: Epochs at which the ``step`` schedule multiplies the rate by 0.1; by default at 60 and 80 % of the run.
        closing_epochs: Last epochs at the lowest rate, without mixup and mosaic, at one input size.
        unmixed_epochs: Last epochs without mixup and mosaic, where they are not the closing ones.
        one_size_epochs: Last epochs at ``data.size`` alone, where they are not the closing ones.
        by_epoch: Change the rate once per epoch, as the original does, instead of at every step.
        burn_in_full_batches: Let a last batch that is not full not count in the burn-in, as in the original.
    """

    kind: Literal["cosine", "step"] = "cosine"
    burn_in_epochs: float = 1.0
    burn_in_power: float = 4.0
    burn_in_steps: int = 0
    burn_in_start: float = 0.0
    hold_epochs: float = 0.0
    min_lr: float = 0.01
    steps: tuple[int, ...] = ()
    closing_epochs: int = 0
    unmixed_epochs: int | None = None
    one_size_epochs: int | None = None
    by_epoch: bool = False
    burn_in_full_batches: bool = False

    def __post_init__(self) -> None:
        for name in ("burn_in_epochs", "burn_in_power", "burn_in_steps", "hold_epochs", "closing_epochs",
                     "unmixed_epochs", "one_size_epochs"):  # fmt: skip
            check_between(f"schedule.{name}", getattr(self, name), 0)
        check_between("schedule.burn_in_start", self.burn_in_start, 0, 1)
        check_between("schedule.min_lr", self.min_lr, 0, 1)
        for epoch in self.steps:
            check_between("each of schedule.steps", epoch, 0)


@dataclass(frozen=True)
class DropBlockSettings:
    """When the neck's DropBlocks drop squares, and how large ones.

    Attributes:
        phases: A row a phase: its first epoch (from 0), then the side of the squares in cells at each level, finest
            first; 0 drops nothing there. Empty is off.
        keep_prob: Share of a map that stays.
    """

    phases: tuple[tuple[int, ...], ...] = ()
    keep_prob: float = 0.9

    def __post_init__(self) -> None:
        if not 0 < self.keep_prob <= 1:
            raise PyrafuseError(f"dropblock.keep_prob must lie in 0..1, got {self.keep_prob}")
        for row in self.phases:
            if len(row) < 2 or row[0] < 0 or any(size < 0 or (size and size % 2 == 0) for size in row[1:]):
                raise PyrafuseError(
                    f"dropblock.phases: {list(row)} is no row of a first epoch and one odd side (or 0) a level"
                )
        if len({len(row) for row in self.phases}) > 1 or len({row[0] for row in self.phases}) < len(self.phases):
            raise PyrafuseError(
                f"dropblock.phases: rows need one side a level and each its own first epoch, got "
                f"{[list(row) for row in self.phases]}"
            )


@dataclass(frozen=True)
class RunSettings:
    """Length, devices, evaluation and output of a run.

    Attributes:
        epochs: Passes over the training images.
        batch_size: Images per optimiser step, over all devices and accumulated batches.
        accumulate: Batches whose gradients make one step; ``batch_size`` is shared among them.
        fit_memory: Accumulate gradients over parts of a batch that memory does not hold, as ``accumulate`` does; a
            GPU's memory is measured by a pass of the model.
        precision: What convolutions compute in: ``32``, ``bf16``, ``fp16`` (a GPU alone), or ``auto``: bf16 where this
            machine is faster so, else 32; on a processor it is measured. Losses stay in 32 bits.
        devices: How many, or the numbers of those to use, ``[0, 1]``; ``auto`` is one GPU where there is one, else
            the CPU.
        accelerator: ``auto``, ``cpu``, ``gpu`` or ``mps``.
        nodes: Number of machines that torchrun or srun must have started; 1 takes any number.
        sync_bn: Batch norms see the batch of all devices.
        ema: Decay of the averaged weights, which are evaluated and kept; 0 is off.
        max_detections: Maximum number of detections per image in evaluations, and of those counted per class; by
            default the detector's own number, and COCO's 100 of a class.
        evaluate_every: Epochs between evaluations; by default about ten in a run, and the last.
        patience: Evaluations without a better AP after which training stops; 0 never stops early.
        checkpoint_minutes: Minutes after which ``last.ckpt`` is written within an epoch; 0 writes it at the end of an
            epoch alone. Ctrl-C and SIGTERM write it after the step under way in either case.
        seed: Seed of weights, order and augmentation.
        output: Folder of the run; by default runs/MODEL-DATA, numbered.
        resume: Go on from ``last.ckpt`` in ``output``.
        stop_signal: Signal that saves and stops as SIGTERM does, for batch systems that send another one: ``TERM``,
            ``USR1`` or ``USR2``.
        loggers: Places of the figures besides the run's own files: ``tensorboard``, ``wandb`` (offline), ``mlflow`` (a
            database in the run's folder) and ``trackio``; empty for nowhere.
        advice: Apply what follows from the data (`pyrafuse data check` tells it): input size, pyramid levels, epochs,
            rare classes.
        by_hand: Settings that advice leaves as they are; the command line names those that are given.
    """

    epochs: int = 24
    batch_size: int = 16
    accumulate: int = 1
    fit_memory: bool = False
    precision: Literal["auto", "32", "bf16", "fp16"] = "auto"
    devices: int | tuple[int, ...] | Literal["auto"] = "auto"
    accelerator: Literal["auto", "cpu", "gpu", "mps"] = "auto"
    nodes: int = 1
    sync_bn: bool = True
    ema: float = 0.999
    max_detections: int | None = None
    evaluate_every: int | None = None
    patience: int = 0
    checkpoint_minutes: float = 15.0
    seed: int = 0
    output: str | None = None
    resume: bool = False
    stop_signal: Literal["TERM", "USR1", "USR2"] = "TERM"
    loggers: tuple[str, ...] = ("tensorboard",)
    advice: bool = False
    by_hand: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_between("run.epochs", self.epochs, 1)
        check_between("run.batch_size", self.batch_size, 1)
        check_between("run.accumulate", self.accumulate, 1)
        check_between("run.seed", self.seed, 0, 2**32 - 1)
        check_between("run.nodes", self.nodes, 1)
        check_between("run.evaluate_every", self.evaluate_every, 1)
        check_between("run.max_detections", self.max_detections, 1)
        check_between("run.patience", self.patience, 0)
        check_between("run.checkpoint_minutes", self.checkpoint_minutes, 0)
        if not 0 <= self.ema < 1:
            raise PyrafuseError(f"run.ema is the share that stays at each step, from 0 to below 1; got {self.ema}")
        if isinstance(self.devices, int):
            check_between("run.devices", self.devices, 1)
        elif self.devices != "auto" and (
            not self.devices or min(self.devices) < 0 or len({*self.devices}) < len(self.devices)
        ):
            raise PyrafuseError(f"run.devices: {list(self.devices)} are no numbers of devices, from 0 on and each once")
        if self.batch_size % self.accumulate:
            raise PyrafuseError(f"run.batch_size {self.batch_size} does not split into {self.accumulate} batches")


@dataclass(frozen=True)
class Recipe:
    """A whole training run; stored in every checkpoint."""

    model: ModelSettings = field(default_factory=ModelSettings)
    data: DataSettings = field(default_factory=DataSettings)
    preprocessing: PreprocessingSettings = field(default_factory=PreprocessingSettings)
    augmentation: Augmentation = field(default_factory=Augmentation.light)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    dropblock: DropBlockSettings = field(default_factory=DropBlockSettings)
    run: RunSettings = field(default_factory=RunSettings)
