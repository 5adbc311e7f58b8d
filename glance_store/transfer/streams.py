# SPDX-License-Identifier: Apache-2.0
"""Reads an image in one long response while that is fast, and in several parallel ones if not.

Several connections help if the connection is the bottleneck: a distant server, or a rate limit per
connection. If the machines are the bottleneck, connections only compete with each other. The only
way to find out is to try.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Generator, Iterator

from glance_store.transfer.interface import Extent, StreamingReader
from glance_store.transfer.memory import Share
from glance_store.transfer.pieces import pieces, stream_piece
from glance_store.transfer.readahead import ReadAhead

MIB = 1024 * 1024
# Chunks of this size are still in the CPU cache when they are delivered. A range has many chunks,
# so that there is something to measure.
_CHUNK = MIB
_CHUNKS_IN_A_RANGE = 32
# Bytes per second; one connection this fast is more than a consumer can use.
_FAST = 500 * MIB
# Seconds of waiting after which the speed of a connection is known.
_SAMPLE = 0.04
# Parallel responses must reach this share of the speed of one, as measurements are not exact.
_ENOUGH = 0.9
# The first single response is this share of a parallel range, up to a maximum in bytes. Each next
# one is `_GROWTH` times as long, up to `_LONGEST` ranges, so that the speed is checked often at the
# start. Once parallel responses turn out not to be faster, the longest is used at once.
_FIRST = 1 / 4
_FIRST_AT_MOST = 4 * MIB
_GROWTH = 4
_LONGEST = 128
# Parallel responses start with `_TRIED` pieces per thread of this share of a range. Only the second
# one is measured, and by then a thread may have started its third.
_SHORT = 1 / 4
_TRIED = 3


class _Meter:
    """Measures how long a consumer waits for chunks."""

    def __init__(self) -> None:
        self.bytes = 0
        self.waited = 0.0

    def over(self, chunks: Iterator[bytes], skip: int = 1) -> Generator[bytes, None, None]:
        """Yield chunks and measure the wait, except for the chunks of the first `skip` bytes."""
        while True:
            begun = time.perf_counter()
            chunk = next(chunks, None)
            if chunk is None:
                return
            if skip > 0:
                skip -= len(chunk)
            else:
                self.waited += time.perf_counter() - begun
                self.bytes += len(chunk)
            yield chunk

    def is_clear(self) -> bool:
        """Tell whether the wait was long enough to judge the speed."""
        return self.waited >= _SAMPLE

    def is_slow(self) -> bool:
        """Tell whether the backend is the bottleneck."""
        return self.is_clear() and self.bytes < _FAST * self.waited

    def keeps_up(self, other: _Meter) -> bool:
        """Tell whether this is not clearly slower than `other`."""
        return self.waited * other.bytes * _ENOUGH < other.waited * self.bytes


class Streams:
    """The bytes of a range of an image without holes."""

    def __init__(self, reader: StreamingReader, offset: int, stop: int, chunk_size: int) -> None:
        self._reader = reader
        self._offset = offset
        self._end = stop
        part = max(1, reader.range_size // _CHUNKS_IN_A_RANGE)
        self._chunk_size = min(chunk_size, part, _CHUNK)
        self._single: Generator[bytes, None, None] | None = None
        self._parallel: ReadAhead | None = None
        self._stopped = threading.Event()
        self._share = Share(getattr(reader, "memory", None), ahead=True)

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes in order, starting on the consumer's thread."""
        position, size = self._offset, self._reader.range_size
        # A single range is too little for several connections.
        length = size
        if self._end - position > size:
            length = min(max(1, int(_FIRST * size)), _FIRST_AT_MOST)
        single = _Meter()
        while position < self._end and not self._stopped.is_set():
            piece = Extent(position, min(length, self._end - position), True)
            if single.is_clear():
                single = _Meter()
            # Closed here too: stop() cannot close it while this thread reads.
            with contextlib.closing(self._read(piece)) as self._single:
                if self._stopped.is_set():
                    # stop() may have run before `_single` was set.
                    return
                for chunk in single.over(self._single):
                    position += len(chunk)
                    yield chunk
            length = min(_GROWTH * length, _LONGEST * size)
            if single.is_slow() and (threads := self._threads(position)) > 1:
                for chunk in self._in_parallel(position, threads, single):
                    position += len(chunk)
                    yield chunk
                self._share.close()
                length = _LONGEST * size

    def _threads(self, position: int) -> int:
        """Return how many parallel responses the remaining memory allows."""
        threads, size = self._reader.concurrency, self._reader.range_size
        if self._end - position <= size:
            return 1
        while threads > 1 and not self._share.try_take(threads * size):
            threads //= 2
        return threads

    def _in_parallel(self, position: int, threads: int, single: _Meter) -> Iterator[bytes]:
        """Yield the rest from parallel responses while that is faster than a single one."""
        short = max(1, int(_SHORT * self._reader.range_size))
        trial = _TRIED * threads * short
        # If little is left, the trial would be all of it.
        undecided = self._end - position > 2 * trial
        begun = position + trial if undecided else position
        # With ranges of equal size, all threads end at the same time.
        rest = self._end - begun
        rounds = -(-rest // (threads * self._reader.range_size))
        size = -(-rest // (threads * rounds))
        parts = itertools.chain(
            pieces(self._reader, position, begun, short),
            pieces(self._reader, begun, self._end, size),
        )
        self._parallel = parallel = ReadAhead(self._reader, parts, self._read, threads)
        if self._stopped.is_set():
            return
        meter = _Meter()
        # Skip the first piece of each thread: they all arrive at once, after a long wait.
        for chunk in meter.over(parallel.chunks(), threads * short):
            yield chunk
            if undecided and meter.bytes >= threads * short:
                undecided = False
                if not meter.keeps_up(single):
                    parallel.wind_down()

    def _read(self, piece: Extent) -> Generator[bytes, None, None]:
        return stream_piece(self._reader, piece, self._chunk_size)

    def stop(self, wait: bool) -> None:
        """Stop reading. The reader is closed when the last read in flight ends; `wait` for that."""
        self._stopped.set()
        self._share.close()
        if self._single is not None:
            # Another thread may be reading: then it closes its response after the current read.
            with contextlib.suppress(ValueError):
                self._single.close()
        if self._parallel is None:
            self._reader.close()
        else:
            self._parallel.stop(wait)
