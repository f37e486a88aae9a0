"""What moves the parameters: groups with rates of their own, and which of them a run began with."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.training.settings import OptimizerSettings, Recipe


def base_lr(recipe: Recipe) -> float:
    """The learning rate for the recipe's batch: in proportion to it."""
    return recipe.optimizer.lr * recipe.run.batch_size / recipe.optimizer.lr_batch


def optimizer_for(detector: nn.Module, recipe: Recipe) -> Optimizer:
    """The recipe's optimiser; a backbone that starts from nothing learns as fast as the rest."""
    settings = recipe.optimizer
    if not recipe.model.brings_weights:
        settings = replace(settings, backbone_lr=1.0)
    return create_optimizer(detector, settings, lr=base_lr(recipe))


def check_optimizer(saved: Mapping[str, Any], optimizer: Optimizer) -> None:
    """Refuse the state of an optimiser that has other groups of parameters.

    Raises:
        PyrafuseError: With both.
    """
    began = [len(group["params"]) for group in saved["param_groups"]]
    now = [len(group["params"]) for group in optimizer.param_groups]
    if began != now:
        raise PyrafuseError(
            f"the run began with groups of {began} parameters in its optimizer, and these options make groups of "
            f"{now}: resume with the options it began with; before there was optimizer.offset_lr it was 1"
        )


def create_optimizer(detector: nn.Module, settings: OptimizerSettings, *, lr: float) -> Optimizer:
    """Optimiser over groups: of the backbone or not, decayed or not, and offsets that have a rate of their own.

    A run that goes on needs the groups it began with, also those that do not differ.
    """
    groups: dict[tuple[bool, bool, float], list[nn.Parameter]] = {}
    for name, parameter in detector.named_parameters():
        if parameter.requires_grad:
            is_decayed = settings.decay_all or parameter.ndim > 1
            path = name.split(".")
            groups.setdefault((path[0] == "backbone", is_decayed, _offset_lr(path, settings)), []).append(parameter)
    described = []
    for (is_backbone, is_decayed, offset_lr), parameters in groups.items():
        rate = lr * (settings.backbone_lr if is_backbone else 1) * offset_lr
        decay = settings.weight_decay if is_decayed else 0.0
        described.append({"params": parameters, "lr": rate, "base_lr": rate, "weight_decay": decay})
    if settings.name == "adamw":
        return AdamW(described, betas=(settings.momentum, 0.999), foreach=True)
    return SGD(described, momentum=settings.momentum, foreach=True)


def set_rate(optimizer: Optimizer, factor: float) -> None:
    """Set the learning rate of each group of `create_optimizer`'s, relative to the one that it was made with."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor


def _offset_lr(path: Sequence[str], settings: OptimizerSettings) -> float:
    finds_offsets = any(module.startswith("offset") for module in path[:-1])
    if not finds_offsets:
        return 1.0
    if settings.offset_lr is None:
        return 0.01 if settings.name == "adamw" else 1.0
    return settings.offset_lr
