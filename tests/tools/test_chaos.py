"""The accidents of tools/chaos.py, a few of those that take no root and no seconds."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / "tools"
TAMPER = """
import chaos
with chaos.open_trial(on_small_disk=False) as trial:
    assert trial.finish() is None
    trial.expected["summary.csv"] = "of another run"
    print(trial.finish())
"""


@pytest.mark.timeout(300)
def test_a_run_survives_accidents(run_script):
    process = run_script("tools/chaos.py", "kill", "truncate", "clock", "--number", "2")
    assert process.returncode == 0, process.stderr
    assert len(re.findall("2 accidents; .*finished and compared", process.stdout)) == 3


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_lost_scheduler_is_said_in_one_line(run_script):
    """What `distributed` logged beside it was a traceback."""
    pytest.importorskip("distributed")
    process = run_script("tools/chaos.py", "scheduler", "--number", "1", "--seed", "3")
    assert process.returncode == 0, process.stderr


def test_other_bytes_are_reported():
    """In a process of its own, since it forks."""
    environment = os.environ | {"PYTHONPATH": str(TOOLS)}
    done = subprocess.run(
        [sys.executable, "-c", TAMPER], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout == "other bytes than those of an unbroken run: summary.csv\n"
