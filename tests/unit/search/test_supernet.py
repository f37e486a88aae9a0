"""Shared weights on tiny maps: resumed as uninterrupted, judged alone as in company, refused when foreign."""

import random
import re
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from pyrafuse.base.errors import CheckpointError, PyrafuseError
from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.data.augment.settings import Augmentation
from pyrafuse.data.formats.layout import read_splits
from pyrafuse.experiments.rank_correlation import spearman
from pyrafuse.models.building import build
from pyrafuse.models.describing import describe
from pyrafuse.necks import merging
from pyrafuse.necks.graph import plan_graph
from pyrafuse.recipes.registry import RECIPES
from pyrafuse.search.choices import Space
from pyrafuse.search.features import cache_features
from pyrafuse.search.journal import FINISHED, OVER_BUDGET, Trial, read_trials
from pyrafuse.search.learners import Rung, compute_loss, create_candidate
from pyrafuse.search.material import Material
from pyrafuse.search.running import name_candidate
from pyrafuse.search.settings import ProxySettings
from pyrafuse.search.shared_file import Progress, read_shared, write_shared
from pyrafuse.search.shared_parameters import find_batch_norms
from pyrafuse.search.space import sample
from pyrafuse.search.strategies.registry import STRATEGIES, restore
from pyrafuse.search.supernet import SHARED_FILE, Supernet, recalibrate

SIZE = 64
SPACE = Space(
    sizes=(SIZE,), channels=(8, 16), max_merges=5, outputs=((3, 4, 5),), fusions=("sum", "softmax"), stacks=(1,)
)
OPTIONS = {"rounds": 3, "paths": 2}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Everything but the folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYRAFUSE_CACHE", str(tmp_path_factory.mktemp("shapes")))
        splits = read_splits(f"shapes:train=8,val=4,size={SIZE}")
    torch.manual_seed(0)
    detector = build(replace(describe("atss", backbone={"name": "resnet18", "width": 8}), num_classes=5))
    detector.card = replace(detector.card, preprocessing=Preprocessing(size=(SIZE, SIZE)))
    features = cache_features(
        detector,
        splits,
        augmentation=Augmentation.light(),
        views=2,
        sizes=(SIZE,),
        folder=tmp_path_factory.mktemp("maps"),
        workers=0,
    )
    settings = ProxySettings(views=2, rungs=(2, 4), eta=2, batch_size=4, head_channels=8)
    return {
        "card": detector.card,
        "recipe": RECIPES.create("small"),
        "features": features,
        "settings": settings,
        "device": torch.device("cpu"),
        "head": {"seed": 0},
    }


@pytest.fixture
def material(base):
    def material(folder, **changes):
        said = []
        values = {**base, "find_excess": lambda _: "", "tell": said.append, **changes}
        folder.mkdir(exist_ok=True)
        return Material(folder=folder, **values), said

    return material


@pytest.fixture
def train(material, base):
    def train(folder, **changes):
        options = {**OPTIONS, "norms": "recalibrated", **changes}
        one = Supernet(material(folder)[0], **options)
        one.train(SPACE, base["features"][SIZE].spec)
        return one

    return train


def graphs(inputs, count, *, seed=0):
    rng = random.Random(seed)
    found = {}
    while len(found) < count:
        candidate = sample(SPACE, inputs, rng)
        found[name_candidate(candidate, inputs)] = candidate
    return found


def numbers_of(folder):
    return load_file(folder / SHARED_FILE)


def without_seconds(progress):
    return replace(progress, seconds=0.0)


