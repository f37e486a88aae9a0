"""What the levels of a neck do in one training step, told without a second pass and without waiting for the device.

detector's forward (hooks) -> weights of the fusions, gradients at the neck's output -> means and norms, on the device
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pyrafuse.core.over_processes import mean_over_processes
from pyrafuse.core.pyramid import Neck, Pyramid
from pyrafuse.layers.fusion_weights import FusionWeights, find_fusions


class NeckWatch:
    """Values of the last step, as scalar tensors of the device by the name that they are logged under.

    Attributes:
        weights: ``fusion/stride_8/from_stride_16`` and so on: the mean weight of a source, for every fusion of the neck
            that is a `FusionWeights`.
    """

    def __init__(self) -> None:
        self.weights: dict[str, Tensor] = {}
        self._names: list[str] = []
        self._norms: dict[str, Tensor] = {}
        self._scale: Tensor | None = None

    @property
    def gradients(self) -> dict[str, Tensor]:
        """``level/stride_8/gradient`` and so on, finest first, there after the backward pass.

        The L2 norm of the gradient of the batch's loss at the neck's output of that level. Of a batch that several
        processes share, it is that of the whole batch: all of them read this once a step.
        """
        if not self._norms:
            return {}
        none = next(iter(self._norms.values())).new_zeros(())  # of a level that no loss reads
        norms = torch.stack([self._norms.get(name, none) for name in self._names])
        return dict(zip(self._names, _norm_of_all(norms).unbind(), strict=True))

    @contextmanager
    def watching(self, neck: Neck) -> Iterator[None]:
        """Watch ``neck`` while it runs inside the block; its hooks are gone afterwards."""
        self.weights, self._names, self._norms, self._scale = {}, [], {}, None
        handles = [
            fusion.register_forward_hook(partial(self._keep_weights, name))
            for name, fusion in find_fusions(neck).items()
        ]
        handles.append(neck.register_forward_hook(self._follow_levels))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def follow(self, loss: Tensor) -> None:
        """Divide the norms by the gradient that arrives at ``loss`` (): scaling for fp16 or for accumulation is undone.

        Called before the backward pass.
        """
        if loss.requires_grad:
            loss.register_hook(self._keep_scale)

    def _keep_weights(self, name: str, module: nn.Module, inputs: tuple[Any, ...], _: Tensor) -> None:
        assert isinstance(module, FusionWeights)
        for source, mean in zip(module.sources, module.mean(inputs[0]).unbind(), strict=True):
            self.weights[f"fusion/{name}/from_{source}"] = mean

    def _follow_levels(self, neck: nn.Module, _: Any, pyramid: Pyramid) -> None:
        assert isinstance(neck, Neck)
        for stride, x in zip(neck.features.strides, pyramid, strict=True):
            if x.requires_grad:
                self._names.append(name := f"level/stride_{stride}/gradient")
                x.register_hook(partial(self._keep_norm, name))

    def _keep_scale(self, scale: Tensor) -> None:
        # the gradient reaches the loss first, and only then the levels
        self._scale = scale.detach().float()

    def _keep_norm(self, name: str, gradient: Tensor) -> None:
        norm = torch.linalg.vector_norm(gradient.detach(), dtype=torch.float32)  # a sum of squares overflows in fp16
        self._norms[name] = norm if self._scale is None else norm / self._scale


def _norm_of_all(norms: Tensor) -> Tensor:
    """Norms in the gradient of the mean of all processes' losses, of the norms (L,) in that of this process's own."""
    if not (dist.is_available() and dist.is_initialized()):
        return norms
    # each process has other images: the whole gradient is theirs side by side, divided by how many they are
    return (mean_over_processes(norms.square()) / dist.get_world_size()).sqrt()
