# SPDX-License-Identifier: Apache-2.0
"""Calls on a file system that may never return.

A call on a dead network mount cannot be interrupted. With a timeout it runs on a thread of a
bounded pool, and the caller goes on with an error. The call itself stays stuck; what it does should
it come back one day is part of the design: it must not touch a descriptor that has been closed, and
it must not publish an image whose upload was reported as failed.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from concurrent import futures
from typing import Any, TypeVar

from glance_store import exceptions
from glance_store.transfer.workers import Workers

LOG = logging.getLogger(__name__)

_T = TypeVar("_T")


class CallGuard:
    """Bounds the time of calls.

    :param timeout: seconds; 0 runs every call in the caller's thread, without a bound
    :param threads: size of the pool
    :param threshold: percentage of busy threads from which on a warning is logged
    :param name: name of the store, for the log
    """

    def __init__(self, timeout: int, threads: int, threshold: int, name: str) -> None:
        self.timeout = timeout
        self._threads = threads
        self._threshold = threshold
        self._name = name
        self._lock = threading.Lock()
        self._pool: Workers | None = None
        self._pid = 0
        self._busy = 0

    def call(
        self,
        function: Callable[..., _T],
        *args: Any,
        late: Callable[[_T], object] | None = None,
        never: Callable[[], object] | None = None,
    ) -> _T:
        """Run a function within the timeout.

        :param function: what to call
        :param args: its arguments
        :param late: called with the result should the function succeed after the timeout
        :param never: called when the function was not started at all
        :returns: its result
        :raises TimeoutError: it did not return in time
        """
        if not self.timeout:
            return function(*args)
        future = self._submit(function, *args)
        try:
            return future.result(self.timeout)
        except futures.TimeoutError:
            if future.done():
                # The function has raised it itself, or has come back in this very moment.
                return future.result()
        if future.cancel():
            if never is not None:
                never()
        elif late is not None:
            _when_late(future, late)
        raise exceptions.TimeoutError(timeout=self.timeout)

    def _submit(self, function: Callable[..., _T], *args: Any) -> futures.Future[_T]:
        with self._lock:
            if self._pool is None or self._pid != os.getpid():
                # The threads of a pool do not live on in a forked process.
                self._pool = Workers(self._threads, "glance_store-file")
                self._pid, self._busy = os.getpid(), 0
            future = self._pool.submit(function, *args)
            self._busy += 1
            busy = self._busy
        future.add_done_callback(self._finished)
        if busy * 100 >= self._threads * self._threshold:
            LOG.warning(
                "Store %s: %d calls wait for the file system, which the pool of %d threads serves; "
                "is it slow or gone? See filesystem_store_thread_pool_size",
                self._name,
                busy,
                self._threads,
            )
        return future

    def _finished(self, _future: futures.Future[Any]) -> None:
        with self._lock:
            self._busy -= 1

    def close(self) -> None:
        """Start no further call; threads end when their calls return."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None and self._pid == os.getpid():
            pool.close()


def _when_late(future: futures.Future[_T], late: Callable[[_T], object]) -> None:
    def run(done: futures.Future[_T]) -> None:
        if done.exception() is None:
            late(done.result())

    future.add_done_callback(run)


class GuardedFile:
    """An open file whose calls are bounded in time; closed only when no call uses it any more.

    :param guard: bounds the calls
    :param fd: descriptor, owned by this object from now on
    """

    def __init__(self, guard: CallGuard, fd: int) -> None:
        self._guard = guard
        self._fd = fd
        self._lock = threading.Lock()
        self._calls = 0
        self._closed = False

    def call(self, function: Callable[..., _T], *args: Any) -> _T:
        """Run ``function(fd, *args)`` within the timeout.

        :raises TimeoutError: it did not return in time
        :raises ValueError: the file is closed
        """
        with self._lock:
            if self._closed:
                raise ValueError("The file is closed")
            self._calls += 1
        run: Callable[..., _T] = self._run
        if self._guard.timeout:
            return self._guard.call(run, function, *args, never=self._finished)
        return run(function, *args)

    def call_unguarded(self, function: Callable[..., _T], *args: Any) -> _T:
        """Run ``function(fd, *args)`` inside of a call that is bounded in time already.

        :raises ValueError: the file is closed
        """
        with self._lock:
            if self._closed:
                raise ValueError("The file is closed")
            self._calls += 1
        return self._run(function, *args)

    def _run(self, function: Callable[..., _T], *args: Any) -> _T:
        try:
            return function(self._fd, *args)
        finally:
            self._finished()

    def _finished(self) -> None:
        with self._lock:
            self._calls -= 1
            last = self._closed and not self._calls
        if last:
            os.close(self._fd)

    def close(self) -> None:
        """Close the file, or have the last call do so that is still stuck in it."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            idle = not self._calls
        if idle:
            self._guard.call(os.close, self._fd)


class DirectFile:
    """An open file for calls without a timeout, and for one thread at a time.

    :param fd: descriptor, owned by this object from now on
    """

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def call(self, function: Callable[..., _T], *args: Any) -> _T:
        """Run ``function(fd, *args)``."""
        return function(self._fd, *args)

    call_unguarded = call

    def close(self) -> None:
        """Close the file; again does no harm."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def exclusive_file(guard: CallGuard, fd: int) -> GuardedFile | DirectFile:
    """Return an open file that is not closed by one thread while another one uses it.

    Where calls cannot be left behind either, nothing has to be counted.

    :param guard: bounds the calls
    :param fd: descriptor, owned by the result from now on
    """
    return GuardedFile(guard, fd) if guard.timeout else DirectFile(fd)
