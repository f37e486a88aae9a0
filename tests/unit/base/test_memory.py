"""Freed memory stays with the process, and lasting objects are rarely searched for garbage."""

import platform
import subprocess
import sys

import pytest

PROBE = """
import resource, sys, torch
from pyrafuse.base.memory import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
for _ in range(10):
    torch.ones(16_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(16_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be asked")
def test_large_blocks_are_not_mapped_anew():
    def faults(how: str) -> int:
        return int(subprocess.run([sys.executable, "-c", PROBE, how], check=True, capture_output=True).stdout)

    assert faults("kept") < faults("returned") / 10


COMMAND = """
import atexit, gc
from pyrafuse.cli.main import main
atexit.register(lambda: print(gc.get_stats()[2]["collections"], gc.get_freeze_count() > 100_000))
main()
"""


def test_a_command_never_searches_all_objects_for_garbage_while_it_imports_nor_at_its_end():
    done = subprocess.run([sys.executable, "-c", COMMAND, "models"], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "0 True"
