"""What the four numbers of a box are: pixels, shares or percent; corners, sizes or centres. Numbers -> xyxy pixels.

A whole file is judged at once, since a single box proves little: that boxes lie outside of their images as the layout
has them and inside as another one would, or that all of them would have to lie in an image's first pixel.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pyrafuse.data.reading.rules import ORDERS, UNITS, BoxFormat

_ONE_BASED = {"corners": (1, 1, 0, 0), "sizes": (1, 1, 1, 1), "centers": (0.5, 0.5, 0.5, 0.5)}
"""What xyxy boxes have more where pixels are counted from 1 and the last one is inside."""
_SCALES = {"shares": 1.0, "percent": 100.0}
_MEANINGS = {
    "pixels": "pixels",
    "shares": "shares of the image",
    "percent": "percent of the image",
    "corners": "corners (x1, y1, x2, y2)",
    "sizes": "x, y, width, height",
    "centers": "centre x, centre y, width, height",
}

_FULL_SHARE = 1.02
"""Largest number of a share; rounding and boxes drawn a little too large go beyond 1."""
_MANY_PIXELS = 1.5
"""A number from here on is no share."""
_LEAST_SIDE_PX = 8
"""Images with a side below this are no evidence: shares and pixels are alike in them."""
_CHANCE = 1e-4
"""Boxes that lie anywhere in their images must all be within 100 pixels less often than this to speak for percent."""
_TOLERANCE = 0.02
"""A box may reach beyond its image by this share of a side, or by two pixels, and still counts as inside."""


@dataclass(frozen=True)
class Suspicion:
    """Another format that the numbers of a file look like.

    Attributes:
        format: What they look like.
        evidence: The sentence that tells why.
        words: What to give as ``--boxes`` to have them read so.
        own_words: What to give to have them read as the layout has it all the same.
    """

    format: BoxFormat
    evidence: str
    words: str
    own_words: str


def choose_format(written: BoxFormat, words: tuple[str, ...]) -> BoxFormat:
    """The layout's own format, but for what the words of ``--boxes`` say."""
    unit = next((word for word in words if word in UNITS), written.unit)
    order = next((word for word in words if word in ORDERS), written.order)
    return replace(written, unit=unit, order=order, is_one_based=written.is_one_based and unit == "pixels")


def to_pixels(
    values: NDArray[np.float64], form: BoxFormat, sizes: NDArray[np.int64], is_hull: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """The boxes as xyxy in pixels.

    Args:
        values: (M, 4) as they stand in the file.
        form: What they are.
        sizes: (M, 2) width and height of each one's image.
        is_hull: (M,) those that are 0-based corners whatever the order is: boxes of outlines.
    """
    boxes = _to_corners(values, form.order, is_hull)
    if form.unit != "pixels":
        boxes *= np.tile(sizes / _SCALES[form.unit], 2)
    elif form.is_one_based:
        boxes -= np.where(is_hull[:, None], 0, np.array(_ONE_BASED[form.order]))
    return boxes


def from_pixels(boxes: NDArray[np.float64], form: BoxFormat, sizes: NDArray[np.int64]) -> NDArray[np.float64]:
    """The numbers that stand for xyxy boxes in pixels: what `to_pixels` takes back."""
    boxes = boxes + np.array(_ONE_BASED[form.order]) if form.is_one_based else boxes
    if form.unit != "pixels":
        boxes = boxes / np.tile(sizes / _SCALES[form.unit], 2)
    if form.order == "sizes":
        return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    if form.order == "centers":
        return np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], axis=1)
    return boxes


def suspect(
    values: NDArray[np.float64],
    form: BoxFormat,
    sizes: NDArray[np.int64],
    is_hull: NDArray[np.bool_],
    words: tuple[str, ...] = (),
) -> Suspicion | None:
    """What the boxes of a file look like if not like ``form``; None where nothing speaks against it.

    Args:
        values: (M, 4) as they stand in the file, of images that are there.
        form: What they are taken for.
        sizes: (M, 2) width and height of each one's image.
        is_hull: (M,) those that are corners whatever the order is.
        words: What was given as ``--boxes``: it is not put in question.
    """
    judged = np.isfinite(values).all(1) & values.any(1) & (sizes.min(1) >= _LEAST_SIDE_PX)
    values, sizes, is_hull = values[judged], sizes[judged], is_hull[judged]
    if not len(values):
        return None
    asks_unit, asks_order = not set(words) & set(UNITS), not set(words) & set(ORDERS)
    found = _suspect_unit(values, form, sizes, is_hull, asks_order=asks_order) if asks_unit else None
    return found or (_suspect_order(values, form, sizes, is_hull) if asks_order else None)


