# SPDX-License-Identifier: Apache-2.0
"""Locks and attachment lists that all processes of this host share.

Both are files, so they hold for all workers and users of the image service. Files left by a killed
process do not count.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Iterator

from glance_store._drivers.cinder import errors
from glance_store.i18n import _
from glance_store.transfer.owners import make_shared, open_shared

_POLL = 0.02
_LONGEST_POLL = 0.5


_held = threading.local()
# Open files of this process, by path.
_open_files: dict[str, int] = {}


def _forget() -> None:
    """Close the parent's files in a forked child, which would otherwise keep them locked."""
    for file in _open_files.values():
        os.close(file)
    _open_files.clear()


os.register_at_fork(after_in_child=_forget)


def holds_a_lock() -> bool:
    """Tell whether this thread holds a lock of `locked`, and could wait for itself."""
    return bool(getattr(_held, "count", 0))


@contextlib.contextmanager
def locked(path: str, seconds: float) -> Iterator[None]:
    """Hold a lock among all threads and processes of this host; raise CinderTimeout if late."""
    make_shared(os.path.dirname(path), 0o755)
    file = open_shared(path, 0o644)
    try:
        _acquire(file, path, seconds)
        _held.count = getattr(_held, "count", 0) + 1
        try:
            yield
        finally:
            _held.count -= 1
            # close() is not enough: a child forked meanwhile has the file open as well.
            fcntl.flock(file, fcntl.LOCK_UN)
    finally:
        os.close(file)


def _acquire(file: int, path: str, seconds: float) -> None:
    deadline, pause = time.monotonic() + seconds, _POLL
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise errors.CinderTimeout(
                    _(
                        "Another process of this host has held %(path)s for %(timeout)s "
                        "seconds: it may hang in an attachment or a mount"
                    ),
                    path=path,
                    timeout=seconds,
                ) from None
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_POLL)


class Users:
    """The attachments that use one device or mount of this host; change it only under a lock.

    Each attachment has a file that its process keeps locked. The kernel releases the lock when the
    process ends, however it ends. This works across containers that share the folder, although they
    cannot see each other's processes.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def _path(self, attachment_id: str) -> str:
        return os.path.join(self._folder, attachment_id)

    def add(self, attachment_id: str) -> None:
        """Register an attachment of this process. Raises OSError."""
        make_shared(self._folder, 0o755)
        path = self._path(attachment_id)
        file = open_shared(path, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except BaseException:
            os.close(file)
            raise
        _open_files[path] = file

    def remove(self, attachment_id: str) -> int:
        """Forget an attachment, and return how many are left."""
        path = self._path(attachment_id)
        file = _open_files.pop(path, None)
        if file is not None:
            # close() is not enough: a child forked meanwhile has the file open as well.
            fcntl.flock(file, fcntl.LOCK_UN)
            os.close(file)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        left = self._count()
        if not left:
            with contextlib.suppress(OSError):
                os.rmdir(self._folder)
        return left

    def _count(self) -> int:
        """Return the number of live attachments, and delete the files of dead ones."""
        try:
            names = os.listdir(self._folder)
        except FileNotFoundError:
            return 0
        living = 0
        for path in (os.path.join(self._folder, name) for name in names):
            if _is_locked(path):
                living += 1
            else:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
        return living

    def has_ended(self, attachment_id: str) -> bool:
        """Tell whether a process of this host had an attachment, and has ended with it.

        :param attachment_id: its id
        """
        path = self._path(attachment_id)
        return os.path.exists(path) and not _is_locked(path)


def _is_locked(path: str) -> bool:
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False
