"""How much memory there is, and what a process does with what it frees, where glibc is used."""

import ctypes
import os
import platform
from pathlib import Path

# From glibc's malloc.h
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4


# Where a container states its limit: control groups of version 2 and 1
_CONTAINER_LIMITS = ("memory.max", "memory/memory.limit_in_bytes")


def count_memory_bytes():
    """
    Memory of this machine, or of the container that this process runs in.

    Returns:
        int or None: None where the system does not say.
    """
    if not hasattr(os, "sysconf"):
        return None
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for name in _CONTAINER_LIMITS:
        path = Path("/sys/fs/cgroup", name)
        text = path.read_text().strip() if path.is_file() else ""
        if text.isdigit():
            limits.append(int(text))
    return min(limits)


def keep_freed_memory():
    """
    Let this process keep the memory that it frees.

    A layer's features are tens of megabytes, which glibc by itself maps and unmaps again and
    again, and the system fills with zeros each time. Kept, at most a gigabyte, they cost a tenth
    of the network's time less, and the peak stays where it was.
    """
    if _is_glibc():
        libc = ctypes.CDLL(None)
        libc.mallopt(_MMAP_MAX, 0)
        libc.mallopt(_TRIM_THRESHOLD, 2**30)


def release_freed_memory():
    """Give what was kept back to the system: something else is about to need memory."""
    if _is_glibc():
        ctypes.CDLL(None).malloc_trim(0)


def _is_glibc():
    return platform.libc_ver()[0] == "glibc"
