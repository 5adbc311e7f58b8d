# SPDX-License-Identifier: Apache-2.0
"""Threads for calls: side by side, in time, or later.

A thread that submits may be interrupted at any point, may run the garbage collector while it does,
and another one may fork meanwhile. So nothing here waits with a lock held, locks are re-entrant and
taken by `with` (one bytecode), and what a count could lose is looked up where it is.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import logging
import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast

from glance_store import exceptions

LOG = logging.getLogger(__name__)

_T = TypeVar("_T")

# Seconds after which a thread ends that has nothing to do.
_IDLE = 10.0


class _Process:
    """The process that this one takes itself for: a child is its parent until `forked`."""

    pid = os.getpid()
    forks = 0  # since the first process: a pid may be that of an ancestor again

    @classmethod
    def forked(cls) -> None:
        cls.pid, cls.forks = os.getpid(), cls.forks + 1

    # Arguments: at the end of the interpreter there may be no module any more.
    @classmethod
    def has_threads(
        cls,
        getpid: Callable[[], int] = os.getpid,
        is_finalizing: Callable[[], bool] = sys.is_finalizing,
    ) -> bool:
        """Tell whether threads are there that would release their locks."""
        return cls.pid == getpid() and not is_finalizing()


os.register_at_fork(after_in_child=_Process.forked)


class _Crew:
    """The tasks that wait in one process, and the threads that carry them out."""

    def __init__(self, limit: int, name: str) -> None:
        self.lock = threading.RLock()
        self.tasks: deque[Callable[[], object]] = deque()
        self.threads: set[threading.Thread] = set()  # from their first task on
        self.idle: list[threading.Lock] = []  # released to wake a thread
        self.working = 0  # threads with a task
        self.closed = False
        self._limit = limit
        self._name = name

    def add(self, task: Callable[[], object]) -> int:
        """Have a task carried out; return how many wait or run."""
        # The collector may call this where this thread has the lock, and see to threads after it.
        nested = self.lock._is_owned()  # type: ignore[attr-defined]  # noqa: SLF001 - no other way
        with self.lock:
            self.tasks.append(task)
            load = len(self.tasks) + self.working
        if not nested:
            self._staff()
        return load

    def _staff(self) -> None:
        """Wake or start a thread if a task waits."""
        with self.lock:
            if not self.tasks:
                return
            if self.idle:
                self.idle.pop().release()
                return
            if len(self.threads) >= self._limit:
                return
        if sys.is_finalizing():
            raise RuntimeError("no thread can be started while the interpreter ends")
        try:
            # Without the lock: this waits for the new thread, in which the collector may want it.
            threading.Thread(target=self._work, name=self._name, daemon=True).start()
        except RuntimeError:
            # Another thread takes the task when it is done with its own.
            if not self.threads:
                raise

    def _work(self) -> None:
        while (task := self._next()) is not None:
            try:
                task()
            finally:
                # Neither task nor result is kept while the thread waits.
                del task
                with self.lock:
                    self.working -= 1
        with contextlib.suppress(RuntimeError):
            # The collector may have added a task after the last look.
            self._staff()

    def _next(self) -> Callable[[], object] | None:
        this = threading.current_thread()
        wake = threading.Lock()
        told = True
        while True:
            with self.lock:
                if wake in self.idle:
                    self.idle.remove(wake)
                # First this, then the look: a task that comes after the look starts a thread.
                if self.closed or not told:
                    self.threads.discard(this)
                if self.tasks and len(self.threads - {this}) < self._limit:
                    self.threads.add(this)
                    self.working += 1
                    return self.tasks.popleft()
                if this not in self.threads:
                    # It is to end, or others were started at the same time.
                    return None
            wake.acquire(blocking=False)
            self.idle.append(wake)
            # First this, then the look: a task that comes after the look wakes the thread.
            told = bool(self.tasks) or self.closed or wake.acquire(timeout=_IDLE)

    def close(self) -> None:
        """Let threads end as soon as no task waits."""
        with self.lock:
            self.closed = True
            while self.idle:
                self.idle.pop().release()


class Workers:
    """Run calls on threads, a bounded number at a time, in the order of `submit`.

    Unlike the executors of the standard library, it takes calls after the main thread has ended, as
    long as another thread keeps the process alive: glance-scrubber removes images then. And a call
    that never returns does not keep the process from ending.

    Threads start when they are needed, and end after a while without work, or when this object is
    closed or collected. A forked child starts without threads and without calls that wait.

    :param threads: maximum number
    :param name: of the threads
    """

    def __init__(self, threads: int, name: str) -> None:
        self._limit = max(1, threads)
        self._name = name
        # Those of ancestors stay untouched: their locks may be held, their tasks are not ours.
        # The threads hold the crew alone: a collected Workers is noticed.
        self._crews: dict[int, _Crew] = {}

    def __del__(self, process: type[_Process] = _Process) -> None:
        crew = self._crews.get(process.forks)
        if crew is not None and process.has_threads():
            crew.close()

    def _crew(self) -> _Crew:
        crew = self._crews.get(_Process.forks)
        return crew or self._crews.setdefault(_Process.forks, _Crew(self._limit, self._name))

    def put(self, task: Callable[[], object]) -> int:
        """Have a task carried out, also when closed.

        :param task: must not raise
        :returns: number of tasks that wait or run
        :raises RuntimeError: no thread runs, and none can be started; the task waits for the next
        """
        return self._crew().add(task)

    def submit(self, function: Callable[..., _T], *arguments: Any) -> concurrent.futures.Future[_T]:
        """Have a function called.

        :param function: what to call
        :param arguments: of the call
        :returns: its future result; cancelled before a thread has taken it, the function is not
            called
        :raises RuntimeError: this object is closed, or no thread runs and none can be started
        """
        future: concurrent.futures.Future[_T] = concurrent.futures.Future()

        def run() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(function(*arguments))
                except BaseException as exc:  # noqa: BLE001 - it is raised where the result is wanted
                    future.set_exception(exc)

        if self._crew().closed:
            raise RuntimeError(f"the threads {self._name} have been told to end")
        try:
            self.put(run)
        except BaseException:
            future.cancel()
            raise
        return future

    def close(self, wait: bool = False) -> None:
        """Take no further calls of `submit`; those taken are carried out, then the threads end.

        :param wait: until they have ended; not from one of them
        """
        crew = self._crew()
        crew.close()
        if wait:
            for thread in list(crew.threads):
                thread.join()


class Pending(Generic[_T]):
    """A call on its way to a thread, whose result the caller takes or leaves."""

    def __init__(
        self,
        function: Callable[..., _T],
        arguments: tuple[Any, ...],
        dispose: Callable[[_T], object] | None = None,
    ) -> None:
        # Whoever takes the only entry has it: pop() is one bytecode.
        self._work = [(function, arguments)]
        self._outcome: list[tuple[_T | None, BaseException | None]] = []
        self._dispose = dispose
        # Who was first: the thread with the result, or the caller who left. So is setdefault().
        self._first: dict[None, str] = {}
        self._over = threading.Lock()
        self._over.acquire()

    def run(self) -> None:
        """Make the call, unless the caller left before; on a thread."""
        try:
            function, arguments = self._work.pop()
        except IndexError:
            return
        try:
            self._outcome.append((function(*arguments), None))
        except BaseException as exc:  # noqa: BLE001 - it is raised in the caller's thread
            self._outcome.append((None, exc))
        if self._first.setdefault(None, "thread") == "thread":
            self._over.release()
        else:
            self.discard()

    def wait(self, timeout: float) -> bool:
        """Wait for the result; False: it did not come within `timeout` seconds."""
        return self._over.acquire(timeout=timeout)

    def leave(self) -> bool:
        """Leave the result to the disposer; False: it is there, and the caller's to discard."""
        self._work.clear()
        return self._first.setdefault(None, "caller") == "caller"

    def take(self) -> _T:
        """Return the result, or raise what the call raised."""
        result, error = self._outcome.pop()
        try:
            if error is not None:
                raise error
        finally:
            # Its traceback would lead back to it.
            del error
        return cast("_T", result)

    def discard(self) -> None:
        """Give the result to the disposer, unless it was taken or is an error."""
        while self._outcome:
            result, error = self._outcome.pop()
            if error is None and self._dispose is not None:
                _logged(self._dispose, result)


