"""Folders for programs that run detectors: the model, a label map, and the settings that the program reads.

captured graph -> model.onnx -> its inputs and outputs, its card -> texts beside it
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pyrafuse.base.card import Card
from pyrafuse.base.exported import Interface, read_metadata
from pyrafuse.export.formats.onnx import ONNX
from pyrafuse.export.registry import Capture, ExportFormat, Run

FIRST_SCORE = 0.25
"""Least score in settings that a person edits."""

RESIZING = "# It resizes without antialiasing: scores differ a little from those of pyrafuse predict."


@dataclass(frozen=True)
class Port:
    """An input or output of the written model.

    Attributes:
        name: Its name.
        kind: Kind of its numbers, as ONNX numbers them.
        shape: Sizes of its dimensions; -1 for a free one.
    """

    name: str
    kind: int
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Model:
    """The written model, as settings describe it.

    Attributes:
        name: Name of its folder.
        card: What the detector is.
        interface: What it takes and gives.
        inputs: Its inputs.
        outputs: Its outputs.
    """

    name: str
    card: Card
    interface: Interface
    inputs: Sequence[Port]
    outputs: Sequence[Port]

    @property
    def labels(self) -> list[str]:
        """Names of the classes, none of which breaks a line."""
        names = self.card.names or tuple(map(str, range(self.card.num_classes)))
        return [" ".join(name.split()) or "?" for name in names]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the network's input."""
        return self.interface.size or self.card.preprocessing.size


class ForConsumer(ExportFormat):
    """A folder for one program.

    Attributes:
        place: Path of the model in the folder.
    """

    suffix = ""
    modules = ONNX.modules
    precisions = ONNX.precisions
    place: ClassVar[str] = "model.onnx"

    @abstractmethod
    def describe(self, model: Model) -> dict[str, str]:
        """Contents of the files beside the model, by name."""

    def write(self, capture: Capture, path: Path) -> None:
        import onnx

        file = path / self.place
        file.parent.mkdir(parents=True)
        ONNX().write(capture, file)
        graph = onnx.load(file, load_external_data=False).graph
        card, interface = read_metadata(capture.metadata, source=file)
        model = Model(path.name, card, interface, _read_ports(graph.input), _read_ports(graph.output))
        for name, text in self.describe(model).items():
            (path / name).write_text(text, encoding="utf-8")

    def open(self, path: Path) -> Run:
        return ONNX().open(path / self.place)


def _read_ports(infos: Any) -> list[Port]:
    return [
        Port(
            info.name,
            info.type.tensor_type.elem_type,
            tuple(side.dim_value if side.HasField("dim_value") else -1 for side in info.type.tensor_type.shape.dim),
        )
        for info in infos
    ]
