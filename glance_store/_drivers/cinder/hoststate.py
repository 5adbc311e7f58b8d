# SPDX-License-Identifier: Apache-2.0
"""What the processes of this host share: locks, and counts of who uses a device or a mount.

Both are files, so that they hold for all workers and all users of the image service. What a killed
process has left does not count.
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

_POLL = 0.02
_LONGEST_POLL = 0.5


_held = threading.local()
# Those of this process, by path.
_mine: dict[str, int] = {}


def _forget() -> None:
    """Close what the parent uses, in a forked process: its end must not wait for ours."""
    for file in _mine.values():
        os.close(file)
    _mine.clear()


os.register_at_fork(after_in_child=_forget)


def holds_a_lock() -> bool:
    """Tell whether this thread holds a lock of `locked`, for which it must not wait itself."""
    return bool(getattr(_held, "count", 0))


@contextlib.contextmanager
def locked(path: str, seconds: float) -> Iterator[None]:
    """Hold a lock among all threads and processes of this host.

    :param path: of the lock's file
    :param seconds: how long to wait for it
    :raises CinderTimeout: another process keeps it
    """
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        _acquire(file, path, seconds)
        _held.count = getattr(_held, "count", 0) + 1
        try:
            yield
        finally:
            _held.count -= 1
            # Not left to close(): a process that was forked meanwhile has the file open as well.
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
                        "Another process of this host has held %(path)s for %(timeout)s seconds: "
                        "it may hang in an attachment or a mount"
                    ),
                    path=path,
                    timeout=seconds,
                ) from None
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_POLL)


class Users:
    """Who uses one thing of this host; changed under a lock only.

    Each attachment has a file, which its process holds locked. The kernel lets go of the lock when
    the process ends, however it ends, and whatever processes this one can see: those of other
    containers count as long as they share the folder.

    :param folder: of the files
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def _path(self, attachment_id: str) -> str:
        return os.path.join(self._folder, attachment_id)

    def add(self, attachment_id: str) -> None:
        """Note an attachment of this process.

        :param attachment_id: its id
        :raises OSError: it cannot be noted
        """
        os.makedirs(self._folder, mode=0o755, exist_ok=True)
        path = self._path(attachment_id)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            os.close(file)
            raise
        _mine[path] = file

    def remove(self, attachment_id: str) -> int:
        """Forget an attachment.

        :param attachment_id: its id
        :returns: how many are left
        """
        path = self._path(attachment_id)
        file = _mine.pop(path, None)
        if file is not None:
            # Not left to close(): a process that was forked meanwhile has the file open as well.
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
        """Return how many live; the files of the others go."""
        try:
            names = os.listdir(self._folder)
        except FileNotFoundError:
            return 0
        return sum(not self._is_dead(os.path.join(self._folder, name)) for name in names)

    @staticmethod
    def _is_dead(path: str) -> bool:
        try:
            file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(path)
        except BlockingIOError:
            return False
        finally:
            os.close(file)
        return True
