"""Graphs that are drawn: every one is legal, whatever answers the questions."""

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch.export import Dim

from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.necks.convolving import Conv
from pyrafuse.necks.graph import plan_graph
from pyrafuse.necks.graph_neck import GraphNeck
from pyrafuse.necks.graph_text import read_graph, write_graph
from pyrafuse.search.canonical import fingerprint
from pyrafuse.search.closing import count_excess, count_merges
from pyrafuse.search.space import Answer, Candidate, Space, cross, distance, draw, mutate, sample

MAPS = (
    PyramidSpec((24, 40, 112, 320), (4, 8, 16, 32)),
    PyramidSpec((64, 128, 256), (8, 16, 32)),
    PyramidSpec((64, 128), (8, 16)),
    PyramidSpec((64,), (16,)),
    PyramidSpec((32,) * 6, (1, 2, 4, 8, 16, 32)),
)
NARROW = Space(
    fusions=("global_attention", "concat"),
    ups=("aligned", "nearest"),
    downs=("max_pool_conv",),
    convs={"grouped": Conv(norm="group_norm")},
    projects={"plain": Conv(1), "grouped": Conv(1, norm="group_norm")},
    channels=(32,),
    outputs=((2, 3, 4), (4, 7), (5,), (1, 3, 5)),
    reads=((3, 5), (4,), (2, 3, 4, 5), (5,)),
    max_merges=7,
    max_inputs=2,
)
SPACE = Space()
SPACES = (SPACE, Space(channels=("as_inputs",), max_inputs=2, max_merges=6), NARROW)


@pytest.mark.parametrize("space", SPACES, ids=["wide", "as_inputs", "narrow"])
@pytest.mark.parametrize("inputs", MAPS, ids=str)
def test_random_graphs_are_legal(space, inputs):
    rng = random.Random(0)
    for _ in range(100):
        candidate = sample(space, inputs, rng)
        graph = candidate.graph
        plan = plan_graph(graph, inputs)
        levels = tuple(plan.steps[place - len(inputs)].merge.level for place in plan.outputs)
        assert levels in space.outputs
        assert graph.stack in space.stacks
        assert len(graph.merges) <= space.max_merges
        assert all(len(merge.inputs) <= space.max_inputs for merge in graph.merges)
        assert all(merge.fusion in (*space.fusions, "sum") for merge in graph.merges)
        assert candidate.size in space.sizes


