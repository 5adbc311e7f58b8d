# SPDX-License-Identifier: Apache-2.0
"""The local ends of a transfer: the file to read, and the file to write."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import select
import signal
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from glance_store import exceptions
from glance_store.cli.errors import SourceChangedError, UsageError, named, writing_output
from glance_store.transfer import sparse

# Errors of calls that a file system does not support.
_UNKNOWN = frozenset({errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS})
# Errors of link() on file systems without hard links.
_NO_LINKS = _UNKNOWN | {errno.EPERM, errno.EACCES, errno.EMLINK}

# As many symbolic links as the kernel follows in a path.
_LONGEST_CHAIN = 40


def _inherited(path: str) -> int | None:
    """Return the descriptor that a path such as /dev/stdout or /dev/fd/63 stands for, if any."""
    for _link in range(_LONGEST_CHAIN):
        folder, name = os.path.split(os.path.abspath(path))
        folder = os.path.realpath(folder)
        if re.fullmatch(rf"/proc/{os.getpid()}(/task/[0-9]+)?/fd", folder) and name.isdecimal():
            return int(name)
        if not os.path.islink(path):
            return None
        path = os.path.join(folder, os.readlink(path))
    return None


def _duplicate(descriptor: int) -> int:
    """Return a copy of a descriptor that the caller of the command passed on."""
    if not os.get_inheritable(descriptor):
        # Python opened it in this process: the path was a mistake.
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    return os.dup(descriptor)


# -- the source


def _announced(descriptor: int) -> int | None:
    """Return the bytes from the current position to the end, None if unknown."""
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode):
        # Files in /proc report 0, whatever is in them.
        return max(0, status.st_size - os.lseek(descriptor, 0, os.SEEK_CUR)) or None
    if not stat.S_ISBLK(status.st_mode):
        return None
    # The end of a block device is its size.
    position = os.lseek(descriptor, 0, os.SEEK_CUR)
    end = os.lseek(descriptor, 0, os.SEEK_END)
    os.lseek(descriptor, position, os.SEEK_SET)
    return max(0, end - position)


def _open_input(path: str) -> int:
    if path == "-":
        if sys.stdin is None:
            raise UsageError("- stands for standard input, which is closed")
        return os.dup(sys.stdin.fileno())
    number = _inherited(path)
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC) if number is None else _duplicate(number)
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    return descriptor


@contextlib.contextmanager
def open_source(path: str, size: int | None = None) -> Iterator[Source]:
    """Open the data of a new image: a file or device, or ``-`` for standard input.

    With a `size`, the data must have exactly so many bytes.
    """
    name = "standard input" if path == "-" else path
    with contextlib.ExitStack() as stack:
        try:
            descriptor = _open_input(path)
        except OSError as exc:
            raise UsageError(f"{name} cannot be read: {exc.strerror}") from exc
        stack.callback(os.close, descriptor)
        if os.isatty(descriptor):
            raise UsageError(f"{name} is a terminal: image data must come from a file or a pipe")
        announced = _announced(descriptor)
        if announced is None:
            pipe = stack.enter_context(_Pipe(descriptor))
            yield Source(descriptor, pipe.read, name, size)
            return
        if size is not None and size != announced:
            raise _wrong_size(name, size, announced)
        yield Source(descriptor, lambda length: os.read(descriptor, length), name, announced)


def _wrong_size(name: str, expected: int, actual: int) -> exceptions.Invalid:
    if actual > expected:
        return exceptions.Invalid(f"Size exceeds: expected {expected} bytes, {name} has more")
    return exceptions.Invalid(f"Size mismatch: expected {expected} bytes, {name} has {actual}")


class Source:
    """The data of a new image, which must not change while it is read."""

    def __init__(
        self, descriptor: int, read: Callable[[int], bytes], name: str, expected: int | None
    ) -> None:
        self._descriptor = descriptor
        self._read = read
        self._name = name
        self._expected = expected
        self._total = 0
        self._before = os.fstat(descriptor)

    @property
    def size(self) -> int:
        """Bytes to announce to a store, 0 when unknown."""
        return self._expected or 0

    def read(self, length: int) -> bytes:
        """Return up to `length` bytes, nothing at the end; raise if the file changed meanwhile."""
        with named(self._name):
            data = self._read(length)
        self._total += len(data)
        # A store that is told 0 bytes takes any number, so count them here.
        if not data or (self._expected is not None and self._total > self._expected):
            self._check()
        return data

    def _check(self) -> None:
        before, now = self._before, os.fstat(self._descriptor)
        if stat.S_ISREG(now.st_mode):
            if now.st_size != before.st_size:
                raise SourceChangedError(
                    f"{self._name} changed while it was read, from {before.st_size} to "
                    f"{now.st_size} bytes: nothing is stored"
                )
            if now.st_mtime_ns != before.st_mtime_ns:
                raise SourceChangedError(
                    f"{self._name} changed while it was read, somebody is writing to it: nothing "
                    "is stored"
                )
        if self._expected is not None and self._total != self._expected:
            raise _wrong_size(self._name, self._expected, self._total)


class _Pipe:
    """A pipe whose reads end at a signal, even one that comes just before them.

    A signal between Python's last check and the kernel's read() would go unnoticed until more data
    came, perhaps never: so wait for Python's wake-up descriptor as well.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __enter__(self) -> _Pipe:  # noqa: PYI034 - typing.Self came with Python 3.11
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
                # The signal handler runs before the next line.
                os.read(self._wake, 4096)
            if self._descriptor in ready:
                return os.read(self._descriptor, size)


# -- the destination


