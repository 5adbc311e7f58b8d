# SPDX-License-Identifier: Apache-2.0
"""The bytes of an attached volume: a block device or file, a librbd image, or a plain handle.

All methods but `close` are thread-safe.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from typing import Any

from glance_store.transfer.source import bytes_of


class FileDevice:
    """A block device or a file."""

    # Calls worth running at once. The kernel orders and buffers writes itself. A second read in
    # flight hides the storage's latency.
    write_concurrency = 1
    read_concurrency = 2
    # Whether unwritten parts of a new volume are known to read as zeros.
    reads_zeros = False

    def __init__(self, path: str, writable: bool, flags: int = 0) -> None:
        self.path = path
        mode = os.O_RDWR if writable else os.O_RDONLY
        self._file = os.open(path, mode | flags | os.O_CLOEXEC)
        self._lock = threading.Lock()

    def size(self) -> int:
        """Return the current size in bytes."""
        status = os.fstat(self._file)
        if stat.S_ISREG(status.st_mode):
            return status.st_size
        with self._lock:
            return os.lseek(self._file, 0, os.SEEK_END)

    def read_at(self, offset: int, length: int) -> bytes:
        """Read up to `length` bytes at an offset."""
        return os.pread(self._file, length, offset)

    def write_at(self, offset: int, block: memoryview) -> None:
        """Write bytes at an offset."""
        done = 0
        while done < len(block):
            done += os.pwrite(self._file, block[done:], offset + done)

    def flush(self) -> None:
        """Return once everything written is on the storage."""
        os.fsync(self._file)

    def close(self) -> None:
        """Close the file."""
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)


class HandleDevice:
    """An object with `read`, `write` and `seek`, which os-brick closes; one call at a time."""

    write_concurrency = 1
    read_concurrency = 1
    reads_zeros = False

    def __init__(self, handle: Any) -> None:
        self.path = handle
        self._lock = threading.Lock()

    def size(self) -> int:
        """Return the current size in bytes."""
        with self._lock:
            self.path.seek(0, os.SEEK_END)
            return int(self.path.tell())

    def read_at(self, offset: int, length: int) -> bytes:
        """Read up to `length` bytes at an offset."""
        with self._lock:
            self.path.seek(offset)
            data: bytes = self.path.read(length)
            return data

    def write_at(self, offset: int, block: memoryview) -> None:
        """Write bytes at an offset."""
        with self._lock:
            self.path.seek(offset)
            self.path.write(bytes_of(block))

    def flush(self) -> None:
        """Return once everything written is safe, as far as the handle can tell."""
        with self._lock:
            self.path.flush()
            with contextlib.suppress(OSError, AttributeError):
                os.fsync(self.path.fileno())

    def close(self) -> None:
        """Do nothing."""


class RBDDevice(HandleDevice):
    """An image that os-brick has opened through librbd."""

    # Each call waits for one answer from the cluster and releases the GIL meanwhile.
    write_concurrency = 4
    read_concurrency = 4
    reads_zeros = True

    def __init__(self, handle: Any) -> None:
        super().__init__(handle)
        image = handle.rbd_image
        self._image = getattr(image, "image", image)

    def size(self) -> int:
        """Return the current size in bytes."""
        return int(self._image.size())

    def read_at(self, offset: int, length: int) -> bytes:
        """Read up to `length` bytes at an offset."""
        data: bytes = self._image.read(offset, length)
        return data

    def write_at(self, offset: int, block: memoryview) -> None:
        """Write bytes at an offset."""
        self._image.write(bytes_of(block), offset)

    def flush(self) -> None:
        """Return once everything written is in the cluster."""
        self._image.flush()


Device = FileDevice | HandleDevice


def of_handle(handle: Any) -> Device:
    """Return the device for a handle of os-brick."""
    return RBDDevice(handle) if hasattr(handle, "rbd_image") else HandleDevice(handle)
