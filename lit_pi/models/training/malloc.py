"""Whether glibc's malloc keeps freed memory for later or gives it back; elsewhere nothing changes."""

import ctypes
import gc

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of malloc.h
_LARGEST_MMAP_THRESHOLD = 2**25
_KEPT = 2**31 - 1


def keep_freed_memory() -> None:
    """Keep up to 2 GiB of freed blocks: each step needs as much as the last, and new pages cost a CPU's time."""
    _mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
    _mallopt(_TRIM_THRESHOLD, _KEPT)


def return_freed_memory() -> None:
    """Give back what is free, and take blocks of tensors from the system one by one, as with large ones."""
    gc.collect()
    _mallopt(_MMAP_THRESHOLD, 2**17)
    library = ctypes.CDLL(None)
    if hasattr(library, "malloc_trim"):
        library.malloc_trim(0)


def _mallopt(parameter: int, value: int) -> None:
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        library.mallopt(parameter, value)
