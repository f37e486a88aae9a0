"""Necks judged by a short training: several, each with a light head, learn from the same batches of cached maps.

graphs -> detectors on given maps -> steps on the same batches -> loss of the rung -> the best go on -> AP at the end

Rate, schedule, averaged weights and losses are those of the recipe that the winners are trained by in full.
"""

import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from copy import copy
from dataclasses import replace
from itertools import groupby

import torch
from torch import Tensor

from pyrafuse.base.card import Card
from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.images.fitting import Fit
from pyrafuse.base.records import DetectionData
from pyrafuse.evaluation.coco import EVALUATION_SCORE, CocoEvaluator
from pyrafuse.evaluation.result import COCO_DETECTIONS
from pyrafuse.models.laying import LaidBatch
from pyrafuse.necks.graph import Graph
from pyrafuse.search.features import Features
from pyrafuse.search.learners import (
    Learner,
    Outcome,
    Rung,
    compute_loss,
    create_candidate,
    draw_seed,
    failing,
    hand,
    without_traces,
)
from pyrafuse.search.racing import Candidates, TimeOver, race
from pyrafuse.search.settings import ProxySettings, rate_factor, shorten
from pyrafuse.search.views import MapBatch
from pyrafuse.training.optimizing import set_rate
from pyrafuse.training.settings import Recipe
from pyrafuse.training.state import State, create_state
from pyrafuse.training.validating import chosen_by

LOOK_EVERY = 10
"""Steps after which losses are looked at: the device waits for each look."""


class Proxy:
    """Judges graphs on cached maps.

    A candidate's numbers depend on its graph, its fingerprint and the seed: not on which others learn beside it.

    Args:
        card: Card of the described detector, with its whole description.
        recipe: Recipe that the winners are trained by: optimiser, schedule and averaging are its own.
        features: Cached maps by the side of the network's input in pixels.
        val: Validation images.
        settings: How candidates are judged.
        device: Device to train on.
    """

    def __init__(
        self,
        card: Card,
        recipe: Recipe,
        features: Mapping[int, Features],
        val: DetectionData,
        settings: ProxySettings,
        *,
        device: torch.device,
    ) -> None:
        self.settings = settings
        self.device = device
        self._card = card
        self._features = features
        self._val = val
        self._recipes = {size: shorten(recipe, settings, len(each.views[0])) for size, each in features.items()}

    def race(
        self, candidates: Candidates, tell: Callable[[Outcome], None] = lambda _: None, *, seconds: float = math.inf
    ) -> dict[str, Outcome]:
        """Judge ``candidates`` by successive halving, all of them in this process.

        Args:
            candidates: All of them begin together.
            tell: Called with each outcome at the end of a rung, or of a failure.
            seconds: Seconds that this may take; the step that is being done then is finished.

        Returns:
            The outcome of each.

        Raises:
            TimeOver: If the seconds are over first.
        """
        deadline = time.monotonic() + seconds
        trainees = Trainees(self)

        def train(running: Candidates, until: int) -> list[Outcome]:
            trainees.keep(running)
            return trainees.train(running, until=until, deadline=deadline)

        return race(candidates, train, self.settings, tell)

    def on(self, device: torch.device) -> "Proxy":
        """The same proxy, which trains on ``device``."""
        other = copy(self)
        other.device = device
        return other

    def begin(self, fingerprint: str, graph: Graph, size: int) -> Learner:
        """A candidate before its first step; one that cannot be built has failed."""
        learner = Learner(fingerprint, size)
        with without_traces(self.device):
            torch.manual_seed(draw_seed(self.settings.seed, fingerprint, "weights"))
            with failing(learner):
                if size not in self._features:
                    known = ", ".join(map(str, self._features))
                    raise PyrafuseError(f"there are no cached maps of {size} px, but of {known} px")
                detector = create_candidate(self._card, graph, self._features[size].spec, self.settings)
                learner.state = create_state(
                    detector, self._recipes[size], device=self.device, precision=self.settings.precision
                )
        return learner

    def learn(self, learners: Sequence[Learner], *, until: int, deadline: float = math.inf) -> None:
        """Train ``learners`` up to step ``until``, where their rung ends; those of one size share each batch.

        One that fails is stopped with a reason, and the others go on.

        Raises:
            TimeOver: If `time.monotonic` reaches ``deadline`` first; learners are then between two rungs.
        """
        with without_traces(self.device):
            by_size = sorted(learners, key=lambda one: one.size)
            for size, group in groupby(by_size, key=lambda one: one.size):
                self._learn_at(size, list(group), until, deadline)

    def _learn_at(self, size: int, learners: Sequence[Learner], until: int, deadline: float) -> None:
        start, features, recipe = time.perf_counter(), self._features[size], self._recipes[size]
        spent = {one.fingerprint: 0.0 for one in learners}
        first = min((one.state.steps for one in learners if one.state is not None), default=until)
        for one in learners:
            if one.state is not None:
                one.state.detector.train()
        for step, batch in features.batches(
            first, until, batch_size=recipe.run.batch_size, seed=self.settings.seed, device=self.device
        ):
            factor = rate_factor(recipe, step, steps=self.settings.rungs[-1], num_images=len(features.views[0]))
            for one in learners:
                if one.state is None or one.state.steps != step:
                    continue
                _check_time(deadline)
                began = time.perf_counter()
                torch.manual_seed(draw_seed(self.settings.seed, one.fingerprint, step))
                with failing(one):
                    self._step(one, one.state, recipe, batch, factor)
                spent[one.fingerprint] += time.perf_counter() - began
        measures_ap = self.settings.score == "ap" or until == self.settings.rungs[-1]
        ended: list[tuple[Learner, float, float | None]] = []
        for one in learners:
            if one.state is None:
                continue
            _check_time(deadline)
            began = time.perf_counter()
            with failing(one):
                loss = _mean_of(one.losses)
                ended.append((one, loss, self._measure(one.state, size) if measures_ap else None))
                one.losses = []
            spent[one.fingerprint] += time.perf_counter() - began
        scale = (time.perf_counter() - start) / max(sum(spent.values()), 1e-9)
        for one, loss, ap in ended:
            one.rungs.append(Rung(until, loss, ap, scale * spent[one.fingerprint]))

    def _step(self, learner: Learner, state: State, recipe: Recipe, batch: MapBatch, factor: float) -> None:
        set_rate(state.optimizer, factor)
        size = self._features[learner.size].size
        loss = compute_loss(state.detector, batch, size, precision=self.settings.precision)
        state.scaler.scale(loss).backward()
        state.move(recipe)
        learner.losses.append(loss.detach())
        if state.steps % LOOK_EVERY == 0:
            _mean_of(learner.losses[-LOOK_EVERY:])

    @torch.inference_mode()
    def _measure(self, state: State, size: int) -> float:
        """Average precision on the validation images, as an evaluation measures it."""
        detector, recipe, features = state.evaluated.eval(), self._recipes[size], self._features[size]
        evaluator = CocoEvaluator(self._val, max_detections=recipe.run.max_detections or COCO_DETECTIONS)
        postprocess = replace(detector.postprocess, score=EVALUATION_SCORE)
        preprocessing = self._card.preprocessing.at_size(features.size)
        for rows, batch in features.val_batches(batch_size=recipe.run.batch_size, device=self.device):
            records = [self._val.records[row] for row in rows]
            fits = [Fit.of(record.height, record.width, preprocessing) for record in records]
            hand(detector, batch.maps)
            laid = LaidBatch(torch.empty(len(rows), 3, *features.size, device="meta"), fits)
            evaluator.update(rows, detector.detect_in(laid, postprocess=postprocess))
        hand(detector, ())
        return chosen_by(evaluator.compute())


