# SPDX-License-Identifier: Apache-2.0
"""Whatever fails, and when: nothing is stored, and the caller learns the first cause."""

from __future__ import annotations

import contextlib
import io
import logging
import threading
from typing import Any

import pytest

from glance_store import exceptions
from glance_store.transfer.digest import Digests
from glance_store.transfer.upload import upload

from . import checks
from .checks import BackendError, SourceError
from .interrupts import Signals
from .memory import (
    BLOCK,
    CallerBlocks,
    MemoryWriter,
    Source,
    Verifier,
    eventually,
    pattern,
    wait,
)

BLOCKS = 6
DATA = pattern(BLOCKS * BLOCK)
CONCURRENCIES = pytest.mark.parametrize("concurrency", [1, 3])


class Cancelled(BaseException):
    """What a green thread that is killed, or a task that is cancelled, sees."""


def store(source: Any, writer: MemoryWriter, verifier: Verifier | None = None) -> Any:
    return upload(source, writer, Digests("sha256", verifier))


@CONCURRENCIES
@pytest.mark.parametrize("size", [0, 1, BLOCK, BLOCK + 1, BLOCKS * BLOCK])
@pytest.mark.parametrize(
    "error", [SourceError("unplugged"), KeyboardInterrupt(), Cancelled(), SystemExit(3)], ids=repr
)
def test_the_source_fails(error: BaseException, size: int, concurrency: int) -> None:
    for number in range(size // BLOCK + 1):
        checks.check_source_error(upload, number, error, size, concurrency)


@CONCURRENCIES
@pytest.mark.parametrize("number", range(BLOCKS))
def test_a_write_fails(number: int, concurrency: int) -> None:
    checks.check_write_error(upload, number, BLOCKS, concurrency)


def test_the_only_write_fails() -> None:
    checks.check_write_error(upload, 0, 1)


@CONCURRENCIES
@pytest.mark.parametrize("error", [KeyboardInterrupt(), Cancelled(), SystemExit(3)], ids=repr)
def test_a_write_raises_no_exception_class(error: BaseException, concurrency: int) -> None:
    """An exception that is no `Exception` ends no thread in silence either."""
    writer = MemoryWriter(concurrency=concurrency, failures={2: error})
    with pytest.raises(type(error)) as caught:
        store(io.BytesIO(DATA), writer)
    assert caught.value is error
    writer.check_aborted()


@CONCURRENCIES
@pytest.mark.parametrize("number", range(BLOCKS))
def test_the_verifier_fails(number: int, concurrency: int) -> None:
    error = ValueError("bad signature")
    writer = MemoryWriter(concurrency=concurrency)
    with pytest.raises(ValueError, match="bad signature") as caught:
        store(io.BytesIO(DATA), writer, Verifier({number: error}))
    assert caught.value is error
    writer.check_aborted()


def test_the_verifier_of_a_small_image_fails() -> None:
    writer = MemoryWriter()
    with pytest.raises(ValueError, match="bad signature"):
        store(io.BytesIO(b"data"), writer, Verifier({0: ValueError("bad signature")}))
    writer.check_aborted()
    assert not writer.writes


@pytest.mark.parametrize("size", [0, 1, BLOCKS * BLOCK])
@pytest.mark.parametrize("error", [BackendError("too late"), KeyboardInterrupt()], ids=repr)
def test_commit_fails(error: BaseException, size: int) -> None:
    writer = MemoryWriter(commit_error=error)
    with pytest.raises(type(error)) as caught:
        store(io.BytesIO(pattern(size)), writer)
    assert caught.value is error
    writer.check_aborted(commits=1)
    assert writer.calls[-2:] == ["commit", "abort"]


def test_abort_fails_after_the_source(caplog: pytest.LogCaptureFixture) -> None:
    error = SourceError("unplugged")
    writer = MemoryWriter(abort_error=BackendError("locked"))
    with pytest.raises(SourceError) as caught:
        store(Source(DATA, failures={2: error}), writer)
    assert caught.value is error
    writer.check_aborted()
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.name == "glance_store.transfer.upload"
    assert "Cannot remove what a failed upload left" in record.getMessage()
    assert "locked" in caplog.text


@CONCURRENCIES
def test_abort_fails_after_a_write(concurrency: int, caplog: pytest.LogCaptureFixture) -> None:
    error = BackendError("broken disk")
    writer = MemoryWriter(
        concurrency=concurrency, failures={1: error}, abort_error=BackendError("locked")
    )
    with pytest.raises(BackendError) as caught:
        store(io.BytesIO(DATA), writer)
    assert caught.value is error
    assert len(caplog.records) == 1


def test_the_writer_failed_before_the_source() -> None:
    """The source's error came second: the caller learns the cause, with the other in its chain."""
    first, second = BackendError("broken disk"), SourceError("unplugged")

    def on_read(number: int) -> None:
        if number == 3:
            # The thread has ended: its error is known to the engine.
            while not writer.writes:
                wait(written)
            writer.writes[0].thread.join()

    written = threading.Event()
    writer = MemoryWriter(failures={0: first}, on_write=lambda _number: written.set())
    with pytest.raises(BackendError) as caught:
        store(Source(DATA, failures={3: second}, on_read=on_read), writer)
    assert caught.value is first
    assert caught.value.__cause__ is second
    writer.check_aborted()


@pytest.mark.parametrize("first", [SourceError("unplugged"), KeyboardInterrupt()], ids=repr)
def test_the_source_failed_before_the_writer(first: BaseException) -> None:
    """A write in flight that fails while it is waited for does not take the source's place."""
    caller = CallerBlocks()
    writing = threading.Event()

    def on_write(_number: int) -> None:
        writing.set()
        wait(caller.blocked)

    with contextlib.ExitStack() as stack:

        def on_read(number: int) -> None:
            if number == 3:
                wait(writing)
                stack.enter_context(caller.watch())

        writer = MemoryWriter(failures={0: BackendError("disconnected")}, on_write=on_write)
        with pytest.raises(type(first)) as caught:
            store(Source(DATA, failures={3: first}, on_read=on_read), writer)
    assert caught.value is first
    writer.check_aborted()


def test_the_first_of_two_writes_wins() -> None:
    """Both are in flight; the second fails once the thread of the first has ended."""
    errors = {0: BackendError("first"), 1: BackendError("second")}
    both = threading.Barrier(2)

    def on_write(number: int) -> None:
        both.wait(30)
        if number == 1:
            writer.writes[0].thread.join()

    writer = MemoryWriter(concurrency=2, failures=dict(errors), on_write=on_write)
    with pytest.raises(BackendError) as caught:
        store(io.BytesIO(DATA[: 2 * BLOCK]), writer)
    assert caught.value is errors[0]
    writer.check_aborted()


def test_a_failed_write_ends_the_reading() -> None:
    """What waits is dropped, and the source is not read to its end."""
    caller = CallerBlocks()
    error = BackendError("broken disk")
    source = Source(pattern(1000 * BLOCK))
    writer = MemoryWriter(failures={0: error}, on_write=lambda _number: wait(caller.blocked))
    with caller.watch(), pytest.raises(BackendError) as caught:
        upload(source, writer, Digests("sha256"), budget=4)
    assert caught.value is error
    assert len(source.lengths) == 4
    assert len(writer.writes) == 1
    writer.check_aborted()


@pytest.mark.parametrize("interrupts", [1, 2, 5])
def test_interrupts_while_writes_are_waited_for(interrupts: int) -> None:
    """Ctrl-C when all is read: the write in flight ends, nothing more is written, then abort.

    However impatient: abort() must not run beside the write.
    """
    caller = CallerBlocks()
    signals = Signals(before=caller.blocked.clear)

    def on_write(number: int) -> None:
        assert number == 0
        for _interrupt in range(interrupts):
            # The caller waits for this very write, whatever by, and is interrupted.
            assert eventually(
                lambda: (
                    isinstance(caller.waits_for, threading.Condition)
                    or caller.waits_for is threading.current_thread()
                    or bool(writer.aborts)
                )
            )
            signals.interrupt()
            # It is to wait once more. Should it abort instead, abort() finds this write running.
            wait(caller.blocked)

    writer = MemoryWriter(on_write=on_write, on_abort=caller.blocked.set)
    with signals, caller.watch(), pytest.raises(KeyboardInterrupt):
        upload(io.BytesIO(DATA), writer, Digests("md5"), budget=BLOCKS + 1)
    assert len(writer.writes) == 1
    writer.check_aborted()


def limit_threads(monkeypatch: pytest.MonkeyPatch, number: int) -> list[threading.Thread]:
    """Let only so many threads start; return those that have."""
    start, started = threading.Thread.start, list[threading.Thread]()

    def limited(thread: threading.Thread) -> None:
        if len(started) == number:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    return started


@pytest.mark.parametrize("number", range(3))
def test_a_thread_cannot_be_started(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As at the process limit, which passes. Those that run are ended."""
    writer = MemoryWriter(concurrency=3)
    with monkeypatch.context() as patch:
        started = limit_threads(patch, number)
        with pytest.raises(exceptions.BackendUnavailable, match="can't start"):
            store(io.BytesIO(DATA), writer)
    assert len(started) == number
    assert not any(thread.is_alive() for thread in started)
    writer.check_aborted()


def test_fewer_threads_than_the_writer_wants(monkeypatch: pytest.MonkeyPatch) -> None:
    writer = MemoryWriter(concurrency=3)
    with monkeypatch.context() as patch:
        limit_threads(patch, 4)
        store(io.BytesIO(DATA), writer)
    writer.check_stored(DATA)
