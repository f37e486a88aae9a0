"""Which parameters of a training script's checkpoint are taken, under which names, and what is said of it."""

from collections import OrderedDict

import pytest
import torch
from torch import nn

from pyrafuse.core.state_dicts import find_weights, without_common_prefix

NAMES = ("backbone.conv1.weight", "backbone.bn1.running_mean", "head.conv.weight", "head.conv.bias")


def state(start, prefix=""):
    return OrderedDict((f"{prefix}{name}", torch.full((2,), float(start + i))) for i, name in enumerate(NAMES))


def values(weights):
    return [float(value[0]) for value in weights.entries.values()]


LIVE, MEAN = state(0), state(10)
BARE = {name.replace(".", ""): value for name, value in MEAN.items()}
UNDERSCORED = {f"ema_{name.replace('.', '_')}": value for name, value in MEAN.items()}


@pytest.mark.parametrize(
    "prefix",
    [
        "", "module.", "_orig_mod.", "model.", "net.", "module._orig_mod.", "_orig_mod.module.", "model.model.",
        "model._orig_mod.module.", "module.module.model.", "_forward_module.model.", "detector.", "student.",
        "_orig_mod.detector.", "model._fsdp_wrapped_module.", "_orig_mod.model.network.module.",
    ],
)  # fmt: skip
@pytest.mark.parametrize("key", [None, "state_dict", "model", "model_state_dict", "net", "weights", "params"])
def test_prefixes_of_wrappers_are_taken_off(prefix, key):
    given = state(0, prefix)
    weights = find_weights(given if key is None else {"epoch": 3, "step": torch.tensor(3), key: given})
    assert tuple(weights.entries) == NAMES
    assert values(weights) == [0, 1, 2, 3]
    assert weights.notes == ()


def test_compiled_parts_lie_anywhere_in_a_name():
    given = {"model.backbone._orig_mod.conv.weight": torch.ones(1), "model.head.weight": torch.ones(1)}
    assert list(find_weights(given).entries) == ["backbone.conv.weight", "head.weight"]


def test_names_of_which_few_are_wrapped_stay():
    given = {"stem.a": torch.ones(1), "model.b": torch.ones(1), "module.c": torch.ones(1)}
    assert list(find_weights(given).entries) == list(given)


def test_what_lies_beside_a_wrapped_detector_is_left_out_and_named():
    weights = find_weights({"state_dict": {**state(0, "model."), "criterion.weight": torch.ones(1)}})
    assert tuple(weights.entries) == NAMES
    assert weights.notes == ("1 entries outside model are left out: criterion.weight",)


@pytest.mark.parametrize(
    ("content", "where"),
    [
        ({"model": LIVE, "ema": {"module": MEAN, "updates": 9}}, "ema.module"),
        ({"model": LIVE, "model_ema": {**state(10, "module."), "n_averaged": torch.tensor(3)}}, "model_ema"),
        ({"state_dict": LIVE, "state_dict_ema": MEAN}, "state_dict_ema"),
        ({"state_dict_ema": MEAN, "state_dict": LIVE}, "state_dict_ema"),
        ({"state_dict": LIVE, "ema_state_dict": {**state(10, "module."), "steps": torch.tensor(3)}}, "ema_state_dict"),
        ({"model": state(0, "module._orig_mod."), "ema": state(10, "_orig_mod.module.")}, "ema"),
        ({"model": LIVE, "ema": {"decay": 0.9, "shadow": MEAN}}, "ema.shadow"),
        ({"model": LIVE, "ema": {"state_dict": {"module": MEAN}}}, "ema.state_dict.module"),
        ({"model": {"state_dict": LIVE, "ema_weights": MEAN}}, "model.ema_weights"),
        ({"params": LIVE, "params_ema": MEAN}, "params_ema"),
        ({"model": LIVE, "swa_model": {**state(10, "module."), "n_averaged": torch.tensor(3)}}, "swa_model"),
        ({"state_dict": LIVE, "callbacks": {"EMA": {"ema_state_dict": MEAN}}}, "callbacks.EMA.ema_state_dict"),
        ({"state_dict": {**state(0, "model."), **state(10, "ema.module.")}}, "ema.module."),
        ({"state_dict": {**state(0, "model."), **state(10, "ema_model.module.")}}, "ema_model.module."),
        ({"state_dict": {**state(0, "model."), **state(10, "model_ema.")}}, "model_ema."),
        ({"state_dict": {**state(0, "model."), **{f"model_ema.{k}": v for k, v in BARE.items()}}}, "model_ema."),
        ({"state_dict": {**state(0, "student."), **state(10, "teacher.")}}, "teacher."),
        ({**LIVE, **UNDERSCORED}, "ema_"),
    ],
)
def test_averaged_weights_are_chosen_and_it_is_said(content, where):
    weights = find_weights(content)
    assert tuple(weights.entries) == NAMES
    assert values(weights) == [10, 11, 12, 13]
    assert len(weights.notes) == 1
    assert "averaged weights (EMA)" in weights.notes[0]
    assert where in weights.notes[0]
    assert "instead of the live ones under" in weights.notes[0]


