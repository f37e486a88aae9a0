"""Loggers: what each library is told, and that none of them can end a training.

W&B, MLflow and Trackio are stood in for by modules with the signatures of their documentation.
"""

import sys
from types import SimpleNamespace

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pyrafuse.base.errors import PyrafuseError, UnknownNameError
from pyrafuse.base.extras import MissingLibraryError
from pyrafuse.cli.train import read_loggers
from pyrafuse.training.loggers.registry import LOGGERS, LoggedRun, Logger, Loggers, check_loggers

SETTINGS = {"run": {"epochs": 3, "output": None}, "model": {"neck": ("fpn",), "options": {}}}


@pytest.fixture
def run(tmp_path):
    (tmp_path / "mine").mkdir()
    return LoggedRun(tmp_path / "mine", SETTINGS)


@pytest.fixture
def loggers_from_outside():
    """A logger that works and one that does not, by their names, for one test."""

    class Kept(Logger):
        told = []

        def __init__(self, run):
            Kept.told.append(run.folder.name)

        def log(self, values, step):
            Kept.told.append((dict(values), step))

        def close(self):
            Kept.told.append("closed")

    class Broken(Kept):
        def log(self, values, step):
            raise ConnectionError("the server\nis gone")

    class Stillborn(Kept):
        def __init__(self, run):
            raise OSError("no space left")

    for name, logger in {"kept": Kept, "broken": Broken, "stillborn": Stillborn}.items():
        LOGGERS.add(name, logger)
    yield Kept.told
    for name in ("kept", "broken", "stillborn"):
        LOGGERS._entries.pop(name)


def log_all(names, run, say=pytest.fail):
    loggers = Loggers(names, run, say=say)
    loggers.log({"train/loss_step": 2.5}, 50)
    loggers.log({"val/ap": 0.25, "epoch": 1}, 60)
    loggers.close()


def test_tensorboard_holds_every_value(run):
    log_all(["tensorboard"], run)
    events = EventAccumulator(str(run.folder / "tensorboard")).Reload()
    told = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    assert told == {"train/loss_step": [(50, 2.5)], "val/ap": [(60, 0.25)], "epoch": [(60, 1.0)]}


def test_wandb_is_offline_unless_told_otherwise(run, monkeypatch):
    said = []

    class Run:
        def log(self, data, step=None, commit=None):
            said.append((data, step))

        def finish(self, exit_code=None, quiet=None):
            said.append("finished")

    def init(entity=None, project=None, dir=None, name=None, group=None, config=None, mode=None, settings=None):  # noqa: A002
        said.append((project, name, group, dir, mode, config, settings))
        return Run()

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init, Settings=lambda **given: given))
    monkeypatch.delenv("WANDB_MODE", raising=False)
    log_all(["wandb"], run)
    quiet = {"silent": True, "console": "off"}
    assert said[0] == ("pyrafuse", "mine", "mine", str(run.folder), "offline", SETTINGS, quiet)
    assert said[1:] == [({"train/loss_step": 2.5}, 50), ({"val/ap": 0.25, "epoch": 1}, 60), "finished"]
    monkeypatch.setenv("WANDB_MODE", "online")
    log_all(["wandb"], run)
    assert said[4][4] == "online"


class Client:
    """Of MLflow, as far as it is used."""

    runs: dict = {}

    def __init__(self, tracking_uri=None, registry_uri=None):
        self.runs["address"] = tracking_uri

    def get_experiment_by_name(self, name):
        return SimpleNamespace(experiment_id="7") if "experiment" in self.runs else None

    def create_experiment(self, name, artifact_location=None, tags=None):
        self.runs["experiment"] = name
        return "7"

    def search_runs(self, experiment_ids, filter_string="", run_view_type=1, max_results=1000):
        assert experiment_ids == ["7"]
        return [
            SimpleNamespace(info=SimpleNamespace(run_id=key))
            for key, each in self.runs.items()
            if isinstance(each, dict)
            and filter_string == f"tags.`pyrafuse.folder` = '{each['tags']['pyrafuse.folder']}'"
        ][:max_results]

    def create_run(self, experiment_id, start_time=None, tags=None, run_name=None):
        key = f"run{len(self.runs)}"
        self.runs[key] = {"name": run_name, "tags": tags, "params": {}, "metrics": [], "status": "RUNNING"}
        return SimpleNamespace(info=SimpleNamespace(run_id=key))

    def update_run(self, run_id, status=None, name=None):
        self.runs[run_id]["status"] = status

    def log_batch(self, run_id, metrics=(), params=(), tags=(), synchronous=None):
        self.runs[run_id]["params"] |= dict(params)
        self.runs[run_id]["metrics"] += [(name, value, step) for name, value, _, step in metrics]

    def set_terminated(self, run_id, status=None, end_time=None):
        self.runs[run_id]["status"] = "FINISHED"


