"""Operations that torch's exporter has no ONNX form of, or a wrong one."""

from collections.abc import Callable
from typing import Any

import torch


def translations() -> dict[Any, Callable[..., Any]]:
    """ONNX forms by torch operation, for ``custom_translation_table`` of ``torch.onnx.export``."""
    from onnxscript import opset20

    op: Any = opset20

    def sort_stable(self: Any, stable: Any = None, dim: int = -1, descending: bool = False) -> Any:  # noqa: ARG001
        # ONNX's TopK breaks ties by the lower index: it is stable by definition
        count = op.Gather(op.Shape(self), op.Constant(value_ints=[dim]))
        return op.TopK(self, count, axis=dim, largest=int(descending), sorted=1)

    return {torch.ops.aten.sort.stable: sort_stable}
