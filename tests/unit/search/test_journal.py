"""A journal keeps every trial, whatever happens to its process, and refuses what is not its own."""

import json
import multiprocessing

import pytest

from pyrafuse.base.errors import DataError, PyrafuseError
from pyrafuse.search import journal
from pyrafuse.search.journal import BEGUN, FAILED, FINISHED, OVER_BUDGET, open_journal, read_trials
from pyrafuse.search.learners import Rung

HEAD = {"space": {"stacks": (1, 2)}, "data": {"train": "a1", "val": "b2"}, "backbone": "resnet18", "seed": 0}


def begin(opened, **changes):
    values = {"source": "random", "answers": {"stack": 2, "stem": True, "fusion": "sum"}, "fingerprint": "f0",
              "size": 256, "cost": {"latency_ms": 3.5}}  # fmt: skip
    return opened.begin(**{**values, **changes})


def write_some(folder):
    with open_journal(folder, HEAD) as opened:
        begin(opened)
        begin(opened, fingerprint="f1", cost={})
        begin(opened, fingerprint="f2")
        begin(opened, fingerprint="f3")
        opened.prepare(2, 7.5)
        opened.reach(0, 0, Rung(10, 2.5, None, 1.5))
        opened.reach(1, 0, Rung(10, 3.0, None, 1.5))
        opened.reach(0, 1, Rung(30, 2.0, 0.125, 2.5))
        opened.finish(0)
        opened.finish(1)
        opened.fail(2, "no memory")
        opened.refuse(3, "30.1 ms, and 30 ms are allowed")
        return opened.trials


def test_what_was_written_is_read_again(tmp_path):
    trials = write_some(tmp_path / "s")
    with open_journal(tmp_path / "s", HEAD) as opened:
        assert opened.trials == trials
        assert opened.notice == ""
    assert read_trials(tmp_path / "s" / "journal.jsonl") == trials
    first, second, third, fourth = trials
    assert (first.state, first.ap, first.seconds) == (FINISHED, 0.125, 4.0)
    assert first.rungs == (Rung(10, 2.5, None, 1.5), Rung(30, 2.0, 0.125, 2.5))
    assert first.answers == {"stack": 2, "stem": True, "fusion": "sum"}
    assert first.answers["stem"] is True
    assert (second.state, second.ap, second.cost) == (FINISHED, None, {})
    assert (third.state, third.reason, third.own_seconds) == (FAILED, "no memory", 7.5)
    assert fourth.state == OVER_BUDGET


def test_every_cut_leaves_all_whole_lines_and_the_search_goes_on(tmp_path):
    write_some(tmp_path / "s")
    path = tmp_path / "s" / "journal.jsonl"
    content = path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(content) if byte == 10]
    for cut in {1, 7, *(end + 5 for end in ends[:-1]), *(end - 1 for end in ends), *ends}:
        path.write_bytes(content[:cut])
        whole = max((end for end in ends if end <= cut), default=0)
        with open_journal(tmp_path / "s", HEAD) as opened:
            num_begun = content[:whole].count(b'"begun"')
            assert len(opened.trials) == num_begun
            assert bool(opened.notice) == (whole != cut)
            begin(opened, fingerprint="later")
        assert path.read_bytes().startswith(content[:whole])
        assert read_trials(path)[-1].fingerprint == "later"


def test_rungs_of_an_interrupted_trial_are_counted_once(tmp_path):
    with open_journal(tmp_path / "s", HEAD) as opened:
        begin(opened)
        opened.reach(0, 0, Rung(10, 2.5, None, 10.0))
        opened.reach(0, 1, Rung(30, 2.4, 0.5, 10.0))
    with open_journal(tmp_path / "s", HEAD) as opened:
        assert opened.trials[0].state == BEGUN
        opened.reach(0, 0, Rung(10, 2.25, None, 3.0))
        opened.finish(0)
        assert opened.trials[0].rungs == (Rung(10, 2.25, None, 3.0),)
        assert opened.trials[0].seconds == 3.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space": {"stacks": (1, 3)}}, r"space.stacks is \[1, 2\] there and \[1, 3\] here"),
        ({"data": {"train": "other", "val": "b2"}}, "data.train is a1 there and other here"),
        ({"backbone": "vgg16"}, "backbone is resnet18 there and vgg16 here"),
        ({"seed": 1}, "seed is 0 there and 1 here"),
        ({"settings": {"views": 2}}, "settings is asked for, and is not there"),
    ],
)
def test_a_journal_of_another_search_is_refused(tmp_path, changes, message):
    write_some(tmp_path / "s")
    before = (tmp_path / "s" / "journal.jsonl").read_bytes()
    with pytest.raises(PyrafuseError, match=message), open_journal(tmp_path / "s", {**HEAD, **changes}):
        raise AssertionError("it was opened")
    assert (tmp_path / "s" / "journal.jsonl").read_bytes() == before


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(PyrafuseError, match="holds no search: choose another --output"), open_journal(tmp_path, HEAD):
        raise AssertionError("it was opened")
    (tmp_path / "journal.jsonl").write_text('{"title": "my diary"}\n')
    with pytest.raises(PyrafuseError, match="is no journal of a search"), open_journal(tmp_path, HEAD):
        raise AssertionError("it was opened")
    (tmp_path / "journal.jsonl").write_text('{"journal": "pyrafuse search", "version": 99}\n')
    with pytest.raises(PyrafuseError, match="version 99"), open_journal(tmp_path, HEAD):
        raise AssertionError("it was opened")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["journal.jsonl", "photo.jpg"]


