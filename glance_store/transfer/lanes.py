# SPDX-License-Identifier: Apache-2.0
"""The threads of an upload: each lane gets every block, within a budget of memory."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from glance_store import exceptions
from glance_store.transfer.load import LOAD
from glance_store.transfer.memory import Share
from glance_store.transfer.source import Buffer
from glance_store.transfer.threads import start


class Room(NamedTuple):
    """Bytes held for a block: of the upload's own budget, and of the shared memory."""

    own: int
    shared: int


class _Item:
    """A block, the bytes held for it, and the number of lanes that still need it."""

    __slots__ = ("block", "offset", "pending", "room")

    def __init__(self, offset: int, block: Buffer, room: Room, pending: int) -> None:
        self.offset = offset
        self.block = block
        self.room = room
        self.pending = pending


class _Lane:
    """A queue of blocks, and the condition that wakes its threads."""

    def __init__(self, lock: threading.RLock, handle: Callable[[int, Buffer], None]) -> None:
        self.items: deque[_Item] = deque()
        self.ready = threading.Condition(lock)
        self.handle = handle


class Lanes:
    """Feeds every block to every lane, with at most `budget` bytes (or one block) in flight."""

    def __init__(self, budget: int, share: Share) -> None:
        # Reentrant: only then does an interrupted Condition.wait() still hold the lock.
        self._lock = threading.RLock()
        self._space = threading.Condition(self._lock)
        self._idle = threading.Condition(self._lock)
        self._budget = self._free = budget
        self._share = share
        self._in_flight = 0  # blocks that a lane still needs
        self._busy = 0  # threads processing a block
        self._lanes: list[_Lane] = []
        self._threads: list[threading.Thread] = []
        self._closed = False  # no more blocks follow
        self._stopped = False  # waiting blocks are dropped
        self.error: BaseException | None = None

    def start(self, threads: int, handle: Callable[[int, Buffer], None]) -> None:
        """Add a lane and start its threads."""
        lane = _Lane(self._lock, handle)
        self._lanes.append(lane)
        for number in range(max(1, threads)):
            thread = threading.Thread(
                target=self._work, args=(lane,), name="glance_store-upload", daemon=True
            )
            try:
                start(thread)
            except exceptions.BackendUnavailable:
                if number:
                    # Those that run do all of it.
                    return
                raise
            self._threads.append(thread)

    def reserve(self, block_size: int, held: int | None = None) -> Room:
        """Wait for room for one block; raise what a lane raised.

        :param block_size: bytes of the block
        :param held: shared memory already held for it
        :returns: the bytes now held for it
        """
        # A block larger than the whole budget goes alone.
        room = min(block_size, self._budget)
        with self._lock:
            while self._free < room and not self._stopped:
                self._space.wait()
            self._check()
            self._free -= room
        if held is None:
            held = self._share.take(block_size, lambda: self._stopped)
            self._check()
        return Room(room, held)

    def _check(self) -> None:
        if self.error is not None:
            raise self.error

    def put(self, offset: int, block: Buffer, room: Room) -> None:
        """Pass a block with reserved room to all lanes."""
        with self._lock:
            self._in_flight += 1
            if self._in_flight == 1:
                LOAD.enter(self)
            item = _Item(offset, block, room, len(self._lanes))
            for lane in self._lanes:
                lane.items.append(item)
                lane.ready.notify()

    def finish(self) -> None:
        """Wait until all blocks are processed; raise what a lane raised."""
        with self._lock:
            self._closed = True
            self._wake_all()
            # Not with join(): if a lane fails, another may be stuck until the caller interrupts it.
            while self._in_flight and not self._stopped:
                self._space.wait()
        self._check()
        self._join()

    def cancel(self) -> BaseException | None:
        """Drop waiting blocks, and wait for those being processed.

        :returns: what a lane raised before
        :raises BaseException: the first interrupt during the wait, raised after it: `abort` must
            not run while a write does
        """
        # What a lane raises from now on is not the first error.
        error = self.error
        interrupt: BaseException | None = None
        while True:
            try:
                self._drain()
                break
            except BaseException as exc:  # noqa: BLE001 - it is raised below
                interrupt = interrupt or exc
        if interrupt is not None:
            raise interrupt
        return error

    def _drain(self) -> None:
        with self._lock:
            self._stopped = True
            for lane in self._lanes:
                lane.items.clear()
            self._wake_all()
            # Not with join() alone: before Python 3.13, an interrupted join() marks the thread as
            # ended.
            while self._busy:
                self._idle.wait()
        self._join()
        with self._lock:
            self._count_down(self._in_flight)

    def _join(self) -> None:
        for thread in self._threads:
            thread.join()

    def _wake_all(self) -> None:
        self._space.notify_all()
        self._share.wake()
        for lane in self._lanes:
            lane.ready.notify_all()

    def _next(self, lane: _Lane) -> _Item | None:
        with self._lock:
            while not self._stopped:
                if lane.items:
                    self._busy += 1
                    return lane.items.popleft()
                if self._closed:
                    return None
                lane.ready.wait()
            return None

    def _count_down(self, blocks: int) -> None:
        if blocks:
            if blocks == self._in_flight:
                LOAD.leave(self)
            self._in_flight -= blocks

    def _mark_idle(self) -> None:
        self._busy -= 1
        if not self._busy:
            self._idle.notify()

    def _work(self, lane: _Lane) -> None:
        while (item := self._next(lane)) is not None:
            try:
                lane.handle(item.offset, item.block)
            except BaseException as exc:  # noqa: BLE001 - it is raised in the caller's thread
                with self._lock:
                    if self.error is None:
                        self.error = exc
                    self._stopped = True
                    self._mark_idle()
                    self._wake_all()
                return
            with self._lock:
                self._mark_idle()
                item.pending -= 1
                if not item.pending:
                    self._free += item.room.own
                    self._share.recycle(item.block)
                    self._share.give(item.room.shared)
                    self._space.notify()
                    self._count_down(1)
            # Its room was given back, so do not keep the block while waiting for the next.
            del item
