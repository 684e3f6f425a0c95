"""tools/benchmark.py as a user runs it; its figures are for people, not for assertions."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parents[1] / "tools" / "benchmark.py"


@pytest.mark.slow
def test_figures_are_shown_and_written_with_the_machine(tmp_path):
    output = tmp_path / "benchmark.json"
    done = subprocess.run(
        [sys.executable, TOOL, "--json", output], capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr
    content = json.loads(output.read_text())
    assert "cores" in content["machine"]
    assert content["machine"] in done.stdout
    assert {figure["stage"] for figure in content["figures"]} >= {"evaluation", "inference"}
    assert all(figure["value"] > 0 for figure in content["figures"])
    assert all(figure["what"] in done.stdout for figure in content["figures"])
