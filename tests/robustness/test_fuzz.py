"""A small share of `fuzz.py`, and that it finds what it looks for."""

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest

from fuzz import fuzz
from mutations import draw_values
from pyrafuse.base.errors import PyrafuseError
from readers import Reader, make_readers

SLOW = {"foreign checkpoint": 2, "checkpoint": 4, "description": 4}
"""Inputs of readers that build a detector of each."""

VALUES = draw_values(50)


@pytest.mark.parametrize("name", make_readers())
@pytest.mark.filterwarnings("ignore")
def test_each_input_is_read_or_refused(name, tmp_path):
    reader = make_readers()[name](tmp_path)
    for seed in reader.seeds:
        reader.read(seed)
    for number in range(SLOW.get(name, 20)):
        with suppress(PyrafuseError):
            reader.read(reader.change(Random(f"ci/{name}/{number}"), VALUES))


def bad_reader(folder):
    """Fails in its own way at each of seven inputs."""

    def read(data: bytes) -> None:
        match int(data):
            case 1:
                raise KeyError("no error of ours")
            case 2:
                Path("/etc/hostname").read_bytes()
            case 3:
                (folder.parent / "beside.txt").write_text("x")
            case 4:
                os.system("true")
            case 5:
                bytearray(2**31)
            case 6:
                while True:
                    pass
            case 7:
                os.kill(os.getpid(), 11)

    class Counting(Reader):
        def change(self, chance, values):
            self.number = getattr(self, "number", -1) + 1
            return b"%d" % self.number

    return Counting(read, [b"0"])


@pytest.mark.filterwarnings("ignore")
def test_every_kind_of_fault_is_found(tmp_path):
    faults = []
    for number in range(1, 8):
        outcome = fuzz("bad", lambda folder, n=number: starting_at(bad_reader(folder), n), inputs=1, seed=0,
                       output=tmp_path / "kept", seconds=0.2, megabytes=300, values=[0])  # fmt: skip
        faults += outcome.faults
    told = ["KeyError", "open of '/etc/hostname'", "beside.txt", "os.system", "MemoryError", "takes more than 0.2 s"]
    assert len(faults) == 7
    for fault, part in zip(faults, [*told, "ended with status 11"], strict=True):
        assert part in fault
    assert len(list((tmp_path / "kept").iterdir())) == 1  # each was input 0 of its run


def starting_at(reader, number):
    reader.number = number - 1
    return reader


@pytest.mark.slow
def test_the_script_finds_nothing(tmp_path):
    script = Path(__file__).with_name("fuzz.py")
    words = ["--inputs", "200", "--seed", "9", "--output", str(tmp_path / "faults")]
    ended = subprocess.run([sys.executable, script, *words], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout
    assert ended.stdout.count("| 0 |") >= len(make_readers())
