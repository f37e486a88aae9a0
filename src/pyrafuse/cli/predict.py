"""`pyrafuse predict`."""

from pathlib import Path
from typing import Literal

from pyrafuse.base.errors import PyrafuseError, check_between
from pyrafuse.base.extras import require
from pyrafuse.base.paths import check_source, check_writable, find_checkpoint
from pyrafuse.base.printable import counted


def predict(
    model: Path,
    /,
    *sources: str,
    output: Path = Path("predictions"),
    formats: tuple[str, ...] | None = None,
    crop: bool = False,
    score: float = 0.25,
    classes: str | None = None,
    size: int | None = None,
    nms_iou: float | None = None,
    max_detections: int | None = None,
    tile: int | None = None,
    overlap: float | None = None,
    augment: tuple[str, ...] = (),
    merge: Literal["nms", "wbf"] | None = None,
    batch: int = 1,
    limit: int | None = None,
    stride: int = 1,
    engine: Literal["local", "ray"] = "local",
    workers: int | None = None,
    ray_address: str | None = None,
    shard_images: int | None = None,
    column: str | None = None,
    device: str = "auto",
    optimize: bool = False,
    compile: bool = False,  # noqa: A002  # the option is --compile
    precision: Literal["fp32", "bf16"] = "fp32",
) -> int:
    """Find objects in images, folders, videos, cameras or URLs.

    The status is 1 if some inputs could not be read; the others are predicted on all the same.

    Args:
        model: A checkpoint, the folder of a run, or an exported .onnx or .xml, which runs without PyTorch. The size and
            preprocessing that it was trained with are in it.
        sources: Images, videos, folders, globs, camera numbers, http(s) URLs, or rtsp URLs of streams. For shards:
            images, folders, globs, lists (.txt), Parquet files, and addresses such as s3://bucket/folder.
        output: Folder for the results.
        formats: What to write: image (drawn pictures and videos), crop (crops/CLASS/*.jpg), json (predictions.json),
            coco (coco_results.json), yolo (labels/*.txt), parquet (detections.parquet), and what --import registers.
            By default image and json; for shards parquet.
        crop: Write each object cut out as well: in short for crop among the formats.
        score: Least score that is kept, 0..1.
        classes: Names or numbers of the classes that are kept, with commas between; by default all.
        size: Side of the network's input in pixels; by default the checkpoint's own.
        nms_iou: Overlap above which two boxes of a class are one object; by default the model's own.
        max_detections: Largest number of detections an image; by default the model's own.
        tile: Side in pixels of the tiles that a larger image is cut into, so that small objects stay large enough; by
            default that of the training, where it was on tiles; 0 keeps images whole.
        overlap: Least share of a tile's side that it has in common with the next one, 0..0.9: wide enough for most
            objects; by default that of the training, or 0.2.
        augment: Other views of each image or tile: flip, scales (0.75 and 1.25 times the size), a scale such as 1.5,
            and whole, the image itself beside its tiles.
        merge: nms, the default, keeps the best of the boxes that several views find, wbf takes their weighted mean.
        batch: Images, or tiles, at a time.
        limit: Only so many images and frames, the first ones.
        stride: Step between the frames that are read of a video or a camera.
        engine: Where images are predicted on: local, in this process; or ray, in the processes of a Ray cluster,
            which writes shards.
        workers: With --engine ray: number of processes. By default one a GPU, on CPUs one a core.
        ray_address: With --engine ray: address of a running cluster, HOST:PORT. By default the value of the variable
            RAY_ADDRESS; without it a cluster on this machine is started.
        shard_images: Write shards of so many images; the same command goes on after the last one that is done. By
            default 1000 with --engine ray, and no shards without.
        column: For shards of Parquet files: the column that holds images or names them. By default it follows from
            the columns' names.
        device: auto, cpu, gpu, or the number of a GPU such as 1; an exported file runs on the processor.
        optimize: Fold batch norms into convolutions, and lay out weights for the processor: faster, with the same
            results but for rounding.
        compile: Optimise, and make code with torch.compile: minutes at the first batch.
        precision: fp32, or bf16, which is faster on processors and GPUs with instructions for it, and moves boxes and
            scores a little.
    """
    check_between("score", score, 0, 1)
    check_between("nms_iou", nms_iou, 0, 1)
    for name, value in (("batch", batch), ("limit", limit), ("max_detections", max_detections), ("stride", stride)):
        check_between(name, value, 1)
    check_between("shard_images", shard_images, 1)
    is_sharded = engine == "ray" or shard_images is not None
    _refuse_without_effect(
        is_sharded,
        engine == "ray",
        crop=crop,
        stride=stride != 1,
        workers=workers is not None,
        ray_address=ray_address is not None,
        column=column is not None,
    )
    if engine == "ray":
        require("ray")  # told before PyTorch is imported
    model = find_checkpoint(model)
    for source in sources:
        check_source(source)
    check_writable(output, is_folder=True)
    from pyrafuse.base.terminal import Terminal
    from pyrafuse.cli.detectors import Speedups, choose_views

    views = choose_views(model, Terminal(), tile=tile, overlap=overlap, augment=augment, merge=merge)
    speedups = Speedups(optimize, compile, precision)
    asked = {
        "score": score,
        "nms_iou": nms_iou,
        "max_detections": max_detections,
        "batch": batch,
        "size": size,
        "classes": classes,
    }
    if is_sharded:
        from pyrafuse.cli.predict_shards import Executor, predict_shards

        executor = Executor(engine, device, workers, ray_address)
        return predict_shards(
            model,
            sources,
            output,
            views=views,
            speedups=speedups,
            asked=asked,
            formats=formats or ("parquet",),
            shard_images=shard_images,
            column=column,
            limit=limit,
            executor=executor,
        )
    from pyrafuse.base.images.sources import open_source
    from pyrafuse.base.views.detecting import in_views
    from pyrafuse.cli.detectors import load_any
    from pyrafuse.inference.predicting import predict_to
    from pyrafuse.inference.writers.registry import WRITERS

    formats = formats or ("image", "json")
    for name in formats:
        WRITERS.get(name)  # before the checkpoint is read
    frames = open_source(sources[0] if len(sources) == 1 else sources, stride=stride, leave_out=output)
    detector = in_views(load_any(model, device, speedups), views)
    summary = predict_to(
        detector,
        frames,
        output,
        formats=(*formats, "crop") if crop else formats,
        **{**asked, "classes": split_classes(classes, detector.card.names)},
        limit=limit,
        progress=True,
    )
    print(
        f"{counted(summary.num_objects, 'object')} in {counted(summary.num_images, 'image')}, written to {output}; "
        f"{summary.num_failed} could not be read ({summary.seconds:.1f} s)"
    )
    tell_nothing_found(summary.num_objects, score)
    return int(summary.num_failed > 0)


