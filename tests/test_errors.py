import subprocess
import sys

import pytest
import torch

from steatosis_d2.data.stream import start_readers_cleanly
from steatosis_d2.errors import InputError, exit_cleanly, needs_extra


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (InputError("slide 'a.svs' has no mpp"), "error: slide 'a.svs' has no mpp\n"),
        (FileNotFoundError(2, "No such file", "x"), "error: [Errno 2] No such file: 'x'\n"),
    ],
)
def test_the_users_errors_become_one_line_and_exit_code_1(error, line, capsys):
    with pytest.raises(SystemExit) as exit_info, exit_cleanly():
        raise error
    assert exit_info.value.code == 1
    assert capsys.readouterr().err == line


def test_a_reader_that_has_seen_enough_is_no_fault():
    """As with `| head -1`."""
    script = (
        "from steatosis_d2.errors import exit_cleanly\n"
        "with exit_cleanly():\n"
        "    for number in range(100_000): print(number)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"0\n"
        process.stdout.close()
        assert process.stderr.read() == b""


def test_our_own_defects_keep_their_traceback():
    with pytest.raises(ZeroDivisionError), exit_cleanly():
        raise ZeroDivisionError


class _BrokenDataset(torch.utils.data.Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise InputError("image 'b.png' cannot be read")


def test_error_of_a_loading_process_is_shown_without_its_traceback(capsys):
    loader = start_readers_cleanly(torch.utils.data.DataLoader(_BrokenDataset(), num_workers=1))
    with pytest.raises(SystemExit), exit_cleanly():
        next(iter(loader))
    assert capsys.readouterr().err == "error: image 'b.png' cannot be read\n"


def test_a_missing_extra_is_named_with_the_line_that_installs_it():
    with (
        pytest.raises(
            InputError, match=r"slide 'a' needs the package 'no_such'.*steatosis-d2\[x\]"
        ),
        needs_extra("x", "slide 'a'"),
    ):
        import no_such  # noqa: F401
