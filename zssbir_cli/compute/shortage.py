"""What a machine has run out of: memory, or the shared memory of loading processes, told by the classes of errors."""

import errno
import sys

ADVICE = (
    "use a smaller batch (--batch, or train.batch_size), smaller images (data.size) or --workers 0; what is free, "
    "`zssbir doctor` shows: the limit may be that of a container (docker run -m), of a job (Slurm's --mem) or `ulimit -v`"
)
_CPU_ALLOCATOR = "DefaultCPUAllocator: "
"""PyTorch's own out-of-memory error is for devices; on a CPU its allocator raises a plain RuntimeError with its name."""
_NO_ADDRESS = (
    "array is too big",
    "Maximum allowed dimension exceeded",
    "Storage size calculation overflowed",
)
"""NumPy and PyTorch, of arrays that no address space could hold."""
_NO_MEMORY = -4
"""`cv::Error::StsNoMem`."""


def out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or what it was raised from, says that memory could not be had: of this machine or of a GPU."""
    while error is not None:
        torch, cv2 = sys.modules.get("torch"), sys.modules.get("cv2")
        if isinstance(error, MemoryError) or (torch and isinstance(error, torch.OutOfMemoryError)):
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


def out_of_shared_memory(error: BaseException) -> bool:
    """Whether a loading process died, or could not hand over a batch, because /dev/shm is full."""
    text = str(error)
    return "DataLoader worker" in text and (
        "Bus error" in text or "</torch_" in text or "shared memory" in text
    )
