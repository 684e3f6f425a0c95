"""What a process keeps of the memory that it frees."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("before", "after", "kept_mb"), [("", "", 0), ("keep", "", 128), ("keep", "release", 0)]
)
def test_freed_memory_is_kept_until_it_is_released(before, after, kept_mb):
    """In a process of its own: 128 MB are freed, and stay with it or go back to the system."""
    calls = [f"{name}()" if name else "" for name in (before, after)]
    code = f"""
from pathlib import Path
import numpy as np
from steatosis_d2.inference.memory import keep_freed_memory as keep, release_freed_memory as release

def resident_mb():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20

{calls[0]}
before = resident_mb()
block = np.ones(2**27, np.uint8)
del block
{calls[1]}
print(resident_mb() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) == pytest.approx(kept_mb, abs=32)
