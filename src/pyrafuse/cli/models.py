"""`pyrafuse models`."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyrafuse.inference.listing import Cost


def models(
    name: str = "",
    /,
    *,
    kind: str | None = None,
    spec: bool = False,
    measure: bool = False,
    json: Path | None = None,
) -> int:
    """List the models and parts that can be named: parameters, GFLOPs and paper of each.

    Figures are of one image of 416 px and 80 classes; necks alone are measured on the maps of a ResNet-50, heads on a
    pyramid of 256 channels. What comes with the package was measured once; what --import adds is measured now.

    Args:
        name: Name of one part, to see its options; a timm/NAME is one, too.
        kind: Kind of part: model, backbone, neck or head, by default all four; or one of the parts inside of a
            description: assigner, sampler, loss, criterion, coder, decoder and so on.
        spec: Print the whole description of the model NAME as YAML: every part with every option.
        measure: Build and run every part now, which takes minutes.
        json: File to write the figures to, for programs.
    """
    import json as json_format
    from dataclasses import asdict

    from pyrafuse.base.errors import unknown_name
    from pyrafuse.base.paths import check_writable
    from pyrafuse.base.writing import write_text
    from pyrafuse.inference.listing import ALL_KINDS, KINDS, describe_part, find_kinds, measure_cost, tell_cost

    if spec:
        return _print_spec(name)
    if kind is not None and kind not in ALL_KINDS:
        raise unknown_name("kind of part", kind, ALL_KINDS)
    if json is not None:
        check_writable(json)
    kinds = [k for k in (find_kinds(name) if name else [kind] if kind else KINDS) if kind in (None, k)]
    costs: dict[str, dict[str, Cost | None]] = {}
    for each in kinds:
        parts = [describe_part(each, n) for n in ([name] if name else ALL_KINDS[each].names())]
        width = max((len(part.name) for part in parts), default=0)
        print(f"{each:<{width + 2}}  parameters    GFLOPs  paper")
        costs[each] = {}
        for part in parts:
            cost = costs[each][part.name] = (measure_cost if measure else tell_cost)(each, part.name)
            paper = f"arXiv:{part.paper}" if part.paper else ""
            print(f"  {part.name:<{width}}  {_write(cost)}  {paper}".rstrip())
            if name:
                print(f"\n{part.summary}\n")
                for option in part.options:
                    print(f"  {option.name}{f' = {option.default}' if option.default else ' (needed)'}")
                    if option.meaning:
                        print(f"      {option.meaning}")
        if each == "backbone" and not name:
            print("  timm/NAME, for any model of timm that gives a feature pyramid")
    if json is not None:
        plain = {k: {n: None if c is None else asdict(c) for n, c in named.items()} for k, named in costs.items()}
        write_text(json, json_format.dumps(plain, indent=1) + "\n")
    return 0


def _print_spec(name: str) -> int:
    from pyrafuse.base.errors import PyrafuseError
    from pyrafuse.models.building import resolve
    from pyrafuse.models.describing import describe, write_yaml

    if not name:
        raise PyrafuseError("--spec prints the description of one model: pyrafuse models NAME --spec")
    print(write_yaml(resolve(describe(name))), end="")
    return 0


def _write(cost: "Cost | None") -> str:
    if cost is None:
        return f"{'-':>10}  {'-':>8}"
    return f"{f'{cost.parameters / 1e6:.2f} M':>10}  {cost.gflops:8.2f}"
