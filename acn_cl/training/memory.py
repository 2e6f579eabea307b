"""Freed memory is kept for the next step, where the C library lets us say so."""

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_LARGEST_ON_HEAP = 32 << 20  # bytes; the most that glibc takes on 64-bit machines
_NEVER_TRIM = (1 << 31) - 1


def keep_freed_memory() -> bool:
    """Have malloc keep what is freed, for the whole process and from now on.

    A step on a CPU frees the megabytes of its activations and asks for them again in the next one. By default glibc
    gives them back to the kernel in between, which hands them out anew page by page, zeroed: an eighth of a step of an
    AC-Mixer or more (``docs/speed.md``). The process stays at its largest size then, to which each step brings it back
    anyway.

    Returns:
        whether it was done; ``False`` where the C library is not glibc.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library; another system
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _LARGEST_ON_HEAP)) and bool(mallopt(_M_TRIM_THRESHOLD, _NEVER_TRIM))
