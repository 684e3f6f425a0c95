"""Files inside a zip file, read where they are."""

import io
import zipfile
import zlib
from pathlib import PurePosixPath


class ZipPath:
    """
    A file or folder inside an open zip file, used like a :class:`pathlib.Path`.

    It has what reading a data set needs and no more. :class:`zipfile.Path` goes through all names
    for each folder that it lists, which takes minutes in a file of 26,000 masks; extracting and
    deleting that many small files takes as long on a busy disk.
    """

    def __init__(self, archive, at="", children=None):
        """
        Args:
            archive (zipfile.ZipFile): open for as long as the path is used.
            at (str or PurePosixPath): the path inside it; by default its root.
            children (dict or None): what each folder holds; by default read from the archive.
        """
        self.archive = archive
        self.at = PurePosixPath(at)
        self.children = _children(archive) if children is None else children

    def __truediv__(self, name):
        return ZipPath(self.archive, self.at / name, self.children)

    def __str__(self):
        return str(PurePosixPath(self.archive.filename) / self.at)

    @property
    def name(self):
        return self.at.name

    @property
    def stem(self):
        return self.at.stem

    @property
    def suffix(self):
        return self.at.suffix

    @property
    def parts(self):
        return self.at.parts

    @property
    def parent(self):
        return ZipPath(self.archive, self.at.parent, self.children)

    def is_dir(self):
        return self.at in self.children

    def is_file(self):
        return not self.is_dir() and self.at.name in self.children.get(self.at.parent, ())

    def iterdir(self):
        return (self / name for name in self.children[self.at])

    def rglob(self, name):
        """Folders of this name, at any depth."""
        return (self / folder for folder in self.children if folder.name == name)

    def open(self, mode="rb"):
        """
        Contents of the file, checked against the archive's checksum.

        Raises:
            OSError: it is not there, or is damaged, encrypted or of an unknown compression.
        """
        if mode != "rb":
            raise ValueError(f"mode '{mode}' is not supported; expected 'rb'")
        try:
            return io.BytesIO(self.archive.read(str(self.at)))
        except KeyError:
            raise FileNotFoundError(f"'{self}' does not exist") from None
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
            raise OSError(f"the zip file is damaged or encrypted: {error}") from None


def _children(archive):
    """Folder -> names in it, folders included that the archive implies but does not list."""
    children: dict[PurePosixPath, dict[str, None]] = {PurePosixPath(): {}}
    for entry in archive.infolist():
        at = PurePosixPath(entry.filename)
        if entry.is_dir():
            children.setdefault(at, {})
        while at != at.parent:
            known = at.parent in children
            children.setdefault(at.parent, {})[at.name] = None
            if known:
                break
            at = at.parent
    return children
