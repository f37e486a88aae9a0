"""Words that people bring from other tools -> ours: one table for the command line and for Python."""

import functools
import inspect
from collections.abc import Callable, Collection, Mapping
from typing import ParamSpec, TypeVar

from pyrafuse.base.errors import PyrafuseError, nearest

STARTS = ("weights", "model.start_from", "model")
"""What a detector's file is given to."""

HABITS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("imgsz", "img", "imgs", "img_size", "image_size", "input_size", "resolution", "imsize"), ("size",)
    ),
    **dict.fromkeys(
        ("conf", "conf_thres", "conf_thresh", "confidence", "min_conf", "score_thr", "score_threshold", "threshold"),
        ("score",),
    ),
    **dict.fromkeys(("iou", "iou_thres", "iou_thresh", "nms", "nms_thres", "nms_threshold"), ("nms_iou",)),
    **dict.fromkeys(("max_det", "max_dets", "max_per_img", "topk"), ("max_detections",)),
    **dict.fromkeys(("batch_size", "batchsize", "bs", "batch_size_per_gpu", "b"), ("batch", "run.batch_size")),
    **dict.fromkeys(("lr0", "learning_rate", "base_lr", "init_lr"), ("lr", "optimizer.lr")),
    **dict.fromkeys(("workers", "num_workers", "n_workers", "nproc", "threads"), ("workers", "data.workers")),
    **dict.fromkeys(("epoch", "num_epochs", "n_epochs", "max_epochs", "total_epochs", "e"), ("epochs", "run.epochs")),
    **dict.fromkeys(("gpu", "gpus", "gpu_ids", "gpu_id", "devices", "cuda", "accelerator"), ("device",)),
    **dict.fromkeys(("pretrained", "weights", "checkpoint", "ckpt", "ckpt_path", "load_from", "load_weights"), STARTS),
    **dict.fromkeys(("init", "init_from", "init_weights", "pretrained_weights", "pretrained_model", "start"), STARTS),
    **dict.fromkeys(("start_from", "from_checkpoint", "from_pretrained", "finetune", "fine_tune", "transfer"), STARTS),
    **dict.fromkeys(
        ("pretrained_backbone", "backbone_pretrained", "backbone_weights", "weights_backbone", "imagenet"),
        ("weights", "model.backbone_weights"),
    ),
    **dict.fromkeys(
        ("resume_from", "resume_from_checkpoint", "auto_resume", "resume_path", "resume_training", "continue"),
        ("resume", "run.resume"),
    ),
    **dict.fromkeys(("model", "model_path", "arch", "net"), ("model", "model.name", "name")),
    **dict.fromkeys(("cfg", "config_file", "yaml", "preset"), ("recipe", "config")),
    **dict.fromkeys(
        ("name", "project", "out", "output_dir", "out_dir", "save_dir", "work_dir", "save_path", "logdir"),
        ("output", "run.output"),
    ),
    **dict.fromkeys(("source", "src", "input", "images", "image", "path", "video"), ("sources", "source", "data")),
    **dict.fromkeys(
        ("dataset", "data_dir", "data_path", "data_root", "dataset_dir", "data_yaml", "dataset_file", "data"),
        ("data", "data.path", "path"),
    ),
    **dict.fromkeys(("class", "filter_classes", "cls", "class_ids"), ("classes",)),
    **dict.fromkeys(("save_crop", "crops", "save_crops"), ("crop",)),
    **dict.fromkeys(("save", "save_txt", "save_json", "save_img", "format", "save_conf"), ("formats",)),
    **dict.fromkeys(("vid_stride", "frame_stride", "skip_frames"), ("stride",)),
    **dict.fromkeys(("subset", "task"), ("split",)),
    **dict.fromkeys(("amp", "half", "fp16", "bf16", "mixed_precision"), ("run.precision",)),
    **dict.fromkeys(("opt", "optim"), ("optimizer.name",)),
    **dict.fromkeys(("random_seed", "manual_seed"), ("seed", "run.seed")),
    **dict.fromkeys(("freeze", "freeze_layers"), ("model.frozen",)),
    **dict.fromkeys(("accumulate_grad_batches", "grad_accum", "grad_accum_steps"), ("run.accumulate",)),
    **dict.fromkeys(("val_period", "eval_interval", "val_interval"), ("run.evaluate_every",)),
    **dict.fromkeys(("early_stopping", "early_stop"), ("run.patience",)),
    **dict.fromkeys(("wd", "decay"), ("optimizer.weight_decay",)),
    "cache": ("data.cache_mb",),
    "lrf": ("schedule.min_lr",),
    "warmup_epochs": ("schedule.burn_in_epochs",),
    "warmup": ("schedule.burn_in_epochs",),
    "close_mosaic": ("schedule.unmixed_epochs",),
    "mosaic": ("augmentation.mosaic_probability",),
    "mixup": ("augmentation.mixup_probability",),
    "fliplr": ("augmentation.flip_probability",),
    "degrees": ("augmentation.affine_degrees",),
    "backbone": ("model.backbone",),
    "neck": ("model.neck",),
}
"""A word of others, in lower case with underscores -> what it may be called here, the likeliest first."""

COMMANDS: Mapping[str, str] = {
    **dict.fromkeys(("val", "validate", "eval", "test"), "evaluate"),
    **dict.fromkeys(("detect", "infer", "inference", "track"), "predict"),
    **dict.fromkeys(("fit", "finetune", "fine-tune"), "train"),
    **dict.fromkeys(("convert",), "import"),
    **dict.fromkeys(("benchmark",), "bench necks"),
}
"""A command of others -> ours."""

P = ParamSpec("P")
R = TypeVar("R")


class UnknownOptionError(PyrafuseError, TypeError):
    """A keyword that a function does not take."""


def find_command(word: str) -> str | None:
    """Our command for one of other tools; None if it is none of theirs."""
    return COMMANDS.get(word.lower())


def find_habit(word: str, known: Collection[str]) -> str | None:
    """Which of ``known`` a word of other tools means here; None if it is none of theirs."""
    plain = word.lstrip("-").replace("-", "_").lower()
    return next((ours for ours in HABITS.get(plain, ()) if ours in known), None)


def hint_keywords(remarks: Mapping[str, str]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let the decorated function answer an unknown keyword with ours, or with one of ``remarks``."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        known = inspect.signature(function).parameters

        @functools.wraps(function)
        def call(*args: P.args, **keywords: P.kwargs) -> R:
            for word in keywords:
                if word not in known:
                    raise UnknownOptionError(_tell(function.__name__, word, known, remarks))
            return function(*args, **keywords)

        return call

    return decorate


def _tell(function: str, word: str, known: Collection[str], remarks: Mapping[str, str]) -> str:
    names = [name for name in known if name != "self"]
    if word in remarks:
        return f"{function}() takes no {word}=: {remarks[word]}"
    if near := find_habit(word, names) or nearest(word, names):
        return f"{function}() takes no {word}=; did you mean {near}=?"
    return f"{function}() takes no {word}=; it takes {', '.join(names)}"