class Destination(Protocol):
    """Where the bytes of an image go."""

    @property
    def is_output(self) -> bool:
        """Whether the results of the command go to the same place."""
        ...

    def write(self, data: bytes) -> None:
        """Write the next bytes."""
        ...

    def commit(self) -> None:
        """Make the data final: all of it has been written."""
        ...


class _Stream:
    """An inherited descriptor, device or named pipe, written in place, zeros included."""

    def __init__(self, descriptor: int, name: str) -> None:
        self._descriptor = descriptor
        self.is_output = _is_output(descriptor)
        self._errors = writing_output if self.is_output else lambda: named(name)

    def write(self, data: bytes) -> None:
        with self._errors(), memoryview(data) as view:
            written = 0
            while written < len(view):
                written += os.write(self._descriptor, view[written:])

    def commit(self) -> None:
        # Character devices and pipes have nothing to flush, and refuse it.
        if stat.S_ISBLK(os.fstat(self._descriptor).st_mode):
            with self._errors():
                _flush(self._descriptor)


def _is_output(descriptor: int) -> bool:
    """Tell whether a descriptor and standard output are the same file."""
    try:
        return sys.stdout is not None and os.path.sameopenfile(descriptor, sys.stdout.fileno())
    except (OSError, ValueError):
        return False


class _File:
    """A regular file, invisible under its name until all is written; zeros become holes."""

    is_output = False

    def __init__(self, descriptor: int, temporary: str, path: str, replace: bool) -> None:
        self._descriptor = descriptor
        self._temporary = temporary
        self._path = path
        self._replace = replace
        self._position = 0

    def write(self, data: bytes) -> None:
        with named(self._path), memoryview(data) as view:
            for start, end in sparse.data_runs(data):
                while start < end:
                    start += os.pwrite(  # noqa: PLW2901 - a write may be a short one
                        self._descriptor, view[start:end], self._position + start
                    )
        self._position += len(data)

    def commit(self) -> None:
        with named(self._path):
            # Zeros at the end were never written.
            os.ftruncate(self._descriptor, self._position)
            _flush(self._descriptor)
            try:
                self._publish()
            except OSError:
                # A file server may have done it despite the error.
                if not self._is_published():
                    raise
            self._flush_name()

    def _publish(self) -> None:
        if not self._replace:
            try:
                os.link(self._temporary, self._path)
            except OSError as exc:
                if exc.errno not in _NO_LINKS:
                    raise
                if os.path.lexists(self._path):
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
            else:
                return
        os.replace(self._temporary, self._path)

    def _flush_name(self) -> None:
        # A directory in which files may be created, but which may not be read, cannot be flushed.
        with contextlib.suppress(PermissionError):
            folder = os.open(os.path.dirname(self._path), os.O_RDONLY | os.O_CLOEXEC)
            try:
                _flush(folder)
            finally:
                os.close(folder)

    def _is_published(self) -> bool:
        with contextlib.suppress(OSError):
            return os.path.samestat(os.lstat(self._path), os.fstat(self._descriptor))
        return False


def _flush(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as exc:
        if exc.errno not in _UNKNOWN:
            raise


@contextlib.contextmanager
def open_destination(path: str, force: bool) -> Iterator[Destination]:
    """Open the file, device or standard output (``-``) that an image is written to.

    A regular file gets its name when it is complete; otherwise nothing of it remains. `force`
    allows replacing a file or writing to a block device.
    """
    try:
        if path == "-":
            opened = _open_output()
        elif (number := _inherited(path)) is not None:
            opened = _open_stream(_duplicate(number), path)
        else:
            opened = _open_path(path, force)
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
            # Already gone if the image got its name.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)


def _open_output() -> Any:
    if sys.stdout is None:
        raise UsageError("- stands for standard output, which is closed")
    sys.stdout.flush()
    return _open_stream(os.dup(sys.stdout.fileno()), "standard output")


def _open_stream(descriptor: int, name: str) -> Any:
    if os.isatty(descriptor):
        os.close(descriptor)
        raise UsageError("image data is not written to a terminal: name a file with -o")
    return _closing(descriptor, None, _Stream(descriptor, name))


def _open_path(path: str, force: bool) -> Any:
    # Replace what a symbolic link points to, not the link.
    target = os.path.realpath(path)
    status = os.stat(target) if os.path.lexists(target) else None
    mode = stat.S_IFREG if status is None else status.st_mode
    if path.endswith("/") and not stat.S_ISDIR(mode):
        raise UsageError(f"{path} is not a directory")
    if stat.S_ISREG(mode):
        return _open_file(target, force, status)
    if stat.S_ISDIR(mode):
        raise UsageError(f"{path} is a directory: name a file in it")
    if stat.S_ISBLK(mode) and not force:
        raise UsageError(f"{path} is a block device: --force overwrites it")
    descriptor = os.open(target, os.O_WRONLY | os.O_CLOEXEC)
    return _closing(descriptor, None, _Stream(descriptor, path))


def _open_file(path: str, force: bool, replaced: os.stat_result | None) -> Any:
    if replaced is not None and not force:
        raise UsageError(f"{path} exists: --force replaces it")
    folder = os.path.dirname(path)
    temporary = os.path.join(folder, f".glance-store-{secrets.token_hex(6)}.partial")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o666)
    if replaced is not None:
        # Cannot be set by others than root, or where the mount gives all files their permissions.
        with contextlib.suppress(OSError):
            os.fchown(descriptor, replaced.st_uid, replaced.st_gid)
        with contextlib.suppress(OSError):
            os.fchmod(descriptor, stat.S_IMODE(replaced.st_mode))
    return _closing(descriptor, temporary, _File(descriptor, temporary, path, force))
