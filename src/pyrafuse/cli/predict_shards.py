"""`pyrafuse predict` in shards: in this process, or in those of a Ray cluster."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pyrafuse.base.errors import CheckpointError, PyrafuseError
from pyrafuse.base.predictor import Predictor
from pyrafuse.base.printable import counted
from pyrafuse.base.terminal import Terminal
from pyrafuse.base.user_code import absolute_names
from pyrafuse.base.views.cutting import Views
from pyrafuse.base.views.detecting import in_views
from pyrafuse.cli.detectors import NO_SPEEDUPS, Speedups, load_any
from pyrafuse.cli.main import IMPORTS
from pyrafuse.cli.predict import split_classes, tell_nothing_found
from pyrafuse.inference.finding import Settings
from pyrafuse.inference.shards.ray import on_ray
from pyrafuse.inference.shards.running import SHARD_IMAGES, here, predict_in_shards
from pyrafuse.inference.shards.shard import Job
from pyrafuse.runtime.loading import is_exported


@dataclass(frozen=True)
class Executor:
    """Who works.

    Attributes:
        engine: ``local`` or ``ray``.
        device: Device, as it is typed.
        workers: Number of processes of a cluster; by default one a GPU or core.
        ray_address: Address of a cluster.
    """

    engine: Literal["local", "ray"]
    device: str
    workers: int | None
    ray_address: str | None


def predict_shards(
    model: Path,
    sources: Sequence[str],
    output: Path,
    *,
    views: Views,
    speedups: Speedups,
    asked: Mapping[str, Any],
    formats: tuple[str, ...],
    shard_images: int | None,
    column: str | None,
    limit: int | None,
    executor: Executor,
) -> int:
    """Predict in shards; the exit status.

    Raises:
        PyrafuseError: If an option does not fit, and on the faults of `predict_in_shards`.
    """
    is_ray = executor.engine == "ray"
    if is_ray and executor.device not in {"auto", "cpu", "gpu"}:
        raise PyrafuseError(
            f"--device {executor.device}: Ray gives each worker a GPU of its own; give gpu, cpu, or leave it out"
        )
    # of a cluster's detector only the card is needed here
    detector = load_any(model, "cpu" if is_ray else executor.device, NO_SPEEDUPS if is_ray else speedups)
    digest = digest_of(model)
    load = partial(load_same, model.absolute(), digest, speedups, views)
    settings = Settings(**{**asked, "classes": split_classes(asked["classes"], detector.card.names)})
    facts = {name: value for name, value in asdict(settings).items() if name != "batch"}
    facts |= {} if views.is_single else asdict(views)
    facts |= {"model_sha256": digest, "speedups": speedups.given, "names": detector.card.names}
    on_cluster = partial(
        on_ray,
        device="cpu" if is_exported(model) else executor.device,
        workers=executor.workers,
        ray_address=executor.ray_address,
    )
    summary = predict_in_shards(
        in_views(detector, views),
        sources,
        Job(output.absolute(), load, settings, formats, imports=absolute_names(IMPORTS.get())),
        facts=facts,
        shard_images=SHARD_IMAGES if shard_images is None else shard_images,
        column=column,
        limit=limit,
        engine=on_cluster if is_ray else here,
        console=Terminal(),
    )
    done = f" ({summary.num_earlier} of them earlier)" if summary.num_earlier else ""
    print(
        f"{counted(summary.num_objects, 'object')} in {counted(summary.num_images, 'image')}, written to {output} in "
        f"{counted(summary.num_shards, 'shard')}{done}; {summary.num_failed} could not be read"
        f"{f': see {output}/unreadable/' if summary.num_failed else ''} ({summary.seconds:.1f} s)"
    )
    if summary.num_images:
        tell_nothing_found(summary.num_objects, asked["score"])
    return int(summary.num_failed > 0)


def digest_of(model: Path) -> str:
    """SHA-256 of the file, with the weights that lie beside an .xml."""
    found = hashlib.sha256()
    for path in (model, *([model.with_suffix(".bin")] if model.suffix.lower() == ".xml" else [])):
        if path.is_file():
            with path.open("rb") as stream:
                found.update(hashlib.file_digest(stream, "sha256").digest())
    return found.hexdigest()


def load_same(
    model: Path, digest: str, speedups: Speedups, views: Views, device: str, threads: int | None
) -> Predictor:
    """What a worker predicts with: the detector in ``model``, in ``views`` of each image.

    Raises:
        CheckpointError: If that is another file than where the command was typed, or cannot be read.
    """
    if not model.is_file() or digest_of(model) != digest:
        raise CheckpointError(
            f"{model} is not the file that the command was given: put it into a folder that all machines share"
        )
    return in_views(load_any(model, device, speedups, threads=threads), views)
