# SPDX-License-Identifier: Apache-2.0
"""Backends and sources in memory that record what the engine does, and fail when told to."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple
from unittest import mock

from glance_store.transfer.interface import Extent

BLOCK = 64
# Seconds until a test gives up waiting for what must happen; when all is well nothing waits.
PATIENCE = 30.0
ENGINE_THREADS = {"glance_store-upload", "glance_store-download"}

Hook = Callable[[int], None]


def pattern(size: int) -> bytes:
    """Return `size` bytes, reproducible and without a zero among them."""
    return random.Random(size).randbytes(size).replace(b"\0", b"\1")


def collect(chunks: Iterable[bytes], into: list[bytes]) -> None:
    """Add one chunk after the other, so that those before an error are kept."""
    for chunk in chunks:
        into.append(chunk)  # noqa: PERF402 - extend() promises nothing for an error


def wait(event: threading.Event) -> None:
    """Wait for an event of another thread; a failure when it never comes."""
    assert event.wait(PATIENCE), "the other thread never got there"


def eventually(reached: Callable[[], bool]) -> bool:
    """Wait for a state of other threads that no event tells of; False when it never comes."""
    deadline = time.monotonic() + PATIENCE
    while not reached():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.001)
    return True


def engine_threads() -> list[threading.Thread]:
    """Return the threads of the engine that are alive."""
    return [thread for thread in threading.enumerate() if thread.name in ENGINE_THREADS]


class Write(NamedTuple):
    """One call of `write`."""

    offset: int
    data: bytes
    thread: threading.Thread


class MemoryWriter:
    """An `ImageWriter` in memory.

    :param failures: what to raise, by the number of the write (from 0)
    :param on_write: called at the start of each write with its number
    """

    def __init__(
        self,
        block_size: int = BLOCK,
        concurrency: int = 1,
        holes: bool = False,
        *,
        failures: dict[int, BaseException] | None = None,
        commit_error: BaseException | None = None,
        abort_error: BaseException | None = None,
        on_write: Hook | None = None,
        on_commit: Callable[[], None] | None = None,
        on_abort: Callable[[], None] | None = None,
    ) -> None:
        self.block_size = block_size
        self.concurrency = concurrency
        self.holes = holes
        self.uri = "memory://image"
        self.metadata: dict[str, Any] = {}
        self.writes: list[Write] = []
        self.kept: list[memoryview] = []
        self.calls: list[str] = []  # "write" when one ends, "commit", "abort"
        self.commits: list[int] = []
        self.aborts = 0
        self.completed = 0
        self.in_flight = 0
        self.most_in_flight = 0
        self.in_flight_at_end: list[int] = []  # writes that ran during commit() and abort()
        self._failures = failures or {}
        self._commit_error = commit_error
        self._abort_error = abort_error
        self._on_write = on_write
        self._on_commit = on_commit
        self._on_abort = on_abort
        self._lock = threading.Lock()

    def write(self, offset: int, block: memoryview) -> None:
        assert isinstance(block, memoryview)
        with self._lock:
            number = len(self.writes)
            self.writes.append(Write(offset, bytes(block), threading.current_thread()))
            self.kept.append(block)
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            if self._on_write is not None:
                self._on_write(number)
            if number in self._failures:
                raise self._failures[number]
            with self._lock:
                self.completed += 1
                self.calls.append("write")
        finally:
            with self._lock:
                self.in_flight -= 1

    def commit(self, size: int) -> None:
        self._end("commit")
        self.commits.append(size)
        if self._on_commit is not None:
            self._on_commit()
        if self._commit_error is not None:
            raise self._commit_error

    def abort(self) -> None:
        self._end("abort")
        self.aborts += 1
        if self._on_abort is not None:
            self._on_abort()
        if self._abort_error is not None:
            raise self._abort_error

    def _end(self, call: str) -> None:
        with self._lock:
            self.calls.append(call)
            self.in_flight_at_end.append(self.in_flight)

    def content(self) -> bytes:
        """Return the committed image; what was not written is zeros."""
        (size,) = self.commits
        image = bytearray(size)
        end = 0
        for write in sorted(self.writes, key=lambda write: write.offset):
            assert write.offset >= end, "two writes overlap"
            end = write.offset + len(write.data)
            assert end <= size, "written past the committed size"
            image[write.offset : end] = write.data
        return bytes(image)

    def check_stored(self, data: bytes) -> None:
        """Assert that exactly `data` was committed, once, after all writes."""
        assert self.commits == [len(data)]
        assert self.content() == data
        assert self.aborts == 0
        assert self.calls == ["write"] * len(self.writes) + ["commit"]
        assert self.in_flight_at_end == [0]

    def check_aborted(self, commits: int = 0) -> None:
        """Assert that the upload was aborted, once, after all else."""
        assert self.aborts == 1
        assert len(self.commits) == commits
        assert self.calls[-1] == "abort"
        assert self.in_flight_at_end == [0] * (commits + 1)


class Verifier:
    """What signature verifiers look like to the engine."""

    def __init__(self, failures: dict[int, BaseException] | None = None) -> None:
        self.data = b""
        self.updates = 0
        self._failures = failures or {}

    def update(self, data: bytes) -> None:
        number, self.updates = self.updates, self.updates + 1
        if number in self._failures:
            raise self._failures[number]
        self.data += data


class Source:
    """A file-like source that records its reads.

    :param portions: lengths of what the reads return at most, over and over; None: all asked for
    :param failures: what to raise, by the number of the read (from 0)
    :param on_read: called at the start of each read with its number
    """

    def __init__(
        self,
        data: bytes,
        *,
        portions: list[int] | None = None,
        failures: dict[int, BaseException] | None = None,
        on_read: Hook | None = None,
    ) -> None:
        self.lengths: list[int] = []
        self.threads: set[threading.Thread] = set()
        self.position = 0
        self._data = data
        self._portions = portions
        self._failures = failures or {}
        self._on_read = on_read

    def read(self, length: int) -> bytes:
        number = len(self.lengths)
        self.lengths.append(length)
        self.threads.add(threading.current_thread())
        if self._on_read is not None:
            self._on_read(number)
        if number in self._failures:
            raise self._failures[number]
        if self._portions:
            length = min(length, self._portions[number % len(self._portions)])
        portion = self._data[self.position : self.position + length]
        self.position += len(portion)
        return portion


class MemoryReader:
    """An `ImageReader` in memory.

    :param size: what it says of itself; the length of `data` unless given
    :param layout: its extents, which cover all of it; None: one extent of data
    :param most: bytes that one read returns at most
    :param failures: what to raise, by the offset of the read
    :param on_read: called at the start of each read with its offset
    """

    def __init__(
        self,
        data: bytes,
        concurrency: int = 1,
        *,
        size: int | None = -1,
        layout: list[Extent] | None = None,
        most: int | None = None,
        failures: dict[int, BaseException] | None = None,
        on_read: Hook | None = None,
    ) -> None:
        self.size = len(data) if size == -1 else size
        self.concurrency = concurrency
        self.reads: list[tuple[int, int]] = []
        self.threads: set[threading.Thread] = set()
        self.in_flight = 0
        self.most_in_flight = 0
        self.closes = 0
        self.in_flight_at_close: list[int] = []
        self.closed = threading.Event()
        self._data = data
        self._layout = layout
        self._most = most
        self._failures = failures or {}
        self._on_read = on_read
        self._lock = threading.Lock()

    def read_at(self, offset: int, length: int) -> bytes:
        with self._lock:
            assert not self.closes, "read after close"
            self.reads.append((offset, length))
            self.threads.add(threading.current_thread())
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            assert length > 0
            if self._on_read is not None:
                self._on_read(offset)
            if offset in self._failures:
                raise self._failures[offset]
            if self._most is not None:
                length = min(length, self._most)
            return self._data[offset : offset + length]
        finally:
            with self._lock:
                self.in_flight -= 1

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        assert length > 0, "there is nothing to say of an empty range"
        if self._layout is None:
            yield Extent(offset, length, True)
            return
        for extent in self._layout:
            start = max(offset, extent.offset)
            end = min(offset + length, extent.offset + extent.length)
            if start < end:
                yield Extent(start, end - start, extent.data)

    def close(self) -> None:
        with self._lock:
            self.closes += 1
            self.in_flight_at_close.append(self.in_flight)
        self.closed.set()

    def check_closed(self) -> None:
        """Assert that it was closed once, when no read was running."""
        assert self.closes == 1
        assert self.in_flight_at_close == [0]


class CallerBlocks:
    """Tells the engine's threads when the thread that entered the context waits for them.

    :param note: its result is added to `notes` each time
    """

    def __init__(self, note: Callable[[], int] = int) -> None:
        self.blocked = threading.Event()
        self.notes: list[int] = []
        self.waits_for: object = None  # a thread or a condition, while it does
        self._note = note

    @contextlib.contextmanager
    def _block(self, waits_for: object) -> Iterator[None]:
        self.notes.append(self._note())
        self.waits_for = waits_for
        self.blocked.set()
        try:
            yield
        finally:
            self.waits_for = None

    @contextlib.contextmanager
    def watch(self) -> Iterator[CallerBlocks]:
        caller = threading.current_thread()
        wait_, join, start = threading.Condition.wait, threading.Thread.join, threading.Thread.start
        starting: list[threading.Thread] = []

        def watched_start(thread: threading.Thread) -> None:
            # It waits for the new thread to run: no waiting for work to be done.
            starting.append(thread)
            try:
                start(thread)
            finally:
                starting.remove(thread)

        def watched_wait(condition: threading.Condition, timeout: float | None = None) -> bool:
            if threading.current_thread() is caller and not starting:
                with self._block(condition):
                    return wait_(condition, timeout)
            return wait_(condition, timeout)

        def watched_join(thread: threading.Thread, timeout: float | None = None) -> None:
            # An interrupted join() may have taken a running thread for dead: no waiting either.
            if threading.current_thread() is caller and thread.is_alive():
                with self._block(thread):
                    join(thread, timeout)
            else:
                join(thread, timeout)

        with (
            mock.patch.object(threading.Thread, "start", watched_start),
            mock.patch.object(threading.Condition, "wait", watched_wait),
            mock.patch.object(threading.Thread, "join", watched_join),
        ):
            yield self


@contextlib.contextmanager
def count_threads() -> Iterator[list[threading.Thread]]:
    """Give the list of the threads started in the context."""
    started: list[threading.Thread] = []
    start = threading.Thread.start

    def counted(thread: threading.Thread) -> None:
        started.append(thread)
        start(thread)

    with mock.patch.object(threading.Thread, "start", counted):
        yield started
