"""Freed memory is kept while training and scoring go on, and given back while memory is measured."""

import platform
import subprocess
import sys

import pytest

BLOCK, TIMES = 2**23, 20

REUSE = f"""
import ctypes, resource
from lit_pi.models.training import malloc

malloc.MODE()
library = ctypes.CDLL(None)
library.malloc.restype = ctypes.c_void_p
library.malloc.argtypes = [ctypes.c_size_t]
library.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
library.free.argtypes = [ctypes.c_void_p]
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range({TIMES}):
    block = library.malloc({BLOCK})
    library.memset(block, 1, {BLOCK})
    library.free(block)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="about glibc's malloc")
@pytest.mark.parametrize(("mode", "new"), [("keep_freed_memory", 1), ("return_freed_memory", TIMES)])
def test_pages_of_a_block_that_is_asked_for_again(mode: str, new: int) -> None:
    """Each is new to the process once, or every time; pages may have 4 KiB or, if huge, 2 MiB."""
    code = REUSE.replace("MODE", mode)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert new * BLOCK / 2**21 <= int(done.stdout) <= 1.5 * new * BLOCK / 2**12
