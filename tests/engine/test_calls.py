# SPDX-License-Identifier: Apache-2.0
"""Calls that return in time, and clean-up that comes late rather than never."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import textwrap
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import pytest

from glance_store import exceptions
from glance_store.testing.concurrency import in_a_child
from glance_store.transfer import threads
from glance_store.transfer.threads import Calls, Pending, Workers

from .interrupts import Interrupts, Signals
from .memory import PATIENCE, eventually, wait

NAME = "glance_store-of-a-test"
SHORT = 0.05


@pytest.fixture
def make_calls() -> Iterator[Callable[..., Calls]]:
    made: list[Calls] = []

    def make(timeout: float, limit: int = 1) -> Calls:
        made.append(Calls(timeout, limit, NAME))
        return made[-1]

    yield make
    for calls in made:
        calls.close()
    made.clear()
    assert eventually(lambda: not any(t.name.startswith(NAME) for t in threading.enumerate()))


def fail(error: BaseException) -> None:
    raise error


class Stuck:
    """A call that comes back when it is told to."""

    def __init__(self, result: object = None, error: BaseException | None = None) -> None:
        self.begun, self.released = threading.Event(), threading.Event()
        self.result, self.error = result, error

    def __call__(self) -> object:
        self.begun.set()
        wait(self.released)
        if self.error is not None:
            raise self.error
        return self.result


def time_out(calls: Calls, stuck: Stuck, dispose: Callable[[Any], object] | None = None) -> None:
    """Have a call begin and its time pass, however slow the machine."""

    def wait_until_begun(_pending: Pending[Any], _timeout: float) -> bool:
        wait(stuck.begun)
        return False

    with (
        mock.patch.object(Pending, "wait", wait_until_begun),
        pytest.raises(exceptions.TimeoutError, match=f"after {calls.timeout} seconds"),
    ):
        calls.call(stuck, dispose=dispose)


@pytest.mark.parametrize("timeout", [0, PATIENCE])
def test_results_and_errors(make_calls: Callable[..., Calls], timeout: float) -> None:
    calls = make_calls(timeout)
    thrown: list[object] = []
    assert calls.call(divmod, 7, 2, dispose=thrown.append) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        calls.call(divmod, 7, 0, dispose=thrown.append)
    # A timeout of its own is none of the library's.
    with pytest.raises(TimeoutError, match="its own"):
        calls.call(fail, TimeoutError("its own"))
    assert (calls.call(threading.current_thread) is threading.current_thread()) == (not timeout)
    assert thrown == []


def test_a_late_result_goes_to_its_disposer(make_calls: Callable[..., Calls]) -> None:
    calls, stuck, thrown = make_calls(PATIENCE), Stuck("late"), []
    time_out(calls, stuck, thrown.append)
    assert thrown == []
    stuck.released.set()
    assert eventually(lambda: thrown == ["late"])


def test_a_late_error_goes_nowhere(make_calls: Callable[..., Calls]) -> None:
    calls, stuck, thrown = make_calls(PATIENCE), Stuck(error=OSError("stale")), []
    time_out(calls, stuck, thrown.append)
    stuck.released.set()
    assert calls.call(int) == 0
    assert thrown == []


def test_a_disposer_that_fails(
    make_calls: Callable[..., Calls], caplog: pytest.LogCaptureFixture
) -> None:
    calls, stuck = make_calls(PATIENCE), Stuck(OSError("still stale"))
    time_out(calls, stuck, fail)
    stuck.released.set()
    assert eventually(lambda: "still stale" in caplog.text)
    # The thread lives on.
    assert calls.call(int) == 0


def test_a_result_of_the_last_moment_counts(
    make_calls: Callable[..., Calls], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call may end between the timeout and the look at what has become of it."""
    in_time = Pending.wait

    def late(pending: Pending[Any], _timeout: float) -> bool:
        assert in_time(pending, PATIENCE)
        return False

    monkeypatch.setattr(Pending, "wait", late)
    thrown: list[object] = []
    assert make_calls(SHORT).call(str, "done", dispose=thrown.append) == "done"
    assert thrown == []


def test_a_call_that_nobody_waits_for_is_not_made(make_calls: Callable[..., Calls]) -> None:
    """And what it was to be called with, a block of an image perhaps, is let go of at once."""
    calls, stuck = make_calls(PATIENCE), Stuck()
    called: list[object] = []
    block = threading.Event()
    known = weakref.ref(block)
    time_out(calls, stuck)
    calls.timeout = SHORT
    with pytest.raises(exceptions.TimeoutError):
        calls.call(called.append, block)
    del block
    gc.collect()
    assert known() is None
    stuck.released.set()
    calls.timeout = PATIENCE
    assert calls.call(int) == 0
    assert called == []


