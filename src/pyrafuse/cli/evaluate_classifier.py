"""`pyrafuse evaluate-classifier`."""

from pathlib import Path
from typing import Literal


def evaluate_classifier(
    name: str,
    folder: Path,
    /,
    *,
    weights: str | None = None,
    num_classes: int = 1000,
    size: int | None = None,
    resize: int | None = None,
    interpolation: Literal["bilinear", "bicubic"] | None = None,
    batch: int = 32,
    workers: int = 4,
    device: str = "auto",
) -> int:
    """Measure an image classifier: top-1 and top-5 accuracy on a folder of images, FOLDER/CLASS/image.jpg.

    The status is 1 if some images could not be read; the others are classified all the same.

    Args:
        name: A backbone with a classifier (dpn92, eca_resnet50, resnet50, mobilenet_v2 ...), or timm/NAME.
        folder: Holds one folder a class, called by ImageNet's ids (n01440764), by numbers, or in the classes' order.
        weights: A published checkpoint: a file, torchvision/NAME or timm/NAME.
        num_classes: Number of classes that the classifier tells apart.
        size: Side of the square that is cut from the middle, in pixels; by default the classifier's own.
        resize: Length that the shorter side is brought to before, in pixels; by default the classifier's own, or
            size / 0.875 where size is given.
        interpolation: Interpolation of that resize; by default the classifier's own.
        batch: Images at a time.
        workers: Threads that read.
        device: auto, cpu, gpu, or the number of a GPU such as 1.
    """
    from dataclasses import replace

    from pyrafuse.base.errors import PyrafuseError
    from pyrafuse.base.terminal import Terminal
    from pyrafuse.core.devices import choose_device
    from pyrafuse.data.reading.class_folders import read_class_folders
    from pyrafuse.inference.classifying import evaluate_classifier
    from pyrafuse.models.classifier import create_classifier

    place = choose_device(device)
    given = {"--num_classes": num_classes, "--size": size, "--resize": resize, "--batch": batch}
    for option, value in given.items():
        if value is not None and value < 1:
            raise PyrafuseError(f"{option} must be 1 or more, got {value}")
    images = read_class_folders(folder, num_classes)
    classifier = create_classifier(name, num_classes=num_classes, weights=weights).to(place)
    own = classifier.preprocessing
    try:
        crop = replace(
            own,
            size_px=size or own.size_px,
            resize_px=resize or (int(size / 0.875) if size else own.resize_px),
            interpolation=interpolation or own.interpolation,
        )
    except ValueError as error:
        raise PyrafuseError(f"--size and --resize: {error}") from error
    console = Terminal()
    if weights is None:
        console.print("no --weights: the classifier is untrained, and right by chance only", highlight=False)
    console.print(f"{len(images)} images of {folder}, {name} on {place}", highlight=False)
    accuracy = evaluate_classifier(classifier, images, crop=crop, batch_size=batch, workers=workers, console=console)
    print(f"input   {crop}")
    print(f"images  {accuracy.num_images}, {len(accuracy.failures)} could not be read")
    print(f"top-1   {100 * accuracy.top1:.2f} %")
    print(f"top-5   {100 * accuracy.top5:.2f} %")
    return int(bool(accuracy.failures))
