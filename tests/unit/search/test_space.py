"""Graphs that are drawn: every one is legal, whatever answers the questions."""

import random

import pytest

from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.necks.graph import plan_graph
from pyrafuse.search.space import Space, cross, distance, draw, mutate, sample

MAPS = (
    PyramidSpec((24, 40, 112, 320), (4, 8, 16, 32)),
    PyramidSpec((64, 128, 256), (8, 16, 32)),
    PyramidSpec((64, 128), (8, 16)),
    PyramidSpec((64,), (16,)),
    PyramidSpec((8,) * 6, (1, 2, 4, 8, 16, 32)),
)
SPACE = Space()


@pytest.mark.parametrize("inputs", MAPS, ids=str)
def test_random_graphs_are_legal(inputs):
    rng = random.Random(0)
    for _ in range(200):
        candidate = sample(SPACE, inputs, rng)
        plan = plan_graph(candidate.graph, inputs)
        assert len(plan.outputs) == len(candidate.graph.outputs)
        assert candidate.size in SPACE.sizes


@pytest.mark.parametrize("last", [False, True])
def test_a_chooser_of_one_mind_gets_a_graph(last):
    for inputs in MAPS:
        candidate = draw(SPACE, inputs, lambda _, options: len(options) - 1 if last else 0)
        assert plan_graph(candidate.graph, inputs).steps


def test_the_same_seed_draws_the_same():
    draws = [[sample(SPACE, MAPS[0], rng) for _ in range(5)] for rng in (random.Random(3), random.Random(3))]
    assert draws[0] == draws[1]


def test_relatives_are_legal_and_near():
    rng = random.Random(0)
    for _ in range(100):
        first, second = sample(SPACE, MAPS[0], rng), sample(SPACE, MAPS[0], rng)
        child, other = cross(SPACE, MAPS[0], first, second, rng), mutate(SPACE, MAPS[0], first, rng)
        for one in (child, other):
            plan_graph(one.graph, MAPS[0])
        assert 0 < distance(first, other) <= 1
        assert distance(first, first) == 0