@pytest.mark.parametrize("space", SPACES, ids=["wide", "as_inputs", "narrow"])
def test_some_are_built_and_run_on_odd_sizes(space):
    rng = random.Random(1)
    for number in range(4):
        inputs = replace(MAPS[number % 4], channels=tuple(range(8, 8 + 4 * len(MAPS[number % 4]), 4)))
        graph = sample(space, inputs, rng).graph
        has_values = number == 0 or space is NARROW  # what aligns has no form without values
        device, sides = ("cpu", (41, 59)) if has_values else ("meta", (203, 317))
        with torch.device(device), torch.no_grad():
            neck = GraphNeck(inputs, graph).eval()
            maps = tuple(
                torch.rand(2, c, *(-(-side // s) for side in sides))
                for c, s in zip(inputs.channels, inputs.strides, strict=True)
            )
            outputs = neck(maps)
        for x, channels, stride in zip(outputs, neck.features.channels, neck.features.strides, strict=True):
            assert x.shape[:2] == (2, channels)
            if stride in inputs.strides:
                assert x.shape[2:] == maps[inputs.strides.index(stride)].shape[2:]
            assert device == "meta" or x.isfinite().all()
        assert read_graph(write_graph(graph)) == graph


def test_one_is_captured_with_a_free_batch():
    graph = sample(replace(SPACE, channels=(16,), max_merges=5, stacks=(1,)), MAPS[1], random.Random(2)).graph
    neck = GraphNeck(MAPS[1], graph).eval()
    maps = [tuple(torch.rand(n, c, 88 // s, 120 // s) for c, s in ((64, 8), (128, 16), (256, 32))) for n in (2, 3)]
    batch = Dim("batch", max=8)
    program = torch.export.export(neck, (maps[0],), dynamic_shapes=(({0: batch},) * 3,), strict=False)
    for ours, theirs in zip(program.module()(maps[1]), neck(maps[1]), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("space", SPACES, ids=["wide", "as_inputs", "narrow"])
def test_a_chooser_of_one_mind_gets_a_graph(space, last):
    for inputs in MAPS:
        candidate = draw(space, inputs, lambda _, options: len(options) - 1 if last else 0)
        assert plan_graph(candidate.graph, inputs).steps


def answer_again(candidate: Candidate):
    def choose(question: str, options: Sequence[Answer]) -> int:
        assert (len(options) > 1) == (question in candidate.answers)
        return options.index(candidate.answers.get(question, options[0]))

    return choose


def test_the_answers_draw_the_same_again():
    rng = random.Random(3)
    for inputs in MAPS:
        candidate = sample(SPACE, inputs, rng)
        assert draw(SPACE, inputs, answer_again(candidate)) == candidate
        assert all(isinstance(answer, str | int) for answer in candidate.answers.values())


def test_the_same_seed_draws_the_same():
    draws = [[sample(SPACE, MAPS[0], rng) for _ in range(5)] for rng in (random.Random(3), random.Random(3))]
    assert draws[0] == draws[1]
    assert len({fingerprint(one.graph, MAPS[0]) for one in draws[0]}) == 5


def test_a_mutation_changes_one_answer_and_what_depends_on_it():
    rng = random.Random(0)
    num_near = 0
    for _ in range(100):
        before = sample(SPACE, MAPS[0], rng)
        after = mutate(SPACE, MAPS[0], before, rng)
        plan_graph(after.graph, MAPS[0])
        changed = {one for one in before.answers if before.answers[one] != after.answers.get(one)}
        assert changed
        num_near += len(changed) == 1
        assert 0 < distance(before, after) <= 1
        assert mutate(SPACE, MAPS[0], before, rng, rate=0.0) == before
    assert num_near > 50


def test_a_cross_is_answered_as_one_of_its_parents():
    rng = random.Random(0)
    num_foreign = num_answers = 0
    for _ in range(50):
        first, second = sample(SPACE, MAPS[0], rng), sample(SPACE, MAPS[0], rng)
        child = cross(SPACE, MAPS[0], first, second, rng)
        plan_graph(child.graph, MAPS[0])
        num_answers += len(child.answers)
        num_foreign += sum(one not in (first.answers.get(q), second.answers.get(q)) for q, one in child.answers.items())
    assert num_foreign < 0.2 * num_answers
    assert cross(SPACE, MAPS[0], first, first, rng) == first


def test_distance_counts_the_questions():
    graph = sample(SPACE, MAPS[0], random.Random(0)).graph
    one, other = (Candidate(graph, 320, answers) for answers in ({"a": 1, "b": 2, "c": 3}, {"a": 1, "b": 4, "d": 3}))
    assert distance(one, other) == distance(other, one) == 0.75
    assert distance(one, one) == 0
    assert distance(one, Candidate(graph, 320, {})) == 1
    assert distance(Candidate(graph, 320, {}), Candidate(graph, 320, {})) == 0


class TestWhatIsLeftToRead:
    """By hand: three maps come in, P3, P4 and P5 go out, and a merge reads two at most."""

    LEVELS = frozenset({3, 4, 5})

    def excess(self, unread, made=frozenset({3, 4, 5}), rest=0, known=LEVELS):
        return count_excess(unread, outputs=self.LEVELS, made=made, known=known, rest=rest, most=2)

    def test_at_the_end_one_may_be_unread_at_each_level_that_goes_out(self):
        assert self.excess([3, 4, 5]) == 0
        assert self.excess([4]) == 0
        assert self.excess([3, 4, 4]) == 1
        assert self.excess([3, 6]) == 1
        assert self.excess([3, None]) == 1

    def test_one_more_merge_reads_one_more_or_two_where_it_becomes_the_end(self):
        assert self.excess([3, 4, 5, 5, 5], rest=1) == 1
        assert self.excess([3, 4, 4, 4], rest=1) == 0
        assert self.excess([3, 4, 4, 4, 4], rest=1) == 1

    def test_levels_must_be_made(self):
        assert self.excess([None], made=frozenset({3}), rest=1) == float("inf")
        assert self.excess([None], made=frozenset({3}), rest=2) == 0
        assert self.excess([None], made=frozenset({3, 4}), rest=1, known=frozenset({2, 3})) == float("inf")

    @pytest.mark.parametrize(
        ("levels", "number"), [({4}, 2), ({3, 4, 5}, 3), ({5, 6, 7}, 3), ({3, 7}, 3), ({8}, 3), ({9}, None)]
    )
    def test_the_least_number_of_merges(self, levels, number):
        found = count_merges(3, outputs=frozenset(levels), known=self.LEVELS, most=2, limit=3)
        assert found == number
