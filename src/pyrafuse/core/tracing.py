"""Whether a graph is being made."""

import torch


def is_traced() -> bool:
    """Whether operations are recorded for a graph, instead of computed at once."""
    return torch.compiler.is_compiling() or torch.compiler.is_exporting()
