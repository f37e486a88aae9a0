"""How a data set is read where annotations leave a choice; free of torch, so that the command line starts fast."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args, get_type_hints

from pyrafuse.core.errors import PyrafuseError


@dataclass(frozen=True)
class ReadOptions:
    """How lenient reading is; `read_splits`, `read_split` and the readers of every layout take it.

    Attributes:
        missing: ``error`` refuses a data set that lists images which are not there; ``skip`` leaves them out and
            counts them.
        exif: The frame that boxes are drawn in, of images which EXIF turns: ``stored`` as the pixels lie in the file,
            ``upright`` as they are looked at. It counts where the annotated width and height cannot tell; ``auto``
            takes them as upright and warns.

    Raises:
        PyrafuseError: If a value is none of those allowed.
    """

    missing: Literal["error", "skip"] = "error"
    exif: Literal["auto", "stored", "upright"] = "auto"

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(type(self)).items():
            value, allowed = getattr(self, name), get_args(kind)
            if value not in allowed:
                raise PyrafuseError(f"{name} must be one of {', '.join(map(str, allowed))}, got {value!r}")

    @classmethod
    def from_values(cls, values: Mapping[str, Any], **given: Any) -> "ReadOptions":
        """Take the options out of ``values``, the ``data`` of a recipe; those of ``given`` that are not None win."""
        known = {field.name: values[field.name] for field in fields(cls) if field.name in values}
        return cls(**known | {name: value for name, value in given.items() if value is not None})


DEFAULT_OPTIONS = ReadOptions()
