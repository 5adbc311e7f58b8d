# SPDX-License-Identifier: Apache-2.0
"""The local ends of a transfer: the file that is read, and the one that is written."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import select
import signal
import stat
import sys
import threading
from collections.abc import Iterator
from typing import Any, BinaryIO, Protocol

from glance_store.cli.errors import OutputClosedError, UsageError
from glance_store.transfer import sparse

# Errors of link() on a file system that has no hard links.
_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})


class Readable(Protocol):
    """What the bytes of a new image come from."""

    def read(self, size: int, /) -> bytes | None:
        """Return up to `size` bytes, nothing at the end."""
        ...


def _size_of(descriptor: int) -> int:
    """Return the bytes from the present position to the end, 0 when nobody knows."""
    mode = os.fstat(descriptor).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
        return 0
    position = os.lseek(descriptor, 0, os.SEEK_CUR)
    # A block device has no size but its end.
    end = os.lseek(descriptor, 0, os.SEEK_END)
    os.lseek(descriptor, position, os.SEEK_SET)
    return max(0, end - position)


@contextlib.contextmanager
def open_source(path: str) -> Iterator[tuple[Readable, int]]:
    """Open the data of a new image.

    :param path: a file or a device, ``-`` for standard input
    :returns: the open file and its bytes, 0 when unknown
    :raises UsageError: it cannot be opened
    """
    if path == "-":
        if sys.stdin is None or sys.stdin.isatty():
            raise UsageError("- stands for standard input, which must be a file or a pipe here")
        with _Input(sys.stdin.fileno()) as stream:
            yield stream, _size_of(sys.stdin.fileno())
        return
    try:
        file: BinaryIO = open(path, "rb", buffering=0)  # noqa: SIM115 - closed below
    except OSError as exc:
        raise UsageError(f"{path} cannot be read: {exc.strerror}") from exc
    with file:
        yield file, _size_of(file.fileno())


class _Input:
    """Standard input, whose reads a signal ends however shortly before them it comes.

    A signal between Python's last look and the kernel's read() would go unnoticed until more data
    came, which may be never: the wake-up descriptor of Python is waited for as well.

    :param descriptor: of the input
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __enter__(self) -> _Input:  # noqa: PYI034 - typing.Self came with Python 3.11
        self._wake, self._waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._is_main = threading.current_thread() is threading.main_thread()
        if self._is_main:
            self._before = signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        return self

    def __exit__(self, *_exception: object) -> None:
        if self._is_main:
            signal.set_wakeup_fd(self._before)
        os.close(self._wake)
        os.close(self._waker)

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes, nothing at the end."""
        while True:
            ready, _writable, _failed = select.select([self._descriptor, self._wake], [], [])
            if self._wake in ready:
                # The handler of the signal runs before the next line.
                os.read(self._wake, 4096)
            if self._descriptor in ready:
                return os.read(self._descriptor, size)


class Destination(Protocol):
    """Where the bytes of an image go."""

    def write(self, data: bytes) -> None:
        """Take the next bytes."""
        ...

    def commit(self) -> None:
        """Make them final: all of them have been written."""
        ...


class _Stream:
    """Standard output."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def write(self, data: bytes) -> None:
        try:
            self._stream.write(data)
        except BrokenPipeError as exc:
            raise OutputClosedError from exc

    def commit(self) -> None:
        try:
            self._stream.flush()
        except BrokenPipeError as exc:
            raise OutputClosedError from exc


class _Device:
    """A device or a named pipe, written in place, zeros included."""

    def __init__(self, descriptor: int, path: str) -> None:
        self._descriptor = descriptor
        self._path = path

    def write(self, data: bytes) -> None:
        with _named(self._path), memoryview(data) as view:
            written = 0
            while written < len(view):
                written += os.write(self._descriptor, view[written:])

    def commit(self) -> None:
        # Character devices and pipes have nothing to flush and refuse.
        if stat.S_ISBLK(os.fstat(self._descriptor).st_mode):
            with _named(self._path):
                os.fsync(self._descriptor)


class _File:
    """A regular file, invisible under its name until all is written; zeros become holes."""

    def __init__(self, descriptor: int, temporary: str, path: str, replace: bool) -> None:
        self._descriptor = descriptor
        self._temporary = temporary
        self._path = path
        self._replace = replace
        self._position = 0

    def write(self, data: bytes) -> None:
        with _named(self._path), memoryview(data) as view:
            for start, end in sparse.data_runs(data):
                while start < end:
                    start += os.pwrite(  # noqa: PLW2901 - a write may be a short one
                        self._descriptor, view[start:end], self._position + start
                    )
        self._position += len(data)

    def commit(self) -> None:
        with _named(self._path):
            # Zeros at the end were never written.
            os.ftruncate(self._descriptor, self._position)
            os.fsync(self._descriptor)
            if self._replace or not self._link():
                os.replace(self._temporary, self._path)

    def _link(self) -> bool:
        """Publish without replacing; False when the file system has no links."""
        try:
            os.link(self._temporary, self._path)
        except OSError as exc:
            if exc.errno in _NO_LINKS:
                return False
            raise
        os.unlink(self._temporary)
        return True


@contextlib.contextmanager
def _named(path: str) -> Iterator[None]:
    """Name the file in errors of calls on a descriptor."""
    try:
        yield
    except OSError as exc:
        raise OSError(exc.errno, exc.strerror, path) from exc


@contextlib.contextmanager
def open_destination(path: str, force: bool) -> Iterator[Destination]:
    """Open the file that an image is written to.

    A regular file gets its name when it is complete; otherwise nothing of it remains.

    :param path: a file or a device, ``-`` for standard output
    :param force: replace a file that exists, write to a block device
    :raises UsageError: it cannot be opened, or exists and `force` is not set
    """
    if path == "-":
        if sys.stdout is None or sys.stdout.isatty():
            raise UsageError("image data is not for a terminal: name a file with -o")
        sys.stdout.flush()
        yield _Stream(sys.stdout.buffer)
        return
    # What a symbolic link points to is replaced, not the link.
    path = os.path.realpath(path)
    try:
        mode = os.stat(path).st_mode if os.path.lexists(path) else None
        if mode is None or stat.S_ISREG(mode):
            opened: Any = _open_file(path, force, mode)
        elif stat.S_ISDIR(mode):
            raise UsageError(f"{path} is a directory: name a file in it")
        else:
            opened = _open_device(path, force, mode)
    except OSError as exc:
        raise UsageError(f"{path} cannot be written: {exc.strerror}") from exc
    with opened as destination:
        yield destination


@contextlib.contextmanager
def _closing(descriptor: int, temporary: str | None, destination: Destination) -> Iterator[Any]:
    try:
        yield destination
    finally:
        os.close(descriptor)
        if temporary is not None:
            # Gone already when the image has got its name.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)


def _open_device(path: str, force: bool, mode: int) -> Any:
    if stat.S_ISBLK(mode) and not force:
        raise UsageError(f"{path} is a block device: --force overwrites it")
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    return _closing(descriptor, None, _Device(descriptor, path))


def _open_file(path: str, force: bool, mode: int | None) -> Any:
    if mode is not None and not force:
        raise UsageError(f"{path} exists: --force replaces it")
    folder = os.path.dirname(path)
    temporary = os.path.join(folder, f".glance-store-{secrets.token_hex(6)}.partial")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o666)
    if mode is not None:
        os.fchmod(descriptor, stat.S_IMODE(mode))
    return _closing(descriptor, temporary, _File(descriptor, temporary, path, force))