def test_a_resumed_training_equals_the_uninterrupted_one_bit_by_bit(base, material, train, tmp_path):
    inputs = base["features"][SIZE].spec
    before = torch.get_rng_state()
    whole = train(tmp_path / "whole", rounds=4)
    assert torch.equal(torch.get_rng_state(), before)
    assert without_seconds(whole.progress) == Progress(4, 8)
    assert whole.progress.seconds > 0
    weighed = []

    def interrupt(candidate):
        weighed.append(candidate)
        if len(weighed) == 6:  # in the middle of the third round
            raise KeyboardInterrupt
        return ""

    with pytest.raises(KeyboardInterrupt):
        Supernet(material(tmp_path / "cut", find_excess=interrupt)[0], rounds=4, paths=2, norms="recalibrated").train(
            SPACE, inputs
        )
    assert any(name.startswith("exp_avg ") for name in numbers_of(tmp_path / "cut"))
    again = Supernet(material(tmp_path / "cut")[0], rounds=4, paths=2, norms="recalibrated")
    assert without_seconds(again.progress) == Progress(2, 4)
    assert not again.digest
    again.train(SPACE, inputs)
    ours, theirs = numbers_of(tmp_path / "cut"), numbers_of(tmp_path / "whole")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert all(key.startswith("weight ") for key in ours)
    assert without_seconds(again.progress) == without_seconds(whole.progress)
    assert again.digest
    assert Supernet(material(tmp_path / "cut")[0], rounds=4, paths=2, norms="recalibrated").digest == again.digest


def test_training_moves_the_shared_weights_and_lowers_the_loss(base, material, train, tmp_path):
    inputs = base["features"][SIZE].spec
    trained = train(tmp_path / "long", rounds=16, paths=3)
    fresh = Supernet(material(tmp_path / "fresh")[0], rounds=16, paths=3, norms="recalibrated")
    for name, candidate in graphs(inputs, 3).items():
        assert trained.judge(name, candidate.graph, SIZE) < fresh.judge(name, candidate.graph, SIZE) - 0.05


@pytest.mark.parametrize("norms", ["recalibrated", "group"])
def test_a_graph_is_judged_alone_as_in_company(base, material, train, tmp_path, norms):
    inputs = base["features"][SIZE].spec
    one = train(tmp_path / "a", norms=norms)
    before = {key: value.clone() for key, value in one.bank.to_tensors().items()}
    (first, second, third) = graphs(inputs, 3).items()

    def judge(supernet, *pairs):
        return {name: supernet.judge(name, candidate.graph, SIZE) for name, candidate in pairs}

    together = judge(one, first, second, third)
    assert judge(one, third, first) == {name: together[name] for name in (third[0], first[0])}
    loaded = Supernet(material(tmp_path / "a")[0], **OPTIONS, norms=norms)
    assert judge(loaded, second) == {second[0]: together[second[0]]}
    assert len({*together.values()}) == 3
    after = one.bank.to_tensors()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], before[key]) for key in before)


def test_statistics_are_means_over_the_batches_whatever_they_were_before(base):
    features = base["features"][SIZE]
    batches = [batch for _, batch in features.batches(0, 3, batch_size=4, seed=0, device=torch.device("cpu"))]

    def measure(spoil):
        torch.manual_seed(0)
        fitting = (one for one in graphs(features.spec, 40).values() if one.answers.get("conv") == "norm_1x1")
        detector = create_candidate(base["card"], next(fitting).graph, features.spec, base["settings"])
        norms = find_batch_norms(detector)
        for norm in norms:
            norm.running_mean.fill_(spoil)
        seen = []
        norms[0].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        recalibrate(detector, norms, batches, features.size, precision="32")
        with torch.no_grad():
            loss = compute_loss(detector.eval(), batches[0], features.size, precision="32")
        return norms[0], seen[:3], loss

    (norm, seen, loss), (_, _, other) = measure(0.0), measure(1e6)
    expected = torch.stack([x.mean(dim=(0, 2, 3)) for x in seen]).mean(dim=0)
    torch.testing.assert_close(norm.running_mean, expected)
    expected = torch.stack([x.var(dim=(0, 2, 3)) for x in seen]).mean(dim=0)
    torch.testing.assert_close(norm.running_var, expected)
    assert torch.equal(loss, other)


