"""Operations that torch's exporter has no ONNX form of, or a wrong one."""

from collections.abc import Callable
from typing import Any

import torch

LAST = 2**31 - 1
"""The end of any axis."""


def translations(*, is_topk_stable: bool) -> dict[Any, Callable[..., Any]]:
    """ONNX forms by torch operation, for ``custom_translation_table`` of ``torch.onnx.export``.

    Args:
        is_topk_stable: Whether the reader's TopK puts the lower index first of equal values, as ONNX has it.
    """
    from onnxscript import opset20

    op: Any = opset20

    def sort_stable(self: Any, stable: Any = None, dim: int = -1, descending: bool = False) -> Any:  # noqa: ARG001
        axis = op.Constant(value_ints=[dim])
        count = op.Gather(op.Shape(self), axis)
        values, places = op.TopK(self, count, axis=dim, largest=int(descending), sorted=1)
        if is_topk_stable:
            return values, places
        behind, last = (
            op.Slice(values, op.Constant(value_ints=[i]), op.Constant(value_ints=[LAST]), axis) for i in (1, -1)
        )
        ends = op.Cast(op.Not(op.Equal(values, op.Concat(behind, last, axis=dim))), to=7)
        runs = op.CumSum(ends, op.Constant(value_int=dim), exclusive=1)  # of equal values
        _, order = op.TopK(op.Add(op.Mul(runs, count), places), count, axis=dim, largest=0, sorted=1)
        return values, op.GatherElements(places, order, axis=dim)

    return {torch.ops.aten.sort.stable: sort_stable}