class Trainees:
    """The candidates of a race that one process trains: each is kept from rung to rung.

    Args:
        proxy: What trains them.
    """

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._learners: dict[str, Learner] = {}

    def keep(self, names: Collection[str]) -> None:
        """Forget all candidates but ``names``, and give their memory back."""
        self._learners = {name: learner for name, learner in self._learners.items() if name in names}

    def train(self, candidates: Candidates, *, until: int, deadline: float = math.inf) -> list[Outcome]:
        """Train ``candidates`` up to the rung that ends at step ``until``: unknown ones from their first step.

        Raises:
            TimeOver: If `time.monotonic` reaches ``deadline`` first.
        """
        for name, (graph, size) in candidates.items():
            if name not in self._learners:
                self._learners[name] = self._proxy.begin(name, graph, size)
        learners = [self._learners[name] for name in candidates]
        for rung in (rung for rung in self._proxy.settings.rungs if rung <= until):
            behind = [one for one in learners if one.state is not None and one.state.steps < rung]
            self._proxy.learn(behind, until=rung, deadline=deadline)
        return [learner.outcome for learner in learners]


def _check_time(deadline: float) -> None:
    if time.monotonic() >= deadline:
        raise TimeOver


def _mean_of(losses: Sequence[Tensor]) -> float:
    """The mean of ``losses``; one that is no number is refused."""
    values = torch.stack(list(losses)).tolist()
    for value in values:
        if not math.isfinite(value):
            raise PyrafuseError(f"the loss became {value}: lower the learning rate, or lengthen the warm-up")
    return math.fsum(values) / len(values)
