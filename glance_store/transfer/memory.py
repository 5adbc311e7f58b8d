# SPDX-License-Identifier: Apache-2.0
"""Memory shared by all transfers of a store: one alone may use all of it, forty still fit.

A transfer that waits for memory holds only blocks that are already being processed. So memory held
by others always comes back, and nobody deadlocks. Bytes are held per transfer: if an interrupt ends
one, its bytes come back when it is garbage-collected.
"""

from __future__ import annotations

import mmap
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable

# Blocks of at least this size get buffers in their own pages. With many threads the allocator keeps
# freed memory in one heap per thread, so the process would take several times what is in use. And
# reused pages need not be requested from the kernel, which takes nearly as long as hashing them.
_LARGE = 4 * 1024 * 1024
# Seconds between checks of a waiting transfer for memory of collected transfers.
_LOOK = 1.0


class Memory:
    """Bytes that transfers take and give back. Safe with threads and forks.

    :param size: total bytes
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._begin()
        _EVERY.add(self)

    def _begin(self) -> None:
        # Reentrant: the garbage collector may call give() on a thread that is in take().
        self._changed = threading.Condition(threading.RLock())
        self._held: weakref.WeakKeyDictionary[object, int] = weakref.WeakKeyDictionary()
        self._queue: deque[object] = deque()
        self._ahead: weakref.WeakSet[object] = weakref.WeakSet()  # transfers that read ahead
        self._idle: dict[int, list[mmap.mmap]] = {}  # buffers by size
        self._buffers: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()  # idle and in use

    def _free(self) -> int:
        return self.size - sum(list(self._held.values()))

    def has(self, wanted: int) -> bool:
        """Tell whether that many bytes are free and nobody is waiting."""
        with self._changed:
            return not self._queue and self._free() >= wanted

    def take(self, holder: object, wanted: int, is_over: Callable[[], bool] = lambda: False) -> int:
        """Wait in line for bytes.

        :param holder: the transfer; it must hold bytes only for blocks being processed
        :param wanted: number of bytes, capped at the total
        :param is_over: tells whether to stop waiting; see `wake`
        :returns: the bytes taken; 0 if `is_over`
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
        """Take bytes if that many are free and nobody is waiting; tell whether it did.

        :param holder: the transfer
        :param wanted: number of bytes
        :param ahead: whether they are for read-ahead, which a slow consumer may hold for a long
            time. All read-ahead together gets at most half of the memory, so that uploads proceed
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
        """Give back some of the bytes a transfer holds."""
        with self._changed:
            self._held[holder] = max(0, self._held.get(holder, 0) - bytes_)
            self._changed.notify_all()

    def give_all(self, holder: object) -> None:
        """Give back all bytes a transfer holds."""
        with self._changed:
            self._held.pop(holder, None)
            self._let_go()
            self._changed.notify_all()

    def buffer(self, length: int) -> mmap.mmap | None:
        """Return a buffer for a block whose bytes are held; None if it is too small to need one."""
        if length < _LARGE:
            return None
        with self._changed:
            idle = self._idle.get(length)
            if idle:
                return idle.pop()
            # Drop idle buffers of other sizes to make room.
            for others in self._idle.values():
                while others and sum(map(len, self._buffers)) + length > self.size:
                    others.pop()
            made = mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            self._buffers.add(made)
            return made

    def recycle(self, block: object) -> None:
        """Take back the buffer of a block that is no longer used, if it has one."""
        buffer = block.obj if isinstance(block, memoryview) else None
        if isinstance(buffer, mmap.mmap):
            with self._changed:
                self._idle.setdefault(len(buffer), []).append(buffer)

    def _let_go(self) -> None:
        """Return the idle pages to the system if no transfer holds anything."""
        if not any(self._held.values()):
            self._idle.clear()

    def wake(self) -> None:
        """Make waiting transfers check `is_over`."""
        with self._changed:
            self._changed.notify_all()

    def forget(self) -> None:
        """Reset in a forked process, which does not have the parent's transfers."""
        self._begin()


_EVERY: weakref.WeakSet[Memory] = weakref.WeakSet()


def _forget_all() -> None:
    for memory in list(_EVERY):
        memory.forget()


os.register_at_fork(after_in_child=_forget_all)


class Share:
    """The share of one transfer in the memory of its store.

    :param memory: the shared memory; None if only the transfer's own limit applies
    :param ahead: whether it is for read-ahead
    """

    def __init__(self, memory: Memory | None, ahead: bool = False) -> None:
        self._memory = memory
        self._ahead = ahead

    def take(self, wanted: int, is_over: Callable[[], bool] = lambda: False) -> int:
        """Wait for bytes; see `Memory.take`."""
        return 0 if self._memory is None else self._memory.take(self, wanted, is_over)

    def try_take(self, wanted: int) -> bool:
        """Take bytes if that many are free; see `Memory.try_take`."""
        return self._memory is None or self._memory.try_take(self, wanted, self._ahead)

    def give(self, held: int) -> None:
        """Give bytes back."""
        if self._memory is not None and held:
            self._memory.give(self, held)

    def buffer(self, length: int) -> mmap.mmap | None:
        """Return a buffer for a block whose bytes are held; None if it needs none."""
        return None if self._memory is None else self._memory.buffer(length)

    def recycle(self, block: object) -> None:
        """Take back the buffer of a block that is no longer used."""
        if self._memory is not None:
            self._memory.recycle(block)

    def wake(self) -> None:
        """Make waiting transfers check `is_over`."""
        if self._memory is not None:
            self._memory.wake()

    def close(self) -> None:
        """Give everything back."""
        if self._memory is not None:
            self._memory.give_all(self)
