"""One set of weights for all graphs of a space: paths through it are trained in turns, and any graph is judged by it.

Guo et al., "Single path one-shot neural architecture search", arXiv:1904.00420; Chu, Zhang and Xu, "FairNAS",
arXiv:1907.01845; Liang et al., "OPANAS", arXiv:2103.04507. Deviations: the supernet is never built as a whole; it is
the parameters of all graphs that were drawn so far. The numbers of channels and of levels are drawn, too, and other
channels are other parameters.
fair draws -> detectors with shared parameters -> gradients of a round, summed -> a step; graph -> norms' statistics
measured anew -> loss on the validation images
"""

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from hashlib import blake2b
from itertools import islice
from json import dumps
from typing import Any, Literal

import torch
from torch import nn

from pyrafuse.base.errors import CheckpointError, PyrafuseError
from pyrafuse.base.interrupts import hold_interrupts
from pyrafuse.base.parts import plain, to_plain
from pyrafuse.base.printable import counted
from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.models.detector import Detector
from pyrafuse.necks.graph import Graph
from pyrafuse.search.choices import Candidate, Space
from pyrafuse.search.fairness import FairChooser
from pyrafuse.search.growing import GrowingOptimizer
from pyrafuse.search.learners import compute_loss, create_candidate, draw_seed, without_traces
from pyrafuse.search.material import Material
from pyrafuse.search.settings import rate_factor, shorten
from pyrafuse.search.shared_file import WEIGHT, Progress, read_shared, write_shared
from pyrafuse.search.shared_parameters import Bank, find_batch_norms, use_group_norms
from pyrafuse.search.space import draw
from pyrafuse.search.views import MapBatch
from pyrafuse.training.averaging import own_buffers
from pyrafuse.training.progress import duration
from pyrafuse.training.settings import Recipe

VERSION = 1
"""Another one, and shared weights are trained anew."""

SHARED_FILE = "shared-weights.safetensors"
MAX_REFUSED = 300
"""Paths in a row over the budget, after which the training is given up."""
SAVE_EVERY_S = 30.0
"""Seconds of training, or 20 times those of writing, that a killed process can lose; Ctrl-C costs one round."""
RECALIBRATING_BATCHES = 4
JUDGING_BATCHES = 8
"""Largest number of batches of validation images that a graph is judged on."""

Norms = Literal["recalibrated", "group"]
NORMS: tuple[Norms, ...] = ("recalibrated", "group")


