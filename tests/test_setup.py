"""setup.py: which OpenCV it asks for."""

import runpy
from pathlib import Path

import pytest
import setuptools

SETUP = Path(__file__).resolve().parents[1] / "setup.py"


@pytest.fixture
def require_opencv(monkeypatch):
    monkeypatch.setattr(setuptools, "setup", lambda **_: None)
    return runpy.run_path(str(SETUP))["require_opencv"]


def add_package(folder, name, version="4.14.0.94"):
    """What an installed package leaves."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def test_opencv_for_servers_where_there_is_none(require_opencv, tmp_path):
    add_package(tmp_path, "numpy")
    assert require_opencv([str(tmp_path)]) == ["opencv-python-headless>=4.8"]


@pytest.mark.parametrize(
    "name", ["opencv-python", "opencv-contrib-python", "opencv-contrib-python-headless"]
)
def test_opencv_that_is_there_is_kept(require_opencv, tmp_path, name):
    """Two of them share the folder cv2: the second would break the first."""
    add_package(tmp_path, name)
    assert require_opencv([str(tmp_path)]) == [f"{name}>=4.8"]


def test_opencv_of_two_names_stays_as_it_is(require_opencv, tmp_path):
    """conda-forge's calls itself by two names."""
    add_package(tmp_path, "opencv-python")
    add_package(tmp_path, "opencv-python-headless")
    assert require_opencv([str(tmp_path)]) == ["opencv-python-headless>=4.8"]


def test_opencv_of_no_python_package_is_kept(require_opencv, tmp_path):
    (tmp_path / "cv2").mkdir()
    (tmp_path / "cv2" / "__init__.py").touch()
    assert require_opencv([str(tmp_path)]) == []
