"""Successive halving: the few candidates that are ahead after a short training go on to a longer one.

Jamieson and Talwalkar, "Non-stochastic Best Arm Identification", arXiv:1502.07943.
scores at the end of a rung -> names of those that go on
"""

from collections.abc import Mapping
from itertools import pairwise

from pyrafuse.base.errors import PyrafuseError, check_count


def promote(scores: Mapping[str, float], eta: int) -> tuple[str, ...]:
    """Names of the best of ``scores``, the best first: one of ``eta``, rounded down, and at least one of any.

    Args:
        scores: Score of each candidate, the lower the better. Of equal ones the lower name is ahead.
        eta: How many candidates one goes on of.
    """
    ranked = sorted(scores, key=lambda name: (scores[name], name))
    return tuple(ranked[: max(1, len(ranked) // eta)])


def check_rungs(rungs: tuple[int, ...], eta: int) -> None:
    """Refuse rungs that do not grow, and halving that halves nothing.

    Raises:
        PyrafuseError: With the value.
    """
    check_count("eta", eta, 2)
    if not rungs or min(rungs) < 1 or any(first >= then for first, then in pairwise(rungs)):
        raise PyrafuseError(f"rungs are growing numbers of steps, such as 32, 96, 288; got {list(rungs)}")
