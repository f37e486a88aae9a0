"""What happens to one batch: forward, losses, and on the validation images detections."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import lightning as L
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from pyrafuse.backbones.staged import stop_norms
from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.images.normalizing import normalize
from pyrafuse.base.records import DetectionData
from pyrafuse.core.losses import LevelCriterion
from pyrafuse.core.targets import Batch, Targets
from pyrafuse.data.loading.loaders import EvalBatch
from pyrafuse.evaluation.coco import EVALUATION_SCORE, CocoEvaluator
from pyrafuse.evaluation.result import COCO_DETECTIONS, EvaluationResult
from pyrafuse.models.card import CARD_KEY, card_to_dict
from pyrafuse.models.detector import Detector
from pyrafuse.models.laying import LaidBatch
from pyrafuse.training.schedule import lr_factor
from pyrafuse.training.settings import OptimizerSettings, Recipe
from pyrafuse.training.validating import MeanLosses, validating
from pyrafuse.training.watching import NeckWatch


class DetectionModule(L.LightningModule):
    """A detector in training.

    Args:
        detector: What is trained.
        recipe: How.
        val_data: What evaluation compares with.
        steps_per_epoch: Images over batch size; a fraction says that the last batch is not full.
        recipe_values: The recipe as plain values, for the checkpoints.
    """

    def __init__(
        self,
        detector: Detector,
        recipe: Recipe,
        *,
        val_data: DetectionData,
        steps_per_epoch: float,
        recipe_values: dict[str, Any],
    ) -> None:
        super().__init__()
        self.detector = detector
        self.recipe = recipe
        self.best: EvaluationResult | None = None
        self._criterion = cast("LevelCriterion", detector.criterion)
        self._val_data = val_data
        self.steps_per_epoch = steps_per_epoch
        self.recipe_values = recipe_values
        self._evaluator = self._new_evaluator()
        self._val_losses = MeanLosses()
        self._watch = NeckWatch()
        self._batch_size = 0

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of one batch."""
        images = normalize(self.detector.card.preprocessing, batch.images, batch.sizes)
        with self._watch.watching(self.detector.neck):
            predictions = self.detector(images, batch.targets, sizes=batch.sizes)
        report = self._criterion.by_level(predictions, batch.targets)
        total = torch.stack(list((terms := report.terms).values())).sum()
        self._watch.follow(total)
        size = len(images)
        self.log("train/loss_step", total, on_step=True, on_epoch=False, batch_size=size)
        values = {"train/loss": total}
        values |= {f"train/loss_{name}": value for name, value in terms.items()}
        of_levels = report.of_levels
        strides = self.detector.neck.features.strides
        for level, stride in enumerate(strides):
            values[f"level/stride_{stride}/loss"] = of_levels[level]
            values |= {f"level/stride_{stride}/loss_{name}": v[level] for name, v in report.losses.items()}
            values[f"level/stride_{stride}/positives"] = report.num_positives[level] / size
        averaged = {k: v.detach() for k, v in values.items()} | self._watch.weights
        self.log_dict(averaged, on_step=False, on_epoch=True, batch_size=size, sync_dist=True)
        self._batch_size = size
        return total

    def on_after_backward(self) -> None:
        """Log how strongly each level of the neck's output is pulled at."""
        self.log_dict(self._watch.gradients, on_step=False, on_epoch=True, batch_size=self._batch_size, sync_dist=True)

    def on_train_epoch_start(self) -> None:
        """Keep the statistics of what has a learning rate of 0: it stays as it was, and is evaluated so."""
        if base_lr(self.recipe) == 0:
            stop_norms(self.detector)
        elif self.recipe.optimizer.backbone_lr == 0 and self.recipe.model.brings_weights:
            stop_norms(self.detector.backbone)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Set the learning rate of this step."""
        factor = lr_factor(
            self.recipe.schedule,
            epoch=self.current_epoch,
            step=batch_idx,
            steps_per_epoch=self.steps_per_epoch,
            epochs=self.recipe.run.epochs,
        )
        optimizer = self.optimizers()
        for group in optimizer.param_groups:  # type: ignore[union-attr]
            group["lr"] = group["base_lr"] * factor
        self.log("lr", factor * base_lr(self.recipe), on_step=False, on_epoch=True, batch_size=1)

    def _new_evaluator(self) -> CocoEvaluator:
        return CocoEvaluator(self._val_data, max_detections=self.recipe.run.max_detections or COCO_DETECTIONS)

    def on_validation_epoch_start(self) -> None:
        """Begin an evaluation."""
        self._evaluator = self._new_evaluator()
        self._val_losses = MeanLosses()

    def validation_step(self, batch: EvalBatch, batch_idx: int) -> None:
        """Detect in one batch of validation images, and compute its losses."""
        images, targets = batch.batch.images, batch.batch.targets
        laid = LaidBatch.of(images, batch.fits, self.detector.card.preprocessing, device=images.device)
        # in float32 and down to unlikely detections, as `evaluate` does: the two must agree
        postprocess = replace(self.detector.postprocess, score=EVALUATION_SCORE)
        if self.recipe.run.max_detections is not None:
            postprocess = replace(postprocess, max_detections=self.recipe.run.max_detections)
        with torch.autocast(images.device.type, enabled=False), validating(images.device):
            predictions, to_learn = self.detector.predict_and_learn(laid.images, targets, sizes=laid.sizes)
            found = self.detector.detect_in(laid, postprocess=postprocess, predictions=predictions)
            self._add_losses(to_learn, targets)
        self._evaluator.update(batch.batch.indices.tolist(), found)

    def _add_losses(self, predictions: Any, targets: Targets) -> None:
        self._val_losses.add(self._criterion.by_level(predictions, targets), num_images=len(targets.labels))

    def on_validation_epoch_end(self) -> None:
        """Put the detections of all processes together, and judge them."""
        if dist.is_available() and dist.is_initialized():
            parts: list[Any] = [None] * dist.get_world_size()
            dist.all_gather_object(parts, (self._evaluator.rows(), self._val_losses.sums()))
            for rank, (rows, sums) in enumerate(parts):
                if rank != dist.get_rank():
                    self._evaluator.merge(rows)
                    self._val_losses.merge(sums)
        result = self._evaluator.compute()
        if self.best is None or not result.ap <= self.best.ap:
            self.best = result
        figures = {f"val/{name}": value for name, value in result.figures().items()}
        figures["val/ap"] = 0.0 if math.isnan(result.ap) else result.ap  # the best checkpoint is chosen by it
        figures |= {f"val/{name}": value for name, value in self._val_losses.means().items()}
        self.log_dict({k: v for k, v in figures.items() if not math.isnan(v)}, batch_size=1)

    def configure_optimizers(self) -> Optimizer:
        """SGD or AdamW over groups: backbone, offsets and rest, decayed and not."""
        settings = self.recipe.optimizer
        if not self.recipe.model.brings_weights:
            settings = replace(settings, backbone_lr=1.0)
        return create_optimizer(self.detector, settings, lr=base_lr(self.recipe))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what `load` needs, the best evaluation so far, the precision, and the state of the random numbers."""
        checkpoint["precision"] = self.trainer.precision
        checkpoint["best_evaluation"] = None if self.best is None else self.best.to_dict(with_curves=True)
        checkpoint[CARD_KEY] = {"card": card_to_dict(self.detector.card), "recipe": self.recipe_values}
        checkpoint["random_state"] = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            checkpoint["random_state"]["cuda"] = torch.cuda.get_rng_state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with the random numbers where they stopped, and with the evaluation that is to be beaten.

        Raises:
            PyrafuseError: If the run's optimizer had other groups of parameters.
        """
        self.check_optimizer(checkpoint)
        best = checkpoint.get("best_evaluation")
        self.best = None if best is None else EvaluationResult.from_dict(best)
        torch.set_rng_state(checkpoint["random_state"]["cpu"].cpu())
        if torch.cuda.is_available() and "cuda" in checkpoint["random_state"]:
            torch.cuda.set_rng_state(checkpoint["random_state"]["cuda"].cpu())

    def check_optimizer(self, checkpoint: Mapping[str, Any]) -> None:
        """Refuse a checkpoint whose optimiser has other groups of parameters.

        Raises:
            PyrafuseError: With both.
        """
        began = [len(group["params"]) for group in checkpoint["optimizer_states"][0]["param_groups"]]
        now = [len(group["params"]) for group in self.configure_optimizers().param_groups]
        if began != now:
            raise PyrafuseError(
                f"the run began with groups of {began} parameters in its optimizer, and these options make groups of "
                f"{now}: resume with the options it began with; before there was optimizer.offset_lr it was 1"
            )

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Move a batch without waiting for it."""
        return batch.to(device, non_blocking=True)


def base_lr(recipe: Recipe) -> float:
    """The learning rate for the recipe's batch: in proportion to it."""
    return recipe.optimizer.lr * recipe.run.batch_size / recipe.optimizer.lr_batch


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


def _offset_lr(path: Sequence[str], settings: OptimizerSettings) -> float:
    finds_offsets = any(module.startswith("offset") for module in path[:-1])
    if not finds_offsets:
        return 1.0
    if settings.offset_lr is None:
        return 0.01 if settings.name == "adamw" else 1.0
    return settings.offset_lr
