# SPDX-License-Identifier: Apache-2.0
"""Threads for calls that run side by side."""

from __future__ import annotations

import concurrent.futures
import os
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


class _Queue:
    """The calls that wait, and the threads that carry them out."""

    def __init__(self) -> None:
        # Reentrant: the collector may call close() in a thread that holds the lock.
        self.changed = threading.Condition(threading.RLock())
        self.tasks: deque[_Task] = deque()
        self.threads: set[threading.Thread] = set()  # those that run
        self.idle = 0  # of them
        self.closed = False

    def start(self, name: str, task: _Task) -> None:
        """Start a thread for a task that waits."""
        thread = threading.Thread(target=self._work, name=name, daemon=True)
        self.threads.add(thread)
        try:
            thread.start()
        except Exception:
            # An interrupt is no such case: by then the thread runs, or is about to.
            self.threads.remove(thread)
            # Another thread may take it, when it has ended what it is at.
            if not self.threads:
                self.tasks.remove(task)
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
        with self.changed:
            while not self.tasks:
                self.idle += 1
                told = not self.closed and self.changed.wait(_IDLE)
                self.idle -= 1
                if not told and not self.tasks:
                    self.threads.remove(threading.current_thread())
                    return None
            return self.tasks.popleft()

    def close(self) -> None:
        """Have the threads end when no call waits any more."""
        with self.changed:
            self.closed = True
            self.changed.notify_all()


class Workers:
    """Runs calls on threads, a bounded number of them at a time, in the order of `submit`.

    Two things are other than with the executors of the standard library. Calls are taken also when
    the main thread has ended, as long as another thread keeps the process going: a program may
    still remove images then, as glance-scrubber does. And a call that never returns does not keep
    the process from ending.

    Threads are started when they are needed. They end when they have been idle for a while, or when
    this object is closed or collected. In a forked process there are none: make another object
    there.

    :param threads: how many at most
    :param name: of the threads
    """

    def __init__(self, threads: int, name: str) -> None:
        self._limit = max(1, threads)
        self._name = name
        self._process = os.getpid()
        # The threads hold this alone: an object that nobody has any more is noticed.
        self._queue = _Queue()

    # An argument: at the end of the interpreter there may be no module any more.
    def __del__(self, getpid: Callable[[], int] = os.getpid) -> None:
        # A forked child has no threads to end, and one of them may hold the lock for ever.
        if self._process == getpid():
            self._queue.close()

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
        queue = self._queue
        with queue.changed:
            if queue.closed:
                raise RuntimeError(f"the threads {self._name} have been told to end")
            queue.tasks.append(task)
            if queue.idle >= len(queue.tasks):
                queue.changed.notify()
            elif len(queue.threads) < self._limit:
                queue.start(self._name, task)
        return future

    def close(self, wait: bool = False) -> None:
        """Take no further calls; those that were taken are carried out, then the threads end.

        :param wait: until they have ended; not from one of them
        """
        queue = self._queue
        queue.close()
        if wait:
            with queue.changed:
                threads = list(queue.threads)
            for thread in threads:
                thread.join()
