"""`pyrafuse demo`."""

from pathlib import Path
from typing import Literal


def demo(*, output: Path | None = None, device: Literal["auto", "cpu", "gpu", "mps"] = "auto") -> int:
    """Train, evaluate, predict and explain on generated images, and show all of it on one page.

    Two cores without a GPU take a few minutes.

    Args:
        output: Folder for everything; by default runs/demo-1, or the next number that is free.
        device: Device to train on.
    """
    from pyrafuse.base.terminal import Terminal
    from pyrafuse.demo.running import run_demo, with_output
    from pyrafuse.recipes.small import shapes_demo

    result = run_demo(with_output(shapes_demo(), output, device=device), console=Terminal())
    minutes, seconds = divmod(round(sum(result.seconds.values())), 60)
    print(f"AP50 {result.evaluation.ap50:.3f}, AP {result.evaluation.ap:.3f} after {minutes} min {seconds} s")
    print(f"checkpoint  {result.checkpoint}\nreport      {result.page}")
    return 0
