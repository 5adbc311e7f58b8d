# SPDX-License-Identifier: Apache-2.0
"""Threads that read ahead of the consumer of a download."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator

from glance_store import exceptions
from glance_store.transfer.interface import Extent, ImageReader
from glance_store.transfer.threads import start


class _Slot:
    """State of a piece: chunks not taken yet, and the error if it failed."""

    __slots__ = ("chunks", "error", "missing")

    def __init__(self, missing: int) -> None:
        self.chunks: deque[bytes] = deque()
        self.missing = missing  # bytes not read yet
        self.error: BaseException | None = None


class ReadAhead:
    """Reads pieces on threads, ahead of the consumer and in any order; delivers them in order.

    The threads refer to this object and never to the `Download`, so that a dropped download is
    garbage-collected and stops them.

    :param reader: the image
    :param pieces: the pieces, in order
    :param read: yields exactly the bytes of a piece
    :param threads: number of threads, and maximum pieces in memory; default: the reader's
        `concurrency`
    """

    def __init__(
        self,
        reader: ImageReader,
        pieces: Iterator[Extent],
        read: Callable[[Extent], Generator[bytes, None, None]],
        threads: int | None = None,
    ) -> None:
        self._reader = reader
        self._pieces = pieces
        self._read = read
        # Reentrant: the garbage collector may call stop() on a thread that holds the lock.
        self._lock = threading.RLock()
        self._room = threading.Condition(self._lock)  # the consumer has a whole piece
        self._more = threading.Condition(self._lock)  # a chunk has been read
        self._window = reader.concurrency if threads is None else threads
        self._taken = 0  # pieces given to threads
        self._delivered = 0  # pieces delivered completely
        self._total: int | None = None  # number of pieces, once known
        self._slots: dict[int, _Slot] = {}
        self._stopped = False
        self._running = 0
        self._threads: list[threading.Thread] = []

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes in order. Threads start with the first chunk."""
        for _number in range(self._window):
            thread = threading.Thread(target=self._work, name="glance_store-download", daemon=True)
            with self._lock:
                if self._stopped:
                    return
                self._running += 1
            try:
                start(thread)
            except exceptions.BackendUnavailable:
                # Not on an interrupt: by then the thread is running or about to.
                with self._lock:
                    self._running -= 1
                if self._threads:
                    # Those that run read all of it.
                    break
                raise
            self._threads.append(thread)
        while (chunk := self._take()) is not None:
            yield chunk

    def _take(self) -> bytes | None:
        with self._lock:
            while True:
                slot = self._slots.get(self._delivered)
                if slot is not None and slot.chunks:
                    chunk = slot.chunks.popleft()
                    if not slot.chunks and not slot.missing:
                        del self._slots[self._delivered]
                        self._delivered += 1
                        self._room.notify()
                    return chunk
                if slot is not None and slot.error is not None:
                    raise slot.error
                if self._stopped or self._delivered == self._total:
                    return None
                self._more.wait()

    def _next_piece(self) -> tuple[_Slot, Extent] | None:
        with self._lock:
            while not self._stopped and self._total is None:
                if self._taken - self._delivered < self._window:
                    number = self._taken
                    try:
                        piece = next(self._pieces, None)
                    except BaseException as exc:  # noqa: BLE001 - raised in the consumer's thread
                        slot = self._slots[number] = _Slot(0)
                        slot.error = exc
                        self._taken = number + 1
                        self._end()
                        return None
                    if piece is None:
                        self._end()
                        return None
                    self._taken += 1
                    slot = self._slots[number] = _Slot(piece.length)
                    return slot, piece
                self._room.wait()
            return None

    def _end(self) -> None:
        """Record that no more pieces follow."""
        self._total = self._taken
        self._more.notify_all()
        self._room.notify_all()

    def _work(self) -> None:
        try:
            while (task := self._next_piece()) is not None:
                slot, piece = task
                try:
                    self._fill(slot, piece)
                except BaseException as exc:  # noqa: BLE001 - it is raised in the consumer's thread
                    with self._lock:
                        slot.error = exc
                        self._more.notify()
        finally:
            with self._lock:
                self._running -= 1
                last = self._stopped and not self._running
            if last:
                self._reader.close()

    def _fill(self, slot: _Slot, piece: Extent) -> None:
        with contextlib.closing(self._read(piece)) as chunks:
            for chunk in chunks:
                with self._lock:
                    slot.chunks.append(chunk)
                    slot.missing -= len(chunk)
                    self._more.notify()
                    if self._stopped:
                        return

    def wind_down(self) -> None:
        """Start no more pieces; deliver those already started, then end."""
        with self._lock:
            if self._total is None:
                self._end()

    def stop(self, wait: bool) -> None:
        """Stop reading. The reader is closed when the last read in flight ends; `wait` for that."""
        with self._lock:
            self._stopped = True
            self._room.notify_all()
            self._more.notify_all()
            idle = not self._running
        if idle:
            self._reader.close()
        elif wait:
            for thread in self._threads:
                thread.join()
