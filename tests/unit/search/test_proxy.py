"""The proxy: the same numbers alone and in company, those of a training with a frozen backbone, and failures apart."""

import pickle
import platform
import random
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.data.augment.settings import Augmentation
from pyrafuse.data.formats.layout import Splits, read_splits
from pyrafuse.models.building import build
from pyrafuse.models.describing import describe
from pyrafuse.necks import merging
from pyrafuse.necks.graph import Graph
from pyrafuse.necks.graph_neck import GraphNeck
from pyrafuse.necks.graph_text import read_graph
from pyrafuse.necks.registry import NECKS
from pyrafuse.recipes.registry import RECIPES
from pyrafuse.search.canonical import fingerprint
from pyrafuse.search.choices import Space
from pyrafuse.search.engines.ray import Worker
from pyrafuse.search.features import Features, cache_features
from pyrafuse.search.learners import describe_candidate
from pyrafuse.search.proxy import Proxy, Trainees
from pyrafuse.search.racing import TimeOver
from pyrafuse.search.settings import ProxySettings, rate_factor, shorten
from pyrafuse.search.space import sample
from pyrafuse.search.views import View
from pyrafuse.training.loop import learn
from pyrafuse.training.processes import Place
from pyrafuse.training.run import create_course
from pyrafuse.training.settings import ModelSettings
from pyrafuse.training.state import create_state
from pyrafuse.training.step import TrainingStep

CPU = torch.device("cpu")
SIZE = 64
SETTINGS = ProxySettings(views=2, rungs=(2, 5), eta=2, batch_size=4, head_channels=8)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def splits(tmp_path_factory) -> Splits:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYRAFUSE_CACHE", str(tmp_path_factory.mktemp("shapes")))
        return read_splits(f"shapes:train=8,val=4,size={SIZE}")


def create_detector(model="atss", **changes):
    torch.manual_seed(0)
    spec = describe(model, backbone={"name": "resnet18", "width": 8}, **changes)
    detector = build(replace(spec, num_classes=5))
    detector.card = replace(detector.card, preprocessing=Preprocessing(size=(SIZE, SIZE)))
    return detector


@pytest.fixture(scope="module")
def detector():
    return create_detector()


@pytest.fixture(scope="module")
def cached(detector, splits, tmp_path_factory) -> dict[int, Features]:
    folder = tmp_path_factory.mktemp("maps")
    return cache_features(
        detector, splits, augmentation=Augmentation.light(), views=2, sizes=(SIZE, 96), folder=folder, workers=0
    )


@pytest.fixture(scope="module")
def features(cached) -> Features:
    return cached[SIZE]


@pytest.fixture
def graphs(features) -> dict[str, Graph]:
    """A sum without norms, and two graphs with batch norms."""
    made = {
        name: NECKS.build({"name": name, **options}, features.spec)
        for name, options in {
            "fpn": {"out_channels": 8},
            "bifpn": {"out_channels": 8, "num_levels": 3, "repeats": 1},
            "nas_fpn": {"out_channels": 8, "stack": 1},
        }.items()
    }
    return {name: neck.graph for name, neck in made.items() if isinstance(neck, GraphNeck)}


@pytest.fixture
def proxy(detector, features, splits):
    def proxy(settings=SETTINGS, recipe=None, card=detector.card, features=features):
        recipe = RECIPES.create("small") if recipe is None else recipe
        return Proxy(card, recipe, {SIZE: features}, splits.val, settings, device=CPU)

    return proxy


def numbers(outcome):
    return [(rung.steps, rung.loss, rung.ap) for rung in outcome.rungs]


