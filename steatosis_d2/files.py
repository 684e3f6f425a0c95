"""Files that are either whole or not there."""

import contextlib
import hashlib
import json
import os
import re
import shutil
from pathlib import Path

# Of the 255 bytes that file systems allow, what suffixes and a temporary name may need stay free.
_LONGEST_STEM = 200
_LONGEST_NAME = 255
_SUFFIX_OF_OME_ZARR = re.compile(r"(?<=.)(\.ome)?(\.zarr(\.zip)?|\.ozx)$", re.IGNORECASE)


def printable(text):
    r"""
    A name that can be printed and stored as UTF-8.

    Args:
        text (str): of a file, which may hold bytes that are no UTF-8, or line breaks.

    Returns:
        str: the same, with such bytes and control characters as ``%B5``.

    Examples:
        >>> printable("a\udcb5m\n.png")
        'a%B5m%0A.png'
    """
    return "".join(
        f"%{ord(letter) & 0xFF:02X}"
        if 0xDC80 <= ord(letter) <= 0xDCFF or ord(letter) < 32 or ord(letter) == 127
        else letter
        for letter in text
    )


def shorten(stem):
    """
    A name that leaves room for suffixes.

    Args:
        stem (str): of a file, printable.

    Returns:
        str: the same, or its beginning and a fingerprint of the whole where it is longer than 200
        bytes.
    """
    encoded = stem.encode()
    if len(encoded) <= _LONGEST_STEM:
        return stem
    digest = hashlib.sha256(encoded).hexdigest()[:8]
    return f"{encoded[: _LONGEST_STEM - 9].decode(errors='ignore')}~{digest}"


def drop_suffix(path):
    """
    What an input is called without the suffix that tells its format.

    Args:
        path (PurePath): of a file, or of the folder of an OME-Zarr.

    Returns:
        PurePath: in the same folder.

    Examples:
        >>> [drop_suffix(Path(name)).name for name in ("a.svs", "b.ome.zarr", "c.zarr.zip")]
        ['a', 'b', 'c']
    """
    found = _SUFFIX_OF_OME_ZARR.search(path.name)
    return path.with_name(path.name[: found.start()]) if found else path.parent / path.stem


@contextlib.contextmanager
def replace_when_done(path):
    """
    Give a temporary path beside ``path``; rename it to ``path`` if the block succeeds.

    A killed process or a full disk so leaves the old file, or none, but never half of one.

    Args:
        path (str or Path): the file to write; its folder is created.

    Yields:
        Path: where to write; it has the suffix of ``path``, since writers choose formats by it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path, "tmp")
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        error.filename = error.filename or str(path)  # a full disk's error names no file
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replace_folder_when_done(path):
    """
    As :func:`replace_when_done`, for a writer that makes a folder.

    Args:
        path (Path): the folder to write; the one above it is created.

    Yields:
        Path: where to write; nothing is there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, former = _beside(path, "tmp"), _beside(path, "old")
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.rmtree(former, ignore_errors=True)
    try:
        yield temporary
        if path.exists():  # a folder that holds something cannot be renamed to
            path.replace(former)
        temporary.replace(path)
        shutil.rmtree(former, ignore_errors=True)
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _beside(path, mark):
    """A hidden name, always the same, so that the next process finds what a killed one has left."""
    name = f".{path.stem}.{mark}{path.suffix}"
    if len(os.fsencode(name)) > _LONGEST_NAME:
        name = f".{hashlib.sha256(os.fsencode(path.stem)).hexdigest()[:16]}.{mark}{path.suffix}"
    return path.with_name(name)


def write_json(path, content, *, indent=None):
    """
    Write ``content`` as JSON, whole or not at all.

    Args:
        path (str or Path): the file to write.
        content (object): anything JSON can hold; NaN and infinity are refused, since
            no other language's parser reads them.
        indent (int or None): as in :func:`json.dumps`.
    """
    text = json.dumps(content, indent=indent, allow_nan=False)
    with replace_when_done(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
