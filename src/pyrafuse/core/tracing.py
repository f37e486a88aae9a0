"""Graphs of free sizes: whether one is being made, and what may be asked of a size then.

An ordinary question fixes its answer: what holds for the sizes of the example would hold for all.
"""

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor
from torch._higher_order_ops.while_loop import while_loop_op
from torch.fx.experimental.symbolic_shapes import statically_known_true


def is_traced() -> bool:
    """Whether operations are recorded for a graph, instead of computed at once."""
    return torch.compiler.is_compiling() or torch.compiler.is_exporting()


def is_size(x: Tensor, size: Sequence[int]) -> bool:
    """Whether the map x (B, C, H, W) has ``size``, height and width; in a graph, whether it does for all inputs."""
    return all(statically_known_true(have == want) for have, want in zip(x.shape[2:], size, strict=True))


def lacking(x: Tensor, least: int) -> tuple[int, int] | None:
    """How many cells the height and the width of x (B, C, H, W) are less than ``least``; None for none.

    In a graph None means none for all inputs.
    """
    if all(statically_known_true(side >= least) for side in x.shape[2:]):
        return None
    down, across = (cast("int", torch.sym_max(least - side, 0)) for side in x.shape[2:])
    return down, across


Tensors = tuple[Tensor, ...]


def loop(goes_on: Callable[..., Tensor], step: Callable[..., Tensors], state: Tensors, fixed: Tensors = ()) -> Tensors:
    """The last state of a loop, which is one operation of a graph.

    ``torch.while_loop`` compiles both functions to find out which tensors they read. Here ``fixed`` names them, and a
    graph is captured in a quarter less time.

    Args:
        goes_on: Gives for (*state, *fixed) whether another step follows: bool, without dimensions.
        step: Gives for (*state, *fixed) the next state, of the same shapes.
        state: Tensors that each step replaces; none of them is read elsewhere.
        fixed: All other tensors that the two functions read.
    """
    if is_traced():
        return while_loop_op(goes_on, step, state, fixed)  # pyright: ignore[reportArgumentType]  # one of its hints is wrong
    while goes_on(*state, *fixed):
        state = step(*state, *fixed)
    return state