def test_a_candidate_has_the_same_numbers_alone_and_in_company_bit_by_bit(proxy, graphs):
    every = replace(SETTINGS, score="ap")
    rungs, seen = every.rungs, {}

    def judge(names):
        one = proxy(every)
        learners = [one.begin(name, graphs[name], SIZE) for name in names]
        for until in rungs:
            one.learn(learners, until=until)
        return {learner.fingerprint: learner for learner in learners}

    before = torch.get_rng_state()
    together = judge(graphs)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)  # what was drawn before does not matter
    for name in graphs:
        alone = judge([name])[name]
        assert numbers(alone.outcome) == numbers(together[name].outcome)
        ours, theirs = alone.state.average.state_dict(), together[name].state.average.state_dict()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
        seen[name] = [rung.loss for rung in alone.rungs]
    assert len({tuple(losses) for losses in seen.values()}) == 3
    assert all(0 < loss < 100 for losses in seen.values() for loss in losses)
    assert numbers(judge(["fpn"])["fpn"].outcome) != numbers(
        proxy(replace(every, seed=1)).race({"fpn": (graphs["fpn"], SIZE)})["fpn"]
    )


def test_a_rung_changes_nothing_of_the_steps(proxy, graphs):
    graph = {"bifpn": (graphs["bifpn"], SIZE)}
    (short, long), (whole,) = (
        proxy(replace(SETTINGS, rungs=rungs)).race(graph)["bifpn"].rungs for rungs in ((2, 5), (5,))
    )
    assert (2 * short.loss + 3 * long.loss) / 5 == pytest.approx(whole.loss, rel=1e-12)
    assert short.ap is None
    assert long.ap == whole.ap


def test_it_is_a_training_with_a_frozen_backbone(detector, splits, graphs, proxy, tmp_path):
    """The same losses step by step as the training loop has, but for fp16, and the same weights in the end."""
    recipe = RECIPES.create("small")
    recipe = replace(
        recipe,
        model=ModelSettings(backbone_weights="theirs"),  # `backbone_lr` is for a backbone with weights
        augmentation=Augmentation.none(),
        optimizer=replace(recipe.optimizer, backbone_lr=0.0),
        run=replace(recipe.run, batch_size=4, epochs=3, seed=SETTINGS.seed),
        data=replace(recipe.data, workers=0),
    )
    settings = replace(SETTINGS, views=1, rungs=(1, 2, 3, 4, 5, 6), warmup_steps=2)
    cached = cache_features(detector, splits, augmentation=recipe.augmentation, views=1, folder=tmp_path, workers=0)
    judge = proxy(settings, recipe, features=cached[SIZE])
    learner = judge.begin("bifpn", graphs["bifpn"], SIZE)

    whole = build(learner.state.detector.card.spec)
    whole.card = learner.state.detector.card
    whole.load_state_dict(learner.state.detector.state_dict(), strict=False)
    whole.backbone.load_state_dict(detector.backbone.state_dict())
    whole.backbone.requires_grad_(False)
    course = create_course(recipe, splits, whole, precision="32", place=Place(CPU))
    state = create_state(whole, recipe, device=CPU, precision="32")
    step = TrainingStep(whole, course.watch)
    theirs = [
        taken.values["train/loss"].item() for epoch in range(3) for taken in learn(state, course, step, epoch=epoch)
    ]

    for until in settings.rungs:
        judge.learn([learner], until=until)
    ours = [rung.loss for rung in learner.rungs]
    np.testing.assert_allclose(ours, theirs, rtol=2e-3)
    assert max(ours) - min(ours) > 0.01
    average = state.average.state_dict()
    for key, value in learner.state.average.state_dict().items():
        torch.testing.assert_close(value, average[key], rtol=2e-2, atol=2e-3, msg=key)


def test_average_precision_is_what_an_evaluation_of_the_whole_detector_measures(detector, splits, graphs, proxy):
    settings = replace(SETTINGS, rungs=(80,), lr=4e-3, ema=0.9)
    judge = proxy(settings)
    learner = judge.begin("fpn", graphs["fpn"], SIZE)
    judge.learn([learner], until=80)
    whole = build(learner.state.average.card.spec)
    whole.card = learner.state.average.card
    whole.load_state_dict(learner.state.average.state_dict(), strict=False)
    whole.backbone.load_state_dict(detector.backbone.state_dict())
    ap = learner.rungs[-1].ap
    assert ap > 0.001
    assert whole.eval().evaluate(splits.val, workers=0).ap == pytest.approx(ap, rel=0.05)


