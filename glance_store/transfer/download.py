# SPDX-License-Identifier: Apache-2.0
"""One download: a range of a stored image -> read-ahead -> chunks in order, never short.

Where a backend profits from several reads in flight, threads fetch ahead of the consumer, bounded
to as many chunks; else the consumer's thread reads. Holes are delivered without being fetched.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import TracebackType
from typing import NamedTuple

from glance_store import exceptions
from glance_store.transfer.interface import Extent, ImageReader

CHUNK_SIZE = 4 * 1024 * 1024


def clip(size: int | None, offset: int, length: int | None) -> int | None:
    """Return how many bytes a range of an image has.

    :param size: bytes of the image, None if unknown
    :param offset: first byte of the range
    :param length: bytes asked for; None for all that follow
    :returns: bytes that will be delivered; None when the end is unknown
    """
    if size is None:
        return None
    rest = max(0, size - offset)
    return rest if length is None else min(length, rest)


class Download:
    """The bytes of a range of an image: an iterator of chunks, with `close`.

    :param reader: the image; closed before the last chunk is handed over, at the end, on `close`,
        on an error, and when the iterator is thrown away half-way
    :param offset: first byte, at least 0
    :param length: bytes wanted, None for all; clipped at the end of the image
    :param chunk_size: bytes of a chunk at most, and of a read from the backend
    """

    def __init__(
        self,
        reader: ImageReader,
        offset: int = 0,
        length: int | None = None,
        chunk_size: int = CHUNK_SIZE,
    ) -> None:
        # Complete from here on: should what follows fail, the reader is closed all the same.
        self._reader = reader
        self._chunks: Iterator[bytes] = iter(())
        self._read_ahead: _ReadAhead | None = None
        self._closed = False
        self._delivered = 0
        self.length = clip(reader.size, offset, length)
        stop = None if self.length is None else offset + self.length
        if reader.concurrency > 1 and self.length is not None and self.length > chunk_size:
            self._read_ahead = _ReadAhead(reader, offset, offset + self.length, chunk_size)
            self._chunks = self._read_ahead.chunks()
        elif stop is None:
            self._chunks = _read_unknown(reader, offset, length, chunk_size)
        else:
            self._chunks = _read_range(reader, offset, stop, chunk_size)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            chunk = next(self._chunks)
        except BaseException:
            # The end, or an error: either way nothing more is read.
            self.close()
            raise
        self._delivered += len(chunk)
        if self._delivered == self.length:
            # Before the last bytes are handed over: whoever has them may go on to remove the image.
            self.close()
        return chunk

    def __enter__(self) -> Download:  # noqa: PYI034 - typing.Self came with Python 3.11
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop reading and let go of the image; waits for reads in flight."""
        self._release(wait=True)

    def __del__(self) -> None:
        # Never wait here: the garbage collector may run in any thread, at any time.
        self._release(wait=False)

    def _release(self, wait: bool) -> None:
        if self._closed:
            return
        self._closed = True
        self._chunks = iter(())
        if self._read_ahead is None:
            self._reader.close()
        else:
            self._read_ahead.stop(wait)


def _pieces(reader: ImageReader, offset: int, stop: int, chunk_size: int) -> Iterator[Extent]:
    """Cut a range into pieces of at most `chunk_size`, each all data or all hole."""
    if offset >= stop:
        return
    position = offset
    for extent in reader.extents(offset, stop - offset):
        if extent.offset != position:
            raise exceptions.BackendException(
                f"The backend described byte {extent.offset} of the image where byte {position} "
                "came next"
            )
        end = min(position + extent.length, stop)
        while position < end:
            length = min(chunk_size, end - position)
            yield Extent(position, length, extent.data)
            position += length
    if position < stop:
        raise exceptions.TruncatedImage(position=position, expected=reader.size)


def _too_much(delivered: int, wanted: int) -> exceptions.BackendException:
    return exceptions.BackendException(
        f"The backend delivered {delivered} bytes where {wanted} were asked for"
    )


def _read_piece(reader: ImageReader, piece: Extent) -> bytes:
    """Return exactly the bytes of a piece."""
    if not piece.data:
        return bytes(piece.length)
    data = reader.read_at(piece.offset, piece.length)
    if len(data) == piece.length:
        return data
    whole = bytearray(data)
    while len(whole) < piece.length:
        position = piece.offset + len(whole)
        data = reader.read_at(position, piece.length - len(whole))
        if not data:
            raise exceptions.TruncatedImage(position=position, expected=reader.size)
        whole += data
    if len(whole) > piece.length:
        raise _too_much(len(whole), piece.length)
    return bytes(whole)


