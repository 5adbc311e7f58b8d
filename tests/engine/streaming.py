# SPDX-License-Identifier: Apache-2.0
"""A backend in memory that sends long ranges, and the time that it takes."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from unittest import mock

from glance_store.transfer import streams

from .memory import PATIENCE, Hook, MemoryReader

RANGE = 128
CHUNK = RANGE // 32  # of so many chunks is a range
FIRST = RANGE // 4  # bytes of the first request
SHORT = RANGE // 4  # bytes of those that several are tried with
LONG = 128 * RANGE
THREADS = 3
# Seconds for a byte: of one stream, and of several.
SLOW, FASTER, FAST = 1.0, 0.01, 0.0
TRIAL = 9 * SHORT
# Of an image of this size, slow at first, threads read nine short ranges and nine others.
SIZE = FIRST + TRIAL + 9 * RANGE


class MemoryStream:
    """A range of a `StreamingMemoryReader` that is being read."""

    def __init__(self, reader: StreamingMemoryReader, offset: int, length: int) -> None:
        self.offset = offset
        self.length = length
        self.position = offset
        self.thread = threading.current_thread()
        self.wanted: list[int] = []  # what the reads asked for
        self.closed = False
        self._reader = reader

    def read(self, length: int) -> bytes:
        assert threading.current_thread() is self.thread, "a stream belongs to one thread"
        assert not self.closed, "read after close"
        self.wanted.append(length)
        data = self._reader.read_on(self, length)
        self.position += len(data)
        return data

    def close(self) -> None:
        if not self.closed:
            self._reader.release(self)
            self.closed = True


class StreamingMemoryReader(MemoryReader):
    """A `StreamingReader` in memory.

    :param breaks: what to raise, one after the other, by the offset that a stream has come to
    :param refusals: what to raise, one after the other, by the offset of a stream to be opened
    :param surplus_at: the offset from which on a read brings one byte too many
    :param on_data: called at the end of each read of a stream with the number of its bytes
    :param on_release: called when a stream is closed with the offset that it has come to
    """

    def __init__(
        self,
        data: bytes,
        concurrency: int = 1,
        *,
        range_size: int,
        size: int | None = -1,
        most: int | None = None,
        breaks: dict[int, list[BaseException]] | None = None,
        refusals: dict[int, list[BaseException]] | None = None,
        surplus_at: int | None = None,
        on_read: Hook | None = None,
        on_data: Hook | None = None,
        on_release: Hook | None = None,
    ) -> None:
        super().__init__(data, concurrency, size=size, most=most, on_read=on_read)
        self.range_size = range_size
        self.streams: list[MemoryStream] = []
        self.most_open = 0
        self.open_at_close: list[int] = []
        self._breaks = breaks or {}
        self._refusals = refusals or {}
        self._surplus_at = surplus_at
        self._on_data = on_data
        self._on_release = on_release

    def ranges(self, beside: bool) -> list[tuple[int, int]]:
        """Return offsets and lengths of the streams of the engine's threads, or of all others."""
        return [
            (stream.offset, stream.length)
            for stream in self.streams
            if stream.thread.name.startswith("glance_store-") == beside
        ]

    def open_stream(self, offset: int, length: int) -> MemoryStream:
        assert length > 0
        with self._lock:
            assert not self.closes, "opened after close"
            if self._refusals.get(offset):
                raise self._refusals[offset].pop(0)
            stream = MemoryStream(self, offset, length)
            self.streams.append(stream)
            self.most_open = max(self.most_open, self._open())
        return stream

    def _open(self) -> int:
        return sum(not stream.closed for stream in self.streams)

    def read_on(self, stream: MemoryStream, length: int) -> bytes:
        """Read for a stream."""
        position = stream.position
        with self._lock:
            self.in_flight += 1
        try:
            assert length > 0
            if self._on_read is not None:
                self._on_read(position)
            if self._breaks.get(position):
                raise self._breaks[position].pop(0)
            if self._surplus_at is not None and position >= self._surplus_at:
                return self._data[position : position + length + 1]
            stops = [stream.offset + stream.length, position + length]
            stops += [at for at, errors in self._breaks.items() if errors and at > position]
            data = self._data[position : min(stops)][: self._most]
            if self._on_data is not None:
                self._on_data(len(data))
            return data
        finally:
            with self._lock:
                self.in_flight -= 1

    def release(self, stream: MemoryStream) -> None:
        """Close a stream."""
        if self._on_release is not None:
            self._on_release(stream.position)

    def close(self) -> None:
        with self._lock:
            self.open_at_close.append(self._open())
        super().close()

    def check_closed(self) -> None:
        """Assert that it was closed once, when all streams had been."""
        super().check_closed()
        assert self.open_at_close == [0]
        assert all(stream.closed for stream in self.streams)


class Clock:
    """Time that passes only where a test says so.

    What the engine's threads need passes while the consumer waits for them, however they run.

    :param alone: seconds for a byte that the consumer's thread reads
    :param beside: seconds for a byte that a thread of the engine reads
    """

    def __init__(self, alone: float, beside: float) -> None:
        self.now = 0.0
        self.waiting = False  # the engine has seen that the consumer waits
        self._alone = alone
        self._beside = beside
        self._due = 0.0
        self._lock = threading.Lock()

    def perf_counter(self) -> float:
        with self._lock:
            if self.waiting:
                self.now += self._due
                self._due = 0.0
            self.waiting = True
            return self.now

    def spend(self, size: int) -> None:
        with self._lock:
            if threading.current_thread().name.startswith("glance_store-"):
                self._due += size * self._beside
            else:
                self.now += size * self._alone

    def consume(self, chunks: Iterator[bytes], between: float = 0.0) -> Iterator[bytes]:
        """Take chunk after chunk, and some time between them."""
        while True:
            self.waiting = False
            chunk = next(chunks, None)
            if chunk is None:
                return
            self.now += between
            yield chunk


@contextlib.contextmanager
def ticking(alone: float, beside: float = FASTER) -> Iterator[Clock]:
    clock = Clock(alone, beside)
    # So little data says at once how fast it comes.
    with mock.patch.multiple(streams, time=clock, _SAMPLE=0.0):
        yield clock


def wait_for_end(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
