"""Files that are either whole or not there."""

import json
import subprocess
import sys

import pytest

from steatosis_d2.files import replace_folder_when_done, replace_when_done, write_json


def test_failed_writing_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / "summary.csv"
    path.write_text("old")
    with pytest.raises(ValueError), replace_when_done(path) as temporary:
        temporary.write_text("half of the n")
        raise ValueError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_is_gone_after_the_next(tmp_path):
    path = tmp_path / "summary.csv"
    write_half = (
        "import os, sys; from steatosis_d2.files import replace_when_done\n"
        "with replace_when_done(sys.argv[1]) as temporary:\n"
        "    temporary.write_text('half of the n'); os._exit(9)"
    )
    killed = subprocess.run([sys.executable, "-c", write_half, str(path)])
    assert killed.returncode == 9
    assert not path.exists()
    with replace_when_done(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_temporary_file_keeps_the_suffix_by_which_writers_choose_a_format(tmp_path):
    with replace_when_done(tmp_path / "new" / "tile.png") as temporary:
        assert temporary.suffix == ".png"
        temporary.touch()
    assert (tmp_path / "new" / "tile.png").is_file()


def test_system_error_without_a_name_gets_the_file_it_was_about(tmp_path):
    path = tmp_path / "summary.csv"
    with pytest.raises(OSError) as caught, replace_when_done(path):
        raise OSError(28, "No space left on device")
    assert caught.value.filename == str(path)


def test_folder_is_replaced_as_a_whole(tmp_path):
    for content in ("old", "new"):
        with replace_folder_when_done(tmp_path / "a.zarr") as temporary:
            temporary.mkdir()
            (temporary / content).touch()
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]
    assert [path.name for path in (tmp_path / "a.zarr").iterdir()] == ["new"]


def test_failed_writing_leaves_the_old_folder_alone(tmp_path):
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "a.zarr" / "old").touch()
    with pytest.raises(ValueError), replace_folder_when_done(tmp_path / "a.zarr") as temporary:
        temporary.mkdir()
        raise ValueError
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]
    assert (tmp_path / "a.zarr" / "old").exists()


def test_folder_that_a_killed_process_left_is_gone_after_the_next(tmp_path):
    with replace_folder_when_done(tmp_path / "a.zarr") as temporary:
        temporary.mkdir()
    temporary.mkdir()
    (temporary / "half").touch()
    with replace_folder_when_done(tmp_path / "a.zarr") as temporary:
        assert not temporary.exists()
        temporary.mkdir()
    assert [path.name for path in tmp_path.rglob("*")] == ["a.zarr"]


def test_json_that_no_other_parser_reads_is_refused(tmp_path):
    path = tmp_path / "metrics.json"
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"dice": float("nan")})
    assert list(tmp_path.iterdir()) == []
    write_json(path, {"dice": None})
    assert json.loads(path.read_text()) == {"dice": None}