def _refuse_without_effect(is_sharded: bool, is_ray: bool, **given: bool) -> None:
    """Refuse options that are ``given`` and would change nothing.

    Raises:
        PyrafuseError: With the first one.
    """
    for name, is_given in given.items():
        option = f"--{name.replace('_', '-')}"
        if is_given and is_sharded and name in {"crop", "stride"}:
            raise PyrafuseError(
                f"{option} is not for shards of images: leave it out, or leave --engine ray and --shard-images out"
            )
        if is_given and not is_ray and name in {"workers", "ray_address"}:
            raise PyrafuseError(f"{option} is for --engine ray: give that, or leave {option} out")
        if is_given and not is_sharded and name == "column":
            raise PyrafuseError("--column is for shards of Parquet files: give --shard-images 1000, or leave it out")


def tell_nothing_found(num_objects: int, score: float) -> None:
    """Say how to see more where nothing was found."""
    if not num_objects and score > 0:
        print(f"nothing has a score of {score:g} or more: --score {score / 5:.1g}, say, shows what is less certain")


def split_classes(text: str | None, names: tuple[str, ...]) -> list[str] | None:
    """The classes in ``text``, with commas between; a name that has a comma stands alone."""
    if text is None:
        return None
    return [text] if text in names else [part.strip() for part in text.split(",")]
