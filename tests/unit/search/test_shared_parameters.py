"""What two graphs share and what they do not, an optimiser that grows, and options dealt in turns."""

import random
from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch import nn

from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.models.describing import describe
from pyrafuse.models.detector import Card, Detector
from pyrafuse.necks.graph_neck import GraphNeck
from pyrafuse.necks.graph_text import read_graph
from pyrafuse.recipes.registry import RECIPES
from pyrafuse.search.choices import Space
from pyrafuse.search.fairness import FairChooser
from pyrafuse.search.growing import GrowingOptimizer
from pyrafuse.search.learners import create_candidate
from pyrafuse.search.settings import ProxySettings
from pyrafuse.search.shared_parameters import Bank, find_batch_norms, name_parameters, use_group_norms
from pyrafuse.search.space import draw, sample
from pyrafuse.training.optimizing import base_lr

INPUTS = PyramidSpec((8, 12, 16), (8, 16, 32))
SPACE = Space(sizes=(64,), channels=(8, 16), max_merges=6)
CARD = Card(
    spec=replace(
        describe("atss", backbone={"name": "resnet18", "width": 8}, head={"num_convs": 1, "channels": 8}),
        num_classes=3,
    )
)
CONV = "conv conv 1 3  none batch_norm 1e-05 0.1 none False"
RELU = CONV.replace("none False", "relu False")
PROJECT = "project conv 1 1  none none  none True"
WAY = f"P3.0 from 5.0 {PROJECT}"

FIRST = """
channels: 8
defaults: {conv: {norm: batch_norm}}
merges:
  P5: {inputs: [C5]}
  P4: {inputs: [C4, P5, C3], fusion: fast_normalized}
  P3: {inputs: [C3, P4, C5]}
outputs: [P3, P4, P5]
"""


def create(text=FIRST, seed=0) -> Detector:
    torch.manual_seed(seed)
    return create_candidate(CARD, read_graph(text), INPUTS, ProxySettings())


def parts_of(detector) -> set[str]:
    """Places and operators of the neck."""
    return {key.split(": ")[0].removeprefix("neck.") for key in name_parameters(detector) if key.startswith("neck.")}


