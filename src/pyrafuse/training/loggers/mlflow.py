"""MLflow: a database in the run's folder, unless MLFLOW_TRACKING_URI names a server."""

import os
import re
import time
from collections.abc import Mapping
from importlib import import_module

from pyrafuse.training.loggers.registry import LOGGERS, LoggedRun, Logger

FOLDER_TAG = "pyrafuse.folder"
MOST_PARAMETERS = 100
"""So many are taken in one call."""

LONGEST_VALUE = 500
"""Letters of a parameter that every version takes."""


@LOGGERS.register("mlflow", library="mlflow")
class MLflowLogger(Logger):
    """Writes into ``mlflow.db`` in the run's folder; a run that goes on is the same one."""

    def __init__(self, run: LoggedRun) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        place = str(run.folder.absolute())
        address = os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{place}/mlflow.db")
        mlflow = import_module("mlflow")
        self._metric = mlflow.entities.Metric
        self._client = mlflow.MlflowClient(tracking_uri=address)
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "pyrafuse")
        experiment = self._client.get_experiment_by_name(name)
        number = experiment.experiment_id if experiment else self._client.create_experiment(name)
        known = self._client.search_runs([number], f"tags.`{FOLDER_TAG}` = '{place}'", max_results=1)
        if run.is_resumed and known:
            self._id = known[0].info.run_id
            self._client.update_run(self._id, status="RUNNING")
            return
        begun = self._client.create_run(number, tags={FOLDER_TAG: place}, run_name=run.folder.name)
        self._id = begun.info.run_id
        given = [
            mlflow.entities.Param(_allowed(name), str(value)[:LONGEST_VALUE])
            for name, value in run.flat_settings().items()
        ]
        for start in range(0, len(given), MOST_PARAMETERS):
            self._client.log_batch(self._id, params=given[start : start + MOST_PARAMETERS])

    def log(self, values: Mapping[str, float], step: int) -> None:
        now = round(time.time() * 1000)
        metrics = [self._metric(_allowed(name), float(value), now, step) for name, value in values.items()]
        self._client.log_batch(self._id, metrics=metrics)

    def close(self) -> None:
        self._client.set_terminated(self._id)


def _allowed(name: str) -> str:
    """The name of a metric or parameter with what MLflow does not take replaced."""
    return re.sub(r"[^\w\-./ ]", "_", name)
