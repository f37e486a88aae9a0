"""Shards predicted on by the processes of a Ray cluster, on this machine or on many: Ray Data shares them out.

numbers of shards -> a Ray Data set -> a pool of workers, each with a detector -> files in the shared folder -> outcomes

A worker writes its shards itself. What Ray sends is small: numbers, and what became of them. A worker that ends is
begun again, and the shard that it was at with it.
"""

import logging
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pyrafuse.base.cluster import connect, divide, last_words
from pyrafuse.base.errors import PyrafuseError, check_count
from pyrafuse.base.extras import naming_extras
from pyrafuse.base.predictor import Predictor
from pyrafuse.base.printable import counted, printable
from pyrafuse.base.user_code import import_user_code
from pyrafuse.inference.shards.running import Execute
from pyrafuse.inference.shards.shard import BEGUN, Job, Outcome, predict_shard

TRIES = 3
"""Workers that may end at one shard; then it is left, or it would end them for ever: Ray begins them again."""

MOST_BLOCKS = 10_000
"""Pieces that Ray Data shares out: of more shards than that, several together."""


@contextmanager
def on_ray(
    job: Job,
    detector: Predictor,  # noqa: ARG001
    tell: Callable[[str], None],
    *,
    device: str = "auto",
    workers: int | None = None,
    ray_address: str | None = None,
) -> Iterator[Execute]:
    """Workers of a cluster; a local one is started where no address is given, and ends with the block.

    Args:
        job: What is asked.
        detector: Read by each worker anew.
        tell: Function that is called with each sentence for the user.
        device: ``cpu``, ``gpu``, or ``auto``: GPUs where the cluster has any.
        workers: Number of processes; by default one a GPU, on CPUs one a core.
        ray_address: Address of a running cluster, HOST:PORT; by default that of the variable RAY_ADDRESS.

    Raises:
        MissingLibraryError: If Ray is not installed.
        PyrafuseError: If no cluster answers, or it has no room for the workers.
    """
    check_count("workers", 1 if workers is None else workers, 1)
    with connect(ray_address, tell) as library:
        nodes = [node["Resources"] for node in library.nodes() if node["Alive"]]
        has_gpus = any(node.get("GPU", 0) >= 1 for node in nodes)
        unit = "GPU" if device == "gpu" or (device == "auto" and has_gpus) else "CPU"
        number, cores = divide(nodes, workers, unit)

        def execute(numbers: Sequence[int]) -> Iterator[Outcome]:
            count = min(number, len(numbers))
            tell(f"{counted(count, 'worker')} of {counted(cores, 'core')} each start")
            try:
                yield from _share_out(job, numbers, count, cores, unit)
            except library.exceptions.RayError as error:
                raise PyrafuseError(f"Ray has ended the work: {last_words(error)}; the same command goes on") from error

        yield execute


def _share_out(job: Job, numbers: Sequence[int], count: int, cores: int, unit: str) -> Iterator[Outcome]:
    with naming_extras():
        import ray.data as data
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    data.DataContext.get_current().enable_progress_bars = False
    shards = data.from_items(list(numbers), override_num_blocks=min(len(numbers), MOST_BLOCKS))
    outcomes = shards.map_batches(
        ShardWorker,
        batch_size=1,
        compute=data.ActorPoolStrategy(size=count, max_tasks_in_flight_per_actor=1),
        fn_constructor_args=(job, "gpu" if unit == "GPU" else "cpu", cores),
        num_cpus=cores,
        num_gpus=int(unit == "GPU"),
    )
    for row in outcomes.iter_rows():
        shard, images, objects, unreadable = (int(row[name]) for name in Outcome._fields[:-1])
        yield Outcome(shard, images, objects, unreadable, str(row["problem"]))


class ShardWorker:
    """What runs in a process of the cluster: numbers of shards -> outcomes, as columns.

    Args:
        job: What is asked.
        device: Device of the detector; Ray shows each worker one GPU, which is the first.
        cores: Number of cores.
    """

    def __init__(self, job: Job, device: str, cores: int) -> None:
        self._job = job
        self._detector: Predictor | None = None
        self._problem = self._try(lambda: self._prepare(device, cores))

    def _prepare(self, device: str, cores: int) -> None:
        for name in self._job.imports:
            import_user_code(name)
        if not (self._job.output / "manifest.json").is_file():
            raise PyrafuseError(f"{self._job.output} is not there: put it into a folder that all machines share")
        self._detector = self._job.load(device, cores)

    def _try(self, work: Callable[[], object]) -> str:
        try:
            work()
        except Exception as error:  # code of users fails in its own ways
            kind = "" if isinstance(error, PyrafuseError) else f"{type(error).__name__}: "
            return f"{kind}{printable(error, limit=1500)} (on {socket.gethostname()})"
        return ""

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Predict on the shards of a batch; one that is done is left as it is."""
        rows = [self._predict(int(number)) for number in batch["item"]]
        return {name: list(values) for name, values in zip(Outcome._fields, zip(*rows, strict=True), strict=True)}

    def _predict(self, number: int) -> Outcome:
        outcome = [Outcome(number)]
        problem = self._problem or self._try(lambda: outcome.append(self._predict_plainly(number)))
        return outcome[-1]._replace(problem=problem)

    def _predict_plainly(self, number: int) -> Outcome:
        assert self._detector is not None
        note = self._job.output / BEGUN / f"{number:05}"
        if note.is_file() and note.stat().st_size >= TRIES:
            return Outcome(number)
        note.parent.mkdir(exist_ok=True)
        with note.open("ab") as stream:
            stream.write(b".")
        outcome = predict_shard(self._job, self._detector, number)
        note.unlink(missing_ok=True)
        return outcome