def test_clean_up_does_not_need_the_pool(make_calls: Callable[..., Calls]) -> None:
    calls, stuck, cleaned = make_calls(PATIENCE), Stuck(), threading.Event()
    time_out(calls, stuck)
    calls.cleanup(cleaned.set)
    wait(cleaned)
    stuck.released.set()


def test_clean_up_is_queued_and_never_dropped(make_calls: Callable[..., Calls]) -> None:
    """Also when the one before is stuck, and when the calls are closed."""
    calls, stuck, order = make_calls(PATIENCE), Stuck(), []
    calls.cleanup(stuck)
    for number in range(20):
        calls.cleanup(order.append, number)
        calls.cleanup(fail, OSError("gone"))
    calls.close()
    calls.cleanup(order.append, 20)
    wait(stuck.begun)
    assert order == []
    stuck.released.set()
    assert eventually(lambda: order == list(range(21)))


def test_clean_up_may_be_waited_for(make_calls: Callable[..., Calls]) -> None:
    calls, cleaned, stuck = make_calls(PATIENCE), [], Stuck()
    calls.cleanup(cleaned.append, 1, wait=PATIENCE)
    assert cleaned == [1]
    calls.cleanup(stuck)
    calls.cleanup(cleaned.append, 2, wait=SHORT)
    assert cleaned == [1]
    stuck.released.set()
    assert eventually(lambda: cleaned == [1, 2])