def _suspect_unit(
    values: NDArray[np.float64],
    form: BoxFormat,
    sizes: NDArray[np.int64],
    is_hull: NDArray[np.bool_],
    *,
    asks_order: bool,
) -> Suspicion | None:
    largest = np.abs(values).max(1)
    orders = [form.order, *(o for o in ORDERS if o != form.order and asks_order)]
    if form.unit == "pixels":
        small = largest <= _FULL_SHARE
        if small.mean() >= 0.5 and (values[small] % 1).any():
            return _tell_unit(form, "shares", orders, values, sizes, is_hull, f"{_share(small)} have no number above 1")
        # large objects at the upper left have corners like percent: they fit as they are unless images are small
        fits_well = _fits(values, form, sizes, is_hull).mean() > 0.9 and sizes.min() < 2 * _SCALES["percent"]
        for order in orders[:1] if fits_well else orders:
            if _is_percent(values, order, sizes, is_hull):
                evidence = "no number is above 100, and as pixels all boxes would lie in the images' top left corner"
                return _tell_unit(form, "percent", [order], values, sizes, is_hull, evidence)
        return None
    limit = _MANY_PIXELS * _SCALES[form.unit]
    large = largest > limit
    if large.mean() < 0.5:
        return None
    evidence = f"{_share(large)} have numbers above {limit:g}"
    is_percent = form.unit == "shares" and any(_is_percent(values, o, sizes, is_hull) for o in orders)
    found = _tell_unit(form, "percent" if is_percent else "pixels", orders, values, sizes, is_hull, evidence)
    if is_percent or form.unit != "shares" or sizes.min() <= 101 or values.max() > 101:
        return found
    other = _tell_unit(form, "percent", orders, values, sizes, is_hull, evidence)  # few boxes: they can be either
    return replace(found, evidence=f"{found.evidence}; if they are percent, --boxes {other.words}")


def _tell_unit(
    form: BoxFormat,
    unit: str,
    orders: list[str],
    values: NDArray[np.float64],
    sizes: NDArray[np.int64],
    is_hull: NDArray[np.bool_],
    evidence: str,
) -> Suspicion:
    """The first of ``orders`` that fits four of five boxes, or fits most."""
    shares = [_fits(values, replace(form, unit=unit, order=order), sizes, is_hull).mean() for order in orders]
    good = [order for order, share in zip(orders, shares, strict=True) if share >= 0.8]
    order = good[0] if good else orders[int(np.argmax(shares))]
    other = replace(form, unit=unit, order=order, is_one_based=False)
    meaning = _MEANINGS[unit] + ("" if order == form.order else f", {_MEANINGS[order]}")
    text = f"{evidence}: these look like {meaning}, not like {_MEANINGS[form.unit]}"
    return Suspicion(other, text, unit if order == form.order else f"{unit},{order}", form.unit)


def _suspect_order(
    values: NDArray[np.float64], form: BoxFormat, sizes: NDArray[np.int64], is_hull: NDArray[np.bool_]
) -> Suspicion | None:
    values, sizes = values[~is_hull], sizes[~is_hull]
    none = np.zeros(len(values), bool)
    bad = ~_fits(values, form, sizes, none)
    if bad.sum() < 3 or bad.mean() < 0.1:
        return None
    fitting = {o: _fits(values, replace(form, order=o), sizes, none) for o in ORDERS if o != form.order}
    order, fits = max(fitting.items(), key=lambda item: item[1].mean())
    if fits.mean() < 0.98:
        return None
    text = (
        f"{_share(bad)} leave their image or have no size as {_MEANINGS[form.order]}, and {_share(fits)} lie in it as "
        f"{_MEANINGS[order]}: these look like {order}"
    )
    return Suspicion(replace(form, order=order), text, order, form.order)


def _fits(
    values: NDArray[np.float64], form: BoxFormat, sizes: NDArray[np.int64], is_hull: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Which boxes have a size and lie in their image."""
    x1, y1, x2, y2 = to_pixels(values, form, sizes, is_hull).T
    width, height = sizes.T
    tolerance = np.maximum(_TOLERANCE * sizes, 2).T
    beyond_x, beyond_y = np.maximum(-x1, x2 - width), np.maximum(-y1, y2 - height)
    return (x2 > x1) & (y2 > y1) & (beyond_x <= tolerance[0]) & (beyond_y <= tolerance[1])


def _is_percent(values: NDArray[np.float64], order: str, sizes: NDArray[np.int64], is_hull: NDArray[np.bool_]) -> bool:
    """Whether boxes fill 0 to 100 in both directions, while as pixels they would leave the rest of all images empty."""
    if sizes.min() <= 101 or values.max() > 101:
        return False
    boxes = _to_corners(values, order, is_hull)
    low, high = boxes[:, :2].min(0), boxes[:, 2:].max(0)
    if (boxes[:, 2:] <= boxes[:, :2]).any() or low.min() < -1 or high.max() > 101:
        return False
    fills = (low <= 25) & (high >= 75)
    margin_before, margin_after = (boxes[:, :2] / sizes).min(0), 1 - (boxes[:, 2:] / sizes).max(0)
    if not (fills & (margin_after >= 0.08 + margin_before)).all():
        return False
    different, first = np.unique(np.round(boxes), axis=0, return_index=True)
    sides = different[:, 2:] - different[:, :2]
    chances = np.clip((101 - sides) / (sizes[first] - sides), 1e-9, 1)
    return bool(np.log(chances).sum() < np.log(_CHANCE))


def _to_corners(values: NDArray[np.float64], order: str, is_hull: NDArray[np.bool_]) -> NDArray[np.float64]:
    first, second = values[:, :2], values[:, 2:]
    if order == "sizes":
        corners = np.concatenate([first, first + second], axis=1)
    elif order == "centers":
        corners = np.concatenate([first - second / 2, first + second / 2], axis=1)
    else:
        return values.copy()
    return np.where(is_hull[:, None], values, corners)


def _share(rows: NDArray[np.bool_]) -> str:
    return f"{rows.sum()} of {len(rows)} boxes"
