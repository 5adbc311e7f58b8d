# SPDX-License-Identifier: Apache-2.0
"""Reads one image file."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator

from glance_store import exceptions
from glance_store._drivers.filesystem import syscalls
from glance_store._drivers.filesystem.openfile import GuardedFile
from glance_store.i18n import _
from glance_store.transfer.interface import Extent
from glance_store.transfer.threads import Calls


def _open(path: str, calls: Calls) -> GuardedFile:
    flags = os.O_RDONLY | os.O_CLOEXEC
    try:
        # Without O_NONBLOCK, opening a pipe that somebody put there would wait for ever.
        return GuardedFile(calls, os.open(path, flags | os.O_NONBLOCK))
    except BlockingIOError:
        # Somebody has a lease on the file, and is being asked to give it back.
        check_is_file(os.stat(path), path)
        return GuardedFile(calls, os.open(path, flags))


def check_is_file(status: os.stat_result, path: str) -> None:
    """Refuse anything but a regular file."""
    if not stat.S_ISREG(status.st_mode):
        raise exceptions.BadStoreUri(
            _("The Store URI was malformed: %(uri)s is not a regular file"), uri=path
        )


class FileReader:
    """An `ImageReader` of a file, which may be deleted while it is read.

    A hole shorter than `chunk_size` is read like data.
    """

    # One read at a time is fastest on a local file: the kernel reads ahead.
    concurrency = 1

    def __init__(self, path: str, calls: Calls, chunk_size: int) -> None:
        self._path = path
        self._chunk_size = chunk_size
        try:
            # A file opened too late has no owner: close it again.
            self._file = calls.call(_open, path, calls, dispose=GuardedFile.drop)
        except OSError as exc:
            syscalls.raise_reading_error(exc, path)
        try:
            status = self._file.call(os.fstat)
            check_is_file(status, path)
        except BaseException:
            self.close()
            raise
        self.size: int = status.st_size
        self.version = f"{status.st_ino}-{status.st_mtime_ns}"
        self._sparse = status.st_blocks * 512 < status.st_size

    def read_at(self, offset: int, length: int) -> bytes:
        try:
            return self._file.call(os.pread, length, offset)
        except OSError as exc:
            syscalls.raise_reading_error(exc, self._path)

    def copy_to(self, target: int, offset: int, length: int) -> int:
        """Have the kernel copy bytes to the same offset of another file, inside a bounded call."""
        return self._file.run(os.copy_file_range, target, length, offset, offset)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Yield the data and the holes in a range."""
        stop = offset + length
        if not self._sparse:
            yield Extent(offset, length, True)
            return
        while offset < stop:
            try:
                extent = self._file.call(self._extent, offset, stop)
            except OSError as exc:
                syscalls.raise_reading_error(exc, self._path)
            yield extent
            offset += extent.length

    def _extent(self, fd: int, offset: int, stop: int) -> Extent:
        """Return the extent that begins at an offset."""
        chunk_end = min(offset + self._chunk_size, stop)
        data = self._seek(fd, offset, os.SEEK_DATA)
        if data >= chunk_end:
            return Extent(offset, min(data, stop) - offset, False)
        end = self._seek(fd, max(data, offset), os.SEEK_HOLE)
        # A hole in the middle of the chunk is worth its own step if it is long.
        if end < chunk_end and (
            end <= offset or self._seek(fd, end, os.SEEK_DATA) - end < self._chunk_size
        ):
            end = chunk_end
        return Extent(offset, min(end, stop) - offset, True)

    def _seek(self, fd: int, offset: int, whence: int) -> int:
        try:
            return os.lseek(fd, offset, whence)
        except OSError as exc:
            if exc.errno == errno.ENXIO:
                # Only a hole follows. A file truncated meanwhile ends here as well, and must not be
                # taken for zeros.
                return self._end_of(fd, offset)
            # The file system has no holes, or does not tell: all is data.
            return offset if whence == os.SEEK_DATA else self.size

    def _end_of(self, fd: int, offset: int) -> int:
        end = os.fstat(fd).st_size
        if end < self.size:
            raise exceptions.TruncatedImage(position=max(offset, end), expected=self.size)
        return self.size

    def close(self) -> None:
        """Close the file; with a timeout, in the background."""
        self._file.drop()
