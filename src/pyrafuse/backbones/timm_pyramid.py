"""Any timm model with a feature pyramid as a backbone: ``timm/NAME``."""

import os
from collections.abc import Mapping
from tempfile import TemporaryDirectory
from typing import Any

import timm
import torch
from timm.layers.patch_embed import PatchEmbed
from torch import Tensor, nn

from pyrafuse.backbones.staged import check_frozen_stages, check_strides, stop_norms
from pyrafuse.backbones.weights import read_published, read_state_dict
from pyrafuse.core.errors import CheckpointError, PyrafuseError, unknown_name
from pyrafuse.core.pyramid import Backbone, Pyramid, PyramidSpec


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

    Raises:
        UnknownNameError: If timm has no such model.
        PyrafuseError: If it has no map at one of ``strides`` (a plain ViT has one stride only), they do not grow, or
            there is no stage ``frozen_stages``.
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
    ) -> None:
        super().__init__()
        with torch.device("meta"):
            offered = tuple(create_timm_model(name, features_only=True).feature_info.reduction())
        if not set(strides) <= set(offered):
            raise PyrafuseError(
                f"timm/{name} offers maps at strides {offered}, and {strides} are needed; choose a hierarchical model"
            )
        check_strides(strides, offered)
        self.trunk = create_timm_model(
            name,
            weights=weights,
            pretrained=pretrained,
            features_only=True,
            out_indices=tuple(offered.index(s) for s in strides),
        )
        for part in self.trunk.modules():
            if isinstance(part, PatchEmbed):
                part.dynamic_img_pad = True  # to whole patches: sides that are no multiple would be refused
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

    def forward(self, images: Tensor) -> Pyramid:
        maps = self.trunk(images)
        return tuple(m.permute(0, 3, 1, 2) for m in maps) if self._is_channels_last else tuple(maps)

    def _frozen_parts(self) -> list[nn.Module]:
        return [self.trunk.get_submodule(name) for name in self._frozen]


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
        name: timm's name.
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
    if library == "torchvision" and not is_file:
        with TemporaryDirectory() as folder:
            file = os.path.join(folder, "published.pth")
            torch.save(state := read_published(text), file)
            return _load(name, file, state, source=text, options=options)
    if not is_file:
        raise CheckpointError(f"no such checkpoint: {text}; for timm/{name} give a file; or {_list_trainings(name)}")
    # refuses, in our own words, what would execute code
    return _load(name, text, read_state_dict(text), source=text, options=options)


def _fetch(training: str, options: Mapping[str, Any]) -> Any:
    try:
        return _create(training, pretrained=True, **options)
    except (OSError, RuntimeError) as error:
        raise CheckpointError(
            f"cannot fetch the weights timm/{training}: {error}; give a file, or check the connection"
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