def _hold(folder, ready, done):
    with open_journal(folder, HEAD) as opened:
        begin(opened)
        ready.set()
        done.wait(60)


def test_there_is_one_writer_and_any_number_of_readers(tmp_path):
    context = multiprocessing.get_context("fork")
    ready, done = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(tmp_path / "s", ready, done))
    other.start()
    try:
        assert ready.wait(60)
        with pytest.raises(PyrafuseError, match="is in use"), open_journal(tmp_path / "s", HEAD):
            raise AssertionError("it was opened")
        assert len(read_trials(tmp_path / "s" / "journal.jsonl")) == 1
    finally:
        done.set()
        other.join(60)
    with open_journal(tmp_path / "s", HEAD) as opened:
        assert len(opened.trials) == 1


TRIAL = {"event": "begun", "number": 0, "source": "a", "answers": {}, "fingerprint": "f", "size": 64, "cost": {}}
REACHED = {"event": "rung", "number": 0, "rung": 0, "steps": 9, "loss": 1, "ap": None, "seconds": 1}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([{"event": "exploded", "number": 0}], "line 2 .*there is no event 'exploded'"),
        ([{"event": ["begun"]}], "there is no event"),
        ([{"number": 0}], "there is no event None"),
        ([["begun"]], "line 2 .*it is no JSON object"),
        ([{"event": "finished", "number": 0, "reason": ""}], "trial 0 has not begun"),
        ([TRIAL, {"event": "finished", "number": -1, "reason": ""}], "line 3 .*trial -1 has not begun"),
        ([TRIAL, {**TRIAL, "number": 5}], "trial 5 follows trial 0"),
        ([TRIAL, {**REACHED, "rung": 1}], "is at rung 0, not at 1"),
        ([TRIAL, {**REACHED, "rung": -1}], "is at rung 0, not at -1"),
        ([TRIAL, {**REACHED, "loss": "low"}], "loss: expected float, got 'low'"),
        ([{**TRIAL, "size": "big"}], "size: expected int, got 'big'"),
        ([{**TRIAL, "source": 3}], "source: expected str, got 3"),
        ([{**TRIAL, "answers": {"stack": [1]}}], "the answer to 'stack': expected bool . int . str"),
        ([{**TRIAL, "cost": {"latency_ms": "fast"}}], "latency_ms: expected float, got 'fast'"),
        ([{**TRIAL, "code": "import os"}], "fingerprint, size, cost, not .*, code"),
        ([{k: v for k, v in TRIAL.items() if k != "size"}], "size, cost, not .*, fingerprint, cost"),
        ([TRIAL, *[{"event": "failed", "number": 0, "reason": "a"}] * 2], "is failed already"),
    ],
)  # fmt: skip
def test_damage_is_named_by_its_line(tmp_path, lines, message):
    with open_journal(tmp_path / "s", HEAD):
        pass
    path = tmp_path / "s" / "journal.jsonl"
    path.write_text(path.read_text() + "".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(DataError, match=message):
        read_trials(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{not json}\n", "it is no JSON"),
        ('{"event": "rung", "number": 0, "loss": NaN}\n', "it is no JSON"),
        ("[" * 100_000 + "\n", "it is no JSON"),
        ('{"event": "begun", "number": ' + "9" * 5000 + "}\n", "it is no JSON"),
        ("\x00" * 50 + "\n", "it is no JSON"),
        ("x" * (2**20 + 1), "longer than 1,048,576 bytes"),
    ],
)
def test_hostile_lines_are_refused(tmp_path, text, message):
    with open_journal(tmp_path / "s", HEAD):
        pass
    path = tmp_path / "s" / "journal.jsonl"
    path.write_text(path.read_text() + text)
    with pytest.raises(DataError, match=message):
        read_trials(path)


def test_a_file_of_any_size_is_refused_unread(tmp_path, monkeypatch):
    write_some(tmp_path / "s")
    monkeypatch.setattr(journal, "MAX_FILE_BYTES", 100)
    with pytest.raises(DataError, match="which no search writes"):
        read_trials(tmp_path / "s" / "journal.jsonl")


def test_a_full_disk_costs_the_line_that_did_not_fit(tmp_path, full_disk):
    trials = write_some(tmp_path / "s")
    path = tmp_path / "s" / "journal.jsonl"
    size = path.stat().st_size
    with (
        pytest.raises(PyrafuseError, match="free space, and the same command goes on"),
        full_disk(size + 10),
        open_journal(tmp_path / "s", HEAD) as opened,
    ):
        begin(opened)
    assert path.stat().st_size == size
    assert read_trials(path) == trials