def test_paths_over_the_budget_are_passed_over_and_those_that_fail_are_counted(base, material, tmp_path, monkeypatch):
    inputs = base["features"][SIZE].spec
    monkeypatch.setitem(merging.FUSIONS, "broken", lambda _: lambda *_: 1 / 0)
    space = replace(SPACE, fusions=("sum", "broken"))
    given, said = material(tmp_path / "a", find_excess=lambda one: "too dear" if one.answers["channels"] == 16 else "")
    one = Supernet(given, rounds=2, paths=4, norms="recalibrated")
    one.train(space, inputs)
    done = one.progress
    assert (done.rounds, done.draws) == (2, 8 + done.passed_over)
    assert done.passed_over >= 7
    assert 0 < done.failed < 8
    assert not any(key.endswith(" 16x16x3x3") for key in one.bank.to_tensors())
    assert f"{done.passed_over} paths over the budget passed over, {done.failed} paths failed" in said[-1]
    none = Supernet(material(tmp_path / "b", find_excess=lambda _: "99 ms")[0], **OPTIONS, norms="group")
    with pytest.raises(PyrafuseError, match="300 graphs in a row are over the budget, the last one with 99 ms"):
        none.train(SPACE, inputs)
    with pytest.raises(PyrafuseError, match="all paths of a round failed; the last one: division by zero"):
        Supernet(material(tmp_path / "c")[0], **OPTIONS, norms="group").train(
            replace(space, fusions=("broken",), max_merges=8), inputs
        )


