# SPDX-License-Identifier: Apache-2.0
"""One long answer of a backend as long as that is fast, several side by side where it is not.

More connections than one help where the connection is the limit: a far server, a rate for each of
them. Where the machines are the limit they only take time from each other. Which is the case shows
when it is tried.
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
# Chunks of this size are still in the cache of the processor when they are handed over. Of a range
# there are many, so that there is something to measure.
_CHUNK = MIB
_CHUNKS_IN_A_RANGE = 32
# Bytes in a second from one connection, of which more than one consumer can hardly use.
_FAST = 500 * MIB
# Seconds of waiting for a connection that tell how fast it is.
_SAMPLE = 0.04
# How fast several answers have to be, of the speed of one: what is measured is not exact.
_ENOUGH = 0.9
# One alone begins with this part of the range of those side by side, but no more bytes than that,
# and the next is so many times as long: each can show that several would be faster. When they were
# not it gets long at once.
_FIRST = 1 / 4
_FIRST_AT_MOST = 4 * MIB
_GROWTH = 4
_LONGEST = 128
# Several begin with this part of a range for each thread, so many times. They are judged by the
# second time; all may have begun a third one by then.
_SHORT = 1 / 4
_TRIED = 3


class _Meter:
    """Measures how long a consumer waits for its chunks."""

    def __init__(self) -> None:
        self.bytes = 0
        self.waited = 0.0

    def over(self, chunks: Iterator[bytes], skip: int = 1) -> Generator[bytes, None, None]:
        """Yield chunks, measured.

        :param chunks: what is waited for
        :param skip: bytes at the beginning that do not count, and all of the chunk they end in
        """
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
        """Tell whether there has been enough waiting to know something."""
        return self.waited >= _SAMPLE

    def is_slow(self) -> bool:
        """Tell whether the backend is what keeps the consumer waiting."""
        return self.is_clear() and self.bytes < _FAST * self.waited

    def keeps_up(self, other: _Meter) -> bool:
        """Tell whether this way is not clearly slower than another one."""
        return self.waited * other.bytes * _ENOUGH < other.waited * self.bytes


class Streams:
    """The bytes of a range of an image without holes.

    :param reader: the image
    :param offset: first byte
    :param stop: the byte behind the last one
    :param chunk_size: bytes of a chunk at most
    """

    def __init__(self, reader: StreamingReader, offset: int, stop: int, chunk_size: int) -> None:
        self._reader = reader
        self._offset = offset
        self._end = stop
        part = max(1, reader.range_size // _CHUNKS_IN_A_RANGE)
        self._chunk_size = min(chunk_size, part, _CHUNK)
        self._alone: Generator[bytes, None, None] | None = None
        self._beside: ReadAhead | None = None
        self._stopped = threading.Event()
        self._share = Share(getattr(reader, "memory", None), ahead=True)

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes in order, from the first one on in the consumer's thread."""
        position, size = self._offset, self._reader.range_size
        # No more than a range is too little for several: it comes in one piece.
        length = size
        if self._end - position > size:
            length = min(max(1, int(_FIRST * size)), _FIRST_AT_MOST)
        alone = _Meter()
        while position < self._end and not self._stopped.is_set():
            piece = Extent(position, min(length, self._end - position), True)
            if alone.is_clear():
                alone = _Meter()
            # Closed here as well: stop() cannot do it while another thread reads.
            with contextlib.closing(self._read(piece)) as self._alone:
                if self._stopped.is_set():
                    # Perhaps it came before it could see this one.
                    return
                for chunk in alone.over(self._alone):
                    position += len(chunk)
                    yield chunk
            length = min(_GROWTH * length, _LONGEST * size)
            if alone.is_slow() and (threads := self._threads(position)) > 1:
                for chunk in self._side_by_side(position, threads, alone):
                    position += len(chunk)
                    yield chunk
                self._share.close()
                length = _LONGEST * size

    def _threads(self, position: int) -> int:
        """Return how many answers there may be at once, as far as there is memory for them."""
        threads, size = self._reader.concurrency, self._reader.range_size
        if self._end - position <= size:
            return 1
        while threads > 1 and not self._share.try_take(threads * size):
            threads //= 2
        return threads

    def _side_by_side(self, position: int, threads: int, alone: _Meter) -> Iterator[bytes]:
        """Yield what follows from several answers, as long as that is faster than one."""
        short = max(1, int(_SHORT * self._reader.range_size))
        trial = _TRIED * threads * short
        # Of a short rest there would be nothing left to decide about.
        open_question = self._end - position > 2 * trial
        begun = position + trial if open_question else position
        # All threads end at the same time when their ranges are of one size.
        rest = self._end - begun
        rounds = -(-rest // (threads * self._reader.range_size))
        size = -(-rest // (threads * rounds))
        parts = itertools.chain(
            pieces(self._reader, position, begun, short),
            pieces(self._reader, begun, self._end, size),
        )
        self._beside = beside = ReadAhead(self._reader, parts, self._read, threads)
        if self._stopped.is_set():
            return
        meter = _Meter()
        # The first of all ranges come at the same time, after a while without any.
        for chunk in meter.over(beside.chunks(), threads * short):
            yield chunk
            if open_question and meter.bytes >= threads * short:
                open_question = False
                if not meter.keeps_up(alone):
                    beside.wind_down()

    def _read(self, piece: Extent) -> Generator[bytes, None, None]:
        return stream_piece(self._reader, piece, self._chunk_size)

    def stop(self, wait: bool) -> None:
        """Read no more; the reader is closed when the last read in flight has ended.

        :param wait: until it has
        """
        self._stopped.set()
        self._share.close()
        if self._alone is not None:
            # Another thread may be reading: it lets go of its answer when it has what it waits for.
            with contextlib.suppress(ValueError):
                self._alone.close()
        if self._beside is None:
            self._reader.close()
        else:
            self._beside.stop(wait)
