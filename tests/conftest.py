"""Fixtures that many tests share."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data():
    """
    Folder of the real data, which is never part of the repository.

    It is $STEATOSIS_SHARED_DATA, else ``../shared/data`` beside the repository; tests that use
    it are skipped where it is absent.
    """
    folder = Path(os.environ.get("STEATOSIS_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real data not found in '{folder}'; set STEATOSIS_SHARED_DATA to its folder")
    return folder
