# SPDX-License-Identifier: Apache-2.0
"""Threads for calls: in parallel, with a timeout, or in the background.

A submitting thread may be interrupted anywhere, or run the garbage collector, and another thread
may fork meanwhile. So nothing here waits with a lock held, locks are reentrant and taken by `with`
(one bytecode), and state is looked up rather than counted, because counts can get lost.
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
from glance_store.i18n import _

LOG = logging.getLogger(__name__)

_T = TypeVar("_T")

# Seconds after which an idle thread ends.
_IDLE = 10.0


def no_thread(error: RuntimeError) -> exceptions.BackendUnavailable:
    """Return the error for a thread that cannot be started: at a limit of the system, that passes.

    :param error: what starting it raised
    """
    return exceptions.BackendUnavailable(
        _("There is no thread for it, the limit of threads may be reached: %(reason)s"),
        reason=error,
    )


def start(thread: threading.Thread) -> None:
    """Start a thread.

    :param thread: the thread
    :raises BackendUnavailable: it cannot be started now
    """
    try:
        thread.start()
    except RuntimeError as exc:
        raise no_thread(exc) from exc


class _Process:
    """What this process believes it is: a child believes it is its parent until `forked`."""

    pid = os.getpid()
    forks = 0  # since the first process; unlike a pid, never reused by a descendant

    @classmethod
    def forked(cls) -> None:
        cls.pid, cls.forks = os.getpid(), cls.forks + 1

    # Passed as defaults, because modules may be gone at interpreter shutdown.
    @classmethod
    def has_threads(
        cls,
        getpid: Callable[[], int] = os.getpid,
        is_finalizing: Callable[[], bool] = sys.is_finalizing,
    ) -> bool:
        """Tell whether the threads exist that would release their locks."""
        return cls.pid == getpid() and not is_finalizing()


os.register_at_fork(after_in_child=_Process.forked)


class _Crew:
    """The waiting tasks of one process, and the threads that run them."""

    def __init__(self, limit: int, name: str) -> None:
        self.lock = threading.RLock()
        self.tasks: deque[Callable[[], object]] = deque()
        self.threads: set[threading.Thread] = set()  # added with their first task
        self.idle: list[threading.Lock] = []  # released to wake a thread
        self.working = 0  # threads running a task
        self.closed = False
        self._limit = limit
        self._name = name

    def add(self, task: Callable[[], object]) -> int:
        """Queue a task; return the number of tasks waiting or running."""
        # If the garbage collector calls this on a thread that holds the lock, that thread staffs.
        nested = self.lock._is_owned()  # type: ignore[attr-defined]  # noqa: SLF001 - no other way
        with self.lock:
            self.tasks.append(task)
            load = len(self.tasks) + self.working
        if not nested:
            self._staff()
        return load

    def _staff(self) -> None:
        """Wake or start a thread if a task is waiting."""
        with self.lock:
            if not self.tasks:
                return
            if self.idle:
                self.idle.pop().release()
                return
            if len(self.threads) >= self._limit:
                return
        if sys.is_finalizing():
            raise RuntimeError("cannot start a thread at interpreter shutdown")
        try:
            # Without the lock: start() waits for the new thread, where the collector may want it.
            threading.Thread(target=self._work, name=self._name, daemon=True).start()
        except RuntimeError:
            # A running thread takes the task after its own.
            if not self.threads:
                raise

    def _work(self) -> None:
        while (task := self._next()) is not None:
            try:
                task()
            finally:
                # An idle thread must not keep the task and its result alive.
                del task
                with self.lock:
                    self.working -= 1
        with contextlib.suppress(RuntimeError):
            # The garbage collector may have added a task after the last check.
            self._staff()

    def _next(self) -> Callable[[], object] | None:
        this = threading.current_thread()
        wake = threading.Lock()
        told = True
        while True:
            with self.lock:
                if wake in self.idle:
                    self.idle.remove(wake)
                # Before checking the tasks: a task added after the check starts a thread.
                if self.closed or not told:
                    self.threads.discard(this)
                if self.tasks and len(self.threads - {this}) < self._limit:
                    self.threads.add(this)
                    self.working += 1
                    return self.tasks.popleft()
                if this not in self.threads:
                    # It is told to end, or there are too many threads.
                    return None
            wake.acquire(blocking=False)
            self.idle.append(wake)
            # Before checking the tasks: a task added after the check wakes this thread.
            told = bool(self.tasks) or self.closed or wake.acquire(timeout=_IDLE)

    def close(self) -> None:
        """Let threads end as soon as no task is waiting."""
        with self.lock:
            self.closed = True
            while self.idle:
                self.idle.pop().release()


class Workers:
    """Run calls on a limited number of threads, in the order of `submit`.

    Unlike the executors of the standard library, it accepts calls after the main thread has ended,
    while another thread keeps the process alive: glance-scrubber deletes images then. And a call
    that never returns does not keep the process from exiting.

    Threads start when needed. They end after some idle time, or when this object is closed or
    garbage-collected. A forked child starts without threads and without waiting calls.

    :param threads: maximum number of threads
    :param name: name of the threads
    """

    def __init__(self, threads: int, name: str) -> None:
        self._limit = max(1, threads)
        self._name = name
        # One for each process. Those of ancestors stay untouched: their locks may be held, and
        # their tasks are not ours. Threads refer only to the crew, so that __del__ can run here.
        self._crews: dict[int, _Crew] = {}

    def __del__(self, process: type[_Process] = _Process) -> None:
        crew = self._crews.get(process.forks)
        if crew is not None and process.has_threads():
            crew.close()

    def _crew(self) -> _Crew:
        crew = self._crews.get(_Process.forks)
        return crew or self._crews.setdefault(_Process.forks, _Crew(self._limit, self._name))

    def put(self, task: Callable[[], object]) -> int:
        """Run a task on a thread, even when closed.

        :param task: the task, which must not raise
        :returns: number of tasks waiting or running
        :raises RuntimeError: there is no thread, and none can be started. The task stays queued
        """
        return self._crew().add(task)

    def submit(self, function: Callable[..., _T], *arguments: Any) -> concurrent.futures.Future[_T]:
        """Call a function on a thread.

        :param function: the function
        :param arguments: its arguments
        :returns: the future; if cancelled before a thread takes it, the function is not called
        :raises RuntimeError: this object is closed
        :raises BackendUnavailable: there is no thread, and none can be started
        """
        future: concurrent.futures.Future[_T] = concurrent.futures.Future()

        def run() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(function(*arguments))
                except BaseException as exc:  # noqa: BLE001 - it is raised where the result is wanted
                    future.set_exception(exc)

        if self._crew().closed:
            raise RuntimeError(f"the workers {self._name} are closed")
        try:
            self.put(run)
        except BaseException as exc:
            future.cancel()
            if isinstance(exc, RuntimeError):
                raise no_thread(exc) from exc
            raise
        return future

    def close(self, wait: bool = False) -> None:
        """Accept no more calls of `submit`. Threads end after the calls already accepted.

        :param wait: whether to wait until they have ended; not allowed on one of them
        """
        crew = self._crew()
        crew.close()
        if wait:
            for thread in list(crew.threads):
                thread.join()


class Pending(Generic[_T]):
    """A call to run on a thread, whose result the caller takes or abandons."""

    def __init__(
        self,
        function: Callable[..., _T],
        arguments: tuple[Any, ...],
        dispose: Callable[[_T], object] | None = None,
    ) -> None:
        # Only one caller can take the entry: pop() is atomic.
        self._work = [(function, arguments)]
        self._outcome: list[tuple[_T | None, BaseException | None]] = []
        self._dispose = dispose
        # Which came first: the thread's result, or the caller's leave(). setdefault() is atomic.
        self._first: dict[None, str] = {}
        self._over = threading.Lock()
        self._over.acquire()

    def run(self) -> None:
        """Make the call, unless the caller has left. Runs on a thread."""
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
        """Wait up to `timeout` seconds; tell whether the result is there."""
        return self._over.acquire(timeout=timeout)

    def leave(self) -> bool:
        """Abandon the result to `dispose`; False if it is there, for the caller to discard."""
        self._work.clear()
        return self._first.setdefault(None, "caller") == "caller"

    def take(self) -> _T:
        """Return the result, or raise what the call raised."""
        result, error = self._outcome.pop()
        try:
            if error is not None:
                raise error
        finally:
            # Break the reference cycle with its traceback.
            del error
        return cast("_T", result)

    def discard(self) -> None:
        """Pass the result to `dispose`, unless it was taken or is an error."""
        while self._outcome:
            result, error = self._outcome.pop()
            if error is None and self._dispose is not None:
                _logged(self._dispose, result)


def _logged(function: Callable[..., object], *arguments: Any) -> None:
    """Call a function; log its error."""
    try:
        function(*arguments)
    except Exception:
        LOG.warning("Clean-up in the background failed", exc_info=True)


class Calls:
    """Make calls with a timeout, and clean up after those that exceed it.

    A call on a dead network mount cannot be interrupted. With a timeout it runs on a thread, and
    the caller continues with an error. The call stays stuck; the caller must be ready for whatever
    it does if it ever returns.

    :param timeout: maximum seconds of a call; 0 to make all calls on the caller's thread, unlimited
    :param threads: maximum number of calls at once; the timeout includes the wait for a thread
    :param name: name of the threads
    :param note: called before each wait with the number of calls waiting or running
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
        # Clean-up needs its own threads, because stuck calls may occupy all others.
        self._cleaners = Workers(threads, f"{name}-cleanup")

    def call(
        self,
        function: Callable[..., _T],
        *arguments: Any,
        dispose: Callable[[_T], object] | None = None,
    ) -> _T:
        """Call a function and return in time.

        An interrupt may lose the result before the caller can assign it. A result that must not
        leak should release itself when it is garbage-collected.

        :param function: the function; not called at all if no thread is free in time
        :param arguments: its arguments
        :param dispose: called with a result that nobody takes, after a timeout or an interrupt
        :returns: the result
        :raises TimeoutError: it did not return in time
        :raises BackendUnavailable: there is no thread, and none can be started
        """
        if not self.timeout:
            return function(*arguments)
        pending = Pending(function, arguments, dispose)
        try:
            try:
                calls = self._workers.put(pending.run)
            except RuntimeError as exc:
                raise no_thread(exc) from exc
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
        """Close or remove something, now or as soon as the backend answers.

        Clean-up has its own threads and is never cancelled. Errors are logged. It may be called
        from `__del__`. Without a timeout, it runs on the caller's thread. Clean-up that is still
        waiting when the process ends is lost.

        :param function: the function, called once
        :param arguments: its arguments
        :param wait: seconds to wait for it, if the backend is known to answer; 0 to return at once
        """
        if not self.timeout:
            function(*arguments)
            return
        if not process.has_threads():
            # The process is ending, or this is a child that collects an object of its parent.
            return
        pending = Pending(_logged, (function, *arguments))
        try:
            self._cleaners.put(pending.run)
        except RuntimeError as exc:
            LOG.warning("Clean-up is delayed until a thread can start: %s", exc)
            return
        if wait:
            pending.wait(wait)

    def close(self) -> None:
        """Let the threads end as soon as nothing is waiting. Later calls start new ones."""
        self._workers.close()
        self._cleaners.close()
