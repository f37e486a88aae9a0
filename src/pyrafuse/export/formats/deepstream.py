"""DeepStream's Gst-nvinfer, with the parser of DeepStream-Yolo: rows in, suppression by nvinfer."""

from pyrafuse.export.consumers import FIRST_SCORE, RESIZING, ForConsumer, Model
from pyrafuse.export.registry import FORMATS


@FORMATS.register("deepstream", is_listed=False)
class DeepStream(ForConsumer):
    """``model.onnx``, ``labels.txt`` and ``config_infer_primary.txt``."""

    summary = "a folder for DeepStream with the parser of DeepStream-Yolo"
    inputs = ("scaled",)
    outputs = ("rows",)
    needs_static = True

    def describe(self, model: Model) -> dict[str, str]:
        (height, width), interface, preprocessing = model.size, model.interface, model.card.preprocessing
        keeps_ratio = preprocessing.fit != "stretch"
        is_black = preprocessing.fit == "letterbox" and preprocessing.fill_color() == (0, 0, 0)
        padding = "" if is_black or not keeps_ratio else "# It pads with black; the detector knows another padding.\n"
        settings = f"""# Gst-nvinfer, with the library of DeepStream-Yolo that reads rows of x1 y1 x2 y2 score class.
{RESIZING}
{padding}[property]
gpu-id=0
onnx-file=model.onnx
model-engine-file=model_b{interface.batch}_gpu0_fp32.engine
labelfile-path=labels.txt
batch-size={interface.batch}
infer-dims=3;{height};{width}
num-detected-classes={len(model.labels)}
# 0 is fp32, 2 is fp16
network-mode=0
network-type=0
process-mode=1
gie-unique-id=1
interval=0
# RGB divided by 255; mean and deviation are in the graph
model-color-format=0
net-scale-factor=0.0039215697906911373
maintain-aspect-ratio={int(keeps_ratio)}
symmetric-padding=0
# 2 is suppression by overlap
cluster-mode=2
parse-bbox-func-name=NvDsInferParseYolo
custom-lib-path=nvdsinfer_custom_impl_Yolo/libnvdsinfer_custom_impl_Yolo.so
engine-create-func-name=NvDsInferYoloCudaEngineGet

[class-attrs-all]
nms-iou-threshold={interface.nms_iou:g}
pre-cluster-threshold={max(FIRST_SCORE, interface.score):g}
topk={interface.max_detections}
"""
        return {"labels.txt": "".join(f"{label}\n" for label in model.labels), "config_infer_primary.txt": settings}