def _read_range(reader: ImageReader, offset: int, stop: int, chunk_size: int) -> Iterator[bytes]:
    zeros = b""
    for piece in _pieces(reader, offset, stop, chunk_size):
        if piece.data:
            yield _read_piece(reader, piece)
        else:
            # One run of zeros serves a whole hole, however large.
            if len(zeros) != piece.length:
                zeros = bytes(piece.length)
            yield zeros


def _read_unknown(
    reader: ImageReader, offset: int, length: int | None, chunk_size: int
) -> Iterator[bytes]:
    """Read on until the backend says that the image has ended."""
    position = offset
    while length is None or position < offset + length:
        wanted = chunk_size if length is None else min(chunk_size, offset + length - position)
        data = reader.read_at(position, wanted)
        if not data:
            return
        if len(data) > wanted:
            raise _too_much(len(data), wanted)
        position += len(data)
        yield data


class _Slot(NamedTuple):
    """The outcome of one piece: its bytes, or what went wrong."""

    data: bytes
    error: BaseException | None


class _ReadAhead:
    """Reads pieces on threads, ahead of the consumer and in any order; hands them out in order.

    The threads hold this object, never the `Download`: an iterator that is thrown away is noticed.
    """

    def __init__(self, reader: ImageReader, offset: int, stop: int, chunk_size: int) -> None:
        self._reader = reader
        self._pieces = _pieces(reader, offset, stop, chunk_size)
        # Reentrant: the collector may run stop() in a thread that holds the lock.
        self._lock = threading.RLock()
        self._room = threading.Condition(self._lock)  # the consumer took a piece
        self._done = threading.Condition(self._lock)  # a piece has been read
        self._window = reader.concurrency
        self._taken = 0  # pieces given to threads
        self._delivered = 0  # pieces given to the consumer
        self._total: int | None = None  # number of pieces, once known
        self._slots: dict[int, _Slot] = {}
        self._stopped = False
        self._running = 0
        self._threads: list[threading.Thread] = []

    def chunks(self) -> Iterator[bytes]:
        """Yield the pieces in order. Threads start with the first one."""
        for _number in range(self._window):
            thread = threading.Thread(target=self._work, name="glance_store-download", daemon=True)
            with self._lock:
                self._running += 1
            try:
                thread.start()
            except Exception:
                # An interrupt is no such case: by then the thread runs, or is about to.
                with self._lock:
                    self._running -= 1
                raise
            self._threads.append(thread)
        while (slot := self._take()) is not None:
            if slot.error is not None:
                raise slot.error
            yield slot.data

    def _take(self) -> _Slot | None:
        with self._lock:
            while self._delivered not in self._slots:
                if self._stopped or self._delivered == self._total:
                    return None
                self._done.wait()
            slot = self._slots.pop(self._delivered)
            self._delivered += 1
            self._room.notify()
            return slot

    def _next_piece(self) -> tuple[int, Extent] | None:
        with self._lock:
            while not self._stopped and self._total is None:
                if self._taken - self._delivered < self._window:
                    number = self._taken
                    try:
                        piece = next(self._pieces, None)
                    except BaseException as exc:  # noqa: BLE001 - raised in the consumer's thread
                        self._slots[number] = _Slot(b"", exc)
                        self._taken, self._total, piece = number + 1, number + 1, None
                        self._done.notify_all()
                        self._room.notify_all()
                        return None
                    if piece is None:
                        self._total = number
                        self._done.notify_all()
                        self._room.notify_all()
                        return None
                    self._taken += 1
                    return number, piece
                self._room.wait()
            return None

    def _work(self) -> None:
        try:
            while (task := self._next_piece()) is not None:
                number, piece = task
                try:
                    slot = _Slot(_read_piece(self._reader, piece), None)
                except BaseException as exc:  # noqa: BLE001 - it is raised in the consumer's thread
                    slot = _Slot(b"", exc)
                with self._lock:
                    self._slots[number] = slot
                    self._done.notify()
        finally:
            with self._lock:
                self._running -= 1
                last = self._stopped and not self._running
            if last:
                self._reader.close()

    def stop(self, wait: bool) -> None:
        """Read no more; the reader is closed when the last read in flight has ended."""
        with self._lock:
            self._stopped = True
            self._room.notify_all()
            self._done.notify_all()
            idle = not self._running
        if idle:
            self._reader.close()
        elif wait:
            for thread in self._threads:
                thread.join()
