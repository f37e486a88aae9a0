import numpy as np
import openvino
import pytest

from pyrafuse.base.errors import CheckpointError
from pyrafuse.base.exported import METADATA_KEY, Interface, write_metadata
from pyrafuse.base.paths import SUFFIXES
from pyrafuse.runtime import load
from pyrafuse.runtime.engines.registry import ENGINES

INTERFACE = Interface(input="fitted", size=(64, 64))
WHITE = np.full((128, 96, 3), 255, np.uint8)


@pytest.fixture
def file(write):
    """As the export writes it: the ONNX file converted, with its metadata."""
    onnx_file = write(INTERFACE)
    model = openvino.convert_model(onnx_file)
    texts = load(onnx_file)._engine.metadata
    model.set_rt_info(texts[METADATA_KEY], [METADATA_KEY])
    openvino.save_model(model, onnx_file.with_suffix(".xml"), compress_to_fp16=False)
    return onnx_file.with_suffix(".xml")


def test_both_engines_find_the_same(file):
    ours, theirs = load(file, threads=1)(WHITE), load(file.with_suffix(".onnx"))(WHITE)
    assert load(file).interface == INTERFACE
    assert len(ours) == 4
    for name in ("boxes", "scores", "labels", "levels", "rows"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))


def test_missing_weights_are_named(file):
    file.with_suffix(".bin").unlink()
    with pytest.raises(CheckpointError, match=r"model\.xml keeps its weights in model\.bin, which is missing: put it"):
        load(file)


@pytest.mark.parametrize("suffix", [".xml", ".bin"])
@pytest.mark.parametrize("share", [0.1, 0.6])
def test_a_file_that_is_cut_off_is_refused(file, suffix, share):
    cut = file.with_suffix(suffix)
    content = cut.read_bytes()
    cut.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(CheckpointError, match=r"OpenVINO refuses .*model\.xml: .*copy or export it anew") as caught:
        load(file)
    assert "\n" not in str(caught.value)
    assert ".cpp" not in str(caught.value)


@pytest.mark.parametrize("text", ["no XML", "<?xml version='1.0'?><annotation><object/></annotation>"])
def test_what_is_no_file_of_openvino_is_refused(tmp_path, text):
    (tmp_path / "a.xml").write_text(text)
    (tmp_path / "a.bin").write_bytes(bytes(10))
    with pytest.raises(CheckpointError, match=r"OpenVINO refuses .*a\.xml"):
        load(tmp_path / "a.xml")


def test_a_file_of_others_is_told_by_its_outputs(write):
    onnx_file = write(INTERFACE, metadata=write_metadata(load(write(INTERFACE)).card, INTERFACE))
    openvino.save_model(openvino.convert_model(onnx_file), onnx_file.with_suffix(".xml"))
    with pytest.raises(CheckpointError, match=r"was not exported by pyrafuse: it gives boxes, scores"):
        load(onnx_file.with_suffix(".xml"))


def test_commands_find_what_engines_read():
    assert {suffix for name in ENGINES.names() for suffix in ENGINES.entry(name).facts["suffixes"]} <= SUFFIXES
