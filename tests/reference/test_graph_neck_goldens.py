"""FPN, PAFPN, NAS-FPN and BiFPN, against what the originals computed, through the originals' own keys."""

import json

import pytest
import torch

from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.importers.effdet import detectors as effdet
from pyrafuse.importers.mmdetection import necks as mmdetection_necks
from pyrafuse.importers.renaming import load_renamed
from pyrafuse.importers.torchvision import blocks as torchvision_blocks
from pyrafuse.necks.bifpn import bifpn
from pyrafuse.necks.fpn import fpn
from pyrafuse.necks.nas_fpn import nas_fpn
from pyrafuse.necks.pafpn import pafpn
from vectors import FOLDER

EXTRA = {False: "max_pool", True: "input", "on_input": "input", "on_lateral": "lateral", "on_output": "output"}
FUSIONS = {"fa": "fast_normalized", "attn": "softmax", "sum": "sum"}


def cases(file: str, *prefixes: str) -> list[str]:
    index = json.loads((FOLDER / file).read_text())
    return [tag for tag in index if tag.startswith(prefixes)]


def inputs_of(vectors, texts):
    images = tuple(vectors.image(text) for text in texts)
    strides = tuple(2 ** (3 + i) for i in range(len(images)))
    return images, PyramidSpec(tuple(x.shape[1] for x in images), strides)


def check(vectors, arrays, tag, names, out, tolerance=3e-6):
    assert len(out) == len(names)
    for name, x in zip(names, out, strict=True):
        assert vectors.error(arrays, f"{tag}{name}", x) < tolerance, name


def build_mmdetection(cfg, spec):
    norm = "batch_norm" if (cfg.get("norm_cfg") or {}).get("type") == "BN" else "none"
    if cfg["type"] == "NASFPN":
        neck = nas_fpn(
            spec, out_channels=cfg["out_channels"], stack=cfg["stack_times"], start_level=cfg["start_level"], norm=norm
        )
        return neck, mmdetection_necks.name_nas_fpn(neck)
    neck = {"FPN": fpn, "PAFPN": pafpn}[cfg["type"]](
        spec,
        out_channels=cfg["out_channels"],
        num_levels=cfg["num_outs"],
        start_level=cfg["start_level"],
        extra=EXTRA[cfg["add_extra_convs"]],
        relu_before_extra=cfg.get("relu_before_extra_convs", False),
        norm=norm,
        lateral_norm=not cfg.get("no_norm_on_lateral", False),
    )
    return neck, mmdetection_necks.name_fpn(neck)


@pytest.mark.parametrize("tag", cases("mmdet/necks.json", "fpn_", "pafpn_", "nasfpn_"))
def test_mmdetection(vectors, tag):
    case = vectors.json("mmdet/necks.json")[tag]
    pyramid, spec = inputs_of(vectors, case["inputs"])
    neck, naming = build_mmdetection(case["cfg"], spec)
    state = vectors.state(case["manifest"], case["gains"])
    load_renamed(neck, state, naming, source=tag, layout="mmdetection")
    with torch.no_grad():
        out = neck.train(case["train"])(pyramid)
    arrays = vectors.npz(f"mmdet/necks_{'other' if tag.startswith('nas') else 'fpn'}.npz")
    check(vectors, arrays, f"{tag}.", range(len(out)), out)
    for key, value in neck.state_dict().items():
        if f"{tag}.after.{naming(key)}" in arrays.files and not key.endswith("num_batches_tracked"):
            assert vectors.error(arrays, f"{tag}.after.{naming(key)}", value) < 3e-6, key


@pytest.mark.parametrize("tag", cases("misc/index_torchvision.json", "fpn_"))
@torch.no_grad()
def test_torchvision(vectors, tag):
    case = vectors.json("misc/index_torchvision.json")[tag]
    pyramid, spec = inputs_of(vectors, case["inputs"])
    extra = {"NoneType": (3, "max_pool"), "LastLevelMaxPool": (4, "max_pool"), "LastLevelP6P7": (5, "input")}
    num_levels, way = extra[case["extra"]]
    neck = fpn(
        spec,
        out_channels=case["out_channels"],
        num_levels=num_levels,
        extra="output" if case["use_P5"] else way,
        relu_before_extra=True,
        norm="none" if case["norm"] is None else "batch_norm",
    ).eval()
    state = vectors.state(vectors.json(f"misc/manifest_tv_{tag}.json"), case["gain"])
    load_renamed(neck, state, torchvision_blocks.name_fpn(neck), source=tag, layout="torchvision")
    names = [0, 1, 2, *({4: ["pool"], 5: ["p6", "p7"]}.get(num_levels, []))]
    check(vectors, vectors.npz("misc/torchvision.npz"), f"{tag}/", names, neck(pyramid))


@pytest.mark.parametrize("tag", cases("misc/index_effdet.json", "fpn_"))
@torch.no_grad()
def test_effdet(vectors, tag):
    case = vectors.json("misc/index_effdet.json")[tag]
    if f"{tag}/P3" not in vectors.npz("misc/effdet.npz").files:
        pytest.skip("described, but not among the vectors")
    pyramid, spec = inputs_of(vectors, case["inputs"])
    form, fusion = case["fpn_name"].split("_")
    neck = bifpn(
        spec,
        out_channels=case["fpn_channels"],
        repeats=case["fpn_cell_repeats"],
        form=form,
        fusion=FUSIONS[fusion],
        same_padding=case["pad_type"] == "same",
        redundant_bias=case["redundant_bias"],
    ).eval()
    manifest = vectors.json(f"misc/manifest_effdet_{tag}.json")
    state = vectors.state(manifest, case["gain"])
    if "plain" not in case["edge_rule"]:
        edges = [(key, shape) for key, shape in manifest if key.endswith("edge_weights")]
        for key, shape in edges:
            state[key] = torch.from_numpy(vectors.fill.value(f"{key}.weight", shape))
    load_renamed(neck, state, effdet.name_bifpn(neck), source=tag, layout="effdet")
    assert sum(p.numel() for p in neck.parameters()) == case["params"]
    check(vectors, vectors.npz("misc/effdet.npz"), f"{tag}/", ("P3", "P4", "P5", "P6", "P7"), neck(pyramid))
