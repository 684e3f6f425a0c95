import subprocess
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "setup_environment.sh"


def test_unsuitable_python_is_an_error_that_says_what_is_needed():
    result = subprocess.run([SCRIPT, "/bin/false"], capture_output=True, text=True)
    assert result.returncode == 1
    assert "no Python 3.10 to 3.12 found (tried: /bin/false)" in result.stderr
    assert "make setup PYTHON=" in result.stderr
