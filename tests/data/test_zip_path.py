import zipfile

import pytest

from steatosis_d2.data.zip_path import ZipPath


@pytest.fixture
def archive(tmp_path):
    """A zip file with two files in implied folders, and an empty folder that it lists."""
    path = tmp_path / "data.zip"
    with zipfile.ZipFile(path, "w") as writer:
        writer.writestr("top/a/images/a.png", b"pixels")
        writer.writestr("top/a/masks/1.png", b"mask")
        writer.writestr("top/b/masks/", b"")
    with zipfile.ZipFile(path) as reader:
        yield reader


def names(paths):
    return sorted(path.name for path in paths)


def test_folders_that_the_archive_only_implies_are_found(archive):
    root = ZipPath(archive)
    assert names(root.iterdir()) == ["top"]
    assert names((root / "top").iterdir()) == ["a", "b"]
    assert names((root / "top/a").iterdir()) == ["images", "masks"]


def test_folders_and_files_are_told_apart(archive):
    folder = ZipPath(archive) / "top/a/images"
    assert folder.is_dir() and not folder.is_file()
    assert (folder / "a.png").is_file() and not (folder / "a.png").is_dir()
    assert not (folder / "b.png").is_file() and not (folder / "b.png").is_dir()


def test_listed_empty_folder_is_empty(archive):
    assert list((ZipPath(archive) / "top/b/masks").iterdir()) == []


def test_rglob_finds_folders_at_any_depth(archive):
    found = ZipPath(archive).rglob("masks")
    assert sorted(path.parent.name for path in found) == ["a", "b"]


def test_parts_of_the_name(archive):
    path = ZipPath(archive) / "top" / "a" / "masks" / "1.png"
    assert (path.name, path.stem, path.suffix, path.parent.name) == ("1.png", "1", ".png", "masks")
    assert path.parts == ("top", "a", "masks", "1.png")


def test_text_names_the_zip_file(archive, tmp_path):
    assert str(ZipPath(archive)) == f"{tmp_path}/data.zip"
    assert str(ZipPath(archive) / "top/a") == f"{tmp_path}/data.zip/top/a"


def test_contents(archive):
    with (ZipPath(archive) / "top/a/images/a.png").open("rb") as file:
        assert file.read() == b"pixels"


def test_other_modes_are_refused(archive):
    with pytest.raises(ValueError, match="mode 'w'"):
        (ZipPath(archive) / "top/a/images/a.png").open("w")


def test_missing_file(archive):
    with pytest.raises(FileNotFoundError, match=r"top/absent\.png' does not exist"):
        (ZipPath(archive) / "top/absent.png").open()


def test_damaged_file(tmp_path):
    path = tmp_path / "data.zip"
    with zipfile.ZipFile(path, "w") as writer:
        writer.writestr("a.png", b"pixels")
    path.write_bytes(path.read_bytes().replace(b"pixels", b"pixelz"))
    with zipfile.ZipFile(path) as reader, pytest.raises(OSError, match=r"damaged.*CRC"):
        ZipPath(reader, "a.png").open()
