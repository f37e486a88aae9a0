"""Any timm model with a feature pyramid as a backbone: ``timm/NAME``."""

import os
from collections.abc import Mapping
from functools import cache
from tempfile import TemporaryDirectory
from typing import Any

import timm
import torch
from timm.layers.patch_embed import PatchEmbed
from torch import Tensor, nn

from pyrafuse.backbones.fetching import find_timm_file
from pyrafuse.backbones.staged import check_frozen_stages, check_strides, stop_norms
from pyrafuse.backbones.weights import read_published, read_state_dict
from pyrafuse.base.errors import CheckpointError, PyrafuseError, unknown_name
from pyrafuse.core.pyramid import Backbone, InputSizes, Pyramid, PyramidSpec


class TimmPyramid(Backbone):
    """A timm model's maps at the wanted strides, channels first whatever the family's own layout.

    Args:
        name: timm's name, ``resnet50`` or ``swin_tiny_patch4_window7_224``.
        strides: Which maps to take, finest first.
        weights: File with the model's published weights, in timm's keys; or the name of what timm or torchvision
            fetches, as `create_timm_model` says.
        pretrained: Let timm fetch its default weights.
        frozen_stages: -1 freezes nothing, 0 the stem, n the stem and the first n stages: they keep their weights, and
            their norms the statistics. Stages are what ends in timm's maps at stride 4 and coarser.
        norm_eval: Batch norms normalise by their stored statistics in training too.
        img_size: Side in pixels of the images that it is built for, in a family that is built for one size. By default
            the size that its name stands for. ``sizes`` tells which images it takes.

    Raises:
        UnknownNameError: If timm has no such model.
        PyrafuseError: If it has no map at one of ``strides`` (a plain ViT has one stride only), they do not grow, its
            maps do not cover the image, it takes no ``img_size``, or there is no stage ``frozen_stages``.
        CheckpointError: If ``weights`` cannot be read or do not fit.
    """

    def __init__(
        self,
        name: str,
        *,
        strides: tuple[int, ...] = (8, 16, 32),
        weights: str | os.PathLike[str] | None = None,
        pretrained: bool = False,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        img_size: int | None = None,
    ) -> None:
        super().__init__()
        options: dict[str, Any] = {} if img_size is None else {"img_size": img_size}
        self.name = name
        self.sizes, indices = _find_sizes(name, tuple(strides), img_size)
        self.trunk = create_timm_model(
            name, weights=weights, pretrained=pretrained, features_only=True, out_indices=indices, **options
        )
        _pad_to_patches(self.trunk)
        self.features = PyramidSpec(channels=tuple(self.trunk.feature_info.channels()), strides=tuple(strides))
        self._is_channels_last = "NHWC" in str(getattr(self.trunk, "output_fmt", ""))
        self._norm_eval = norm_eval
        self._frozen = _find_frozen(name, self.trunk, frozen_stages)
        for part in self._frozen_parts():
            part.requires_grad_(requires_grad=False)

    def train(self, mode: bool = True) -> "TimmPyramid":
        """Set the mode of everything but the frozen parts and, with ``norm_eval``, the norms."""
        super().train(mode)
        for part in self._frozen_parts():
            part.eval()
        if self._norm_eval:
            stop_norms(self)
        return self

    def check_size(self, height: int, width: int) -> None:
        """Refuse a size of images that the model cannot take, with the sizes that it can.

        Raises:
            PyrafuseError: If it cannot.
        """
        if self.sizes.fit(height, width):
            return
        if self.sizes.only is not None:
            remedy = f"give --size {self.sizes.only}"
        else:
            below = max(max(height, width) // self.sizes.unit, 1) * self.sizes.unit
            remedy = f"give --size {below} or {below + self.sizes.unit}"
        if height == width and _is_built_for(self.name, self.features.strides, height):
            remedy += f", or build it for {height} px: --model.options.backbone '{{img_size: {height}}}'"
        raise PyrafuseError(f"timm/{self.name} takes {self.sizes}, and these have {height} x {width} px; {remedy}")

    def forward(self, images: Tensor) -> Pyramid:
        if not self.sizes.are_any:
            self.check_size(images.shape[-2], images.shape[-1])
        maps = self.trunk(images)
        return tuple(m.permute(0, 3, 1, 2) for m in maps) if self._is_channels_last else tuple(maps)

    def _frozen_parts(self) -> list[nn.Module]:
        return [self.trunk.get_submodule(name) for name in self._frozen]


@cache
def _find_sizes(name: str, strides: tuple[int, ...], img_size: int | None) -> tuple[InputSizes, tuple[int, ...]]:
    """Which images timm's ``name`` takes, and the numbers of its maps at ``strides``; found on shapes without numbers.

    Raises:
        UnknownNameError: If timm has no such model.
        PyrafuseError: If it has no maps at ``strides``, or none that cover an image.
    """
    options: dict[str, Any] = {} if img_size is None else {"img_size": img_size}
    with torch.device("meta"), torch.no_grad():
        try:
            info = create_timm_model(name, features_only=True, **options).feature_info
            offered = tuple(info.reduction(list(range(len(info)))))
        except PyrafuseError:
            raise
        except Exception as error:  # families refuse in their own ways
            raise PyrafuseError(f"timm/{name} gives no maps: {error}; choose a hierarchical model") from error
        if not set(strides) <= set(offered):
            raise PyrafuseError(
                f"timm/{name} offers maps at strides {offered}, and {strides} are needed; choose a hierarchical model"
            )
        check_strides(strides, offered)
        indices = tuple(len(offered) - 1 - offered[::-1].index(stride) for stride in strides)  # the deepest map of each
        trunk = create_timm_model(name, features_only=True, out_indices=indices, **options).eval()
        _pad_to_patches(trunk)
        return _probe(name, trunk, strides, img_size), indices


def _probe(name: str, trunk: Any, strides: tuple[int, ...], img_size: int | None) -> InputSizes:
    """Which images ``trunk`` makes maps of that are as large as ``strides`` say."""
    is_channels_last = "NHWC" in str(getattr(trunk, "output_fmt", ""))
    faults = {}

    def fits(height: int, width: int) -> bool:
        try:
            maps = trunk(torch.zeros(1, 3, height, width))
        except Exception as error:  # families refuse in their own ways
            faults[height, width] = f"{error}" or type(error).__name__
            return False
        cells = [tuple(m.shape[1:3] if is_channels_last else m.shape[2:]) for m in maps]
        faults[height, width] = f"its maps have {' and '.join(f'{h} x {w}' for h, w in cells)} cells"
        # a cell that is not whole may be there or not
        return all(
            side // stride <= n <= -(-side // stride)
            for sides, stride in zip(cells, strides, strict=True)
            for side, n in zip((height, width), sides, strict=True)
        )

    if fits(72, 104):
        return InputSizes()
    for unit in range(32, 513, 32):
        if fits(unit, 2 * unit) and fits(3 * unit, unit):
            return InputSizes(unit=unit)
    published = timm.get_pretrained_cfg(name)
    own = img_size or (published.input_size[-1] if published is not None else 224)
    if fits(own, own):
        return InputSizes(only=own)
    raise PyrafuseError(
        f"timm/{name} has no maps that cover an image at strides {strides}: at {own} x {own} px {faults[own, own]}; "
        "choose another model"
    )


def _is_built_for(name: str, strides: tuple[int, ...], side: int) -> bool:
    """Whether timm's ``name`` can be built for images of ``side``."""
    try:
        return _find_sizes(name, strides, side)[0].fit(side, side)
    except PyrafuseError:
        return False


def _pad_to_patches(trunk: nn.Module) -> None:
    for part in trunk.modules():
        if isinstance(part, PatchEmbed):
            part.dynamic_img_pad = True  # to whole patches: sides that are no multiple would be refused


def _find_frozen(name: str, trunk: Any, frozen_stages: int) -> tuple[str, ...]:
    """Names of the modules in the stem and the first stages; a trunk that is no list of modules in a row is refused.

    A stage ends with the module of a map at stride 4 or coarser; the stem with that of the last finer map or, where
    there is none, before the first stage.
    """
    info = trunk.feature_info
    every = list(range(len(info)))
    ends = list(zip(info.module_name(every), info.reduction(every), strict=True))
    check_frozen_stages(frozen_stages, sum(stride >= 4 for _, stride in ends))
    if frozen_stages < 0:
        return ()
    modules = [key for key, _ in trunk.named_modules() if key]  # in the order in which they run
    flat = {key.replace(".", "_"): i for i, key in enumerate(modules)}  # timm flattens some names, `layers.0` is one
    stem, stages = [], []
    for end, stride in ends[: max(info.out_indices) + 1]:  # nothing is kept behind the last map
        (stages if stride >= 4 else stem).append(flat.get(end.replace(".", "_")))
    if None in (*stem, *stages):
        raise PyrafuseError(
            f"timm/{name} does not tell which modules its stages are: frozen_stages={frozen_stages} needs a model"
            " whose modules run in a row; -1 freezes nothing"
        )
    kept = min(frozen_stages, len(stages))
    if kept or stem:
        last = modules[stages[kept - 1] if kept else stem[-1]]
        stop = max(i for i, key in enumerate(modules) if key == last or key.startswith(f"{last}.")) + 1
    else:
        last = modules[stages[0]]
        stop = stages[0]
    return tuple(key for key in modules[:stop] if not last.startswith(f"{key}."))


def create_timm_model(
    name: str, *, weights: str | os.PathLike[str] | None = None, pretrained: bool = False, **options: Any
) -> Any:
    """Build a timm model.

    Args:
        name: Name of the model in timm.
        weights: File with published weights, in timm's keys. What is no file may name what is fetched: ``timm/NAME``,
            the model's own name, with the tag of one of its trainings or without; or ``torchvision/NAME``, where the
            keys are the same.
        pretrained: Let timm fetch its default weights.
        options: Keyword arguments of `timm.create_model`.

    Raises:
        UnknownNameError: If timm has no such model, or torchvision none to fetch.
        PyrafuseError: If the model takes no such option.
        CheckpointError: If ``weights`` cannot be fetched or read safely, or do not fit; what does not is named.
    """
    if not timm.is_model(name):
        raise unknown_name("timm model", name, timm.list_models())
    text = "" if weights is None else os.fspath(weights)
    library, is_file = text.partition("/")[0], os.path.exists(text)
    if weights is None and not pretrained:
        return _create(name, pretrained=False, **options)
    if weights is None or (library == "timm" and not is_file):
        return _fetch(_find_training(name, text.removeprefix("timm/")) if text else name, options)
    if not is_file and library != "torchvision":
        raise CheckpointError(f"no such checkpoint: {text}; for timm/{name} give a file; or {_list_trainings(name)}")
    state = read_state_dict(text) if is_file else read_published(text)
    with TemporaryDirectory() as folder:  # timm reads no file but one of bare parameters, which was just written
        file = os.path.join(folder, "published.pth")
        torch.save(state, file)
        return _load(name, file, state, source=text, options=options)


def _fetch(training: str, options: Mapping[str, Any]) -> Any:
    file = find_timm_file(training)
    overlay = {} if file is None else {"pretrained_cfg_overlay": {"file": str(file)}}
    try:
        return _create(training, pretrained=True, **overlay, **options)
    except (OSError, RuntimeError) as error:
        raise CheckpointError(
            f"cannot read the weights timm/{training}: {error}; give a file: --weights FILE"
        ) from error


def _find_training(name: str, wanted: str) -> str:
    """The name and tag of the training of a model that is ``wanted``; without a tag, timm's default."""
    architecture, _, tag = wanted.partition(".")
    if wanted == name or (architecture == _architecture(name) and (not tag or tag in _tags(name))):
        return wanted
    raise CheckpointError(f"no file timm/{wanted}, and no weights of timm/{name} by this name; {_list_trainings(name)}")


def _list_trainings(name: str) -> str:
    architecture = _architecture(name)
    trainings = ", ".join(f"timm/{architecture}.{tag}" for tag in _tags(name))
    return f"choose from {trainings}" if trainings else "timm publishes none of this model"


def _architecture(name: str) -> str:
    return name.partition(".")[0]


def _tags(name: str) -> list[str]:
    """Of the trainings of a model that timm publishes."""
    published = timm.list_models(f"{_architecture(name)}.*", pretrained=True)
    return [training.partition(".")[2] for training in published]


def _load(name: str, file: str, state: Mapping[str, Tensor], *, source: str, options: Mapping[str, Any]) -> Any:
    overlay = {"file": file}
    try:
        if options.get("features_only"):
            # timm fills a part of a model with whatever it finds; only a whole model, head as in the file, is strict
            head = _count_classes(name, state)
            _create(name, pretrained=True, pretrained_cfg_overlay={**overlay, "num_classes": head}, num_classes=head)
        return _create(name, pretrained=True, pretrained_cfg_overlay=overlay, **options)
    except RuntimeError as error:
        findings = "; ".join(line.strip() for line in str(error).splitlines()[1:])
        raise CheckpointError(f"{source} does not fit timm/{name}; {findings[:600] or error}") from error


def _create(name: str, **options: Any) -> Any:
    try:  # windowed families refuse every size but the one they were trained at, unless told otherwise
        return timm.create_model(name, strict_img_size=False, **options)
    except TypeError:
        pass
    try:
        return timm.create_model(name, **options)
    except TypeError as error:  # models hand their options through: the complaint of the last one names it
        raise PyrafuseError(f"cannot build timm/{name}: {error}; give what timm.create_model takes for it") from error


def _count_classes(name: str, state: Mapping[str, Tensor]) -> int:
    """How many classes the file's head tells; 0 if it has none."""
    published = timm.get_pretrained_cfg(name)
    head = published.classifier if published is not None else None
    first = head[0] if isinstance(head, tuple | list) else head
    weight = state.get(f"{first}.weight")
    return 0 if weight is None else len(weight)
