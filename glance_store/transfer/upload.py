# SPDX-License-Identifier: Apache-2.0
"""One upload: source -> blocks -> digests and writer, all or nothing.

The caller's thread alone reads the source. Each digest has a thread of its own (hashlib lets go of
the interpreter lock), the writer as many as it wants. A counted budget of blocks bounds memory. An
image that fits one block takes no thread at all.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from glance_store import exceptions
from glance_store.i18n import _
from glance_store.transfer import sparse
from glance_store.transfer.digest import Digests, Updatable
from glance_store.transfer.interface import ImageWriter, Unfinished
from glance_store.transfer.load import LOAD
from glance_store.transfer.memory import Share
from glance_store.transfer.source import BlockSource, Buffer

LOG = logging.getLogger(__name__)

# Small blocks want a deeper queue, so that lanes of uneven speed do not wait for each other.
_QUEUE_BYTES = 8 * 1024 * 1024


class UploadResult(NamedTuple):
    """What was stored: bytes, hexadecimal md5, hexadecimal multihash."""

    size: int
    checksum: str
    multihash: str


def default_budget(writer: ImageWriter) -> int:
    """Return how many blocks of an upload may be in memory at once.

    Of blocks that grow (see `GrowingWriter`) fewer are: as many as have the bytes of that many
    blocks of the first size, or one.
    """
    held: int | None = getattr(writer, "blocks_held", None)
    return held or max(writer.concurrency + 2, _QUEUE_BYTES // writer.block_size)


def upload(
    source: Any,
    writer: ImageWriter,
    digests: Digests,
    size: int = 0,
    budget: int | None = None,
) -> UploadResult:
    """Store all bytes of a source through a writer.

    :param source: an object with ``read(n)``, or an iterable of bytes
    :param writer: where the image goes; committed on success, aborted on any failure
    :param digests: new digests for this upload
    :param size: bytes that the source must have; 0 when unknown
    :param budget: blocks in memory at most, at least 2; None for `default_budget`
    :returns: size and digests of what was stored
    :raises Invalid: the source has more or fewer bytes than `size`, or is no source of bytes
    :raises Exception: whatever the source, the writer or the verifier raised first
    """
    try:
        if hasattr(writer, "digests"):
            # Complete when commit() is called.
            writer.digests = digests
        share = Share(getattr(writer, "memory", None))
        # Zeros are looked for in blocks that are bytes.
        buffers = None if writer.holes else share
        blocks = _SizedSource(source, _block_sizes(writer), size, buffers)
        try:
            total = _transfer(blocks, writer, digests, budget, share)
        finally:
            share.close()
        result = UploadResult(total, digests.checksum, digests.multihash)
        digests.approve(total)
        writer.commit(total)
        # Inside: an interrupt that comes when all is done still finds somebody to abort it.
        return result
    except BaseException:
        _abort(writer)
        raise


def fill(writer: Unfinished, copy: Callable[[], bool], size: int) -> bool:
    """Store an image whose bytes the backend copies by itself.

    :param writer: where the image goes; committed on success, aborted on any failure
    :param copy: has all bytes copied; False: the backend cannot do that
    :param size: bytes of the image
    :returns: whether it is stored; if not, nothing of it is left
    :raises Exception: whatever failed first
    """
    try:
        copied = copy()
        if copied:
            writer.commit(size)
            # Inside: an interrupt that comes when all is done still finds somebody to abort it.
            return True
    except BaseException:
        _abort(writer)
        raise
    _abort(writer)
    return False


def _block_sizes(writer: ImageWriter) -> Callable[[int], int]:
    """Return the function that tells the bytes of the block at an offset."""
    block_size = writer.block_size
    growing: Callable[[int], int] | None = getattr(writer, "block_size_at", None)
    return growing or (lambda _offset: block_size)


def _interrupt(writer: ImageWriter) -> None:
    """Have writes that wait for their backend end soon."""
    interrupt: Callable[[], None] | None = getattr(writer, "interrupt", None)
    if interrupt is not None:
        interrupt()


def _abort(writer: Unfinished) -> None:
    try:
        writer.abort()
    except Exception:
        # The first error is on its way to the caller and must not be masked.
        LOG.exception("What a failed upload has left in the backend could not be removed")


class _SizedSource:
    """The blocks of a source that must have exactly `expected` bytes (0: any number)."""

    def __init__(
        self,
        source: Any,
        block_size_at: Callable[[int], int],
        expected: int,
        buffers: Share | None,
    ) -> None:
        self._source = BlockSource(source, buffers)
        self._block_size_at = block_size_at
        self._expected = expected
        self.block_size = block_size_at(0)  # of the block that is next
        self.total = 0

    def next_block(self) -> Buffer:
        """Return the next block, empty at the end; raise Invalid when the size is wrong.

        Whoever gets the last block of an announced size knows that it is the last one.
        """
        wanted = self.block_size
        if self._expected:
            # One byte past the announced end tells that there is too much, and costs nothing.
            wanted = min(wanted, self._expected - self.total + 1)
        block = self._source.block(wanted, self.block_size)
        self.total += len(block)
        if len(block) == self.block_size:
            self.block_size = self._block_size_at(self.total)
        if not self._expected:
            return block
        if self.total > self._expected or (
            block and self.total == self._expected and self._source.block(1)
        ):
            raise exceptions.Invalid(
                _("Size exceeds: expected %(expected)d bytes, the image data has more"),
                expected=self._expected,
            )
        if len(block) < wanted and self.total < self._expected:
            raise exceptions.Invalid(
                _("Size mismatch: expected %(expected)d bytes, the image data has %(actual)d"),
                expected=self._expected,
                actual=self.total,
            )
        return block


def _transfer(
    source: _SizedSource,
    writer: ImageWriter,
    digests: Digests,
    budget: int | None,
    share: Share,
) -> int:
    offset = 0
    while True:
        # Here no block is held: who waits keeps nobody waiting.
        wanted = source.block_size
        held = share.take(wanted)
        block = source.next_block()
        if len(block) == wanted and _has_use_for_threads(writer):
            more = source.block_size
            if share.try_take(more):
                second = source.next_block()
                if second:
                    break
                share.give(more)
        _work_off(block, offset, writer, digests)
        if len(block) < wanted:
            return source.total
        offset += len(block)
        share.recycle(block)
        share.give(held)
        del block
    read_already = [_Read(second, more), _Read(block, held)]
    # Blocks are counted, and none may live on in a variable.
    del block, second
    # Two have been read by now, whatever the budget.
    blocks = max(2, default_budget(writer) if budget is None else budget)
    lanes = _Lanes(blocks * writer.block_size, share)
    _run(lanes, source, read_already, offset, writer, digests)
    return source.total


def _has_use_for_threads(writer: ImageWriter) -> bool:
    # Threads of its own would only take turns with the uploads that keep all cores busy.
    return writer.concurrency > 1 or LOAD.has_spare_core()


class _Read(NamedTuple):
    """A block that was read, and the bytes of shared memory that are held for it."""

    block: Buffer
    held: int


def _run(
    lanes: _Lanes,
    source: _SizedSource,
    read_already: list[_Read],
    offset: int,
    writer: ImageWriter,
    digests: Digests,
) -> None:
    """Move all that follows an offset over threads."""
    try:
        for consumer in digests.consumers:
            lanes.start(1, functools.partial(_update, consumer))
        lanes.start(writer.concurrency, functools.partial(_write, writer))
        _feed(lanes, source, read_already, offset)
        lanes.finish()
    except Exception as exc:
        _interrupt(writer)
        lane_error = lanes.cancel()
        if lane_error is not None and lane_error is not exc:
            # A lane had failed before the source did.
            raise lane_error from exc
        raise
    except BaseException:
        _interrupt(writer)
        lanes.cancel()
        raise


def _work_off(block: Buffer, offset: int, writer: ImageWriter, digests: Digests) -> None:
    """Do all that a block needs in the caller's thread."""
    if not block:
        return
    try:
        LOAD.enter(digests)
        for consumer in digests.consumers:
            consumer.update(block)
        _write(writer, offset, block)
    finally:
        LOAD.leave(digests)


