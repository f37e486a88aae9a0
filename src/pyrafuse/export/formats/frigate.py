"""Frigate, whose model type ``yolo-generic`` reads centre, size and scores, and suppresses itself."""

import json

from pyrafuse.base.card import Card
from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.exported import Interface
from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.base.spec import DetectorSpec
from pyrafuse.export.consumers import RESIZING, ForConsumer, Model
from pyrafuse.export.registry import FORMATS


@FORMATS.register("frigate", is_listed=False)
class Frigate(ForConsumer):
    """``model.onnx``, ``labelmap.txt`` and ``frigate.yml``; it keeps scores above 0.4, and 20 objects an image."""

    summary = "a folder for Frigate"
    inputs = ("scaled",)
    outputs = ("raw",)
    needs_static = True

    def refusal(self, spec: DetectorSpec | None, interface: Interface) -> str | None:  # noqa: ARG002
        return None if interface.batch == 1 else f"Frigate gives one image at a time, and batch is {interface.batch}"

    def preprocessing(self, card: Card, size: int | tuple[int, int] | None) -> Preprocessing:
        if card.preprocessing.fit != "keep_ratio":
            return super().preprocessing(card, size)
        if size is None:
            raise PyrafuseError(
                "the size of this detector's input follows the image (keep_ratio), and Frigate's is fixed and square: "
                "add --size 640 say"
            )
        return super().preprocessing(card, (size, size) if isinstance(size, int) else size)

    def describe(self, model: Model) -> dict[str, str]:
        height, width = model.size
        place = f"/config/model_cache/{model.name}"
        shape = (
            "" if height == width else "# It stretches square regions to this size: a square --size fits it better.\n"
        )
        settings = f"""# Copy the folder to {place}, and these settings into Frigate's config.yml.
{RESIZING}
{shape}detectors:
  onnx:
    type: onnx
model:
  model_type: yolo-generic
  path: {json.dumps(f"{place}/model.onnx", ensure_ascii=False)}
  labelmap_path: {json.dumps(f"{place}/labelmap.txt", ensure_ascii=False)}
  width: {width}
  height: {height}
  input_tensor: nchw
  input_pixel_format: rgb
  input_dtype: float
objects:
  track:
"""
        settings += "".join(f"    - {json.dumps(label, ensure_ascii=False)}\n" for label in model.labels)
        # lines with numbers: without them, a first name that begins with a number would be taken for one
        labels = "".join(f"{number} {label}\n" for number, label in enumerate(model.labels))
        return {"labelmap.txt": labels, "frigate.yml": settings}
