"""An optimiser whose parameters come to it one after the other.

new parameters of a detector -> groups as the recipe has them -> steps of those that have gradients
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pyrafuse.models.detector import Detector
from pyrafuse.training.optimizing import optimizer_for, set_rate
from pyrafuse.training.settings import Recipe


class GrowingOptimizer:
    """The recipe's optimiser over parameters that are known by keys.

    Args:
        recipe: Optimiser, rate and clipping of gradients.
        stored: Numbers of the optimiser from an earlier session, each named by what it is, a space and a key.
    """

    def __init__(self, recipe: Recipe, stored: Mapping[str, Tensor] | None = None) -> None:
        self._recipe = recipe
        self._stored = dict(stored or {})
        self._parameters: dict[str, nn.Parameter] = {}
        self._optimizer: Optimizer | None = None

    def adopt(self, detector: Detector[Any], added: Mapping[str, nn.Parameter]) -> None:
        """Move ``added`` parameters of ``detector`` from now on, with the rates and the decay that the recipe says."""
        self._parameters.update(added)
        key_of = {id(parameter): key for key, parameter in added.items()}
        groups = optimizer_for(detector, self._recipe).param_groups
        if self._optimizer is None:
            self._optimizer = optimizer_for(detector, self._recipe)
            for group in self._optimizer.param_groups:
                group["params"] = []
        known = {_kind_of(group): group for group in self._optimizer.param_groups}
        for group in groups:
            new = [parameter for parameter in group["params"] if id(parameter) in key_of]
            if _kind_of(group) in known:
                known[_kind_of(group)]["params"].extend(new)
            else:
                self._optimizer.add_param_group({**group, "params": new})
            for parameter in new:
                self._restore(self._optimizer, parameter, key_of[id(parameter)])

    def _restore(self, optimizer: Optimizer, parameter: nn.Parameter, key: str) -> None:
        for name in [name for name in self._stored if name.partition(" ")[2] == key]:
            value = self._stored[name]
            if value.ndim and value.shape == parameter.shape:
                value = torch.empty_like(parameter).copy_(value)
            optimizer.state[parameter][name.partition(" ")[0]] = value
            del self._stored[name]  # only now: an interruption before this line loses nothing

    def clear(self) -> None:
        """Forget gradients."""
        for parameter in self._parameters.values():
            parameter.grad = None

    def move(self, factor: float) -> bool:
        """Move what has gradients, at ``factor`` times the base rate.

        Returns:
            Whether it moved: gradients that are no numbers move nothing.
        """
        learning = [one for _, one in sorted(self._parameters.items()) if one.grad is not None]
        norm = nn.utils.clip_grad_norm_(learning, self._recipe.optimizer.clip_norm or math.inf)
        is_finite = bool(norm.isfinite())
        if is_finite and self._optimizer is not None:
            set_rate(self._optimizer, factor)
            self._optimizer.step()
        self.clear()
        return is_finite

    def to_tensors(self) -> dict[str, Tensor]:
        """The optimiser's own numbers, as ``stored`` takes them."""
        tensors = dict(self._stored)
        for key, parameter in self._parameters.items():
            state = {} if self._optimizer is None else self._optimizer.state.get(parameter, {})
            tensors |= {f"{name} {key}": value for name, value in state.items() if isinstance(value, Tensor)}
        return tensors


def _kind_of(group: Mapping[str, Any]) -> tuple[float, float]:
    return group["base_lr"], group["weight_decay"]
