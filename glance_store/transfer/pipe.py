# SPDX-License-Identifier: Apache-2.0
"""Feeds blocks to a running request, so that its body is never held in memory as a whole."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from glance_store.transfer.threads import start

_T = TypeVar("_T")

# The send timeout applies to each slice, so a slice must not be large. Each slice costs a system
# call and a thread switch, so it must not be small.
_SLICE = 256 * 1024


class BrokenOff(Exception):  # noqa: N818 - a signal, not an error
    """The upload was cancelled; no more data follows."""


class Pipe(Generic[_T]):
    """Runs a request on its own thread, with a file-like body fed block by block.

    :param send: sends a request with the given body and returns the response
    :param length: bytes of the body; None if unknown
    :param name: name of the thread
    """

    def __init__(self, send: Callable[[Feed], _T], length: int | None, name: str) -> None:
        self._send = send
        self._changed = threading.Condition()
        self._block: memoryview | None = None
        self._taken = False  # whether the request has the block
        self._ended = False
        self._cancelled = False
        self._over = False
        self._answer: list[_T] = []
        self._error: BaseException | None = None
        feed = KnownFeed(self._next, length) if length is not None else Feed(self._next)
        self._thread = threading.Thread(target=self._run, args=(feed,), name=name, daemon=True)
        start(self._thread)

    def _run(self, feed: Feed) -> None:
        answer, error = list[_T](), None
        try:
            answer.append(self._send(feed))
        except BaseException as exc:  # noqa: BLE001 - it is raised in the caller's thread
            error = exc
        feed.close()
        with self._changed:
            self._answer, self._error, self._over, self._block = answer, error, True, None
            self._changed.notify_all()

    def _next(self) -> memoryview | None:
        """Return the next block, None at the end. Releases the block before it."""
        with self._changed:
            if self._taken:
                self._block, self._taken = None, False
                self._changed.notify_all()
            while self._block is None and not self._ended and not self._cancelled:
                self._changed.wait()
            if self._cancelled:
                raise BrokenOff
            self._taken = self._block is not None
            return self._block

    @property
    def over(self) -> bool:
        """Whether the request has ended, for whatever reason."""
        return self._over

    def feed(self, block: memoryview) -> bool:
        """Send a block, at least one byte. It may be reused when this returns.

        :returns: False if the request has ended; see `finish`
        """
        with self._changed:
            if not self._over:
                self._block = block
                self._changed.notify_all()
            while self._block is not None and not self._over:
                self._changed.wait()
            return not self._over

    def finish(self) -> _T:
        """End the body, and return the response or raise what the request raised."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._answer[0]

    def cancel(self) -> None:
        """Cancel the request, and wait until it has ended."""
        with self._changed:
            self._cancelled = True
            self._changed.notify_all()
        self._thread.join()


class Feed:
    """The body of a request as a file that can be read once; clients send it in chunks."""

    def __init__(self, more: Callable[[], memoryview | None]) -> None:
        self._more = more
        self._block: memoryview | None = None
        self._position = 0

    def read(self, length: int | None = -1) -> memoryview | bytes:
        """Return the next slice, whatever the length asked for; empty at the end."""
        if self._block is None or self._position >= len(self._block):
            self.close()
            self._block, self._position = self._more(), 0
            if self._block is None:
                return b""
        part = self._block[self._position : self._position + _SLICE]
        self._position += len(part)
        return part

    def __iter__(self) -> Feed:
        return self

    def __next__(self) -> memoryview | bytes:
        part = self.read()
        if not part:
            raise StopIteration
        return part

    def close(self) -> None:
        """Release the block."""
        self._block = None


class KnownFeed(Feed):
    """A `Feed` with a known length."""

    def __init__(self, more: Callable[[], memoryview | None], length: int) -> None:
        super().__init__(more)
        self._length = length

    def __len__(self) -> int:
        return self._length
