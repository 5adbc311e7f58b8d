# SPDX-License-Identifier: Apache-2.0
"""Linux system calls that Python lacks, and the errors of file operations."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import functools
import os
import stat
from collections.abc import Callable
from typing import Any, Literal, NoReturn

from glance_store import exceptions
from glance_store.i18n import _

FULL = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}
_MISSING = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}
# Errors that pass: of a process without free descriptors or memory, and of a network file system
# that cannot reach its server or whose Kerberos ticket has expired.
LOST = {
    *(errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM),
    *(errno.ENOKEY, errno.EKEYEXPIRED, errno.EKEYREVOKED),
    *(errno.ESTALE, errno.ETIMEDOUT, errno.EREMOTEIO, errno.ENODEV, errno.ENXIO),
    *(errno.ENOTCONN, errno.ESHUTDOWN, errno.ECONNRESET, errno.ECONNREFUSED, errno.ECONNABORTED),
    *(errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH),
}
# EIO may be a broken disk, or a file server that does not answer a soft mount: later it may work.
# Calls that only help, or look at one file of many, do not count it among those that pass.
UNAVAILABLE = LOST | {errno.EIO}
# Errors of a file system that does not support a call, or this form of it. 524 (ENOTSUPP) is meant
# for the kernel alone, but NFS and others let it out.
UNSUPPORTED = {errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EISDIR, errno.ENOTTY, 524}

# Seconds to look for room: XFS frees the space of deleted files in the background.
ROOM_LAGS = 0.5

_SYNC_FILE_RANGE_WRITE = 2
# Wait for what is being written, write the rest, and wait for that.
_SYNC_FILE_RANGE_DONE = 1 | _SYNC_FILE_RANGE_WRITE | 4
_RENAME_NOREPLACE = 1


@functools.cache
def _function(name: str, *argument_types: Any) -> Callable[..., int] | None:
    function = getattr(ctypes.CDLL(None, use_errno=True), name, None)
    if function is None:
        return None
    function.argtypes = argument_types
    function.restype = ctypes.c_int
    return function  # type: ignore[no-any-return]


def _call(function: Callable[..., int] | None, *args: Any) -> None:
    if function is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    while function(*args):
        code = ctypes.get_errno()
        if code != errno.EINTR:
            raise OSError(code, os.strerror(code))


def open_directory(path: str) -> int:
    """Open a directory, even one that this process may not list, and return its descriptor."""
    flags = os.O_DIRECTORY | os.O_CLOEXEC
    try:
        return os.open(path, os.O_RDONLY | flags)
    except PermissionError:
        # Files can be created in a directory that this process may not list.
        return os.open(path, os.O_PATH | flags)


def figures(path: str | int) -> os.statvfs_result | None:
    """Return a file system's statistics, None if it has none."""
    try:
        return os.statvfs(path)
    except OSError as exc:
        # Images can be stored even if a policy forbids statvfs() or its result overflows.
        if exc.errno in LOST or exc.errno in _MISSING:
            raise
        return None


def free(figures: os.statvfs_result | None) -> int | None:
    """Return the free bytes in a file system's statistics, None if they mean nothing."""
    # Network and FUSE file systems report all zeros when they do not know. More free than total
    # space means nothing either.
    if figures is None or not figures.f_blocks or not 0 <= figures.f_bavail <= figures.f_blocks:
        return None
    unit = figures.f_frsize or figures.f_bsize
    return figures.f_bavail * unit if unit else None


def free_bytes(path: str | int) -> int | None:
    """Return the bytes that this process's user may still write, None if unknown."""
    return free(figures(path))