def test_the_best_go_on_and_all_are_told(proxy, graphs):
    told = []
    outcomes = proxy(replace(SETTINGS, eta=2)).race(
        {name: (graph, SIZE) for name, graph in graphs.items()}, tell=told.append
    )
    first = {name: outcome.rungs[0].loss for name, outcome in outcomes.items()}
    best = min(first, key=first.__getitem__)
    assert [name for name, outcome in outcomes.items() if len(outcome.rungs) == 2] == [best]
    assert outcomes[best].rungs[1].ap is not None
    assert outcomes[best].rungs[0].ap is None
    assert all(rung.seconds > 0 for outcome in outcomes.values() for rung in outcome.rungs)
    assert [(outcome.fingerprint, len(outcome.rungs)) for outcome in told] == [
        *((name, 1) for name in graphs),
        (best, 2),
    ]


def test_a_race_ends_with_its_time_between_two_steps(proxy, graphs, monkeypatch):
    candidates = {name: (graph, SIZE) for name, graph in graphs.items()}
    judge, told, looks = proxy(), [], iter(range(100))
    monkeypatch.setattr("pyrafuse.search.proxy.time.monotonic", lambda: float(next(looks)))
    with pytest.raises(TimeOver):  # two steps and the end of a rung of three candidates are nine looks
        judge.race(candidates, tell=told.append, seconds=11.0)
    assert [len(outcome.rungs) for outcome in told] == [1, 1, 1]
    assert next(looks) == 12
    monkeypatch.undo()
    again, undisturbed = judge.race(candidates), proxy().race(candidates)
    assert {name: numbers(one) for name, one in again.items()} == {
        name: numbers(one) for name, one in undisturbed.items()
    }


def test_trainees_that_begin_late_have_the_numbers_of_the_others(proxy, graphs):
    judge = proxy(replace(SETTINGS, rungs=(1, 2, 5)))
    candidates = {name: (graph, SIZE) for name, graph in graphs.items()}
    first = Trainees(judge)
    outcomes = [first.train(candidates, until=until) for until in (1, 2)][-1]
    first.keep(["fpn"])
    (kept,) = first.train({"fpn": candidates["fpn"]}, until=5)
    (late,) = Trainees(judge).train({"fpn": candidates["fpn"]}, until=5)
    assert numbers(kept) == numbers(late)
    assert [rung.steps for rung in kept.rungs] == [1, 2, 5]
    assert numbers(outcomes[0]) == numbers(kept)[:2]


def test_a_worker_elsewhere_gives_the_numbers_of_the_proxy(proxy, graphs, monkeypatch):
    monkeypatch.setattr(torch, "set_num_threads", lambda number: cores.append(number))
    cores: list[int] = []
    candidates = {name: (graph, SIZE) for name, graph in graphs.items()}
    here = proxy().race(candidates)
    packed = pickle.dumps((proxy(), [{}, {"own": pow}, {}]))
    assert len(packed) < 100_000  # maps are opened there, not sent
    worker = Worker()
    monkeypatch.delitem(merging.UP, "own", raising=False)
    assert worker.prepare(packed, (), 3) == ""
    assert (merging.UP.pop("own"), cores) == (pow, [3])
    for name, candidate in candidates.items():
        until = here[name].rungs[-1].steps
        assert numbers(worker.train({name: candidate}, until, candidates)) == numbers(here[name])


def test_a_worker_that_lacks_files_says_so(proxy, cached, tmp_path):
    packed = pickle.dumps((proxy(), [{}, {}, {}]))
    assert Worker().prepare(packed, ("no_such_file.py",), 1) == "--import: no such file: no_such_file.py"
    folder = cached[SIZE].val.folder
    other = tmp_path / "maps"
    folder.rename(other)
    problem = Worker().prepare(packed, (), 1)
    other.rename(folder)
    assert problem.startswith(f"{folder} cannot be read on {platform.node()} ([Errno 2] No such file or directory")
    assert problem.endswith("keep the maps where all machines see them, by PYRAFUSE_CACHE=FOLDER before the command")


