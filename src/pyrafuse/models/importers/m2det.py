"""The names of the parameters in the authors' M2Det checkpoints.

arXiv:1811.04533. Learnt from published files' keys and shapes. our key -> theirs, each naming for one of our modules
"""

from pyrafuse.models.importers.renaming import Naming, by_modules, by_patterns

_INNER = by_patterns([(r"\bnorm\.", "bn.")])


def naming_ffm1() -> Naming:
    """Of `FFMv1` with two maps."""
    return by_modules([("shallow", "reduce"), ("deep.0", "up_reduce")], then=_INNER)


def naming_tum(num_scales: int) -> Naming:
    """Of a `TUM`; the original numbers laterals and smoothing from the smallest map to the largest."""
    pairs = [("down", "layers"), ("top", "toplayer.0")]
    for i in range(num_scales - 1):
        pairs += [(f"laterals.{i}", f"latlayer.{num_scales - 2 - i}"), (f"smooth.{i}", f"smooth.{num_scales - 2 - i}")]
    return by_modules(pairs, then=_INNER)


def naming_sfam(num_scales: int) -> Naming:
    """Of `SFAM`; the original lists its two layers once a scale, and the last entry is the one in effect."""
    return by_modules([("reduce", f"fc1.{num_scales - 1}"), ("expand", f"fc2.{num_scales - 1}")])


def naming_mlfpn(num_levels: int, num_scales: int) -> Naming:
    """Of an `MLFPN` in a whole checkpoint; as there, the shared reduction is the last of its aliases."""
    ffm1, tum, sfam = naming_ffm1(), naming_tum(num_scales), naming_sfam(num_scales)

    def name(key: str) -> str:
        part, _, rest = key.partition(".")
        if part == "base":
            return ffm1(rest)
        if part == "tums":
            level, _, rest = rest.partition(".")
            return f"unet{int(level) + 1}.{tum(rest)}"
        if part == "sfam":
            return f"sfam_module.{sfam(rest)}"
        if part == "norm":
            return f"Norm.{rest}"
        return f"leach.{num_levels - 1}.{_INNER(rest)}"

    return name


def aliases_mlfpn(num_levels: int, num_scales: int) -> tuple[str, ...]:
    """Patterns of the keys that repeat a shared layer, all but the last of each, which is the one in effect."""
    return (rf"leach\.(?!{num_levels - 1}\.)", rf"(sfam_module\.)?fc[12]\.(?!{num_scales - 1}\.)")
