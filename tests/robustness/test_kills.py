"""A small share of `kill.py`: commands killed at random moments go on and end as undisturbed ones."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.parametrize(("what", "kills"), [("train", 4), ("predict,convert", 4)])
def test_killed_commands_end_as_undisturbed_ones(what, kills):
    script = Path(__file__).with_name("kill.py")
    argv = [sys.executable, str(script), "--what", what, "--kills", str(kills), "--seed", "3"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split() for line in done.stdout.partition("\n\n")[2].splitlines()[1:]]
    assert [row[0] for row in rows] == what.split(",")
    for row in rows:
        num_kills, _, runs, equal, faults = map(int, row[1:6])
        assert (num_kills, runs, faults) == (kills, equal, 0)
        assert runs > 0
