"""Freed memory is kept for the next batch instead of going back to the kernel; errors that say that none could be had.

A CNN's activations are blocks of megabytes. By default glibc maps each of them anew and returns it when it is
freed, so that every batch faults all its pages in again: more than half of a MobileNetV2 pass on a CPU.
"""

import ctypes
import errno
import os
import sys
from contextlib import suppress

from zssbir_cli.errors import UsageError

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


ADVICE = (
    "use a smaller batch (--batch, or train.batch_size), smaller images (data.size) or --workers 0; `zssbir "
    "doctor` shows how much is free; the limit may come from a container (docker run -m), a job (Slurm's --mem) or `ulimit -v`"
)
_CPU_ALLOCATOR = "DefaultCPUAllocator: "
"""PyTorch's own out-of-memory error is for devices; on a CPU its allocator raises a plain RuntimeError with its name."""
_NO_ADDRESS = (
    "array is too big", "Maximum allowed dimension exceeded", "Storage size calculation overflowed",
)  # fmt: skip
"""NumPy and PyTorch, of arrays that no address space could hold."""
_NO_MEMORY = -4
"""`cv::Error::StsNoMem`."""


def out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or what it was raised from, says that memory could not be had: of this machine or of a GPU."""
    while error is not None:
        torch, cv2 = sys.modules.get("torch"), sys.modules.get("cv2")
        if isinstance(error, MemoryError) or (torch and isinstance(error, torch.OutOfMemoryError)):
            return True
        if isinstance(error, ImportError) and "failed to map segment" in str(
            error
        ):  # the loader's, under `ulimit -v`
            return True
        if isinstance(error, OSError) and error.errno == errno.ENOMEM:
            return True
        if cv2 and isinstance(error, cv2.error) and getattr(error, "code", 0) == _NO_MEMORY:
            return True
        if type(error) is RuntimeError and _CPU_ALLOCATOR in str(error):
            return True
        if type(error) in (RuntimeError, ValueError) and str(error).startswith(_NO_ADDRESS):
            return True
        error = error.__cause__
    return False


_TORCH_ADDRESSES = 3.3e9
"""Bytes of addresses that a process has once PyTorch is loaded, on a CPU."""


def check_addresses() -> None:
    """Refuse a `ulimit -v` under which importing torch would end the process without a word of ours. Errors: UsageError."""
    with suppress(ImportError):  # Windows has no such limits
        import resource

        most, _ = resource.getrlimit(resource.RLIMIT_AS)
        if most != resource.RLIM_INFINITY and most < _TORCH_ADDRESSES:
            raise UsageError(
                f"`ulimit -v` allows {most / 1e9:.1f} GB of addresses, and loading PyTorch takes {_TORCH_ADDRESSES / 1e9}: raise "
                "it, or lift it with `ulimit -v unlimited`"
            )


def out_of_shared_memory(error: BaseException) -> bool:
    """Whether a loading process died, or could not hand over a batch, because /dev/shm is full."""
    text = str(error)
    return "DataLoader worker" in text and (
        "Bus error" in text or "</torch_" in text or "shared memory" in text
    )
