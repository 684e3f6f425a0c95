"""Files that are either whole or not there."""

import contextlib
import json
from pathlib import Path


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
    # Always the same name: what a killed process has left is so overwritten by the next one.
    temporary = path.with_name(f".{path.stem}.tmp{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        error.filename = error.filename or str(path)  # a full disk's error names no file
        raise
    finally:
        temporary.unlink(missing_ok=True)


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