def _logged(function: Callable[..., object], *arguments: Any) -> None:
    """Call a function whose error nobody waits for."""
    try:
        function(*arguments)
    except Exception:
        LOG.warning("Cleaning up after a call failed", exc_info=True)


class Calls:
    """Make calls that return in time, and clean up after those that do not.

    A call on a dead network mount cannot be interrupted. With a timeout it runs on a thread, and
    the caller goes on with an error. The call stays stuck; what it does when it comes back is part
    of the caller's design.

    :param timeout: seconds that a call may take; 0: all calls run in the caller's thread, unbounded
    :param threads: maximum number of calls at once; others wait within their time
    :param name: of the threads
    :param note: called before each wait with the number of calls that wait or run
    """

    def __init__(
        self,
        timeout: float,
        threads: int,
        name: str,
        note: Callable[[int], object] | None = None,
    ) -> None:
        self.timeout = timeout
        self._note = note
        self._workers = Workers(threads, name)
        # Stuck calls do not take the threads of what cleans up after them.
        self._cleaners = Workers(threads, f"{name}-cleanup")

    def call(
        self,
        function: Callable[..., _T],
        *arguments: Any,
        dispose: Callable[[_T], object] | None = None,
    ) -> _T:
        """Call a function and return in time.

        An interrupt between this result and its assignment loses it: what must not get lost lets
        go of itself when it is collected.

        :param function: what to call; not called at all when no thread is free in time
        :param arguments: of the call
        :param dispose: called with a result that nobody takes, after a timeout or an interrupt
        :returns: the result
        :raises TimeoutError: it did not return in time
        :raises RuntimeError: no thread runs, and none can be started
        """
        if not self.timeout:
            return function(*arguments)
        pending = Pending(function, arguments, dispose)
        try:
            calls = self._workers.put(pending.run)
            if self._note is not None:
                self._note(calls)
            if not pending.wait(self.timeout) and pending.leave():
                raise exceptions.TimeoutError(timeout=self.timeout)
        except BaseException:
            if not pending.leave():
                self.cleanup(pending.discard)
            raise
        return pending.take()

    def cleanup(
        self,
        function: Callable[..., object],
        *arguments: Any,
        wait: float = 0.0,
        process: type[_Process] = _Process,
    ) -> None:
        """Have something closed or removed, now or as soon as the backend answers.

        It has threads of its own, is never cancelled, and its errors are logged. It may be called
        from `__del__`. What is left when the process ends is not done. Without a timeout it is done
        in the caller's thread.

        :param function: what to call, once
        :param arguments: of the call
        :param wait: seconds to wait for it, where the backend is known to answer; 0 returns at once
        """
        if not self.timeout:
            function(*arguments)
            return
        if not process.has_threads():
            # The process ends, or it is a child that has collected what its parent had.
            return
        pending = Pending(_logged, (function, *arguments))
        try:
            self._cleaners.put(pending.run)
        except RuntimeError as exc:
            LOG.warning("Cleaning up waits for a thread: %s", exc)
            return
        if wait:
            pending.wait(wait)

    def close(self) -> None:
        """Let the threads end as soon as nothing waits for them; later calls start others."""
        self._workers.close()
        self._cleaners.close()