def maps(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        torch.randn(2, channels, 64 // stride, 64 // stride, generator=generator)
        for channels, stride in zip(INPUTS.channels, INPUTS.strides, strict=True)
    )


def test_parts_are_known_by_place_and_operator():
    assert parts_of(create()) == {
        f"P5.0 {CONV}",
        f"P4.0 from 4.0 {PROJECT}",
        "P4.0 fast_normalized of 4,5,3",
        f"P4.0 {CONV}",
        WAY,
        f"P3.0 {CONV}",
    }
    others = {key for key in name_parameters(create()) if not key.startswith("neck.")}
    assert {"head.scales.0@8 ", "head.scales.2@32 ", "head.classes.weight 3x8x3x3"} < others


@pytest.mark.parametrize(
    ("old", "new", "ours", "theirs"),
    [
        ("C3, P4, C5]", "C3, P4, C5], up: bilinear", (), ()),  # nothing that has parameters
        ("P4", "M4", (), ()),  # names
        ("P4, C5]", "P4, C5], conv: {norm: batch_norm, activation: relu}", (f"P3.0 {CONV}",), (f"P3.0 {RELU}",)),
        # other sources: another way and other weights; the convolution behind them stays
        (
            "P5, C3], fusion",
            "C5, C3], fusion",
            (),
            (f"P4.0 from 5.0 {PROJECT}",),
        ),
        (
            "C4, P5, C3]",
            "C4, C3]",
            ("P4.0 fast_normalized of 4,5,3",),
            ("P4.0 fast_normalized of 4,3",),
        ),
        # behind a concatenation it is known which channels are whose
        ("P4, C5]", "P4, C5], fusion: concat", (f"P3.0 {CONV}", WAY), (f"P3.0 {CONV} behind 3,4,5",)),
        # another map of the same level is another place
        ("outputs: [P3,", "  P3b: {inputs: [P3]}\noutputs: [P3b,", (), (f"P3.1 {CONV}",)),
    ],
)  # fmt: skip
def test_two_graphs_share_what_does_the_same_at_the_same_place_and_nothing_else(old, new, ours, theirs):
    first, second = create(), create(FIRST.replace(old, new), seed=1)
    assert parts_of(first) - parts_of(second) == {*ours}
    assert parts_of(second) - parts_of(first) == {*theirs}
    bank = Bank()
    before = name_parameters(first)
    assert bank.share(first, grows=True) == before
    own = name_parameters(second)
    added = bank.share(second, grows=True)
    after = name_parameters(second)
    for key, parameter in after.items():
        assert parameter is (before[key] if key in before else own[key])
    assert added.keys() == own.keys() - before.keys()
    assert {id(norm.running_mean) for norm in find_batch_norms(first)}.isdisjoint(
        id(norm.running_mean) for norm in find_batch_norms(second)
    )


def test_entries_of_a_list_of_levels_are_those_of_their_stride():
    finer = FIRST.replace("outputs: [P3, P4, P5]", "  P6: {inputs: [P5]}\noutputs: [P3, P4, P5, P6]")
    coarse = "channels: 8\nmerges: {P4: [C4, C3], P5: [C5], P6: [P5]}\noutputs: [P4, P5, P6]"
    three, more, coarser = (
        {key for key in name_parameters(create(text)) if "scales" in key} for text in (FIRST, finer, coarse)
    )
    assert three < more
    assert not three & coarser


def test_a_subnet_computes_what_a_neck_with_copied_weights_does_bit_by_bit():
    bank, rng = Bank(), random.Random(3)
    for number in range(6):  # the last ones have parameters of the first ones
        torch.manual_seed(number)
        graph = sample(SPACE, INPUTS, rng).graph
        detector = create_candidate(CARD, graph, INPUTS, ProxySettings())
        num_parameters = len(list(detector.parameters()))
        num_added = len(bank.share(detector, grows=True))
        assert len(list(detector.parameters())) == num_parameters
    assert 0 < num_added < num_parameters
    plain = create_candidate(CARD, graph, INPUTS, ProxySettings()).neck  # with memory laid out alike
    assert isinstance(plain, GraphNeck)
    plain.load_state_dict(detector.neck.state_dict())
    for mode in (True, False):
        ours, theirs = detector.neck.train(mode)(maps()), plain.train(mode)(maps())
        assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


def test_a_bank_that_does_not_grow_gives_what_it_has():
    bank = Bank()
    bank.share(create(), grows=True)
    known = {**bank.parameters}
    other = create(FIRST.replace("P4, C5]", "P4, C5], conv: {kernel_size: 1}"), seed=1)
    assert bank.share(other, grows=False) == {}
    assert bank.parameters == known
    named = name_parameters(other)
    assert all(named[key] is known[key] for key in named.keys() & known.keys())
    assert named.keys() - known.keys()


def test_stored_numbers_become_parameters_when_they_are_asked_for():
    bank = Bank()
    bank.share(create(), grows=True)
    stored = Bank(bank.to_tensors())
    second = create(seed=1)
    assert stored.share(second, grows=False).keys() == bank.parameters.keys()
    assert stored.stored == {}
    assert all(torch.equal(value, bank.parameters[key]) for key, value in name_parameters(second).items())


def test_group_norms_take_the_place_of_all_batch_norms():
    detector = create()
    assert len(find_batch_norms(detector)) == 3
    use_group_norms(detector)
    assert find_batch_norms(detector) == []
    norm = detector.neck.merges["P4"].conv.norm
    assert (norm.num_groups, norm.num_channels) == (4, 8)
    alone, together = maps(), maps(1)
    both = tuple(torch.cat(pair) for pair in zip(alone, together, strict=True))
    for one, other in zip(detector.neck(alone), detector.neck(both), strict=True):
        torch.testing.assert_close(one, other[:2], rtol=1e-4, atol=1e-5)  # other images do not matter in training


def sgd(**changes):
    recipe = RECIPES.create("small")
    settings = replace(recipe.optimizer, name="sgd", momentum=0.0, weight_decay=0.0, clip_norm=0.0, **changes)
    return replace(recipe, optimizer=settings)


def test_gradients_of_several_graphs_are_summed_and_what_has_none_stays():
    recipe, bank = sgd(), Bank()
    first = create()
    second = create(FIRST.replace("P4, C5]", "P4, C5], conv: {kernel_size: 1}"), seed=1)
    optimizer = GrowingOptimizer(recipe)
    for detector in (first, second):
        optimizer.adopt(detector, bank.share(detector, grows=True))
    before = {key: value.clone() for key, value in bank.to_tensors().items()}
    gradients: dict[str, torch.Tensor] = {}
    for detector in (first, second):
        loss = sum(level.square().mean() for level in detector.neck.eval()(maps()))
        named = {key: one for key, one in name_parameters(detector).items() if key.startswith("neck.")}
        for key, gradient in zip(named, torch.autograd.grad(loss, [*named.values()], retain_graph=True), strict=True):
            gradients[key] = gradients.get(key, 0) + gradient
        loss.backward()
    assert optimizer.move(0.5)
    for key, value in bank.to_tensors().items():
        expected = before[key] - 0.5 * base_lr(recipe) * gradients[key] if key in gradients else before[key]
        torch.testing.assert_close(value, expected)
        assert torch.equal(value, before[key]) == (key not in gradients or not gradients[key].any())
    assert all(one.grad is None for one in bank.parameters.values())
    next(iter(bank.parameters.values())).grad = torch.full_like(next(iter(bank.parameters.values())), float("nan"))
    kept = {key: value.clone() for key, value in bank.to_tensors().items()}
    assert not optimizer.move(1.0)
    assert all(torch.equal(value, kept[key]) for key, value in bank.to_tensors().items())


def test_groups_are_those_of_the_recipe():
    recipe = replace(sgd(), optimizer=replace(RECIPES.create("small").optimizer, weight_decay=0.1, clip_norm=0.0))
    bank, detector = Bank(), create()
    optimizer = GrowingOptimizer(recipe)
    optimizer.adopt(detector, bank.share(detector, grows=True))
    for parameter in bank.parameters.values():
        nn.init.ones_(parameter)
        parameter.grad = torch.zeros_like(parameter)
    assert optimizer.move(1.0)
    lr = base_lr(recipe)
    for key, value in bank.to_tensors().items():
        decayed = 1.0 - (0.1 * lr if value.ndim > 1 else 0.0)
        assert torch.allclose(value, torch.full_like(value, decayed)), key


def test_every_option_of_a_question_is_given_equally_often():
    chooser = FairChooser(0)
    asked: Counter[tuple[str, object]] = Counter()
    rounds = 0
    for number in range(1, 91):
        candidate = draw(SPACE, INPUTS, chooser)
        asked.update(candidate.answers.items())
        assert all(max(counts) - min(counts) <= 1 for counts in chooser.counts.values())
        if number % 10 == 0:  # there are ten answers for the convolution of the whole graph, and each is given once
            rounds += 1
            assert {asked["conv", one] for one in ("each", *SPACE.convs)} == {rounds}
    assert {asked["channels", one] for one in SPACE.channels} == {45}
    assert sum(len(counts) > 1 for counts in chooser.counts.values()) > 50  # questions that few paths have, too
    draws = [[draw(SPACE, INPUTS, one) for _ in range(5)] for one in map(FairChooser, (1, 1, 2))]
    assert draws[0] == draws[1] != draws[2]
