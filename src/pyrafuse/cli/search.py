"""`pyrafuse search`."""

import inspect
import math
import re
from collections.abc import Mapping
from pathlib import Path
from shlex import join
from typing import TYPE_CHECKING, Any

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.extras import require
from pyrafuse.base.paths import check_data, check_writable
from pyrafuse.cli.shorthand import Shorthand, shorthand
from pyrafuse.cli.train import make_recipe, read_model, read_weights
from pyrafuse.training.start_files import check_start_files

if TYPE_CHECKING:
    from pyrafuse.search.preparing import SearchSettings

DEFAULT_MODEL, DEFAULT_BACKBONE = "atss", "mobilenet_v2"
NO_OPTIONS: dict[str, Any] = {}
LIGHT_HEAD = {"num_convs": 1, "channels": 64}
"""Options of the default detector's head: a latency of milliseconds leaves no room for four convolutions of 256."""


@shorthand(
    Shorthand(
        usage="DATA [--backbone NAME] [--weights FILE] [--minutes 20] [--max-latency 30ms] [--strategy evolution]",
        options={},
        help={"-o DIR": "--output DIR"},
        positional="data",
    )
)
def search(
    *,
    data: str | None = None,
    backbone: str | None = None,
    weights: str | None = None,
    model: str | None = None,
    recipe: str = "small",
    minutes: float = 20.0,
    max_latency: str | None = None,
    max_gflops: float | None = None,
    max_parameters: float | None = None,
    strategy: str = "evolution",
    strategy_options: dict[str, Any] = NO_OPTIONS,
    engine: str = "local",
    workers: int | None = None,
    ray_address: str | None = None,
    sizes: tuple[int, ...] = (320,),
    channels: tuple[int, ...] = (48, 64, 96),
    max_merges: int = 18,
    fusions: tuple[str, ...] | None = None,
    ups: tuple[str, ...] | None = None,
    downs: tuple[str, ...] | None = None,
    views: int = 4,
    rungs: tuple[int, ...] = (32, 96, 288),
    cache_gb: float = 10.0,
    confirm: bool = False,
    correlate: int = 0,
    full_seeds: tuple[int, ...] = (0, 1, 2),
    full_epochs: int | None = None,
    parallel: int | None = None,
    device: str = "auto",
    seed: int = 0,
    output: Path = Path("runs/search"),
) -> int:
    """Search the neck that fits your data and a latency, by short trainings on a frozen backbone.

    The backbone's maps of all images are computed once. Then graphs are proposed, measured, and trained on these maps a
    batch at a time; the few best of a batch are trained longer. Necks made by hand are tried first. Ends with
    search.html and the best graphs as neck-1.yaml and so on, for --model.neck of `pyrafuse train`. Ctrl-C keeps
    everything, and the same command goes on.

    Args:
        data: A data set as `pyrafuse train` takes it; a bare word.
        backbone: Backbone that is frozen: one of `pyrafuse models`, or timm/NAME. By default the model's own, and
            mobilenet_v2 where no model is given.
        weights: Pretrained weights of the backbone: a file, torchvision/NAME or timm/NAME; or a detector's checkpoint.
            By default what is published for the backbone, as the recipe says; none for random ones.
        model: Detector around the neck: one of `pyrafuse models`, a YAML file that describes one, or a checkpoint. By
            default atss with a light head.
        recipe: One of `pyrafuse recipes`, or a YAML file: optimiser, schedule and augmentation of the short trainings.
        minutes: Minutes of the whole search, those of earlier calls included.
        max_latency: Latency that the whole detector may have for one image on this device, such as 30ms.
        max_gflops: GFLOPs that it may have for one image.
        max_parameters: Number of parameters that it may have.
        strategy: What proposes graphs: controller, evolution, nsga2, random, supernet or tpe.
        strategy_options: Options of the strategy, such as --strategy-options.rounds 128 of supernet.
        engine: Engine that trains the candidates: local, in this process; or ray, in the processes of a Ray cluster.
        workers: Number, with --engine ray, of processes that train. By default one a GPU, on CPUs one a core.
        ray_address: With --engine ray: address of a running cluster, HOST:PORT. By default the value of the variable
            RAY_ADDRESS; without it a cluster on this machine is started.
        sizes: Sides of the network's input in pixels to choose from.
        channels: Channels of the merges to choose from.
        max_merges: Largest number of merges.
        fusions: Ways to fuse maps to choose from; by default all but inject.
        ups: Ways from a coarser level to choose from: nearest and bilinear by default, carafe, aligned.
        downs: Ways from a finer level to choose from; by default all but max_pool_same, avg_pool and patch_conv.
        views: Augmented views of each training image.
        rungs: Steps after which graphs are compared; a third goes on.
        cache_gb: Size in GiB that the maps may take on the disk.
        confirm: Afterwards train in full, backbone unfrozen: the three best graphs, the necks made by hand, and the
            best of a random search that takes as long.
        correlate: Number of random graphs to train in full as well, to see how well the search ranks; 20 or more tell
            something.
        full_seeds: Seeds of the full trainings; those of --correlate take the first two.
        full_epochs: Epochs of the full trainings; by default the recipe's.
        parallel: Full trainings at a time; by default one a GPU, one on the processor.
        device: auto, cpu, gpu, cuda:1 and so on.
        seed: Seed of everything that is drawn.
        output: Folder for everything; new, or that of the same search.
    """
    values = dict(locals())
    check_writable(output, is_folder=True)
    settings = make_settings(**{name: value for name, value in values.items() if name != "output"})
    from pyrafuse.base.terminal import Terminal
    from pyrafuse.cli.main import IMPORTS
    from pyrafuse.search.ranking import leaders
    from pyrafuse.search.report import PAGE
    from pyrafuse.search.running import describe_result
    from pyrafuse.search.searching import search as run

    result = run(
        settings,
        output,
        command=write_command(values),
        train=write_training(values),
        imports=IMPORTS.get(),
        console=Terminal(),
    )
    for path, trial in zip(result.necks, leaders(result.trials), strict=False):
        print(f"{path}: trial {trial.number} ({trial.source}), {describe_result(trial)}")
    print(f"written to {result.folder}: {PAGE}, journal.jsonl{', neck-1.yaml ...' if result.necks else ''}")
    return 0


