"""Finished work on disk, so that a killed run goes on where it stopped."""

import contextlib
import logging
import os
import struct
import zlib

logger = logging.getLogger(__name__)

# Length and checksum of what follows.
_HEAD = struct.Struct("<II")


class Journal:
    """
    A file of records that grows at its end; what was appended survives whatever happens next.

    A context manager. A record that a crash cut short is dropped when the file is opened again,
    and so is what follows a damaged one. It is one file, not one a tile, since network disks are
    slow with many small ones.

    Attributes:
        path (Path): of the file.
    """

    def __init__(self, path):
        """
        Args:
            path (Path): a file that may exist; its folder must.
        """
        self.path = path
        self._file = path.open("ab", buffering=0)
        self._end = sum(_HEAD.size + len(payload) for payload in read_records(path))
        if self._end < self._file.tell():
            logger.warning("'%s' ends in an unfinished record, which is done again.", path)
            self._file.truncate(self._end)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Let go of the file."""
        self._file.close()

    def sync(self):
        """Return when all that was appended is on disk."""
        os.fsync(self._file.fileno())

    def append(self, payload, *, durable=True):
        """
        Add a record.

        Args:
            payload (bytes): its content.
            durable (bool): return only when it is on disk.

        Raises:
            OSError: it could not be written, for instance to a full disk; the file is as before.
        """
        record = memoryview(_HEAD.pack(len(payload), _checksum(payload)) + payload)
        size = len(record)
        try:
            while record:
                record = record[self._file.write(record) :]
            if durable:
                self.sync()
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file.truncate(self._end)
            raise OSError(error.errno, error.strerror, str(self.path)) from None
        self._end += size


def read_records(path):
    """
    The records of a journal, from the first to the last whole one.

    Args:
        path (Path): the file.

    Yields:
        bytes: what was appended.
    """
    with path.open("rb") as file:
        while len(head := file.read(_HEAD.size)) == _HEAD.size:
            length, checksum = _HEAD.unpack(head)
            payload = file.read(length)
            if len(payload) < length or _checksum(payload) != checksum:
                return
            yield payload


def _checksum(payload):
    # Of the length, too: a block of zeros, which a power failure can leave, is no record.
    return zlib.crc32(payload, len(payload) + 1)