def _feed(lanes: _Lanes, source: _SizedSource, read_already: list[_Read], offset: int) -> None:
    while True:
        # Room first, data second: what is being read counts as well.
        if read_already:
            room = lanes.reserve(len(read_already[-1].block), read_already[-1].held)
            block = read_already.pop().block
        else:
            room = lanes.reserve(source.block_size)
            block = source.next_block()
        if not block:
            return
        lanes.put(offset, block, room)
        offset += len(block)
        del block


def _update(consumer: Updatable, _offset: int, block: Buffer) -> None:
    consumer.update(block)


def _write(writer: ImageWriter, offset: int, block: Buffer) -> None:
    with memoryview(block) as view:
        if not writer.holes or isinstance(block, memoryview):
            writer.write(offset, view)
            return
        for start, end in sparse.data_runs(block):
            with view[start:end] as run:
                writer.write(offset + start, run)


class _Room(NamedTuple):
    """The bytes that are held for a block: of the upload's budget, of the memory of all."""

    own: int
    shared: int


class _Item:
    """A block, the bytes that are held for it, and how many lanes still need it."""

    __slots__ = ("block", "offset", "pending", "room")

    def __init__(self, offset: int, block: Buffer, room: _Room, pending: int) -> None:
        self.offset = offset
        self.block = block
        self.room = room
        self.pending = pending