def test_a_candidate_that_fails_is_named_and_leaves_the_others_alone(proxy, graphs, monkeypatch):
    def break_at(step):
        calls = []

        class Broken(torch.nn.Module):
            def forward(self, *maps):
                calls.append(1)
                if len(calls) > step * 3:
                    raise MemoryError("no room for 3 GiB")
                return sum(maps)

        return lambda _: Broken()

    monkeypatch.setitem(merging.FUSIONS, "nothing", lambda _: lambda *maps: sum(maps) * float("nan"))
    monkeypatch.setitem(merging.FUSIONS, "greedy", break_at(3))
    text = """
channels: 8
defaults: {fusion: FUSION, conv: {kernel_size: 3}}
merges:
  P5: [C5, C4]
  P4: [C4, P5]
  P3: [C3, P4]
outputs: [P3, P4, P5]
"""
    bad = {name: read_graph(text.replace("FUSION", name)) for name in ("nothing", "greedy")}
    wide = replace(graphs["fpn"], outputs=("P3", "P9"))
    everyone = {**{name: graphs[name] for name in ("fpn", "bifpn")}, **bad, "wide": wide}
    told = []
    every = replace(SETTINGS, eta=2, rungs=(3, 5))
    outcomes = proxy(every).race({name: (graph, SIZE) for name, graph in everyone.items()}, tell=told.append)
    assert outcomes["nothing"].reason.startswith("the loss became nan: lower the learning rate")
    assert outcomes["nothing"].rungs == ()
    assert "P9" in outcomes["wide"].reason
    assert {outcome.fingerprint for outcome in told} == set(everyone)
    others = proxy(every).race({name: (graphs[name], SIZE) for name in ("fpn", "bifpn")})
    assert {name: outcomes[name].rungs[0].loss for name in others} == {
        name: outcome.rungs[0].loss for name, outcome in others.items()
    }
    monkeypatch.setitem(merging.FUSIONS, "greedy", break_at(3))
    greedy = proxy(every)
    learner = greedy.begin("greedy", bad["greedy"], SIZE)
    for until in (3, 5):
        greedy.learn([learner], until=until)
    assert learner.outcome.reason == "MemoryError: no room for 3 GiB"
    assert learner.state is None
    assert [rung.steps for rung in learner.rungs] == [3]


@pytest.mark.parametrize("model", ["retinanet", "fcos", "faster_rcnn", "ga_retinanet"])
def test_every_kind_of_detector_is_judged(model, splits, graphs, proxy, features):
    changes = {"stages": {"head": {"channels": 16}, "sampler": {"number": 16}}} if model == "faster_rcnn" else {}
    detector = create_detector(model, **changes)
    settings = replace(SETTINGS, rungs=(2,))
    first, again = (proxy(settings, card=detector.card).race({"fpn": (graphs["fpn"], SIZE)})["fpn"] for _ in range(2))
    assert first.reason == ""
    assert 0 < first.rungs[0].loss < 1000
    assert numbers(first) == numbers(again)


def test_the_head_is_light_and_the_rest_is_described(detector, graphs):
    spec = describe_candidate(detector.card.spec, graphs["fpn"], SETTINGS)
    assert (spec.head.options["num_convs"], spec.head.options["channels"]) == (1, 8)
    assert (spec.criterion, spec.backbone, spec.postprocess) == (
        detector.card.spec.criterion, detector.card.spec.backbone, detector.card.spec.postprocess,
    )  # fmt: skip
    own = describe_candidate(detector.card.spec, graphs["fpn"], replace(SETTINGS, head_convs=None, head_channels=None))
    assert own.head == detector.card.spec.head
    small = describe("atss", head={"num_convs": 0, "channels": 4})
    assert describe_candidate(build(small).card.spec, graphs["fpn"], SETTINGS).head.options["channels"] == 4
    yolo = create_detector("yolov3", neck={"name": "yolo_fpn", "width": 0.125}).card.spec
    assert describe_candidate(yolo, graphs["fpn"], SETTINGS).head.name == yolo.head.name


