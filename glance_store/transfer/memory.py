# SPDX-License-Identifier: Apache-2.0
"""The memory that all transfers of a store share: one alone may use it, forty get along with it.

Whoever waits here holds no block that has not been begun: what is held by others comes back by
itself. Bytes are held in the name of their transfer, and those of one that an interrupt has ended
come back when it is collected.
"""

from __future__ import annotations

import mmap
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable

# Blocks from this size on have buffers in pages of their own. What the allocator gets back from
# many threads it keeps, a heap for each of them: a process would take a multiple of what is in use.
# And pages that are used again need not be fetched from the system, which takes nearly as long as
# hashing them.
_LARGE = 4 * 1024 * 1024
# Seconds after which somebody who waits looks whether a transfer has been collected meanwhile.
_LOOK = 1.0


class Memory:
    """Bytes that transfers take and give back. Safe in threads and forks.

    :param size: how many there are
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._begin()
        _EVERY.add(self)

    def _begin(self) -> None:
        # Re-entrant: the collector may give back in a thread that takes.
        self._changed = threading.Condition(threading.RLock())
        self._held: weakref.WeakKeyDictionary[object, int] = weakref.WeakKeyDictionary()
        self._queue: deque[object] = deque()
        self._ahead: weakref.WeakSet[object] = weakref.WeakSet()  # transfers that read ahead
        self._idle: dict[int, list[mmap.mmap]] = {}  # by their bytes
        self._buffers: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()  # those in use, too

    def _free(self) -> int:
        return self.size - sum(list(self._held.values()))

    def has(self, wanted: int) -> bool:
        """Tell whether there are so many bytes now, and nobody waits for some."""
        with self._changed:
            return not self._queue and self._free() >= wanted

    def take(self, holder: object, wanted: int, is_over: Callable[[], bool] = lambda: False) -> int:
        """Wait for bytes, after those who came before.

        :param holder: the transfer, which holds none but in blocks that are being worked on
        :param wanted: how many; one that wants more than there are gets all of them
        :param is_over: whether the wait has lost its purpose; see `wake`
        :returns: the bytes that are held now; 0 if it is over
        """
        wanted = min(wanted, self.size)
        ticket = object()
        with self._changed:
            self._queue.append(ticket)
            try:
                while self._queue[0] is not ticket or self._free() < wanted:
                    if is_over():
                        return 0
                    self._changed.wait(_LOOK)
                self._hold(holder, wanted)
                return wanted
            finally:
                self._queue.remove(ticket)
                self._changed.notify_all()

    def try_take(self, holder: object, wanted: int, ahead: bool = False) -> bool:
        """Take bytes if there are so many, and nobody waits for some.

        :param holder: the transfer
        :param wanted: how many
        :param ahead: for what nobody has asked for yet, as long as somebody reads slowly: all of
            these together have half of the memory at most, so that uploads go on beside them
        """
        with self._changed:
            if not self.has(wanted):
                return False
            if ahead:
                self._ahead.add(holder)
                if self._held_ahead() + wanted > self.size // 2:
                    return False
            self._hold(holder, wanted)
            return True

    def _held_ahead(self) -> int:
        return sum(self._held.get(holder, 0) for holder in list(self._ahead))

    def _hold(self, holder: object, more: int) -> None:
        self._held[holder] = self._held.get(holder, 0) + more

    def give(self, holder: object, bytes_: int) -> None:
        """Give bytes back.

        :param holder: the transfer
        :param bytes_: how many
        """
        with self._changed:
            self._held[holder] = max(0, self._held.get(holder, 0) - bytes_)
            self._changed.notify_all()

    def give_all(self, holder: object) -> None:
        """Give back what a transfer holds."""
        with self._changed:
            self._held.pop(holder, None)
            self._let_go()
            self._changed.notify_all()

    def buffer(self, length: int) -> mmap.mmap | None:
        """Return a buffer for a block whose bytes are held; None where it needs none.

        :param length: its bytes
        """
        if length < _LARGE:
            return None
        with self._changed:
            idle = self._idle.get(length)
            if idle:
                return idle.pop()
            # Those of other sizes make room.
            for others in self._idle.values():
                while others and sum(map(len, self._buffers)) + length > self.size:
                    others.pop()
            made = mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            self._buffers.add(made)
            return made

    def recycle(self, block: object) -> None:
        """Take back the buffer of a block that nobody uses any more.

        :param block: of any kind
        """
        buffer = block.obj if isinstance(block, memoryview) else None
        if isinstance(buffer, mmap.mmap):
            with self._changed:
                self._idle.setdefault(len(buffer), []).append(buffer)

    def _let_go(self) -> None:
        """Give the pages back to the system when no transfer holds anything."""
        if not any(self._held.values()):
            self._idle.clear()

    def wake(self) -> None:
        """Have those who wait look whether it is over."""
        with self._changed:
            self._changed.notify_all()

    def forget(self) -> None:
        """Begin anew, in a forked process: the transfers of the other one are not there."""
        self._begin()


_EVERY: weakref.WeakSet[Memory] = weakref.WeakSet()


def _forget_all() -> None:
    for memory in list(_EVERY):
        memory.forget()


os.register_at_fork(after_in_child=_forget_all)


class Share:
    """What one transfer holds of the memory of its store.

    :param memory: that is shared; None: there is no limit but the transfer's own
    :param ahead: whether it is for what is read ahead
    """

    def __init__(self, memory: Memory | None, ahead: bool = False) -> None:
        self._memory = memory
        self._ahead = ahead

    def take(self, wanted: int, is_over: Callable[[], bool] = lambda: False) -> int:
        """Wait for bytes; the transfer holds none but in blocks that are being worked on.

        :param wanted: how many
        :param is_over: whether the wait has lost its purpose; see `wake`
        :returns: the bytes that are held now
        """
        return 0 if self._memory is None else self._memory.take(self, wanted, is_over)

    def try_take(self, wanted: int) -> bool:
        """Take bytes, or say that there are not so many."""
        return self._memory is None or self._memory.try_take(self, wanted, self._ahead)

    def give(self, held: int) -> None:
        """Give bytes back."""
        if self._memory is not None and held:
            self._memory.give(self, held)

    def buffer(self, length: int) -> mmap.mmap | None:
        """Return a buffer for a block whose bytes are held; None where it needs none."""
        return None if self._memory is None else self._memory.buffer(length)

    def recycle(self, block: object) -> None:
        """Take back the buffer of a block that nobody uses any more."""
        if self._memory is not None:
            self._memory.recycle(block)

    def wake(self) -> None:
        """Have whoever waits look whether it is over."""
        if self._memory is not None:
            self._memory.wake()

    def close(self) -> None:
        """Give all of it back."""
        if self._memory is not None:
            self._memory.give_all(self)
