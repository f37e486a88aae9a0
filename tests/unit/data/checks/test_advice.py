"""Advice on size, levels, epochs and rare classes: figures worked out by hand."""

import pytest

from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.data.checks.advice import advise_balance, advise_epochs, advise_levels, advise_size

AT_416 = Preprocessing(size=(416, 416))


def squares(*sides):
    """Objects whose sides, as roots of their areas, are these at 416 px; the images have 1000 x 500 px."""
    return [(0, (0, 0, side * 1000 / 416, side * 500 / 416)) for side in sides]


def test_a_larger_size_is_advised_until_few_objects_are_hidden(make_data):
    enough = advise_size(make_data([squares(*[7] * 5, *[20] * 95)]), AT_416)
    assert enough.settings == ()
    assert enough.text.startswith("416 px is enough; objects under 8 px: 320 px 5 %, 416 px 5 %, 512 px 0 %")
    more = advise_size(make_data([squares(*[6] * 50, *[20] * 50)]), AT_416)
    assert more.settings == (("data.size", 640),)  # 6 px become 7.4 at 512, and 9.2 at 640
    assert more.options == "--data.size 640"
    assert more.text.startswith("640 px instead of 416: an epoch takes about 2.4 times as long; objects under 8 px: ")
    assert "512 px 50 %, 640 px 0 %" in more.text


def test_below_160_px_twice_the_size_is_weighed(make_data):
    at_96 = Preprocessing(size=(96, 96))
    data = make_data([squares(*[side * 416 / 96 for side in [6] * 50 + [20] * 50])])
    larger = advise_size(data, at_96)
    assert larger.settings == (("data.size", 192),)  # 6 px become 12
    assert "objects under 8 px: 96 px 50 %, 192 px 0 %, 320 px 0 %" in larger.text
    assert advise_size(data, Preprocessing(size=(160, 160))).text.startswith("160 px is enough")


def test_where_no_size_helps_tiles_are_told(make_data):
    hidden = advise_size(make_data([squares(*[2] * 50, *[20] * 50)]), AT_416)
    assert hidden.settings == ()
    # 2 px are 4.8 x 2.4 px in the image, 3.4 of the root; two tiles of 416 lie across 500 px, three across 1000
    assert hidden.text.endswith(
        "tiles of 800 px out of the whole images would leave 50 % under 8 px, with 2.0 tiles an image"
    )


def test_levels_follow_the_sizes(make_data):
    fine = advise_levels(make_data([squares(*[11] * 30, *[40] * 70)]), AT_416, (8, 16, 32))
    assert fine.settings == (("strides", (4, 8, 16, 32)),)
    assert fine.text == (
        "a level of stride 4 (P2) beside 8, 16, 32: at 416 px 30 % of the objects are under 12 px, and 0 % over 512 "
        "px; it takes longer"
    )
    at_1280 = Preprocessing(size=(1280, 1280))
    large = advise_levels(make_data([squares(*[300] * 30, *[40] * 70)]), at_1280, (8, 16, 32))
    assert large.text.startswith("a level of stride 64 (P6) beside 8, 16, 32: at 1280 px 0 % of the objects are under")
    fit = advise_levels(make_data([squares(*[40] * 9)]), AT_416, (8, 16, 32, 64, 128))
    assert fit.settings == ()
    assert fit.text.endswith("; no object is large enough for stride 32, 64, 128")


@pytest.mark.parametrize(
    ("num_images", "epochs", "wanted"),
    [(292, 30, None), (40, 30, 200), (8, 30, 300), (30_000, 30, 12), (30_000, 9, None)],
)
def test_epochs_come_to_enough_steps(num_images, epochs, wanted):
    advice = advise_epochs(num_images, epochs=epochs, batch_size=8)
    assert advice.settings == ((("run.epochs", wanted),) if wanted else ())


def test_rare_classes_are_repeated_and_weigh_more(make_data):
    common, rare = [(0, (0, 0, 50, 50))] * 2, [(1, (0, 0, 50, 50))]
    advice = advise_balance(make_data([common] * 97 + [rare + common] * 3))
    assert advice.settings == (("data.repeat_threshold", 0.12), ("data.class_weights", "balanced"))
    assert advice.text == (
        "images of rare classes more often, and more weight for their objects: dog is in 3 of 100 training images "
        "(3 %), and the most frequent class has 67 times its objects; an epoch then has 103 images"
    )  # the three come twice, sqrt(0.12 / 0.03)
    assert advise_balance(make_data([common] * 70 + [rare + common] * 30)).settings == ()
    assert advise_balance(make_data([common])).text == "nothing to balance: there are not two classes with objects"