def test_the_recipe_says_all_that_the_settings_do_not():
    recipe = RECIPES.create("small")
    short = shorten(recipe, ProxySettings(rungs=(32, 96, 288), batch_size=16), 448)
    assert short.optimizer == recipe.optimizer
    assert (short.run.batch_size, short.run.ema) == (16, 0.998)
    assert short.schedule.burn_in_epochs == 1.0
    assert short.schedule.min_lr == recipe.schedule.min_lr
    assert shorten(recipe, ProxySettings(rungs=(8, 32), batch_size=16), 448).schedule.burn_in_epochs == 8 / 28
    assert shorten(recipe, ProxySettings(batch_size=16), 5).run.batch_size == 5
    own = shorten(recipe, ProxySettings(lr=1e-3, ema=0.0, warmup_steps=7, batch_size=4), 448)
    assert (own.optimizer.lr, own.optimizer.lr_batch, own.run.ema) == (1e-3, 4, 0.0)
    assert own.schedule.burn_in_epochs == 7 / 112


def test_the_rate_rises_and_falls_over_all_rungs():
    recipe = shorten(RECIPES.create("small"), replace(SETTINGS, rungs=(4, 20), warmup_steps=4), 8)
    rates = [rate_factor(recipe, step, steps=20, num_images=8) for step in range(20)]
    assert rates[:5] == pytest.approx([0, 0.25, 0.5, 0.75, 1.0])
    assert all(first > then for first, then in pairwise(rates[4:]))
    assert 0.02 < rates[-1] < 0.04


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rungs": (3, 2)}, "rungs are growing"),
        ({"eta": 1}, "eta must be"),
        ({"views": 0}, "views must be"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"lr": -1.0}, "lr must be"),
        ({"warmup_steps": 300}, "warmup_steps must be"),
        ({"ema": 1.0}, "ema must be"),
        ({"head_convs": -1}, "head_convs must be"),
        ({"head_channels": 0}, "head_channels must be"),
        ({"score": "luck"}, "score must be one of loss, ap, got 'luck'"),
        ({"precision": "16"}, "precision must be one of 32, bf16, got '16'"),
    ],
)
def test_settings_out_of_their_range(changes, message):
    with pytest.raises(PyrafuseError, match=message):
        ProxySettings(**changes)


def test_a_batch_is_read_once_for_all(proxy, graphs, features, monkeypatch):
    reads = []
    batch = View.batch
    monkeypatch.setattr(View, "batch", lambda view, rows, device: reads.append(view) or batch(view, rows, device))
    judge = proxy()
    learners = [judge.begin(name, graph, SIZE) for name, graph in graphs.items()]
    judge.learn(learners, until=4)
    assert len(reads) == 4
    assert reads == [features.views[0]] * 2 + [features.views[1]] * 2


def test_random_graphs_of_the_space_learn_whatever_their_levels(proxy, features):
    rng = random.Random(3)
    drawn = [sample(Space(), features.spec, rng).graph for _ in range(8)]
    candidates = {fingerprint(graph, features.spec): (graph, SIZE) for graph in drawn}
    outcomes = proxy(replace(SETTINGS, rungs=(1, 2))).race(candidates)
    assert [outcome.reason for outcome in outcomes.values()] == [""] * len(candidates)
    assert len({len(graph.outputs) for graph in drawn}) > 1
    losses = [outcome.rungs[0].loss for outcome in outcomes.values()]
    assert len(set(losses)) == len(candidates)
    assert max(losses) < 100


def test_maps_of_two_sizes(graphs, detector, cached, splits):
    judge = Proxy(detector.card, RECIPES.create("small"), cached, splits.val, SETTINGS, device=CPU)
    both = judge.race({"a": (graphs["fpn"], SIZE), "b": (graphs["fpn"], 96)})
    alone = judge.race({"b": (graphs["fpn"], 96)})
    assert both["b"].rungs[0].loss == alone["b"].rungs[0].loss
    assert both["a"].rungs[0].loss != both["b"].rungs[0].loss
    assert judge.begin("c", graphs["fpn"], 128).reason == "there are no cached maps of 128 px, but of 64, 96 px"
