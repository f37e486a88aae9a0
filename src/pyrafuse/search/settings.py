"""How candidates are judged: every lever of the proxy as a value, and the recipe that follows from it.

settings + recipe of the full training -> recipe of the short one
"""

from dataclasses import dataclass, replace
from typing import Literal

from pyrafuse.base.errors import PyrafuseError, check_between, check_count
from pyrafuse.search.halving import check_rungs
from pyrafuse.training.schedule import lr_factor
from pyrafuse.training.settings import DropBlockSettings, Recipe

LEAST_GRAPHS = 4
"""Fewest graphs that a rank correlation is computed of."""


@dataclass(frozen=True)
class ProxySettings:
    """How a candidate is judged. What is None is the recipe's own.

    Attributes:
        views: Number of views of each training image that maps are cached of; an epoch has one of them.
        rungs: Numbers of steps, counted from the first one, after which candidates are compared.
        eta: After each rung but the last, one of so many candidates goes on.
        score: What candidates are compared by: ``loss`` is the mean training loss over the steps of the rung, ``ap``
            the average precision on the validation images at its end. After the last rung both are measured.
        batch_size: Images per step.
        lr: Learning rate for this batch; by default the recipe's, in proportion to the batch.
        warmup_steps: Steps over which the rate rises; by default the recipe's, but no more than a quarter of all.
        ema: Decay of the averaged weights that AP is measured with; 0 is off.
        head_convs: Largest number of convolutions in each tower of the head; None keeps the described head's.
        head_channels: Largest number of channels of these; None keeps the described head's.
        precision: What convolutions compute in: ``32`` or ``bf16``.
        seed: Seed of the order of the images, the weights and all else that is drawn.

    Raises:
        PyrafuseError: If a value is out of its range.
    """

    views: int = 4
    rungs: tuple[int, ...] = (32, 96, 288)
    eta: int = 3
    score: Literal["loss", "ap"] = "loss"
    batch_size: int = 16
    lr: float | None = None
    warmup_steps: int | None = None
    ema: float | None = None
    head_convs: int | None = 1
    head_channels: int | None = 48
    precision: Literal["32", "bf16"] = "32"
    seed: int = 0

    def __post_init__(self) -> None:
        check_rungs(self.rungs, self.eta)
        check_count("views", self.views, 1)
        check_count("batch_size", self.batch_size, 1)
        check_between("lr", self.lr, 0)
        check_between("warmup_steps", self.warmup_steps, 0, self.rungs[-1])
        check_between("ema", self.ema, 0, 0.999999)
        check_between("head_convs", self.head_convs, 0)
        check_between("head_channels", self.head_channels, 1)
        for name, choices in (("score", ("loss", "ap")), ("precision", ("32", "bf16"))):
            if getattr(self, name) not in choices:
                raise PyrafuseError(f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}")


@dataclass(frozen=True)
class FullTrainings:
    """Trainings in full, unfrozen, that follow a search.

    Attributes:
        confirm: Whether the best necks, those made by hand and the best of a random search at equal cost are trained.
        correlate: Number of random graphs whose ranking by the search is held against full trainings; 0 for none.
        seeds: Each neck is trained once with each; the graphs of ``correlate`` with the first two.
        epochs: Epochs of each; by default the recipe's.
        parallel: Trainings at a time; by default one a GPU, one on the processor.

    Raises:
        PyrafuseError: If a value is out of its range.
    """

    confirm: bool = False
    correlate: int = 0
    seeds: tuple[int, ...] = (0, 1, 2)
    epochs: int | None = None
    parallel: int | None = None

    def __post_init__(self) -> None:
        if self.correlate:
            check_count("the number of graphs to correlate", self.correlate, LEAST_GRAPHS)
        if len(set(self.seeds)) < 2:
            raise PyrafuseError(f"full trainings need two seeds or more to have a spread, got {list(self.seeds)}")
        if self.epochs is not None:
            check_count("epochs of full trainings", self.epochs, 1)


def shorten(recipe: Recipe, settings: ProxySettings, num_images: int) -> Recipe:
    """``recipe`` for the steps of ``settings`` on ``num_images``: what it does not set stays the recipe's."""
    batch_size = min(settings.batch_size, num_images)
    per_epoch = -(-num_images // batch_size)
    schedule, optimizer, run = recipe.schedule, recipe.optimizer, recipe.run
    warmup = settings.warmup_steps
    if warmup is None:
        warmup = min(schedule.burn_in_steps or schedule.burn_in_epochs * per_epoch, settings.rungs[-1] / 4)
    if settings.lr is not None:
        optimizer = replace(optimizer, lr=settings.lr, lr_batch=batch_size)
    ema = run.ema if settings.ema is None else settings.ema
    return replace(
        recipe,
        optimizer=optimizer,
        schedule=replace(
            schedule,
            burn_in_epochs=warmup / per_epoch,
            burn_in_steps=0,
            hold_epochs=0.0,
            closing_epochs=0,
            steps=(),
            by_epoch=False,
        ),
        dropblock=DropBlockSettings(),
        run=replace(run, batch_size=batch_size, accumulate=1, ema=ema),
    )


def rate_factor(recipe: Recipe, step: int, *, steps: int, num_images: int) -> float:
    """The learning rate at ``step`` of ``steps``, relative to the base rate; ``recipe`` is one of `shorten`'s."""
    per_epoch = -(-num_images // recipe.run.batch_size)
    epoch, place = divmod(step, per_epoch)
    return lr_factor(recipe.schedule, epoch=epoch, step=place, steps_per_epoch=per_epoch, epochs=steps / per_epoch)
