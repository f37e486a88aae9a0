"""A backbone that is frozen: what it cannot be, what it gives, and what tells it from others.

batch of images -> normalised -> backbone in evaluation mode -> maps
"""

from hashlib import blake2b
from typing import Any

import torch
from torch import nn

from pyrafuse.backbones.registry import BACKBONES
from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.images.normalizing import normalize
from pyrafuse.base.parts import Part
from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.core.pyramid import Pyramid
from pyrafuse.core.targets import Batch
from pyrafuse.models.detector import Detector
from pyrafuse.necks.registry import NECKS
from pyrafuse.search.views import Shapes


def check_backbone(detector: Detector[Any]) -> None:
    """Refuse a detector whose backbone cannot be frozen, or whose maps do not lie in one array.

    Raises:
        PyrafuseError: With the reason.
    """
    spec = detector.card.spec
    if spec is None:
        raise PyrafuseError(
            "this detector was put together by hand: a search needs one that `build` made of a description"
        )
    entry = BACKBONES.entry(spec.backbone.name)
    if NECKS in {**entry.parts, **entry.makers}.values():
        trunk = spec.backbone.options.get("backbone")
        other = f", such as {trunk.name}" if isinstance(trunk, Part) else ""
        raise PyrafuseError(
            f"the backbone {spec.backbone.name} holds a neck that feeds back into it, which a search would freeze and "
            f"not replace: give another backbone{other}"
        )
    if detector.card.preprocessing.fit == "keep_ratio":
        raise PyrafuseError(
            "fit keep_ratio gives each image maps of another size, and cached maps have one: search with fit letterbox"
        )


@torch.inference_mode()
def find_shapes(detector: Detector[Any], size: tuple[int, int]) -> Shapes:
    """Shapes of the maps of one image; a backbone that gives others the next time is refused.

    Raises:
        PyrafuseError: If the maps are not as the backbone describes them, or differ.
    """
    detector.eval()
    backbone = detector.backbone
    backbone.check_size(*size)
    images = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0)).to(detector.device)
    first, second = backbone(images), backbone(images)
    name = detector.card.spec.backbone.name if detector.card.spec else type(backbone).__name__
    if any(not torch.allclose(one, other, rtol=1e-3, atol=1e-3) for one, other in zip(first, second, strict=True)):
        raise PyrafuseError(
            f"the backbone {name} cannot be frozen: it gives other maps of the same image each time, in evaluation "
            "mode too; give another backbone"
        )
    if tuple(level.shape[1] for level in first) != backbone.features.channels:
        raise PyrafuseError(
            f"the backbone {name} describes maps of {backbone.features.channels} channels, and gives "
            f"{tuple(level.shape[1] for level in first)}"
        )
    return tuple((level.shape[1], level.shape[2], level.shape[3]) for level in first)


@torch.inference_mode()
def compute_maps(detector: Detector[Any], batch: Batch, preprocessing: Preprocessing) -> tuple[Pyramid, Batch]:
    """The maps of ``batch``, and itself."""
    images = normalize(preprocessing, batch.images.to(detector.device, non_blocking=True), batch.sizes)
    return detector.backbone(images.contiguous(memory_format=torch.channels_last)), batch


def digest_weights(module: nn.Module) -> str:
    """32 letters that depend on every number of ``module``, statistics included."""
    digest = blake2b(digest_size=16)
    for name, values in module.state_dict().items():
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
        digest.update(values.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