def test_mlflow_writes_into_the_run_and_goes_on_in_it(run, monkeypatch):
    entities = SimpleNamespace(Param=lambda key, value: (key, value), Metric=lambda *given: given)
    monkeypatch.setitem(sys.modules, "mlflow", SimpleNamespace(MlflowClient=Client, entities=entities))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(Client, "runs", {})
    log_all(["mlflow"], run)
    assert Client.runs["address"] == f"sqlite:///{run.folder}/mlflow.db"
    (own,) = (each for each in Client.runs.values() if isinstance(each, dict))
    assert (own["name"], own["status"]) == ("mine", "FINISHED")
    assert own["params"] == {
        "run.epochs": "3", "run.output": "None", "model.neck": "('fpn',)", "model.options": "{}",
    }  # fmt: skip
    assert own["metrics"] == [("train/loss_step", 2.5, 50), ("val/ap", 0.25, 60), ("epoch", 1.0, 60)]
    logger = LOGGERS.create("mlflow", LoggedRun(run.folder, SETTINGS, is_resumed=True))
    logger.log({"val/ap <50>": 0.5}, 70)
    assert own["metrics"][-1] == ("val/ap _50_", 0.5, 70)
    assert own["status"] == "RUNNING"


def test_trackio_is_told_the_same(run, monkeypatch, capsys):
    said = []

    def init(project, name=None, *, config=None, resume="never", embed=True, auto_log_gpu=None, auto_log_cpu=None):
        print("* look at me")
        said.append((project, name, config["run.epochs"], resume, embed, auto_log_gpu, auto_log_cpu))

    module = SimpleNamespace(
        init=init, log=lambda metrics, step=None: said.append((metrics, step)), finish=lambda: said.append("finished")
    )
    monkeypatch.setitem(sys.modules, "trackio", module)
    log_all(["trackio"], run)
    assert said[0] == ("pyrafuse", "mine", 3, "never", False, False, False)
    assert said[1:] == [({"train/loss_step": 2.5}, 50), ({"val/ap": 0.25, "epoch": 1}, 60), "finished"]
    assert capsys.readouterr().out == ""


def test_a_logger_that_fails_is_told_once_and_the_others_go_on(run, loggers_from_outside):
    said = []
    log_all(["stillborn", "broken", "kept"], run, say=said.append)
    assert said == [
        "the logger stillborn failed and gets nothing more, the training goes on: no space left",
        "the logger broken failed and gets nothing more, the training goes on: the server\\nis gone",
    ]
    values = [({"train/loss_step": 2.5}, 50), ({"val/ap": 0.25, "epoch": 1}, 60)]
    assert loggers_from_outside == ["mine", "mine", *values, "closed"]


@pytest.mark.parametrize(
    ("names", "error", "said"),
    [
        (("tensorbord",), UnknownNameError, "unknown logger 'tensorbord'; did you mean 'tensorboard'?"),
        (("nolib",), MissingLibraryError, r'this needs wandb, which is not installed: pip install "pyrafuse\[wandb\]"'),
    ],
)
def test_unknown_and_missing_loggers_are_refused_at_the_start(names, error, said, monkeypatch):
    monkeypatch.setattr("pyrafuse.base.extras.find_spec", lambda name: None)
    monkeypatch.setitem(LOGGERS._entries, "nolib", LOGGERS.entry("wandb"))
    with pytest.raises(error, match=said):
        check_loggers(names)


def test_none_stands_alone():
    assert read_loggers("none") == read_loggers(["none"]) == [("run.loggers", ())]
    assert read_loggers("tensorboard, wandb") == [("run.loggers", ("tensorboard", "wandb"))]
    with pytest.raises(PyrafuseError, match="--loggers none,wandb: none stands alone"):
        read_loggers("none,wandb")
