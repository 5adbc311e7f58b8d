# SPDX-License-Identifier: Apache-2.0
"""Hands blocks to a request that is sent while they come in, instead of being held as a whole."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

_T = TypeVar("_T")

# A time limit counts for the sending of one slice: it may not be large. Each costs a system call
# and a change of hands: it may not be small.
_SLICE = 256 * 1024


class BrokenOff(Exception):  # noqa: N818 - a signal and no error
    """The rest of the data will not come."""


class Pipe(Generic[_T]):
    """A request on a thread of its own, whose body is a file that blocks are fed to.

    :param send: sends a request with the body that it is given, and returns the answer
    :param length: bytes of the body; None when unknown
    :param name: of the thread
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
        self._thread.start()

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
        """Return the next block, None at the end; the one before is not needed any more."""
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
        """Whether the request has ended, before its time or not."""
        return self._over

    def feed(self, block: memoryview) -> bool:
        """Send a block; when this returns it is not needed any more.

        :param block: its bytes, at least one
        :returns: False: the request is over; see `finish`
        """
        with self._changed:
            if not self._over:
                self._block = block
                self._changed.notify_all()
            while self._block is not None and not self._over:
                self._changed.wait()
            return not self._over

    def finish(self) -> _T:
        """End the body, and return the answer.

        :raises BaseException: what the request has raised
        """
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._answer[0]

    def cancel(self) -> None:
        """Break the request off, and wait until it has ended."""
        with self._changed:
            self._cancelled = True
            self._changed.notify_all()
        self._thread.join()


class Feed:
    """The body of a request as a file that can be read once; clients send it in chunks.

    :param more: returns the next block, None at the end
    """

    def __init__(self, more: Callable[[], memoryview | None]) -> None:
        self._more = more
        self._block: memoryview | None = None
        self._position = 0

    def read(self, length: int | None = -1) -> memoryview | bytes:
        """Return the next bytes, whatever number of them was asked for; nothing at the end."""
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
        """Let go of the block."""
        self._block = None


class KnownFeed(Feed):
    """The same with a length that is known."""

    def __init__(self, more: Callable[[], memoryview | None], length: int) -> None:
        super().__init__(more)
        self._length = length

    def __len__(self) -> int:
        return self._length
