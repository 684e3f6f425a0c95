"""The installed command ``steatosis-d2``: every door leads to the same function."""

import subprocess
import sys

import pytest

from steatosis_d2 import cli


def run(*words):
    code = "from steatosis_d2.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=False
    )


def test_help_lists_every_command():
    done = run("--help")
    assert done.returncode == 0
    assert all(f"  {name} " in done.stdout for name in cli.COMMANDS)


@pytest.mark.parametrize("words", [[name] for name in cli.COMMANDS if name != "prepare"] + [
    ["prepare", name] for name in cli.DATASETS
])  # fmt: skip
def test_every_command_has_help_with_examples(words):
    done = run(*words, "--help")
    assert done.returncode == 0, done.stderr
    assert f"usage: steatosis-d2 {' '.join(words)}" in done.stdout
    assert done.stdout.count(f"steatosis-d2 {' '.join(words)}") > 1  # in the examples, too


@pytest.mark.parametrize("words", [[], ["nothing"], ["prepare"], ["segment"]])
def test_wrong_usage_exits_with_2(words):
    done = run(*words)
    assert done.returncode == 2
    assert "usage: steatosis-d2" in done.stderr


def test_users_errors_exit_with_1_and_no_traceback(tmp_path):
    done = run("segment", str(tmp_path / "nowhere.svs"), "--output", str(tmp_path / "out"))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in done.stderr


def test_doctor_finds_all_that_is_needed():
    done = run("doctor")
    assert done.returncode == 0, done.stderr
    assert "precision" in done.stdout
    assert done.stdout.endswith("All that is needed is there.\n")


def test_doctor_names_the_cure_of_what_is_missing():
    code = (
        "import sys; sys.modules['openslide'] = None\n"
        "from steatosis_d2.cli import main; main(['doctor'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "error: 'openslide' is missing: pip install openslide-python" in done.stderr