def remove(path: str) -> None:
    """Remove a file. What a file server has done counts, not what it answered."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        raise
    except OSError as exc:
        try:
            status = os.lstat(path)
            if exc.errno in FULL and stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
                # A full ZFS or btrfs has no room to note a removal; freeing the data makes some.
                os.truncate(path, 0)
                os.unlink(path)
                return
        except FileNotFoundError:
            return
        except OSError:
            # Unknown: report the first error.
            pass
        raise exc from None


def preallocate(fd: int, size: int) -> None:
    """Reserve disk space for a file, and make it that long.

    Not `os.posix_fallocate`: where the file system cannot, the C library writes to every block.
    """
    function = _function("fallocate", ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    _call(function, fd, 0, 0, size)


def start_writeback(fd: int, offset: int, length: int) -> None:
    """Have the kernel start writing a range to disk, without waiting for it."""
    _sync_range(fd, offset, length, _SYNC_FILE_RANGE_WRITE)


def finish_writeback(fd: int, offset: int, length: int) -> None:
    """Have the kernel write a range to disk; not a flush, which also writes metadata."""
    _sync_range(fd, offset, length, _SYNC_FILE_RANGE_DONE)


def _sync_range(fd: int, offset: int, length: int, flags: int) -> None:
    function = _function(
        "sync_file_range", ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint
    )
    _call(function, fd, offset, length, flags)


def rename_exclusive(old: str, new: str, dir_fd: int) -> None:
    """Rename a file in a directory unless the new name is taken."""
    function = _function(
        "renameat2", ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint
    )
    _call(function, dir_fd, os.fsencode(old), dir_fd, os.fsencode(new), _RENAME_NOREPLACE)


def lock(fd: int) -> bool:
    """Wait for the lock of an open file or directory; False if it cannot be locked."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
    except OSError as exc:
        # EBADF: NFS locks only what is open for writing, which a directory never is.
        if exc.errno not in UNSUPPORTED | {errno.EBADF, errno.ENOLCK}:
            raise
        return False
    return True


def hold(fd: int) -> bool:
    """Lock a writable file until it is closed; False if it is locked already or cannot be."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def is_held(fd: int) -> bool:
    """Tell whether somebody else has locked a writable file; False if it cannot be locked."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError as exc:
        if exc.errno not in UNSUPPORTED | {errno.ENOLCK}:
            raise
        return False
    unlock(fd)
    return False


def unlock(fd: int) -> None:
    fcntl.flock(fd, fcntl.LOCK_UN)


class writing:  # noqa: N801 - used as a statement, like open()
    """Translate errors of writing a file; those without a matching exception stay as they are."""

    __slots__ = ("_path",)

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, _kind: object, error: BaseException | None, _traceback: object
    ) -> Literal[False]:
        if isinstance(error, OSError):
            translated = _writing_error(error, self._path)
            if translated is not None:
                raise translated from error
        return False


def _writing_error(error: OSError, path: str) -> exceptions.GlanceStoreException | None:
    if isinstance(error, FileExistsError):
        return exceptions.Duplicate(image=path)
    if error.errno in FULL:
        return exceptions.StorageFull(
            _("There is no room for the image at %(path)s: %(reason)s"),
            path=path,
            reason=error.strerror,
        )
    if error.errno in _DENIED or error.errno in _MISSING:
        return exceptions.StorageWriteDenied(
            _(
                "The image cannot be written to %(path)s: %(reason)s; check the owner of the "
                "directory and how it is mounted"
            ),
            path=path,
            reason=error.strerror,
        )
    if error.errno in UNAVAILABLE:
        return exceptions.BackendUnavailable(
            _("The image cannot be written to %(path)s: %(reason)s"),
            path=path,
            reason=error.strerror,
        )
    return None


def raise_reading_error(exc: OSError, path: str) -> NoReturn:
    """Raise the exception for an error of reading a file, else the error itself.

    A function, not a context manager: it is in the path of every read.
    """
    if exc.errno in _MISSING:
        raise exceptions.NotFound(image=path) from exc
    if exc.errno in _DENIED:
        raise exceptions.Forbidden(
            _("The image file %(path)s cannot be read: %(reason)s"),
            path=path,
            reason=exc.strerror,
        ) from exc
    if exc.errno in UNAVAILABLE:
        raise exceptions.BackendUnavailable(
            _("The image file %(path)s cannot be read: %(reason)s"),
            path=path,
            reason=exc.strerror,
        ) from exc
    raise exc