def test_clean_up_waits_for_a_thread(
    make_calls: Callable[..., Calls],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As at the limit of processes: it is done with the next."""
    calls, cleaned = make_calls(PATIENCE), []

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        calls.cleanup(cleaned.append, 1)
        with pytest.raises(exceptions.BackendUnavailable, match="can't start"):
            calls.call(int)
    assert cleaned == []
    assert "can't start new thread" in caplog.text
    calls.cleanup(cleaned.append, 2)
    assert eventually(lambda: cleaned == [1, 2])
    assert calls.call(int) == 0


def test_clean_up_without_a_timeout(make_calls: Callable[..., Calls]) -> None:
    calls, where = make_calls(0), []
    calls.cleanup(lambda: where.append(threading.current_thread()))
    assert where == [threading.current_thread()]
    with pytest.raises(OSError, match="gone"):
        calls.cleanup(fail, OSError("gone"))


# -- interrupts


class Resource:
    """Counts those that nobody has let go of."""

    held: ClassVar[set[int]] = set()

    def __init__(self) -> None:
        self.held.add(id(self))

    def close(self) -> None:
        self.held.discard(id(self))

    def __del__(self) -> None:
        self.close()


@pytest.mark.parametrize("more", [(), (0,), (2,), (5,)], ids=str)
def test_interrupts_at_every_line(make_calls: Callable[..., Calls], more: tuple[int, ...]) -> None:
    """No result is lost, no thread, and no lock stays held."""
    number = 0
    while True:
        calls = make_calls(PATIENCE)
        cleaned = threading.Event()
        with Interrupts([threads], number, *more) as interrupts:
            try:
                calls.call(Resource, dispose=Resource.close).close()
                calls.cleanup(cleaned.set)
            except KeyboardInterrupt:
                interrupts.stop()
                # As __del__ does after an interrupt of clean-up.
                calls.cleanup(cleaned.set)
        wait(cleaned)
        assert calls.call(int) == 0
        if Resource.held:
            # What an interrupt has left in a cycle; without one a collection would only take time.
            gc.collect()
        assert eventually(lambda: not Resource.held)
        calls.close()
        if not interrupts.raised:
            break
        number += 1
    assert number > 20


def test_an_interrupt_while_the_caller_waits(make_calls: Callable[..., Calls]) -> None:
    calls, stuck, thrown = make_calls(PATIENCE), Stuck("nobody's"), []
    with Signals() as signals:

        def interrupt() -> None:
            wait(stuck.begun)
            signals.interrupt()

        helper = threading.Thread(target=interrupt)
        helper.start()
        with pytest.raises(KeyboardInterrupt):
            calls.call(stuck, dispose=thrown.append)
        helper.join()
    stuck.released.set()
    assert eventually(lambda: thrown == ["nobody's"])


# -- collector, forks, the end of the process


def test_the_collector_cleans_up_in_a_thread_that_submits(
    make_calls: Callable[..., Calls],
) -> None:
    """At any allocation, also with the lock of the queue held."""
    calls, cleaned = make_calls(PATIENCE, 2), []

    class Half:
        def __init__(self, number: int) -> None:
            self.number, self.itself = number, self

        def __del__(self) -> None:
            calls.cleanup(cleaned.append, self.number)

    before = gc.get_threshold()
    gc.set_threshold(3, 2, 2)
    try:
        for number in range(300):
            Half(number)
            with calls._cleaners._crew().lock:
                Half(1000 + number)
            assert calls.call(divmod, number, 7) == divmod(number, 7)
    finally:
        gc.set_threshold(*before)
    gc.collect()
    assert eventually(lambda: len(cleaned) == 600)


def test_the_collector_runs_in_a_thread_that_is_being_started(
    make_calls: Callable[..., Calls], monkeypatch: pytest.MonkeyPatch
) -> None:
    """start() waits for that thread, which may need what the starter holds."""
    calls, cleaned, start = make_calls(PATIENCE), [], threading.Thread.start
    collectors: list[threading.Thread] = []

    def collecting(thread: threading.Thread) -> None:
        if not collectors:
            collectors.append(threading.Thread(target=calls.cleanup, args=(cleaned.append, 1)))
            start(collectors[0])
            collectors[0].join(PATIENCE)
            assert not collectors[0].is_alive(), "it waits for the thread that waits for it"
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", collecting)
    calls.cleanup(cleaned.append, 2)
    assert eventually(lambda: sorted(cleaned) == [1, 2])


@pytest.mark.parametrize("rounds", [20])
def test_a_fork_while_another_thread_submits(make_calls: Callable[..., Calls], rounds: int) -> None:
    calls, over = make_calls(PATIENCE, 2), threading.Event()
    cleaned: list[int] = []

    def submit() -> None:
        while not over.is_set():
            calls.call(int)
            calls.cleanup(int)

    def child() -> None:
        assert calls.call(divmod, 7, 2) == (3, 1)
        calls.cleanup(cleaned.append, os.getpid(), wait=PATIENCE)
        assert cleaned == [os.getpid()]

    submitters = [threading.Thread(target=submit) for _number in range(2)]
    for thread in submitters:
        thread.start()
    try:
        for _round in range(rounds):
            in_a_child(child)
    finally:
        over.set()
        for thread in submitters:
            thread.join()


def test_a_child_does_not_do_what_its_parent_has_queued(make_calls: Callable[..., Calls]) -> None:
    calls, stuck, cleaned = make_calls(PATIENCE), Stuck(), []
    calls.cleanup(stuck)
    calls.cleanup(cleaned.append, "parent's")

    def child() -> None:
        calls.cleanup(cleaned.append, "child's", wait=PATIENCE)
        assert cleaned == ["child's"]

    in_a_child(child)
    stuck.released.set()
    assert eventually(lambda: cleaned == ["parent's"])


def test_the_collector_runs_before_a_child_knows_that_it_is_one() -> None:
    """Then the locks of its parent's threads are still in its way."""
    done = run(
        """
        import os, threading, warnings
        from glance_store.transfer import threads

        # Later releases of Python warn of forks with threads, as there are here on purpose.
        warnings.simplefilter("ignore", DeprecationWarning)
        calls = [threads.Calls(60, 1, "parent")]
        calls[0].call(int)
        calls[0].cleanup(int, wait=60)
        crews = [workers._crew() for workers in (calls[0]._workers, calls[0]._cleaners)]
        held, forked = threading.Event(), threading.Event()

        def hold():
            with crews[0].lock, crews[1].lock:
                held.set()
                forked.wait()

        def collect():
            calls[0].cleanup(print, "not the child's")
            calls.clear()

        # As in a hook that runs before that of the library.
        threads._Process.forked.__func__.__code__ = (lambda cls: None).__code__
        os.register_at_fork(after_in_child=collect)
        threading.Thread(target=hold).start()
        held.wait()
        child = os.fork()
        if not child:
            print("over", flush=True)
            os._exit(0)
        os.waitpid(child, 0)
        forked.set()
        """
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "over\n", "")


def run(script: str) -> subprocess.CompletedProcess[str]:
    """Run a program, and return what it says."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def test_the_process_ends_with_calls_and_clean_up_stuck() -> None:
    """Also with objects that clean up when the interpreter collects them at its end."""
    done = run(
        """
        import threading
        from glance_store import exceptions
        from glance_store.transfer.threads import Calls

        class Half:
            def __del__(self):
                self.calls.cleanup(print, "not any more")

        forever = threading.Event()
        calls = Calls(0.05, 1, "stuck")
        calls.cleanup(forever.wait)
        calls.cleanup(print, "never")
        try:
            calls.call(forever.wait)
        except exceptions.TimeoutError:
            calls.timeout = 60
            half = Half()
            half.calls = calls
            print("over")
        """
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "over\n", "")


def test_threads_end_with_their_owner() -> None:
    calls = Calls(PATIENCE, 1, NAME)
    calls.call(int)
    calls.cleanup(int, wait=PATIENCE)
    del calls
    gc.collect()
    assert eventually(lambda: not any(t.name.startswith(NAME) for t in threading.enumerate()))


def test_a_thread_whose_starter_was_interrupted_does_not_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(_thread: threading.Thread) -> None:
        raise KeyboardInterrupt

    workers = Workers(1, NAME)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            workers.submit(int)
    assert workers.submit(int).result(PATIENCE) == 0
    workers.close(wait=True)
