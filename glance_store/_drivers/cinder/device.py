# SPDX-License-Identifier: Apache-2.0
"""The bytes of an attached volume: a block device or file, an image of librbd, or a plain handle.

All methods but `close` may be called from several threads at once.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from typing import Any, Protocol

from glance_store.transfer.source import bytes_of


class Device(Protocol):
    """An attached volume."""

    # What os-brick has returned: a path or a handle.
    path: Any
    # How many calls at once pay.
    write_concurrency: int
    read_concurrency: int
    # Whether what was never written is known to be zeros on a new volume.
    reads_zeros: bool

    def size(self) -> int:
        """Return how many bytes there are now."""
        ...

    def read_at(self, offset: int, length: int) -> bytes:
        """Return up to `length` bytes from an offset on."""
        ...

    def write_at(self, offset: int, block: memoryview) -> None:
        """Write bytes at an offset."""
        ...

    def flush(self) -> None:
        """Return when all that was written is safe."""
        ...

    def close(self) -> None:
        """Let go of it; idempotent."""
        ...


class FileDevice:
    """A block device or a file.

    :param path: where it is
    :param writable: whether it will be written
    :param flags: further ones of `os.open`
    """

    # The kernel sorts and delays writes itself; a second read in flight hides the storage's delay.
    write_concurrency = 1
    read_concurrency = 2
    reads_zeros = False

    def __init__(self, path: str, writable: bool, flags: int = 0) -> None:
        self.path = path
        mode = os.O_RDWR if writable else os.O_RDONLY
        self._file = os.open(path, mode | flags | os.O_CLOEXEC)
        self._lock = threading.Lock()
        self._open = True

    def size(self) -> int:
        """Return how many bytes there are now."""
        status = os.fstat(self._file)
        if stat.S_ISREG(status.st_mode):
            return status.st_size
        with self._lock:
            return os.lseek(self._file, 0, os.SEEK_END)

    def read_at(self, offset: int, length: int) -> bytes:
        """Return up to `length` bytes from an offset on."""
        return os.pread(self._file, length, offset)

    def write_at(self, offset: int, block: memoryview) -> None:
        """Write bytes at an offset."""
        done = 0
        while done < len(block):
            done += os.pwrite(self._file, block[done:], offset + done)

    def flush(self) -> None:
        """Return when all that was written is on the storage."""
        os.fsync(self._file)

    def close(self) -> None:
        """Close the file."""
        if self._open:
            self._open = False
            os.close(self._file)


class RBDDevice:
    """An image that os-brick has opened through librbd.

    :param handle: of os-brick
    """

    # Each call waits for one answer of the cluster, and lets go of the interpreter meanwhile.
    write_concurrency = 4
    read_concurrency = 4
    reads_zeros = True

    def __init__(self, handle: Any) -> None:
        self.path = handle
        image = handle.rbd_image
        self._image = getattr(image, "image", image)

    def size(self) -> int:
        """Return how many bytes there are now."""
        return int(self._image.size())

    def read_at(self, offset: int, length: int) -> bytes:
        """Return up to `length` bytes from an offset on."""
        data: bytes = self._image.read(offset, length)
        return data

    def write_at(self, offset: int, block: memoryview) -> None:
        """Write bytes at an offset."""
        self._image.write(bytes_of(block), offset)

    def flush(self) -> None:
        """Return when all that was written is in the cluster."""
        self._image.flush()

    def close(self) -> None:
        """Leave it to os-brick, which closes it with the connection to the cluster."""


class HandleDevice:
    """An object with `read`, `write` and `seek`, one call at a time.

    :param handle: of os-brick
    """

    write_concurrency = 1
    read_concurrency = 1
    reads_zeros = False

    def __init__(self, handle: Any) -> None:
        self.path = handle
        self._lock = threading.Lock()

    def size(self) -> int:
        """Return how many bytes there are now."""
        with self._lock:
            self.path.seek(0, os.SEEK_END)
            return int(self.path.tell())

    def read_at(self, offset: int, length: int) -> bytes:
        """Return up to `length` bytes from an offset on."""
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
        """Return when all that was written is safe, as far as the handle can do it."""
        with self._lock:
            self.path.flush()
            with contextlib.suppress(OSError, AttributeError):
                os.fsync(self.path.fileno())

    def close(self) -> None:
        """Leave it to os-brick."""


def of_handle(handle: Any) -> Device:
    """Return the device for what os-brick has opened.

    :param handle: of os-brick
    """
    return RBDDevice(handle) if hasattr(handle, "rbd_image") else HandleDevice(handle)
