"""Freed memory is kept for the next batch instead of going back to the kernel.

A CNN's activations are blocks of megabytes. By default glibc maps each of them anew and returns it when it is
freed, so that every batch faults all its pages in again: more than half of a MobileNetV2 pass on a CPU.
"""

import ctypes
import os
import sys

SWITCH = "ZSSBIR_KEEP_MEMORY"
"""Environment variable; `0` leaves the allocator alone."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_BLOCK = 1 << 30
_OLDER_LARGEST_BLOCK = 32 << 20  # what glibc before 2.35 accepts
_OTHER_ALLOCATORS = ("jemalloc", "mimalloc", "tcmalloc")


def keep_freed_memory() -> bool:
    """Let glibc keep freed blocks of up to a gigabyte in this process and those it forks. Returns whether it does.

    Peak memory stays what the largest batch takes; it is only returned at the end of the process. Does nothing
    on other systems, where another allocator is preloaded, or with `ZSSBIR_KEEP_MEMORY=0`.
    """
    if os.environ.get(SWITCH) == "0" or not sys.platform.startswith("linux"):
        return False
    if any(name in os.environ.get("LD_PRELOAD", "") for name in _OTHER_ALLOCATORS):
        return False
    try:
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018 (musl has no such function, and another mallopt)
        mallopt = library.mallopt
    except (OSError, AttributeError):
        return False
    mapped = mallopt(_M_MMAP_THRESHOLD, _LARGEST_BLOCK) or mallopt(_M_MMAP_THRESHOLD, _OLDER_LARGEST_BLOCK)
    return bool(mapped and mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))
