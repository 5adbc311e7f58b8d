# SPDX-License-Identifier: Apache-2.0
"""Calls of Linux that Python does not offer, and the errors of those that it does."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import functools
import os
from collections.abc import Callable
from typing import Any, Literal, NoReturn

from glance_store import exceptions
from glance_store.i18n import _

FULL = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}
_MISSING = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}
# What the client of a file server answers that cannot reach it. Not EIO: that is a broken disk as
# well, which does not pass.
LOST = {
    *(errno.ESTALE, errno.ETIMEDOUT, errno.EREMOTEIO, errno.ENODEV, errno.ENXIO),
    *(errno.ENOTCONN, errno.ESHUTDOWN, errno.ECONNRESET, errno.ECONNREFUSED, errno.ECONNABORTED),
    *(errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH),
}
# What a file system answers that does not know a call, or not this form of it.
UNSUPPORTED = {errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EISDIR}

_SYNC_FILE_RANGE_WRITE = 2
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
    """Open a directory to work in it.

    :param path: the directory
    :returns: its descriptor
    :raises OSError: it cannot be opened
    """
    flags = os.O_DIRECTORY | os.O_CLOEXEC
    try:
        return os.open(path, os.O_RDONLY | flags)
    except PermissionError:
        # Files can be made in a directory that this process may not list.
        return os.open(path, os.O_PATH | flags)


def figures(path: str | int) -> os.statvfs_result | None:
    """Return what a file system says of itself, None when it says nothing.

    :param path: a file or directory, or a descriptor of it
    :raises OSError: the file system is out of reach, or there is no such file
    """
    try:
        return os.statvfs(path)
    except OSError as exc:
        # Where a policy forbids the question or the answer is too large, images can be stored.
        if exc.errno in LOST or exc.errno in _MISSING:
            raise
        return None


def free(figures: os.statvfs_result | None) -> int | None:
    """Return the free bytes that figures tell, None when they tell nothing.

    :param figures: from `figures`
    """
    # All zeros is how network and FUSE file systems say that they do not know, and more room than
    # there is in all means nothing either.
    if figures is None or not figures.f_blocks or not 0 <= figures.f_bavail <= figures.f_blocks:
        return None
    unit = figures.f_frsize or figures.f_bsize
    return figures.f_bavail * unit if unit else None


def free_bytes(path: str | int) -> int | None:
    """Return the bytes that the user of this process may still write.

    :param path: a file or directory, or a descriptor of it
    :returns: None when the file system does not say
    """
    return free(figures(path))


def remove(path: str) -> None:
    """Remove a file. What a file server has done counts, whatever it has answered.

    :param path: the file
    :raises FileNotFoundError: there is none
    :raises OSError: it is still there
    """
    try:
        os.unlink(path)
    except FileNotFoundError:
        raise
    except OSError as exc:
        try:
            os.lstat(path)
        except FileNotFoundError:
            return
        except OSError:
            # Nobody can tell: the first answer is the one to report.
            pass
        raise exc from None


def preallocate(fd: int, size: int) -> None:
    """Set disk space aside for a file, and make it that long.

    Not `os.posix_fallocate`: where the file system cannot, the C library writes to every block.

    :param fd: descriptor
    :param size: bytes, at least 1
    :raises OSError: no space (ENOSPC, EDQUOT), or not supported (`UNSUPPORTED`)
    """
    function = _function("fallocate", ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    _call(function, fd, 0, 0, size)


def start_writeback(fd: int, offset: int, length: int) -> None:
    """Let the kernel begin to write a range to the disk, without waiting for it.

    :param fd: descriptor
    :param offset: first byte
    :param length: bytes
    :raises OSError: not supported (`UNSUPPORTED`), or an earlier write has failed
    """
    function = _function(
        "sync_file_range", ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint
    )
    _call(function, fd, offset, length, _SYNC_FILE_RANGE_WRITE)


def rename_exclusive(old: str, new: str, dir_fd: int) -> None:
    """Rename a file unless the new name is taken.

    :param old: name in the directory
    :param new: name in the directory
    :param dir_fd: descriptor of the directory
    :raises FileExistsError: the new name is taken
    :raises OSError: not supported (`UNSUPPORTED`), or another failure
    """
    function = _function(
        "renameat2", ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint
    )
    _call(function, dir_fd, os.fsencode(old), dir_fd, os.fsencode(new), _RENAME_NOREPLACE)


def lock(fd: int) -> bool:
    """Wait for the lock of an open file or directory.

    :param fd: descriptor
    :returns: False where the file system has none for it
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
    except OSError as exc:
        # EBADF: NFS locks only what is open for writing, which a directory never is.
        if exc.errno not in UNSUPPORTED | {errno.EBADF, errno.ENOLCK}:
            raise
        return False
    return True


def hold(fd: int) -> bool:
    """Take the lock of an open file if it is free, until the file is closed.

    :param fd: descriptor of a file that is open for writing
    :returns: False when somebody else has it, or the file system has none
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def is_held(fd: int) -> bool:
    """Tell whether somebody else has the lock of an open file.

    :param fd: descriptor of a file that is open for writing
    :returns: False also where the file system has no locks
    """
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
    """Give the lock back.

    :param fd: descriptor
    """
    fcntl.flock(fd, fcntl.LOCK_UN)


class writing:  # noqa: N801 - used as a statement, like open()
    """Translate the errors of writing a file; errors that no exception describes stay as they are.

    :param path: the image file, for the text
    :raises StorageFull: no space, quota or file size limit
    :raises StorageWriteDenied: no permission, a read-only file system, or no directory
    :raises Duplicate: the file exists
    :raises BackendUnavailable: the file system is out of reach
    """

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
                "The image cannot be written to %(path)s: %(reason)s; check who owns the "
                "directory and how it is mounted"
            ),
            path=path,
            reason=error.strerror,
        )
    if error.errno in LOST:
        return exceptions.BackendUnavailable(
            _("The image cannot be written to %(path)s: %(reason)s"),
            path=path,
            reason=error.strerror,
        )
    return None


def raise_reading_error(exc: OSError, path: str) -> NoReturn:
    """Raise the exception that describes an error of reading a file; else the error itself.

    A function, no context manager: it stands in the path of every read.

    :param exc: the error
    :param path: the image file, for the text
    :raises NotFound: there is no such file
    :raises Forbidden: no permission
    :raises BackendUnavailable: the file system is out of reach
    """
    if exc.errno in _MISSING:
        raise exceptions.NotFound(image=path) from exc
    if exc.errno in _DENIED:
        raise exceptions.Forbidden(
            _("The image file %(path)s cannot be read: %(reason)s"),
            path=path,
            reason=exc.strerror,
        ) from exc
    if exc.errno in LOST:
        raise exceptions.BackendUnavailable(
            _("The image file %(path)s cannot be read: %(reason)s"),
            path=path,
            reason=exc.strerror,
        ) from exc
    raise exc
