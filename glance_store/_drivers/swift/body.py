# SPDX-License-Identifier: Apache-2.0
"""The body of a PUT: a block of the engine in slices, hashed while they are sent."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterator

# The time limit counts for the sending of one slice: it may not be large. Each costs a system call
# and a change of hands: it may not be small.
_SLICE = 256 * 1024


def slices(view: memoryview) -> Generator[memoryview, None, None]:
    """Yield a block in slices.

    :param view: the block
    :returns: its slices; each is good until the next one is asked for
    """
    for start in range(0, len(view), _SLICE):
        with view[start : start + _SLICE] as part:
            yield part


class HashedBody:
    """A block in slices, as often as it has to be sent; no byte is copied, none is hashed twice.

    It is used by one thread. When it is closed nothing refers to the block any more.

    :param block: the bytes; they may not change as long as this object is in use
    :param sent: called once, when all of the bytes were handed over, or never will be
    """

    def __init__(
        self, block: memoryview | bytes, sent: Callable[[], object] = lambda: None
    ) -> None:
        self._sent: Callable[[], object] | None = sent
        self._view = memoryview(block)
        self._digest = hashlib.md5(usedforsecurity=False)
        self._hashed = 0  # bytes, from the beginning
        self._slices: Generator[memoryview, None, None] | None = None

    def __len__(self) -> int:
        return len(self._view)

    def __call__(self) -> Iterator[memoryview]:
        """Begin anew, and end what was begun before.

        :returns: the slices; each is good until the next one is asked for
        """
        self._end()
        self._slices = begun = self._cut()
        return begun

    def _cut(self) -> Generator[memoryview, None, None]:
        end = 0
        for part in slices(self._view):
            end += len(part)
            yield part
            # Behind the sending, not before it: the kernel has something to send meanwhile.
            self._hash(end)
        self._has_been_sent()

    def _has_been_sent(self) -> None:
        sent, self._sent = self._sent, None
        if sent is not None:
            sent()

    def _hash(self, end: int) -> None:
        if end > self._hashed:
            with self._view[self._hashed : end] as part:
                self._digest.update(part)
            self._hashed = end

    def etag(self) -> str:
        """Return the MD5 of the whole block, in hexadecimal, whatever part of it was sent."""
        self._hash(len(self._view))
        return self._digest.hexdigest()

    def _end(self) -> None:
        # The error of a request that broke off may still refer to its slices.
        begun, self._slices = self._slices, None
        if begun is not None:
            begun.close()

    def close(self) -> None:
        """Let go of the block."""
        self._end()
        self._has_been_sent()
        self._view.release()
