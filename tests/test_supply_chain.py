"""What pyrafuse stands on: licences, the bill of materials, the lock file, and that nobody is told of anything."""

import json
import re
import socket
import tomllib
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def bill():
    spec = spec_from_file_location("bill", ROOT / "scripts" / "bill.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_licence_is_permissive_or_weak_copyleft(bill):
    rows = list(bill.list_licences())
    assert {"numpy", "torch", "timm", "onnxruntime"} <= {name for name, *_ in rows}
    assert [row for row in rows if not row[3]] == []


@pytest.mark.parametrize(
    ("licence", "allowed"),
    [
        ("MIT", True),
        ("Apache-2.0 AND MIT", True),
        ("MPL-2.0 AND MIT", True),
        ("GPL-3.0-only OR BSD-3-Clause", True),
        ("(MIT OR BSD-3-Clause) AND MIT", True),
        ("(MIT OR Zlib) AND GPL-3.0-only", False),
        ("GPL-3.0-only", False),
        ("MIT AND AGPL-3.0-only", False),
        ("LicenseRef-NVIDIA-Proprietary", False),
        ("unknown", False),
    ],
)
def test_licences_are_judged_by_their_parts(bill, licence, allowed):
    assert bill.is_allowed("some", licence) is allowed
    assert bill.is_allowed("nvidia-nccl-cu13", "LicenseRef-NVIDIA-Proprietary")


def test_the_bill_of_materials_lists_what_is_installed(bill, tmp_path):
    bom = bill.write_bom()
    assert (bom["bomFormat"], bom["specVersion"]) == ("CycloneDX", "1.6")
    listed = {each["name"]: each for each in bom["components"]}
    assert "pyrafuse" not in listed
    numpy = listed["numpy"]
    assert numpy["purl"] == f"pkg:pypi/numpy@{numpy['version']}"
    assert numpy["licenses"][0]["license"]["name"].startswith("BSD-3-Clause")
    json.dumps(bom)


def test_every_dependency_is_locked_with_a_hash():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    groups = project["dependency-groups"]
    asked = [*project["project"]["dependencies"], *groups["dev"], *groups["docs"]]
    locked_extras = ("train", "runtime", "export", "search", "parquet", "shards", "ray", "serve")
    asked += [text for extra in locked_extras for text in extras[extra]]
    names = {re.split(r"[\[>=<]", text)[0].lower() for text in asked} - {"pyrafuse"}
    entries = re.split(r"\n(?=\S)", (ROOT / "requirements.lock").read_text().strip())
    locked = {entry.split("==")[0] for entry in entries if "==" in entry.partition("\n")[0]}
    assert names <= locked
    assert [entry for entry in entries if "==" in entry.partition("\n")[0] and "--hash=sha256:" not in entry] == []


def test_tests_reach_no_other_machine(no_network):
    with socket.socket() as asked, pytest.raises(ConnectionRefusedError, match="no other machine"):
        asked.connect(("192.0.2.1", 80))
    assert no_network == [("192.0.2.1", 80)]
    no_network.clear()  # or it would fail this test, as it should any other
    with socket.create_server(("127.0.0.1", 0)) as here, socket.create_connection(here.getsockname()):
        pass
