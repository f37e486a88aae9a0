"""A detector made fast for prediction alone: batch norms folded into convolutions, bf16 and torch.compile if asked.

detector -> copy -> branches merged -> observed on one small image -> norms folded -> weights in bf16 -> compiled
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from copy import deepcopy
from itertools import pairwise
from typing import Any, Literal, TypeVar, get_args

import torch
from timm.layers import Conv2dSame  # pyright: ignore[reportPrivateImportUsage]
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pyrafuse.base.errors import unknown_name
from pyrafuse.layers.folding import fold
from pyrafuse.layers.packed import pack
from pyrafuse.layers.rep_conv import merge_branches

Precision = Literal["fp32", "bf16"]

M = TypeVar("M", bound=nn.Module)


def fold_norms(module: nn.Module, run: Callable[[], object]) -> int:
    """Fold each batch norm of ``module`` into the convolution that it reads, for good; the number of folded norms.

    A norm stays where something else reads the convolution too, or where the two do not always follow each other: a
    convolution that all levels share may have a norm for each level.

    Args:
        module: In evaluation mode. It cannot be trained afterwards, and its state has other keys.
        run: Runs ``module`` once. What follows what is observed: neither names nor the order of parts tell.
    """
    with torch.no_grad(), _Following(module) as following:
        run()
    pairs = list(following.pairs())
    with torch.no_grad():
        for conv, norm in pairs:
            weight, bias = fold(conv.double(), norm.double())
            conv.weight = nn.Parameter(weight.float().contiguous(memory_format=torch.channels_last))
            conv.bias = nn.Parameter(bias.float())
            # whoever holds the norm now holds a sequence of its own parts: timm's norms have an activation, ours none
            norm.__class__ = nn.Sequential  # pyright: ignore[reportAttributeAccessIssue]
            norm._parameters.clear()
            norm._buffers.clear()
    return len(pairs)


class _Following(TorchDispatchMode):
    """Sees which norm reads the output of which convolution, and what else reads it."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._module = module
        self._convs: dict[int, nn.Conv2d] = {}
        self._norms: dict[int, nn.BatchNorm2d] = {}
        for part in module.modules():
            if isinstance(part, nn.Conv2d) and type(part).forward in (nn.Conv2d.forward, Conv2dSame.forward):
                self._convs[_place(part.weight)] = part
            elif isinstance(part, nn.BatchNorm2d) and part.affine and part.running_mean is not None:
                self._norms[_place(part.running_mean)] = part
        self._made: dict[int, nn.Conv2d] = {}
        self._kept: list[Tensor] = []  # memory that nothing holds would be taken by the next tensor
        self._readers: dict[nn.Conv2d, set[nn.BatchNorm2d | None]] = {}
        self._sources: dict[nn.BatchNorm2d, set[nn.Conv2d | None]] = defaultdict(set)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = [_place(x) for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        is_norm = "batch_norm" in str(func)
        norm = next((self._norms[place] for place in given if is_norm and place in self._norms), None)
        for place in given:
            if place in self._made:
                self._readers[self._made[place]].add(norm)
        if norm is not None:
            self._sources[norm].add(self._made.get(given[0]))
        made = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.convolution.default and given[1] in self._convs:
            conv = self._convs[given[1]]
            self._made[_place(made)] = conv
            self._kept.append(made)
            self._readers.setdefault(conv, set())
        return made

    def pairs(self) -> Iterator[tuple[nn.Conv2d, nn.BatchNorm2d]]:
        """Convolutions and norms that only follow each other."""
        for norm, sources in self._sources.items():
            (conv, *others) = sources
            if conv is not None and not others and self._readers[conv] == {norm}:
                yield conv, norm
        for sequence in self._module.modules():
            if isinstance(sequence, nn.Sequential):  # `run_folded` folds at each pass, and runs neither of the two
                for conv, norm in pairwise(sequence):
                    if type(conv) is not nn.Conv2d or not isinstance(norm, nn.BatchNorm2d):
                        continue
                    if conv not in self._readers and norm not in self._sources:
                        yield conv, norm


def _place(x: Tensor) -> int:
    return x.untyped_storage()._cdata


def optimize(detector: M, images: Tensor, *, precision: Precision = "fp32", compiled: bool = False) -> M:
    """A copy of ``detector`` in evaluation mode that is faster and cannot be trained; see `Detector.optimized`.

    Args:
        detector: Left as it is.
        images: Normalised images (B, 3, H, W) to observe it on.
        precision: What convolutions compute in.
        compiled: Whether torch.compile makes code for it, at the first batch of each size.

    Raises:
        UnknownNameError: If there is no such precision.
    """
    if precision not in get_args(Precision):
        raise unknown_name("precision", precision, get_args(Precision))
    twin = deepcopy(detector).eval().requires_grad_(requires_grad=False)
    merge_branches(twin)
    fold_norms(twin, lambda: twin(images))
    if precision == "fp32":
        pack(twin)
    else:
        for part in twin.modules():
            if isinstance(part, nn.Conv2d | nn.Linear):
                part.to(torch.bfloat16)  # as autocast would at each pass
    if compiled:
        twin.compile(options={"freezing": True})
    return twin
