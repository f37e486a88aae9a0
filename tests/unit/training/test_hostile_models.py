"""Wrong models in a recipe are refused before any data are read, with what to change."""

import pytest

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.typed_values import read_yaml_file
from pyrafuse.training.preparing import check_model
from pyrafuse.training.settings import ModelSettings, Recipe


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"name": "retinanet", "options": {"num_classes": 3}}, "leave out model.options.num_classes"),
        ({"name": "fcos", "anchors": "data"}, "the head fcos takes none: leave it out"),
        ({"name": "faster_rcnn", "anchors": "data"}, "the head rpn takes none: leave it out"),
    ],
)
def test_refused(settings, said):
    with pytest.raises(PyrafuseError, match=said):
        check_model(Recipe(model=ModelSettings(**settings)))


def test_brackets_without_end_are_no_crash(tmp_path):
    (tmp_path / "deep.yaml").write_text("a: " + "[" * 3000 + "]" * 3000)
    with pytest.raises(PyrafuseError, match=r"deep.yaml: values are nested too deeply"):
        read_yaml_file(tmp_path / "deep.yaml")
