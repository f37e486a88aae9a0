"""What pyrafuse stands on, as installed here: `bill.py bom OUT.json` (CycloneDX 1.6) and `bill.py licences`.

pyproject's extras -> requirements, followed through what is installed -> distributions -> names, versions, licences
"""

import argparse
import json
import re
import sys
import tomllib
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from itertools import chain
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = "pyrafuse"

PERMISSIVE = (
    r"mit|mit-cmu|mit license|expat|bsd|bsd license|bsd-[123]-clause|0bsd|freebsd|3-clause bsd license|isc|zlib|hpnd|"
    r"psf-2\.0|psfl|python software foundation license|apache[- ]2\.0|apache software license|bsl-1\.0|cc0-1\.0|"
    r"unlicense|apache-2\.0 with llvm-exception"
)
"""What may be used in anything."""

WEAK_COPYLEFT = r"mpl-2\.0|mozilla public license 2\.0 \(mpl 2\.0\)|lgpl-\d\.\d[\w-]*"
"""What stays open itself, and leaves open what uses it."""

_ALLOWED = re.compile(rf"(?:{PERMISSIVE}|{WEAK_COPYLEFT})", re.IGNORECASE)

EXCEPTIONS: Mapping[str, tuple[str, str]] = {
    "faster-coco-eval": ("Apache-2.0", "its LICENSE says so, its metadata do not"),
    "cuda-toolkit": ("none", "an empty package that asks for NVIDIA's libraries"),
}
"""Distribution -> its licence and why it stands here; NVIDIA's libraries come with PyTorch's CUDA build alone."""

_NVIDIA = "LicenseRef-NVIDIA-Proprietary"


def find_distributions() -> dict[str, Distribution]:
    """What pyproject.toml asks for, extras and all, and what that needs in turn, as far as it is installed, by name."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [*project["dependencies"], *chain.from_iterable(project["optional-dependencies"].values())]
    found: dict[str, Distribution] = {}
    waiting, seen = [(Requirement(text), frozenset[str]()) for text in asked], set[tuple[str, frozenset[str]]]()
    while waiting:
        needed, extras = waiting.pop()
        name, key = canonicalize_name(needed.name), (canonicalize_name(needed.name), frozenset(needed.extras))
        is_needed = needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in ("", *extras))
        if name == ROOT or key in seen or not is_needed:
            continue
        seen.add(key)
        with suppress(PackageNotFoundError):  # of an extra that is not installed
            found[name] = distribution(name)
            waiting += [(Requirement(text), key[1]) for text in found[name].requires or ()]
    return dict(sorted(found.items()))


def licence_of(each: Distribution) -> str:
    """The licence that a distribution's metadata tell: the expression, else its classifier, else the first line."""
    told = each.metadata
    if expression := told.get("License-Expression"):
        return expression
    classified = [
        text.rpartition("::")[2].strip() for text in told.get_all("Classifier") or () if text.startswith("License")
    ]
    for text in (*classified, (told.get("License") or "").strip().partition("\n")[0]):
        if _ALLOWED.fullmatch(text):
            return text
    if each.metadata["Name"].startswith("nvidia-"):
        return _NVIDIA
    return ", ".join(classified) or (told.get("License") or "unknown").strip().partition("\n")[0][:60]


def is_allowed(name: str, licence: str) -> bool:
    """Whether a choice of the licence's expression is permissive or weak copyleft, or ``name`` is an exception."""
    if name in EXCEPTIONS or (name.startswith("nvidia-") and licence == _NVIDIA):
        return True
    if _ALLOWED.fullmatch(licence):
        return True
    if "(" in licence:  # choices within: each must do
        return all(map(_ALLOWED.fullmatch, re.split(r" (?:AND|OR) ", re.sub(r"[()]", "", licence))))
    return any(all(map(_ALLOWED.fullmatch, choice.split(" AND "))) for choice in licence.split(" OR "))


def list_licences() -> Iterator[tuple[str, str, str, bool]]:
    """Name, version and licence of everything, and whether that is allowed."""
    for name, each in find_distributions().items():
        licence = EXCEPTIONS[name][0] if name in EXCEPTIONS else licence_of(each)
        yield name, each.version, licence, is_allowed(name, licence)


def write_bom() -> dict[str, Any]:
    """A bill of materials in CycloneDX 1.6."""
    root = distribution(ROOT)
    components = [
        {
            "type": "library",
            "bom-ref": f"pkg:pypi/{name}@{version}",
            "name": name,
            "version": version,
            "purl": f"pkg:pypi/{name}@{version}",
            "licenses": [{"license": {"name": licence}}],
        }
        for name, version, licence, _ in list_licences()
    ]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid4()}",
        "version": 1,
        "metadata": {
            "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
            "component": {
                "type": "library",
                "bom-ref": f"pkg:pypi/{ROOT}@{root.version}",
                "name": ROOT,
                "version": root.version,
                "purl": f"pkg:pypi/{ROOT}@{root.version}",
            },
        },
        "components": components,
    }


def main() -> int:
    """The exit status is 1 if a licence is not allowed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("bom").add_argument("output", type=Path)
    commands.add_parser("licences")
    given = parser.parse_args()
    if given.command == "bom":
        bom = write_bom()
        given.output.write_text(json.dumps(bom, indent=2) + "\n", encoding="utf-8")
        print(f"{len(bom['components'])} components in {given.output}")
        return 0
    rows = list(list_licences())
    for name, version, licence, allowed in rows:
        print(f"{name} {version}: {licence}{'' if allowed else '  NOT ALLOWED'}")
    wrong = [name for name, *_, allowed in rows if not allowed]
    print(f"{len(rows)} distributions, {len(wrong)} with a licence that is not allowed")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
