"""The space of graphs: draw one, draw one like another, draw one between two, and say how far two are apart.

Every way of searching answers the same questions, of which each offers legal answers alone; so whatever it answers is
a graph that `plan_graph` takes.
"""

import random
from collections.abc import Callable, Sequence

from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.search.choices import Answer, Candidate, Chooser, Space
from pyrafuse.search.drawing import Drawing


def draw(space: Space, inputs: PyramidSpec, choose: Chooser) -> Candidate:
    """The graph that ``choose`` decides on, for maps of ``inputs``.

    ``choose`` is called for every question, those with one option too; only the others are kept as ``answers``.

    Raises:
        PyrafuseError: If the space has no graph for such maps.
    """
    return Drawing(space, inputs, choose).run()


def sample(space: Space, inputs: PyramidSpec, rng: random.Random) -> Candidate:
    """A random graph: each question is answered by ``rng``, all options alike."""
    return draw(space, inputs, lambda _, options: rng.randrange(len(options)))


def replay(
    space: Space, inputs: PyramidSpec, answers: Callable[[str], Sequence[Answer]], rng: random.Random
) -> Candidate:
    """The graph of the first legal one of the answers that are given to each question, or a random answer.

    Args:
        space: What may be chosen.
        inputs: Channels and strides of the backbone's maps.
        answers: Wished answers of a question, the most wished first; none where it is to be drawn.
        rng: Draws what is left open.
    """

    def choose(question: str, options: Sequence[Answer]) -> int:
        for answer in answers(question):
            if answer in options:
                return options.index(answer)
        return rng.randrange(len(options))

    return draw(space, inputs, choose)


def mutate(
    space: Space, inputs: PyramidSpec, candidate: Candidate, rng: random.Random, rate: float | None = None
) -> Candidate:
    """``candidate`` with some answers drawn anew, and with them those that are no longer legal.

    Args:
        space: What may be chosen.
        inputs: Channels and strides of the backbone's maps.
        candidate: It stays as it is.
        rng: Chooses what changes, and to what.
        rate: Probability that an answer changes; by default exactly one does.
    """
    questions = sorted(candidate.answers)
    if rate is None:
        changed = {rng.choice(questions)} if questions else set()
    else:
        changed = {question for question in questions if rng.random() < rate}

    def choose(question: str, options: Sequence[Answer]) -> int:
        before = candidate.answers.get(question)
        if before not in options:
            return rng.randrange(len(options))
        if question not in changed or len(options) == 1:
            return options.index(before)
        others = [place for place, option in enumerate(options) if option != before]
        return rng.choice(others)

    return draw(space, inputs, choose)


def cross(space: Space, inputs: PyramidSpec, first: Candidate, second: Candidate, rng: random.Random) -> Candidate:
    """A graph between two: each merge, and each question of the whole graph, is answered as one of them was.

    Where that is not legal, the other one's answer counts, and where neither is, a random one.
    """
    parents: dict[str, tuple[Candidate, Candidate]] = {}

    def answers(question: str) -> list[Answer]:
        part = question.split(".")[0]
        if part not in parents:
            parents[part] = (first, second) if rng.random() < 0.5 else (second, first)
        return [parent.answers[question] for parent in parents[part] if question in parent.answers]

    return replay(space, inputs, answers, rng)


def distance(first: Candidate, second: Candidate) -> float:
    """Share of the questions of either that they answer differently: 0 for the same answers, 1 where none is alike."""
    questions = first.answers.keys() | second.answers.keys()
    if not questions:
        return 0.0
    alike = sum(first.answers.get(one) == second.answers.get(one) for one in questions)
    return 1 - alike / len(questions)
