# SPDX-License-Identifier: Apache-2.0
"""Threads for calls that run side by side."""

from __future__ import annotations

import gc
import subprocess
import sys
import textwrap
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

from glance_store import exceptions
from glance_store.testing.concurrency import in_a_child
from glance_store.transfer import threads
from glance_store.transfer.threads import Workers

from .memory import eventually

NAME = "glance_store-of-a-test"
PATIENCE = 30


def alive() -> int:
    return sum(thread.name == NAME for thread in threading.enumerate())


@pytest.fixture(autouse=True)
def never_idle_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads end because they are told to, not because the test waits so long."""
    monkeypatch.setattr(threads, "_IDLE", 600.0)


@pytest.fixture
def pool() -> Iterator[Workers]:
    pool = Workers(3, NAME)
    yield pool
    pool.close(wait=True)
    assert not alive()


def run(script: str) -> subprocess.CompletedProcess[str]:
    """Run a program, and return what it says."""
    root = Path(__file__).parents[2]
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def test_results_and_errors(pool: Workers) -> None:
    number, wrong = pool.submit(divmod, 7, 2), pool.submit(divmod, 7, 0)
    assert number.result(PATIENCE) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        wrong.result(PATIENCE)


def test_so_many_at_a_time_and_not_more(pool: Workers) -> None:
    barrier = threading.Barrier(3)
    running: list[int] = []
    most = 0

    def work() -> None:
        nonlocal most
        running.append(1)
        most = max(most, len(running))
        barrier.wait(PATIENCE)
        running.pop()

    for call in [pool.submit(work) for _number in range(9)]:
        call.result(PATIENCE)
    assert most == 3


def test_an_idle_thread_is_used_again(pool: Workers) -> None:
    for _number in range(20):
        pool.submit(int).result(PATIENCE)
        assert eventually(lambda: len(pool._crew().idle) == 1)
    assert alive() == 1


def test_idle_threads_end_and_others_follow(pool: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_IDLE", 0.01)
    assert pool.submit(int, 1).result(PATIENCE) == 1
    assert eventually(lambda: not alive())
    assert pool.submit(int, 2).result(PATIENCE) == 2


def test_calls_meet_threads_that_end(pool: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    """No call is lost between a thread that is about to end and one that is not started for it."""
    monkeypatch.setattr(threads, "_IDLE", 0.0005)
    for number in range(300):
        assert pool.submit(int, number).result(PATIENCE) == number
        threading.Event().wait(0.0005)


def test_a_call_that_waits_can_be_cancelled(pool: Workers) -> None:
    going_on = threading.Event()
    called = []
    stuck = [pool.submit(going_on.wait, PATIENCE) for _number in range(3)]
    waiting = pool.submit(called.append, 1)
    assert waiting.cancel()
    going_on.set()
    assert all(call.result(PATIENCE) for call in stuck)
    pool.close(wait=True)
    assert called == []


def test_closed_it_carries_out_what_it_has_taken(pool: Workers) -> None:
    going_on = threading.Event()
    calls = [pool.submit(going_on.wait, PATIENCE) for _number in range(5)]
    pool.close()
    with pytest.raises(RuntimeError, match=NAME):
        pool.submit(int)
    going_on.set()
    assert all(call.result(PATIENCE) for call in calls)


def test_no_thread_can_be_started(pool: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    going_on = threading.Event()

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(exceptions.BackendUnavailable, match="can't start"):
            pool.submit(int)
    first = pool.submit(going_on.wait, PATIENCE)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        second = pool.submit(int, 2)
    going_on.set()
    assert first.result(PATIENCE)
    assert second.result(PATIENCE) == 2


def test_threads_end_with_their_owner() -> None:
    pool = Workers(2, NAME)
    crew = pool._crew()
    assert pool.submit(int, 1).result(PATIENCE) == 1
    assert eventually(lambda: len(crew.idle) == 1)
    del pool
    gc.collect()
    assert eventually(lambda: not alive())


def test_what_nobody_owns_any_more_is_carried_out() -> None:
    going_on = threading.Event()
    pool = Workers(1, NAME)
    calls = [pool.submit(going_on.wait, PATIENCE) for _number in range(3)]
    del pool
    gc.collect()
    going_on.set()
    assert all(call.result(PATIENCE) for call in calls)
    assert eventually(lambda: not alive())


def test_a_forked_child_lets_go_of_what_it_has_inherited(pool: Workers) -> None:
    """A thread that is not there holds the lock."""
    inherited = [Workers(1, NAME)]
    lock = inherited[0]._crew().lock
    held, forked = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            forked.wait(PATIENCE)

    def let_go() -> None:
        inherited.clear()
        gc.collect()

    holding = pool.submit(hold)
    assert held.wait(PATIENCE)
    try:
        in_a_child(let_go)
    finally:
        forked.set()
        holding.result(PATIENCE)


def test_nothing_is_kept_by_an_idle_thread(pool: Workers) -> None:
    class Large:
        pass

    large = Large()
    known = weakref.ref(large)
    assert pool.submit(lambda given: given, large).result(PATIENCE) is large
    del large
    assert eventually(lambda: len(pool._crew().idle) == 1)
    gc.collect()
    assert known() is None


@pytest.mark.skipif(
    (3, 12) <= sys.version_info < (3, 12, 3), reason="no thread can be started then (gh-113964)"
)
def test_calls_are_taken_when_the_main_thread_has_ended() -> None:
    """The executors of the standard library refuse them then."""
    done = run(
        """
        import threading
        from glance_store.transfer.threads import Workers

        def work():
            threading.main_thread().join()
            pool = Workers(2, "late")
            print(sum(call.result(20) for call in [pool.submit(int, 1) for _ in range(5)]))

        threading.Thread(target=work).start()
        """
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "5\n", "")


def test_a_call_that_never_returns_does_not_keep_the_process() -> None:
    done = run(
        """
        import threading
        from glance_store.transfer.threads import Workers

        begun = threading.Event()

        def work():
            begun.set()
            threading.Event().wait()

        Workers(2, "stuck").submit(work)
        assert begun.wait(20)
        print("over")
        """
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "over\n", "")
