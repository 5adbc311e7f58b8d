# SPDX-License-Identifier: Apache-2.0
"""Threads for calls that run side by side."""

from __future__ import annotations

import concurrent.futures
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

_T = TypeVar("_T")

# Seconds after which a thread ends that has nothing to do.
_IDLE = 10.0


class _Task(NamedTuple):
    future: concurrent.futures.Future[Any]
    function: Callable[..., Any]
    arguments: tuple[Any, ...]


class Workers:
    """Runs calls on threads, a bounded number of them at a time, in the order of `submit`.

    Two things are other than with the executors of the standard library. Calls are taken also when
    the main thread has ended, as long as another thread keeps the process going: a program may
    still remove images then, as glance-scrubber does. And a call that never returns does not keep
    the process from ending.

    Threads are started when they are needed, and end when they have been idle for a while. In a
    forked process there are none: make another object there.

    :param threads: how many at most
    :param name: of the threads
    """

    def __init__(self, threads: int, name: str) -> None:
        self._limit = max(1, threads)
        self._name = name
        self._changed = threading.Condition()
        self._tasks: deque[_Task] = deque()
        self._threads: set[threading.Thread] = set()  # those that run
        self._idle = 0  # of them
        self._closed = False

    def submit(self, function: Callable[..., _T], *arguments: Any) -> concurrent.futures.Future[_T]:
        """Have a function called.

        :param function: what to call
        :param arguments: of the call
        :returns: what will have its result, or what it raises; cancelled before a thread has taken
            it, the function is not called
        :raises RuntimeError: this object is closed, or there is no thread and none can be started
        """
        future: concurrent.futures.Future[_T] = concurrent.futures.Future()
        task = _Task(future, function, arguments)
        with self._changed:
            if self._closed:
                raise RuntimeError(f"the threads {self._name} have been told to end")
            self._tasks.append(task)
            if self._idle >= len(self._tasks):
                self._changed.notify()
            elif len(self._threads) < self._limit:
                self._start(task)
        return future

    def _start(self, task: _Task) -> None:
        thread = threading.Thread(target=self._work, name=self._name, daemon=True)
        self._threads.add(thread)
        try:
            thread.start()
        except Exception:
            # An interrupt is no such case: by then the thread runs, or is about to.
            self._threads.remove(thread)
            # Another thread may take it, when it has ended what it is at.
            if not self._threads:
                self._tasks.remove(task)
                raise

    def _work(self) -> None:
        while (task := self._next()) is not None:
            if task.future.set_running_or_notify_cancel():
                try:
                    task.future.set_result(task.function(*task.arguments))
                except BaseException as exc:  # noqa: BLE001 - it is raised where the result is wanted
                    task.future.set_exception(exc)
            # Neither the result nor the arguments are kept until there is something else to do.
            del task

    def _next(self) -> _Task | None:
        with self._changed:
            while not self._tasks:
                self._idle += 1
                told = not self._closed and self._changed.wait(_IDLE)
                self._idle -= 1
                if not told and not self._tasks:
                    self._threads.remove(threading.current_thread())
                    return None
            return self._tasks.popleft()

    def close(self, wait: bool = False) -> None:
        """Take no further calls; those that were taken are carried out, then the threads end.

        :param wait: until they have ended; not from one of them
        """
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            threads = list(self._threads)
        if wait:
            for thread in threads:
                thread.join()