class _Lane:
    """A queue of blocks in order, and the wake-up of the threads that empty it."""

    def __init__(self, lock: threading.RLock, handle: Callable[[int, Buffer], None]) -> None:
        self.items: deque[_Item] = deque()
        self.ready = threading.Condition(lock)
        self.handle = handle


class _Lanes:
    """Feeds every block to every lane; at most `budget` bytes are on their way, or one block."""

    def __init__(self, budget: int, share: Share) -> None:
        # Reentrant: only then does an interrupted wait() of a condition hold its lock at its end.
        self._lock = threading.RLock()
        self._space = threading.Condition(self._lock)
        self._idle = threading.Condition(self._lock)
        self._budget = self._free = budget
        self._share = share
        self._in_flight = 0  # blocks that some lane still needs
        self._busy = 0  # threads with a block in hand
        self._lanes: list[_Lane] = []
        self._threads: list[threading.Thread] = []
        self._closed = False  # no block will follow
        self._stopped = False  # blocks that wait are not worked on any more
        self.error: BaseException | None = None

    def start(self, threads: int, handle: Callable[[int, Buffer], None]) -> None:
        """Add a lane whose blocks are handled by a number of threads."""
        lane = _Lane(self._lock, handle)
        self._lanes.append(lane)
        for _number in range(max(1, threads)):
            thread = threading.Thread(
                target=self._work, args=(lane,), name="glance_store-upload", daemon=True
            )
            thread.start()
            self._threads.append(thread)

    def reserve(self, block_size: int, held: int | None = None) -> _Room:
        """Wait for room for one block; raise what a lane has raised.

        :param block_size: bytes
        :param held: bytes of shared memory that are held for it already
        :returns: the bytes that are now held for it
        """
        # A block that is larger than the whole budget passes alone.
        room = min(block_size, self._budget)
        with self._lock:
            while self._free < room and not self._stopped:
                self._space.wait()
            self._check()
            self._free -= room
        if held is None:
            held = self._share.take(block_size, lambda: self._stopped)
            self._check()
        return _Room(room, held)

    def _check(self) -> None:
        if self.error is not None:
            raise self.error

    def put(self, offset: int, block: Buffer, room: _Room) -> None:
        """Hand a block, for which there is room, to all lanes."""
        with self._lock:
            self._in_flight += 1
            if self._in_flight == 1:
                LOAD.enter(self)
            item = _Item(offset, block, room, len(self._lanes))
            for lane in self._lanes:
                lane.items.append(item)
                lane.ready.notify()

    def finish(self) -> None:
        """Wait until all blocks are worked off; raise what a lane has raised."""
        with self._lock:
            self._closed = True
            self._wake_all()
            # Not by join(): whoever works on may be waiting for what only the caller can end.
            while self._in_flight and not self._stopped:
                self._space.wait()
        self._check()
        self._join()

    def cancel(self) -> BaseException | None:
        """Drop the blocks that wait, and wait for those that are worked on.

        :returns: what a lane had raised before
        :raises BaseException: the first interrupt meanwhile, and not before the wait is over:
            abort() would meet a write that still runs
        """
        # What a block in hand raises from now on is not the first error.
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
            # Not by join() alone: before Python 3.13 a join() that an interrupt has broken off
            # takes the thread for dead.
            while self._busy:
                self._idle.wait()
        self._join()
        with self._lock:
            self._landed(self._in_flight)

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

    def _landed(self, blocks: int) -> None:
        if blocks:
            if blocks == self._in_flight:
                LOAD.leave(self)
            self._in_flight -= blocks

    def _put_down(self) -> None:
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
                    self._put_down()
                    self._wake_all()
                return
            with self._lock:
                self._put_down()
                item.pending -= 1
                if not item.pending:
                    self._free += item.room.own
                    self._share.recycle(item.block)
                    self._share.give(item.room.shared)
                    self._space.notify()
                    self._landed(1)
            # Room was given back: the block may not live on while the lane waits for the next.
            del item