def write_command(values: Mapping[str, Any]) -> str:
    """What to type for the same search: every option that is not at its default."""
    parameters = inspect.signature(search).parameters
    words = ["pyrafuse", "search", str(values["data"])]
    for name, value in values.items():
        if name == "strategy_options":
            words += [word for key, one in value.items() for word in (f"--strategy-options.{key}", str(one))]
        elif name != "data" and value != parameters[name].default:
            text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
            words += [f"--{name.replace('_', '-')}", text]
    return join(words)


def write_training(values: Mapping[str, Any]) -> str:
    """What to type to train the detector that was searched for; size and neck are to be added."""
    words = ["pyrafuse", "train", str(values["data"]), "--recipe", values["recipe"]]
    words += ["--model", values["model"] or DEFAULT_MODEL]
    if backbone := find_backbone(values):
        words += ["--model.backbone", backbone]
    if values["weights"] is not None:
        words += ["--weights", values["weights"]]
    if values["model"] is None:
        for name, number in LIGHT_HEAD.items():
            words += [f"--model.options.head.{name}", str(number)]
    return join(words)


def find_backbone(values: Mapping[str, Any]) -> str | None:
    """The backbone that is asked for; None leaves it to the model."""
    return values["backbone"] or (DEFAULT_BACKBONE if values["model"] is None else None)


def make_settings(
    *,
    data: str | None,
    backbone: str | None,
    weights: str | None,
    model: str | None,
    recipe: str,
    minutes: float,
    max_latency: str | None,
    max_gflops: float | None,
    max_parameters: float | None,
    strategy: str,
    strategy_options: Mapping[str, Any],
    engine: str,
    workers: int | None,
    ray_address: str | None,
    sizes: tuple[int, ...],
    channels: tuple[int, ...],
    max_merges: int,
    fusions: tuple[str, ...] | None,
    ups: tuple[str, ...] | None,
    downs: tuple[str, ...] | None,
    views: int,
    rungs: tuple[int, ...],
    cache_gb: float,
    confirm: bool,
    correlate: int,
    full_seeds: tuple[int, ...],
    full_epochs: int | None,
    parallel: int | None,
    device: str,
    seed: int,
) -> "SearchSettings":
    """What is searched, from options as they are typed.

    Raises:
        PyrafuseError: If a value does not fit.
    """
    if engine == "ray":
        require("ray")  # told before PyTorch is imported
    of_engine = {"workers": workers, "ray_address": ray_address}
    if not data:
        raise PyrafuseError("no data set was given: pyrafuse search DATA")
    check_data(data)
    limit = None if max_latency is None else read_milliseconds(max_latency)
    if not sizes:
        raise PyrafuseError("--sizes needs a side in pixels, such as 320")
    given: list[tuple[str, object]] = [("recipe", recipe), ("data.path", data), ("data.size", sizes[0])]
    given += read_model(model or DEFAULT_MODEL)
    if name := find_backbone({"backbone": backbone, "model": model}):
        given.append(("model.backbone", name))
    given += [] if weights is None else read_weights(weights)
    if model is None:
        given.append(("model.options.head", LIGHT_HEAD))
    made = make_recipe([*given, ("run.seed", seed)])
    check_start_files(made.model)
    from pyrafuse.core.devices import choose_device
    from pyrafuse.search.choices import Space
    from pyrafuse.search.preparing import SearchSettings
    from pyrafuse.search.running import Limits
    from pyrafuse.search.settings import FullTrainings, ProxySettings

    choose_device(device)
    return SearchSettings(
        recipe=made,
        space=Space(
            fusions=Space.fusions if fusions is None else fusions,
            ups=Space.ups if ups is None else ups,
            downs=Space.downs if downs is None else downs,
            channels=channels,
            sizes=sizes,
            max_merges=max_merges,
        ),
        strategy=strategy,
        strategy_options=strategy_options,
        engine=engine,
        engine_options={name: value for name, value in of_engine.items() if value is not None},
        proxy=ProxySettings(views=views, rungs=rungs, seed=seed),
        limits=Limits(limit, max_gflops, max_parameters),
        minutes=minutes,
        device=device,
        cache_gb=cache_gb,
        full=FullTrainings(confirm, correlate, full_seeds, full_epochs, parallel),
    )


def read_milliseconds(text: str) -> float:
    """``30ms``, ``30`` or ``0.03s`` in milliseconds.

    Raises:
        PyrafuseError: If it is none of these.
    """
    found = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*(ms|s)?\s*", text)
    value = float(found[1]) * (1000 if found[2] == "s" else 1) if found else math.nan
    if not value > 0:
        raise PyrafuseError(
            f"--max-latency {text!r} is no time: write milliseconds, such as 30ms, or seconds, as 0.03s"
        )
    return value
