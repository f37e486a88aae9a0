"""What was wrong with a split that is measured, said before the measuring begins."""

import sys
from typing import TYPE_CHECKING

from pyrafuse.base.errors import DataError

if TYPE_CHECKING:
    from pyrafuse.base.records import DetectionData
    from pyrafuse.data.reading.problems import Reading


def tell_problems(reading: "Reading") -> "DetectionData":
    """Print the problems of ``reading`` to stderr, kind by kind, and give its data.

    Raises:
        DataError: If images are missing: what is measured on the rest is no figure of this split.
    """
    from pyrafuse.data.checks.report import format_problems

    if reading.problems:
        print("\n".join(format_problems(reading.problems, 3)), file=sys.stderr)
    if missing := sum(p.severity == "error" and p.kind == "missing image" for p in reading.problems):
        raise DataError(
            f"{missing} {'image is' if missing == 1 else 'images are'} missing, named above; put them there, or "
            "measure on the others by --missing skip"
        )
    return reading.data
