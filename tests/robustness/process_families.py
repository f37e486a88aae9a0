"""The processes that a command has started, and their end."""

import time
from pathlib import Path


def family(process: int) -> dict[int, str]:
    """Titles of the processes that ``process`` and its children have started."""
    parents, titles = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat, title = (folder / "stat").read_text(), (folder / "cmdline").read_bytes()
        except OSError:
            continue
        parents[int(folder.name)] = int(stat.rpartition(")")[2].split()[1])
        titles[int(folder.name)] = title.replace(b"\0", b" ").decode(errors="replace")
    found = {process}
    while more := {one for one, parent in parents.items() if parent in found} - found:
        found |= more
    return {one: titles[one] for one in found - {process}}


def wait_until_gone(processes):
    until = time.monotonic() + 180  # Ray's agents look now and then whether they are needed
    while left := [one for one in processes if Path(f"/proc/{one}").exists()]:
        assert time.monotonic() < until, left
        time.sleep(0.1)