@pytest.mark.parametrize("key", ["ema", "model_ema", "state_dict_ema", "ema_state_dict", "params_ema"])
def test_averaged_weights_alone(key):
    weights = find_weights({"epoch": 1, key: {**state(10, "module."), "n_averaged": torch.tensor(3)}})
    assert tuple(weights.entries) == NAMES
    assert values(weights) == [10, 11, 12, 13]
    assert weights.notes == (f"averaged weights (EMA) under {key} are taken",)


def test_what_was_not_averaged_is_taken_from_the_live_ones():
    mean = {key: value for key, value in MEAN.items() if "running" not in key}
    weights = find_weights({"model": LIVE, "ema": {"shadow": mean}})
    assert values(weights) == [10, 1, 12, 13]
    assert weights.notes[0].endswith("1 of 4 entries are not averaged, and taken from the live ones")


@pytest.mark.parametrize(
    ("more", "live"),
    [
        ({"message_hub": {}, "ema_state_dict": MEAN}, "ema_state_dict"),
        ({"meta": {"mmengine_version": "0.10"}, "ema_state_dict": state(10, "module.")}, "ema_state_dict"),
        ({"current_model_state": MEAN, "averaging_state": {"n_averaged": torch.tensor(3)}}, "current_model_state"),
    ],
)
def test_trainers_that_exchange_live_and_averaged_weights_when_they_save(more, live):
    weights = find_weights({"state_dict": LIVE, **more})
    assert values(weights) == [0, 1, 2, 3]
    assert weights.notes == (
        f"averaged weights (EMA) are taken: they are under state_dict, and the live ones under {live}",
    )


def test_mmcv_exchanges_them_with_buffers():
    weights = find_weights({"meta": {"mmdet_version": "2.25"}, "state_dict": {**LIVE, **UNDERSCORED}})
    assert tuple(weights.entries) == NAMES
    assert values(weights) == [0, 1, 2, 3]
    assert "the live ones under ema_" in weights.notes[0]


def test_averages_without_names_are_told_of():
    weights = find_weights({"model": LIVE, "ema": {"decay": 0.9, "shadow_params": list(MEAN.values())}})
    assert values(weights) == [0, 1, 2, 3]
    assert weights.notes == (
        "the averaged weights under ema.shadow_params have no names; the live ones under model are taken",
    )


@pytest.mark.parametrize(
    "more",
    [
        {"ema": {"loss": torch.ones(2), "accuracy": torch.ones(3)}},
        {"ema": {f"teacher.{i}": torch.ones(5) for i in range(9)}},
        {"ema_decay": 0.99, "ema": None, "use_ema": True},
        {"optimizer": {"state": {0: {"momentum_buffer": torch.ones(2)}}}, "args": {"ema": True}},
    ],
)
def test_averages_of_something_else_are_none(more):
    weights = find_weights({"model": LIVE, **more})
    assert values(weights) == [0, 1, 2, 3]
    assert weights.notes == ()


def test_layers_that_average_are_no_averages():
    given = {"avg_pool.weight": torch.ones(1), "avgpool.b": torch.ones(1), "average_head.c": torch.ones(1)}
    assert list(find_weights(given).entries) == list(given)


def test_the_first_part_that_all_names_share():
    assert list(without_common_prefix(state(0, "retinanet."))) == list(NAMES)
    assert list(without_common_prefix(LIVE)) == list(NAMES)
    assert list(without_common_prefix({"a": torch.ones(1)})) == ["a"]
    assert without_common_prefix({}) == {}


def test_what_pytorch_itself_averages():
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    averaged = torch.optim.swa_utils.AveragedModel(model)
    with torch.no_grad():
        model[0].weight.zero_()
    weights = find_weights({"model": model.state_dict(), "model_ema": averaged.state_dict()})
    assert weights.entries.keys() == model.state_dict().keys()
    assert torch.equal(weights.entries["0.weight"], averaged.module[0].weight)