def test_a_file_that_is_damaged_or_foreign_is_said_and_trained_anew(material, train, tmp_path):
    trained = train(tmp_path / "a")
    path = tmp_path / "a" / SHARED_FILE
    whole = path.read_bytes()

    def read(content, **changes):
        path.write_bytes(content)
        given, said = material(tmp_path / "a", **changes)
        one = Supernet(given, **OPTIONS, norms="recalibrated")
        assert (one.progress.rounds == 0) == bool(said)
        return "".join(said)

    assert read(whole) == ""
    assert "is damaged, or holds no shared weights: the shared weights are trained anew" in read(whole[:-1])
    assert "is damaged: its numbers are not those that were written" in read(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert "is damaged, or holds no shared weights" in read(b"")
    assert "another search, or of other settings: the shared weights are trained anew" in read(whole, head={"seed": 1})
    write_shared(path, trained._identity, Progress(3, 10**12), {})
    assert "is damaged: nobody draws 1000000000000 paths" in read(path.read_bytes())
    save_file({"weight a 1": torch.ones(1)}, path)
    assert "holds no shared weights" in read(path.read_bytes())


@pytest.mark.parametrize(
    ("tensors", "progress", "message"),
    [
        ({"weight a 2x2": torch.ones(2, 3)}, Progress(), "'weight a 2x2' has the shape 2x3"),
        ({"weight a 2x2": torch.ones(())}, Progress(), "has the shape of one number"),
        ({"exp_avg a 2": torch.ones(3)}, Progress(), "has the shape 3"),
        ({"weight a 1": torch.tensor([float("nan")])}, Progress(), "other values than finite float32"),
        ({"weight a 1": torch.ones(1, dtype=torch.int64)}, Progress(), "other values than finite float32"),
        ({}, Progress(rounds=-1), "is no progress of a training"),
        ({}, Progress(seconds=float("nan")), "is damaged"),
    ],
)
def test_a_file_that_lies_is_refused(tmp_path, tensors, progress, message):
    path = tmp_path / "w.safetensors"
    write_shared(path, "me", Progress(2), {"weight a 2x2": torch.ones(2, 2), "step a 2x2": torch.ones(())})
    assert read_shared(path, "me")[0] == Progress(2)
    write_shared(path, "me", progress, tensors)
    with pytest.raises(CheckpointError, match=message):
        read_shared(path, "me")


# the strategy


class Searching:
    """Proposes and finishes trials, as a search does."""

    def __init__(self, material, folder, inputs, **changes):
        self.given, self.said = material(folder, **changes)
        self.inputs = inputs
        options = {**OPTIONS, "pool": 5, "growth": 1, "population": 3}
        self.strategy = STRATEGIES.create("supernet", **options)
        self.strategy.prepare(self.given)

    def propose(self, trials):
        rng = random.Random(len(trials))
        return self.strategy.propose(SPACE, self.inputs, trials, rng)

    def go_on(self, trials, length):
        trials = list(trials)
        while len(trials) < length:
            candidate = self.propose(trials)
            trials.append(finish(candidate, self.inputs, len(trials), "supernet"))
        return trials


def finish(candidate, inputs, number, source):
    rung = Rung(2, 4.0 - len(candidate.graph.merges) / 7 + number / 100, None, 1.0)
    name = name_candidate(candidate, inputs)
    return Trial(number, source, candidate.answers, name, candidate.size, {}, FINISHED, (rung,))


def test_proposals_are_the_same_twice_and_after_every_stop(base, material, tmp_path):
    inputs = base["features"][SIZE].spec
    drawn = [finish(one, inputs, place, "random") for place, one in enumerate(graphs(inputs, 3, seed=7).values())]
    whole = Searching(material, tmp_path / "whole", inputs)
    trials = whole.go_on(drawn, 8)
    names = [trial.fingerprint for trial in trials]
    assert len({*names}) == 8
    for trial in trials:
        plan_graph(restore(SPACE, inputs, trial).graph, inputs)
    assert Searching(material, tmp_path / "twice", inputs).go_on(drawn, 8) == trials
    stopped = Searching(material, tmp_path / "stopped", inputs).go_on(drawn, 5)
    assert stopped == trials[:5]
    later = Searching(material, tmp_path / "stopped", inputs)
    assert later.go_on(stopped, 8) == trials
    assert later.said == []  # nothing is trained again
    assert Searching(material, tmp_path / "whole", inputs).strategy.seconds == pytest.approx(whole.strategy.seconds)
    assert whole.strategy.seconds > 0

    # what is proposed first is what shared weights put first
    (folder,) = (tmp_path / "whole").glob("shared-*/")
    judged = read_trials(folder / "journal.jsonl")
    assert [trial.fingerprint for trial in judged if trial.source == "tried"] == names[:3]
    pool = [trial for trial in judged if trial.source == "pool"]
    assert len(pool) == 5 + 7
    first = min(pool[: 5 + 3], key=lambda trial: trial.rungs[0].loss)
    assert names[3] == first.fingerprint


def test_a_stop_while_graphs_are_judged_changes_nothing(base, material, tmp_path, monkeypatch):
    inputs = base["features"][SIZE].spec
    expected = Searching(material, tmp_path / "whole", inputs).propose([])
    judge, calls = Supernet.judge, []

    def interrupted(self, *args):
        calls.append(args)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return judge(self, *args)

    monkeypatch.setattr(Supernet, "judge", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Searching(material, tmp_path / "cut", inputs).propose([])
    again = Searching(material, tmp_path / "cut", inputs)
    assert again.propose([]) == expected
    assert len(calls) == 4 + 5 - 3


def test_nothing_over_the_budget_is_proposed(base, material, tmp_path):
    inputs = base["features"][SIZE].spec
    dear = {"find_excess": lambda one: "too dear" if one.answers["channels"] == 16 else ""}
    searching = Searching(material, tmp_path / "a", inputs, **dear)
    trials = searching.go_on([], 3)
    assert {trial.answers["channels"] for trial in trials} == {8}
    assert OVER_BUDGET in {trial.state for trial in searching.strategy._judged}


def test_it_says_how_well_shared_weights_rank(base, material, tmp_path):
    inputs = base["features"][SIZE].spec
    drawn = [finish(one, inputs, place, "random") for place, one in enumerate(graphs(inputs, 5, seed=7).values())]
    searching = Searching(material, tmp_path / "a", inputs)
    assert searching.strategy.describe([]) == ""
    trials = searching.go_on(drawn, 7)
    judged = {trial.fingerprint: trial.rungs[0].loss for trial in searching.strategy._judged}

    def compare(chosen):
        return spearman([judged[one.fingerprint] for one in chosen], [one.rungs[0].loss for one in chosen])

    words = searching.strategy.describe(trials)
    assert re.search(rf"of the first rung: {compare(trials):.2f} \(.* to .*\) over 7 trials, and", words)
    assert re.search(rf"that they proposed: {compare(drawn):.2f} \(.* to .*\) over 5 trials$", words)
    assert "too few of them are trials" in searching.strategy.describe(trials[:3])


def test_it_needs_the_maps_of_a_search_and_options_within_range():
    with pytest.raises(PyrafuseError, match="trains on the maps of a search: call prepare first"):
        STRATEGIES.create("supernet").propose(SPACE, None, (), random.Random(0))
    for options, message in (
        ({"rounds": 0}, "rounds must be"),
        ({"growth": -1}, "growth must be"),
        ({"norms": "none"}, "norms must be one of recalibrated, group, got 'none'"),
    ):
        with pytest.raises(PyrafuseError, match=message):
            STRATEGIES.create("supernet", **options)
