"""Memory that is kept: fewer pages are asked for, numbers are the same, and what is free goes back."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest
import torch

from diled import memory
from diled.memory import kept_memory

GLIBC = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the thresholds are those of glibc")


MEASURES = """
import resource, torch
from pathlib import Path
from diled.memory import kept_memory

CPU = torch.device("cpu")

def faults(mebibytes, times=4):
    "Pages that the system hands out while a block is taken, filled and freed several times."
    torch.empty(mebibytes * 2**20, dtype=torch.uint8).fill_(1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        torch.empty(mebibytes * 2**20, dtype=torch.uint8).fill_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    "Bytes of this process in memory."
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
"""


def run_alone(code: str) -> list[int]:
    """The numbers that `code` prints in a new process, whose heap has no holes of earlier tests."""
    done = subprocess.run([sys.executable, "-c", MEASURES + code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [int(word) for word in done.stdout.split()]


@GLIBC
def test_within_the_block_pages_are_used_again_and_afterwards_given_back():
    """A block of 48 MiB is beyond the largest threshold that glibc comes to by itself."""
    outside, inside, given_back, after = run_alone("""
outside = faults(48)
with kept_memory(CPU):
    inside = [faults(48) for _ in range(4)][-1]  # after a few turns of the heap
    kept = resident()
print(outside, inside, kept - resident(), faults(48))
""")
    assert inside < outside / 4
    assert given_back > 40 * 2**20
    assert after > 4 * inside, "as before"


@GLIBC
def test_it_ends_with_the_block_after_an_error_too():
    (left,) = run_alone("""
try:
    with kept_memory(CPU):
        raise KeyError
except KeyError:
    pass
before = resident()
torch.empty(48 * 2**20, dtype=torch.uint8).fill_(1)
print(resident() - before)
""")
    assert left < 8 * 2**20


@pytest.mark.parametrize(("device", "libc"), [("cuda", "glibc"), ("cpu", "")])
def test_elsewhere_it_does_nothing(monkeypatch, device, libc):
    """On a GPU, and under a C library without these thresholds."""

    def never(name):
        raise AssertionError("the C library was called")

    monkeypatch.setattr(memory.platform, "libc_ver", lambda: (libc, ""))
    monkeypatch.setattr(memory.ctypes, "CDLL", never)
    with kept_memory(torch.device(device)):
        pass
