"""Memory of a process: what is freed stays with it, and lasting objects are rarely searched for garbage."""

import atexit
import ctypes
import gc
import platform

M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4
LARGEST_INT = 2**31 - 1


def keep_freed_memory() -> bool:
    """Ask the C library not to give freed memory back to the system, and say whether it will comply.

    Each step on a processor frees its feature maps and asks for as many again. glibc returns blocks of that size at
    once, and the kernel clears every page anew: a fifth of a training step of the small detectors. The process does
    not grow beyond its own peak. Elsewhere than on Linux with glibc nothing happens.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(M_MMAP_MAX, 0) and libc.mallopt(M_TRIM_THRESHOLD, LARGEST_INT))


def collect_rarely() -> None:
    """Search all objects of this process for garbage less often, and not once more when it ends.

    Importing torch makes 300,000 objects that stay. Python walks them six times meanwhile and again at the end: 1.6 of
    the 4.5 s in which `pyrafuse predict` loads a detector and looks at eight images (one core, five runs in turns with
    as many without). Young objects are searched as often as before.
    """
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, 200)
    atexit.register(gc.freeze)