class Supernet:
    """Shared weights of a search, which are kept in its folder.

    Args:
        material: What the search has at hand.
        rounds: Number of rounds, each of which is a step of the optimiser.
        paths: Number of paths a round; they learn from the same batch, and their gradients are summed.
        norms: ``recalibrated`` measures the statistics of batch norms anew for each graph that is judged; ``group`` has
            group norms in the place of batch norms, which need none.

    Attributes:
        bank: Shared parameters.
        progress: How far they are trained.
        digest: What tells these weights from others; empty before they are trained in full.
    """

    def __init__(self, material: Material, *, rounds: int, paths: int, norms: Norms) -> None:
        self._material, self._rounds, self._paths, self._norms = material, rounds, paths, norms
        given = material.settings
        settings = replace(given, rungs=(rounds,), warmup_steps=given.warmup_steps and min(given.warmup_steps, rounds))
        self._recipes = {
            size: shorten(material.recipe, settings, len(each.views[0])) for size, each in material.features.items()
        }
        self._path = material.folder / SHARED_FILE
        self._identity = _digest([VERSION, material.head, rounds, paths, norms])
        self.bank, self.progress, self.digest = Bank(), Progress(), ""
        self._optimizer = GrowingOptimizer(self._recipe)
        try:
            progress, tensors, digest = read_shared(self._path, self._identity)
            if progress.draws > MAX_REFUSED * rounds * paths:
                raise CheckpointError(f"{self._path} is damaged: nobody draws {progress.draws} paths")
        except FileNotFoundError:
            return
        except CheckpointError as error:
            material.tell(f"{error}: the shared weights are trained anew")
            return
        self.progress = progress
        self.bank = Bank({name.removeprefix(f"{WEIGHT} "): x for name, x in tensors.items() if name.startswith(WEIGHT)})
        others = {name: x for name, x in tensors.items() if not name.startswith(WEIGHT)}
        self._optimizer = GrowingOptimizer(self._recipe, others)
        self.digest = digest if self.is_trained else ""

    @property
    def is_trained(self) -> bool:
        """Whether all rounds are done."""
        return self.progress.rounds >= self._rounds

    # training

    def train(self, space: Space, inputs: PyramidSpec) -> None:
        """Do the rounds that are not done yet.

        Raises:
            PyrafuseError: If no path is within the budget, all paths of a round fail, or nothing could be learnt.
            KeyboardInterrupt: When it is interrupted; whole rounds are kept.
        """
        if not self.is_trained:
            self._do_rounds(space, inputs)
        if self.progress.dropped == self._rounds:
            raise PyrafuseError("shared weights have learnt nothing: no gradient was a number; lower the learning rate")

    def _do_rounds(self, space: Space, inputs: PyramidSpec) -> None:
        chooser = FairChooser(self._material.settings.seed)
        for _ in range(self.progress.draws):  # the draws of rounds that are done, to go on as they would have
            draw(space, inputs, chooser)
        began, first = time.monotonic(), self.progress
        next_save = began + SAVE_EVERY_S
        self._material.tell(
            f"training shared weights: {self._rounds - first.rounds} of {counted(self._rounds, 'round')} of "
            f"{counted(self._paths, 'path')}"
        )
        try:
            while not self.is_trained:
                with without_traces(self._material.device):
                    self._do_round(space, inputs, chooser)
                now = time.monotonic()
                if now > next_save and not self.is_trained:
                    self._save()
                    next_save = time.monotonic() + max(SAVE_EVERY_S, 20 * (time.monotonic() - now))
                    per_round = (now - began) / (self.progress.rounds - first.rounds)
                    left = duration(per_round * (self._rounds - self.progress.rounds))
                    self._material.tell(f"shared weights: {self.progress.rounds} of {self._rounds}, about {left} left")
        finally:
            if self.progress != first:
                with hold_interrupts():
                    self._save()
        self._tell_end()

    def _do_round(self, space: Space, inputs: PyramidSpec, chooser: FairChooser) -> None:
        began, material, number = time.monotonic(), self._material, self.progress.rounds
        self._optimizer.clear()
        batches: dict[int, MapBatch] = {}
        draws = passed_over = failed = 0
        for place in range(self._paths):
            candidate, drawn = self._draw_path(space, inputs, chooser)
            draws, passed_over = draws + drawn, passed_over + drawn - 1
            size = candidate.size
            if size not in batches:
                batches[size] = self._learning_batches(size, number, 1)[0]
            torch.manual_seed(draw_seed(material.settings.seed, f"round {number}", place))
            try:
                detector = self._create(candidate.graph, size, grows=True).train()
                loss = compute_loss(
                    detector, batches[size], material.features[size].size, precision=material.settings.precision
                )
                loss.backward()
            except Exception as error:  # parts of users fail in their own ways
                failed += 1
                if failed == self._paths:
                    raise PyrafuseError(f"all paths of a round failed; the last one: {error}") from error
        with hold_interrupts():
            num_images = min(len(each.views[0]) for each in material.features.values())
            rate = rate_factor(self._recipe, number, steps=self._rounds, num_images=num_images)
            has_moved, before = self._optimizer.move(rate), self.progress
            self.progress = Progress(
                rounds=number + 1,
                draws=before.draws + draws,
                passed_over=before.passed_over + passed_over,
                failed=before.failed + failed,
                dropped=before.dropped + (not has_moved),
                seconds=before.seconds + time.monotonic() - began,
            )

    def _draw_path(self, space: Space, inputs: PyramidSpec, chooser: FairChooser) -> tuple[Candidate, int]:
        """The next path within the budget, and the number of draws for it."""
        excess = ""
        for drawn in range(1, MAX_REFUSED + 1):
            candidate = draw(space, inputs, chooser)
            excess = self._material.find_excess(candidate)
            if not excess:
                return candidate, drawn
        raise PyrafuseError(
            f"shared weights cannot be trained: {MAX_REFUSED} graphs in a row are over the budget, the last one with "
            f"{excess}. Allow more, or choose another strategy"
        )

    @property
    def _recipe(self) -> Recipe:
        return next(iter(self._recipes.values()))

    def _create(self, graph: Graph, size: int, *, grows: bool) -> Detector[Any]:
        """A detector with shared parameters; random numbers are those that are set."""
        material = self._material
        detector = create_candidate(material.card, graph, material.features[size].spec, material.settings)
        own_buffers(detector)
        if self._norms == "group":
            use_group_norms(detector)
        detector.to(material.device)
        added = self.bank.share(detector, grows=grows)
        if added and not self.is_trained:
            self._optimizer.adopt(detector, added)
        return detector

    def _save(self) -> None:
        """Write what a later session needs; numbers of the optimiser only as long as there are rounds to do."""
        tensors = {f"{WEIGHT} {key}": tensor for key, tensor in self.bank.to_tensors().items()}
        if self.is_trained:
            self._optimizer = GrowingOptimizer(self._recipe)
        digest = write_shared(self._path, self._identity, self.progress, tensors | self._optimizer.to_tensors())
        self.digest = digest if self.is_trained else ""

    def _tell_end(self) -> None:
        done = self.progress
        numbers = sum(tensor.numel() for tensor in self.bank.to_tensors().values())
        words = f"shared weights: {done.rounds * self._paths - done.failed} paths trained {numbers:,} parameters"
        for count, what in (
            (done.passed_over, "paths over the budget passed over"),
            (done.failed, "paths failed"),
            (done.dropped, "rounds dropped, whose gradients were no numbers"),
        ):
            words += f", {count} {what}" if count else ""
        self._material.tell(f"{words}; {duration(done.seconds)}")

    # judging

    @torch.no_grad()
    def judge(self, name: str, graph: Graph, size: int) -> float:
        """The loss of a graph with shared weights on validation images; parts that no path had are as they were drawn.

        It depends on the shared weights, on ``name`` and on the seed: not on which graphs were judged before.

        Args:
            name: Fingerprint of the graph.
            graph: Neck.
            size: Side of the network's input in pixels.

        Raises:
            PyrafuseError: If the loss is no number.
        """
        material = self._material
        if size not in material.features:
            raise PyrafuseError(f"there are no cached maps of {size} px")
        features, precision = material.features[size], material.settings.precision
        with without_traces(material.device):
            torch.manual_seed(draw_seed(material.settings.seed, name, "shared weights"))
            detector = self._create(graph, size, grows=False)
            if norms := find_batch_norms(detector):
                batches = self._learning_batches(size, 0, RECALIBRATING_BATCHES)
                recalibrate(detector, norms, batches, features.size, precision=precision)
            detector.eval()
            held_out = features.val_batches(batch_size=self._recipes[size].run.batch_size, device=material.device)
            total, count = torch.zeros((), device=material.device), 0
            for rows, batch in islice(held_out, JUDGING_BATCHES):
                total += len(rows) * compute_loss(detector, batch, features.size, precision=precision)
                count += len(rows)
        loss = (total / count).item()
        if not math.isfinite(loss):
            raise PyrafuseError(f"the loss with shared weights is {loss}")
        return loss

    def _learning_batches(self, size: int, first: int, count: int) -> list[MapBatch]:
        features, batch_size = self._material.features[size], self._recipes[size].run.batch_size
        found = features.batches(
            first,
            first + count,
            batch_size=batch_size,
            seed=self._material.settings.seed,
            device=self._material.device,
        )
        return [batch for _, batch in found]


def recalibrate(
    detector: Detector[Any],
    norms: Sequence[nn.BatchNorm2d],
    batches: Sequence[MapBatch],
    size: tuple[int, int],
    *,
    precision: str,
) -> None:
    """Measure the statistics of ``norms`` anew: the mean over ``batches``, whatever they were before."""
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean of all batches
    detector.train()
    for batch in batches:
        compute_loss(detector, batch, size, precision=precision)


def _digest(values: Any) -> str:
    return blake2b(dumps(to_plain(plain(values)), sort_keys=True).encode(), digest_size=16).hexdigest()
