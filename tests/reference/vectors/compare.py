"""Compare arrays with the golden vectors of this folder, and make the checkpoints that they were computed with."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vectors.fill import image, value

__all__ = ["apply_rules", "check", "check_dets", "check_packed", "check_pred", "gain", "image", "structured"]


def gain(key: str, table: Mapping[str, Any]) -> float:
    """The factor of the parameter ``key`` in a table of `asff/gains.json`."""
    return next((factor for pattern, factor in table["overrides"] if re.search(pattern, key)), table["default"])


def apply_rules(manifest: Sequence[Any], rules: Sequence[Any]) -> dict[str, np.ndarray]:
    """The parameters of a manifest; the first rule ``[pattern, factor]`` whose pattern is in a key counts, else 1."""
    out = {}
    for key, shape in manifest:
        factor = next((factor for pattern, factor in rules if re.search(pattern, key)), 1.0)
        if factor == "keep":
            if key.endswith("integral.project"):
                out[key] = np.linspace(0, 16, 17).astype(np.float32)
            elif key.endswith(".scale"):
                out[key] = np.ones(shape, np.float32)
            else:
                raise KeyError(key)
        elif isinstance(factor, str) and factor.startswith("abs"):
            out[key] = np.abs(value(key, shape, float(factor[3:])))
        else:
            out[key] = np.asarray(value(key, shape, factor)).reshape(shape)
    return out


def structured(seed: int, height: int, width: int) -> np.ndarray:
    """Noise on flat patches of 32 pixels, (1, 3, H, W): more variety over the image than noise alone."""
    patches = image(seed + 7, (1, 3, -(-height // 32), -(-width // 32)))
    patches = patches.repeat(32, 2).repeat(32, 3)[:, :, :height, :width]
    return (np.float32(0.3) * image(seed, (1, 3, height, width)) + np.float32(1.5) * patches).astype(np.float32)


def check(golden: Any, name: str, x: np.ndarray) -> tuple[float, float]:
    """Largest error of ``x`` against the entry ``name``, whole or thinned; absolute, and by its standard deviation."""
    if name in golden:
        expected, got, deviation = golden[name], x, float(np.std(golden[name])) + 1e-12
    else:
        assert tuple(golden[f"{name}.shape"]) == x.shape, (name, tuple(golden[f"{name}.shape"]), x.shape)
        got = x.ravel()[:: int(golden[f"{name}.stride"])]
        expected, deviation = golden[f"{name}.sub"], float(golden[f"{name}.stats"][1]) + 1e-12
    error = float(np.max(np.abs(expected.astype(np.float64) - got))) if expected.size else 0.0
    return error, error / deviation


def check_dets(
    golden: Any, name: str, boxes: Any, scores: Any, labels: Any, box_tol: float = 0.1, score_tol: float = 1e-3
) -> int:
    """How many golden detections have no partner of their own with the same label, near in box and score."""
    used: set[int] = set()
    missed = 0
    entries = (golden[f"{name}.{part}"] for part in ("boxes", "scores", "labels"))
    for box, score, label in zip(*entries, strict=True):
        distances = np.abs(np.asarray(boxes) - box).max(1) if len(boxes) else np.zeros(0)
        partners = [
            i
            for i in np.argsort(distances).tolist()
            if distances[i] <= box_tol and labels[i] == label and abs(scores[i] - score) <= score_tol and i not in used
        ]
        used.update(partners[:1])
        missed += not partners
    return missed


def check_packed(golden: Any, name: str, x: Any, rtol: float = 1e-4, atol: float = 1e-5) -> None:
    """Compare with a thinned entry: every so many elements, and the sum of all magnitudes."""
    values = np.asarray(x, np.float64)
    assert list(values.shape) == list(golden[f"{name}__shape"]), (values.shape, golden[f"{name}__shape"])
    np.testing.assert_allclose(values.ravel()[:: int(golden[f"{name}__stride"])], golden[name], rtol=rtol, atol=atol)
    np.testing.assert_allclose(np.abs(values).sum(), golden[f"{name}__abssum"], rtol=rtol)


def check_pred(golden: Any, pred: Any, rtol: float = 1e-4, atol: float = 1e-4) -> None:
    """Compare decoded rows (N, rows, 85) with those of an ``eval_*.npz``."""
    rows = np.asarray(pred, np.float64)
    assert list(rows.shape) == list(golden["full_shape"])
    np.testing.assert_allclose(rows[:, :: int(golden["row_stride"])], golden["pred"], rtol=rtol, atol=atol)
    np.testing.assert_allclose(np.abs(rows).mean((0, 1)), golden["channel_absmean"], rtol=rtol)
