"""Memory that a process keeps between the layers of a network, where the C library would hand it back after each.

An activation of a few megabytes is freed at the end of a layer, and glibc returns what lies free at the top of its heap once
that exceeds a threshold of at most 64 MiB. The next layer asks for it anew, and the system clears every page before it is
used again: a third of the time of a small U-Net on a processor. With higher thresholds the same pages are used all along.

Reference: the manual page mallopt(3), M_MMAP_THRESHOLD and M_TRIM_THRESHOLD.
"""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["kept_memory"]

MIB = 2**20
TRIM, MMAP = -1, -3
"""The options M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of mallopt."""
KEPT = ((MMAP, 32 * MIB), (MMAP, 1024 * MIB), (TRIM, 2047 * MIB))
"""Within the block: blocks below 1 GiB come from the heap (below 32 MiB where an old glibc refuses more), and 2 GiB that are
free at its top are kept."""
USUAL = ((MMAP, 32 * MIB), (TRIM, 64 * MIB))
"""Afterwards: what glibc itself adjusts its thresholds to once a block of 32 MiB has been freed, as in any training."""


@contextmanager
def kept_memory(device: torch.device) -> Iterator[None]:
    """Within the block, freed memory stays with this process; afterwards what is free goes back to the system.

    Numbers do not change. It does nothing where another device than the processor computes, and under other C libraries than
    glibc, which has these thresholds.

    Args:
        device: where networks compute.
    """
    if device.type != "cpu" or platform.libc_ver()[0] != "glibc":
        yield
        return
    libc = ctypes.CDLL(None)
    for option, value in KEPT:
        libc.mallopt(option, value)
    try:
        yield
    finally:
        for option, value in USUAL:
            libc.mallopt(option, value)
        libc.malloc_trim(0)
