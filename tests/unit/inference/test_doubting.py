"""A data set looked through by a detector: a detector that finds nothing says so."""

from pathlib import Path

from coco_cases import data_of, record
from pyrafuse.evaluation.coco import CocoEvaluator
from pyrafuse.inference.doubting import find_contradictions


def test_a_model_that_finds_nothing_is_told():
    data = data_of([record([[0, 0, 9, 9]], [0], image_id=i) for i in (1, 2)], ["cat"])
    (problem,) = find_contradictions(None, lambda _, data, **__: CocoEvaluator(data), [data])
    assert (problem.severity, problem.kind) == ("hint", "model that finds nothing")
    assert problem.message.startswith("in 2 images it has no detection of score 0.05 or more")
    assert problem.file == Path(data.records[0].path).parent
