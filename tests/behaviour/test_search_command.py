"""`pyrafuse search` as a person uses it: a search that is shown, stopped, gone on with and used; and bad input."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch

import pyrafuse
from pyrafuse.cli.main import main
from pyrafuse.necks.graph_neck import GraphNeck
from pyrafuse.necks.graph_text import read_graph
from pyrafuse.search import running
from pyrafuse.search.journal import FINISHED, read_trials
from pyrafuse.search.proxy import Proxy

DATA = "shapes:train=8,val=4,size=64"
OPTIONS = {
    "backbone": "resnet18", "weights": "none", "sizes": (64,), "channels": (16,), "max_merges": 12, "views": 1,
    "rungs": (1, 2), "device": "cpu", "minutes": 0.1,
}  # fmt: skip
WORDS = [
    word
    for name, value in OPTIONS.items()
    for word in (f"--{name.replace('_', '-')}", ",".join(map(str, value)) if isinstance(value, tuple) else str(value))
]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYRAFUSE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def searched(cache, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("search") / "out"
    assert main(["search", DATA, *WORDS, "--output", str(folder)]) == 0
    return folder


@pytest.fixture
def copied(searched, tmp_path) -> Path:
    return Path(shutil.copytree(searched, tmp_path / "out"))


def test_necks_made_by_hand_and_found_ones_are_written_down_and_shown(searched):
    trials = read_trials(searched / "journal.jsonl")
    assert [trial.source for trial in trials[:5]] == ["fpn-16", "pafpn-16", "bifpn-16", "nas_fpn-16", "asff-16"]
    finished = [trial for trial in trials if trial.state == FINISHED]
    assert len(finished) >= 5
    for trial in finished:
        assert set(trial.cost) == {"latency_ms", "gflops", "parameters"}
        assert [rung.steps for rung in trial.rungs] in ([1], [1, 2])
    assert sum(trial.ap is not None for trial in finished) >= 1
    page = (searched / "search.html").read_text()
    assert "http-equiv" not in page
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)[^\"]*\"", page)
    assert f"pyrafuse search {DATA} --backbone resnet18 --weights none --minutes 0.1" in page
    assert page.count("<tr>") == len(trials) + 1
    assert sorted(path.name for path in searched.iterdir() if path.suffix != ".yaml") == [
        "journal.jsonl",
        "search.html",
    ]


def test_a_neck_found_makes_a_detector(searched):
    path = searched / "neck-1.yaml"
    detector = pyrafuse.create_model("atss", backbone={"name": "resnet18"}, neck=str(path), num_classes=5)
    assert isinstance(detector.neck, GraphNeck)
    assert detector.neck.graph == read_graph(str(path))
    detector.eval()
    with torch.no_grad():
        predictions = detector(torch.zeros(1, 3, 64, 64))
    assert torch.isfinite(predictions.classes).all()


def test_a_search_whose_time_is_over_is_left_as_it_is_by_the_command_and_from_python(copied, capsys):
    before = (copied / "journal.jsonl").read_bytes()
    assert main(["search", DATA, *WORDS, "--minutes", "0.001", "--output", str(copied)]) == 0
    assert "going on after" in capsys.readouterr().err
    result = pyrafuse.search_necks(DATA, output=copied, progress=False, **{**OPTIONS, "minutes": 0.001})
    assert (copied / "journal.jsonl").read_bytes() == before
    assert result.trials == read_trials(copied / "journal.jsonl")
    assert result.necks[0] == copied / "neck-1.yaml"


def test_a_search_that_is_interrupted_keeps_everything(tmp_path, capsys, monkeypatch):
    race = Proxy.race

    def stop(self, candidates, tell=lambda _: None, *, seconds):
        def tell_once(outcome):
            tell(outcome)
            raise KeyboardInterrupt

        return race(self, candidates, tell_once, seconds=seconds)

    monkeypatch.setattr(Proxy, "race", stop)
    assert main(["search", DATA, *WORDS, "--output", str(tmp_path / "s")]) == 130
    assert "interrupted; the same command goes on" in capsys.readouterr().err
    trials = read_trials(tmp_path / "s" / "journal.jsonl")
    assert [trial.source for trial in trials[:2]] == ["fpn-16", "pafpn-16"]
    assert [len(trial.rungs) for trial in trials] == [1, *(0 for _ in trials[1:])]
    assert (tmp_path / "s" / "search.html").is_file()
    monkeypatch.setattr(Proxy, "race", race)
    assert main(["search", DATA, *WORDS, "--minutes", "0.001", "--output", str(tmp_path / "s")]) == 0
    again = read_trials(tmp_path / "s" / "journal.jsonl")
    assert [trial.answers for trial in again[: len(trials)]] == [trial.answers for trial in trials]


def complain(capsys, *words):
    assert main(["search", *words]) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "no data set was given: pyrafuse search DATA"),
        (("no_such_folder",), "no such data set: no_such_folder"),
        ((DATA, "--max-latency", "30 parsecs"), "--max-latency '30 parsecs' is no time: write milliseconds"),
        ((DATA, "--max-latency", "0ms"), "is no time"),
        ((DATA, "--device", "cuda:9"), "no device 'cuda:9' here; choose from auto, cpu"),
        ((DATA, "--strategy", "luck"), "unknown strategy 'luck'; choose from controller, evolution"),
        ((DATA, "--strategy-options.rounds", "9"), "the strategy evolution takes no option 'rounds'"),
        ((DATA, "--strategy", "tpe", "--strategy-options.startup", "-1"), "startup must be a whole number"),
        ((DATA, "--ups", "nearest,sideways"), "unknown up of the space 'sideways'; choose from"),
        ((DATA, "--engine", "cloud"), "unknown engine 'cloud'"),
        ((DATA, "--workers", "2"), "the engine local has no option workers: leave it out, or give another engine"),
        ((DATA, "--ray-address", "a:1"), "the engine local has no option ray_address"),
        ((DATA, "--backbone", "resnet19"), "unknown backbone 'resnet19'"),
        ((DATA, "--sizes", "100"), "data.size must be a multiple of 32, got 100"),
        ((DATA, "--minutes", "-1"), "minutes must be 0 or more, got -1"),
        ((DATA, "--full-seeds", "1"), "full trainings need two seeds or more to have a spread, got [1]"),
        ((DATA, "--correlate", "2"), "the number of graphs to correlate must be a whole number, 4 or more, got 2"),
        ((DATA, "--rungs", "9,3"), "rungs are growing numbers of steps"),
        (("shapes:train=1,val=1,size=64",), "the data have 1 training image"),
    ],
)
def test_bad_input_is_named_before_any_work(tmp_path, capsys, words, message):
    others = WORDS if words[:1] == ("shapes:train=1,val=1,size=64",) else []
    assert message in complain(capsys, *words, *others, "--output", str(tmp_path / "s"))
    assert not (tmp_path / "s" / "journal.jsonl").exists()


def test_a_folder_of_something_else_or_of_another_search_is_refused(copied, tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").touch()
    words = [DATA, *WORDS, "--output"]
    assert "holds no search: choose another --output" in complain(capsys, *words, str(tmp_path / "photos"))
    message = complain(capsys, *words, str(copied), "--channels", "16,32")
    assert "is the journal of another search: space.channels is [16] there and [16, 32] here" in message
    message = complain(capsys, "shapes:train=9,val=4,size=64", *words[1:], str(copied))
    assert "another search: data.train is" in message


def test_no_graph_within_the_latency_names_the_cheapest(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(running, "MAX_REFUSED", 3)
    message = complain(capsys, DATA, *WORDS, "--max-latency", "0.001ms", "--output", str(tmp_path / "s"))
    assert "none of 8 graphs is within the budget. The cheapest, trial " in message
    assert re.search(r"trial \d \([\w-]+\), has [\d.]+ ms", message)
    assert "Allow more, or give a smaller size" in message


@pytest.mark.slow
def test_the_best_are_trained_in_full_and_the_ranking_is_held_against_it(searched, tmp_path, capsys):
    folder = Path(shutil.copytree(searched, tmp_path / "out"))
    words = ["--minutes", "0.001", "--confirm", "--correlate", "4", "--full-seeds", "0,1", "--full-epochs", "1"]
    assert main(["search", DATA, *WORDS, *words, "--output", str(folder)]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "random draws for as long as the search's own graphs were trained" in said
    assert "Spearman's rank correlation with full training over 4 random graphs" in said
    ranking = json.loads((folder / "ranking" / "ranking.json").read_text())
    assert [one["what"] for one in ranking["correlations"]][:3] == ["loss of rung 1", "loss of rung 2", "AP of rung 2"]
    assert all(set(graph["full"]) == {"0", "1"} for graph in ranking["graphs"])
    compared = json.loads((folder / "full" / "runs" / "comparison.json").read_text())["data"][0]
    names = [variant["name"] for variant in compared["variants"]]
    assert {"fpn-16", "pafpn-16", "bifpn-16", "nas_fpn-16", "asff-16"} <= set(names)
    assert any(name.startswith("random-") for name in names)
    page = (folder / "search.html").read_text()
    assert "Trained in full" in page
    assert "Whether the ranking can be trusted" in page
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("results.json")}
    assert len(before) == 2 * (len(names) + 4)
    assert main(["search", DATA, *WORDS, *words, "--output", str(folder)]) == 0
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("results.json")} == before
