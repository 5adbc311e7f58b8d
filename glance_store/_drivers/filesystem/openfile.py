# SPDX-License-Identifier: Apache-2.0
"""Open files whose descriptor is closed once, and never while a call uses it."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

from glance_store import exceptions
from glance_store.transfer.threads import Calls

_T = TypeVar("_T")


class GuardedFile:
    """An open file whose calls are bounded in time; the last call that hangs in it closes it.

    No lock: held while another thread forks, it would stay held in the child.
    """

    def __init__(self, calls: Calls, fd: int) -> None:
        self._calls = calls
        self._fd = fd
        self._owned = [fd]  # whoever pops it closes it
        self._users: list[None] = []  # one entry per running call
        self._closed = False
        self.late = False  # whether a call has timed out

    def call(self, function: Callable[..., _T], *args: Any) -> _T:
        """Run ``function(fd, *args)`` within the timeout."""
        run: Callable[..., _T] = self.run
        try:
            return self._calls.call(run, function, *args)
        except exceptions.TimeoutError:
            self.late = True
            raise

    def run(self, function: Callable[..., _T], *args: Any) -> _T:
        """Run ``function(fd, *args)`` inside a call that is already bounded."""
        self._users.append(None)
        try:
            # In this order, either close() sees this call, or this call sees close().
            if self._closed:
                raise ValueError("The file is closed")
            return function(self._fd, *args)
        finally:
            self._users.pop()
            if self._closed:
                self._close_unused()

    def _close_unused(self) -> None:
        if self._users:
            return
        try:
            fd = self._owned.pop()
        except IndexError:
            return
        os.close(fd)

    def release(self) -> None:
        """Close the file inside a bounded call, or leave that to the last call that uses it."""
        self._closed = True
        self._close_unused()

    def close(self) -> None:
        """Close the file within the timeout; OSError if written data could not be stored."""
        self.call(self._shut)

    def _shut(self, _fd: int) -> None:
        # run() closes it as its last user.
        self._closed = True

    def drop(self) -> None:
        """Have the file closed, without waiting for it."""
        self._closed = True
        if self._owned:
            self._calls.cleanup(self._close_unused)

    def __del__(self) -> None:
        self.drop()


class DirectFile:
    """An open file for calls without a timeout, and for one thread at a time."""

    __slots__ = ("_fd",)
    late = False

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def call(self, function: Callable[..., _T], *args: Any) -> _T:
        """Run ``function(fd, *args)``."""
        return function(self._fd, *args)

    run = call

    def close(self) -> None:
        """Close the file; closing it again does no harm."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    release = drop = close

    def __del__(self) -> None:
        self.close()


def exclusive_file(calls: Calls, fd: int) -> GuardedFile | DirectFile:
    """Return an open file for one upload; without a timeout its calls need not be counted."""
    return GuardedFile(calls, fd) if calls.timeout else DirectFile(fd)
