"""Classes with few objects, and splits that differ."""

import numpy as np
import pytest

from pyrafuse.data.checks.classes import find_few
from pyrafuse.data.checks.differences import find_differences

BOX = (100, 100, 200, 200)


def test_few_objects_are_hints_and_none_in_training_a_warning(make_data):
    names = ("cat", "dog", "cow", "hen", "pig")
    train = make_data([[(0, BOX)] * 20 + [(1, BOX)] * 19 + [(1, BOX, True)] * 9 + [(3, BOX)] * 20], names=names)
    val = make_data([[(0, BOX)] * 10 + [(1, BOX)] * 10 + [(2, BOX)] * 3 + [(3, BOX)] * 9], names=names, split="val")
    assert [(p.severity, p.kind, p.record, p.message) for p in find_few(train, val)] == [
        ("hint", "class with few training objects", "dog", "19 objects of the class dog for training"),
        ("warning", "class without training objects", "cow",
         "3 objects of the class cow for validation, and none for training"),
        ("hint", "class with few validation objects", "hen", "9 objects of the class hen for validation"),
    ]  # fmt: skip


def split_of(make_data, rng, *, share, side, split, count=60):
    images = []
    for _ in range(count):
        label = int(rng.random() < share)  # one class an image, as in a video
        scale = side * rng.uniform(0.5, 2)
        images.append([(label, (100, 100, 100 + scale, 100 + scale))] * 8)
    return make_data(images, split=split)


@pytest.mark.parametrize("seed", range(4))
def test_equal_splits_do_not_differ_though_objects_of_an_image_resemble_each_other(make_data, seed):
    rng = np.random.default_rng(seed)
    train, val = (split_of(make_data, rng, share=0.5, side=50, split=name) for name in ("train", "val"))
    assert find_differences(train, val) == []


def test_splits_that_differ_are_told_with_figures(make_data):
    rng = np.random.default_rng(0)
    train = split_of(make_data, rng, share=0.2, side=50, split="train")
    other = split_of(make_data, rng, share=0.7, side=50, split="val")
    (problem,) = find_differences(train, other)
    assert (problem.severity, problem.kind, problem.record) == (
        "hint", "splits that differ in classes", "splits train and val",
    )  # fmt: skip
    labels = [np.mean([record.labels[0] for record in data.records]) for data in (train, other)]
    assert f"dog {100 * labels[0]:.0f} % and {100 * labels[1]:.0f} %" in problem.message
    assert f"(distance {labels[1] - labels[0]:.2f} of 1; " in problem.message
    assert problem.message.endswith("p = 0.002)")  # none of 500 draws is as different
    larger = split_of(make_data, rng, share=0.2, side=150, split="val")
    assert [p.kind for p in find_differences(train, larger)] == ["splits that differ in sizes"]


def test_few_images_say_nothing(make_data):
    train, val = make_data([[(0, BOX)] * 30] * 30), make_data([[(1, BOX)] * 30] * 9, split="val")
    assert find_differences(train, val) == []
