# SPDX-License-Identifier: Apache-2.0
"""One upload: source -> blocks -> digests and writer, all or nothing.

Only the caller's thread reads the source. Each digest has its own thread (hashlib releases the
GIL), and the writer has as many as it wants. A budget of blocks bounds memory. An image that fits
one block uses no threads.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any, NamedTuple

from glance_store import exceptions
from glance_store.i18n import _
from glance_store.transfer import sparse
from glance_store.transfer.digest import Digests, Updatable
from glance_store.transfer.interface import ImageWriter, Unfinished
from glance_store.transfer.lanes import Lanes
from glance_store.transfer.load import LOAD
from glance_store.transfer.memory import Share
from glance_store.transfer.source import BlockSource, Buffer

LOG = logging.getLogger(__name__)

# Small blocks need a deeper queue, so that lanes of uneven speed do not wait for each other.
_QUEUE_BYTES = 8 * 1024 * 1024


class UploadResult(NamedTuple):
    """What was stored: size in bytes, md5 and multihash in hexadecimal."""

    size: int
    checksum: str
    multihash: str


def default_budget(writer: ImageWriter) -> int:
    """Return how many blocks of the first size an upload may hold in memory.

    The limit is their bytes. If blocks grow (see `GrowingWriter`), fewer fit, but always one.
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
    :param size: number of bytes the source must have; 0 if unknown
    :param budget: maximum blocks in memory, at least 2; None for `default_budget`
    :returns: size and digests of what was stored
    :raises Invalid: the source has more or fewer bytes than `size`, or does not deliver bytes
    :raises Exception: whatever the source, the writer or the verifier raised first
    """
    try:
        if hasattr(writer, "digests"):
            # Complete when commit() is called.
            writer.digests = digests
        share = Share(getattr(writer, "memory", None))
        # Zero detection needs blocks that are bytes, not buffers.
        buffers = None if writer.holes else share
        blocks = _SizedSource(source, _block_sizes(writer), size, buffers)
        try:
            total = _transfer(blocks, writer, digests, budget, share)
        finally:
            share.close()
        result = UploadResult(total, digests.checksum, digests.multihash)
        digests.approve(total)
        writer.commit(total)
        # Inside the try: an interrupt right after the commit must still abort.
        return result
    except BaseException:
        _abort(writer)
        raise


def fill(writer: Unfinished, copy: Callable[[], bool], size: int) -> bool:
    """Store an image whose bytes the backend copies itself.

    :param writer: where the image goes; committed on success, aborted on any failure
    :param copy: copies all bytes; returns False if the backend cannot
    :param size: bytes of the image
    :returns: whether the image is stored; if not, nothing is left of it
    :raises Exception: whatever failed first
    """
    try:
        copied = copy()
        if copied:
            writer.commit(size)
            # Inside the try: an interrupt right after the commit must still abort.
            return True
    except BaseException:
        _abort(writer)
        raise
    _abort(writer)
    return False


def _block_sizes(writer: ImageWriter) -> Callable[[int], int]:
    """Return a function that tells the size of the block at an offset."""
    block_size = writer.block_size
    growing: Callable[[int], int] | None = getattr(writer, "block_size_at", None)
    return growing or (lambda _offset: block_size)


def _interrupt(writer: ImageWriter) -> None:
    """Make writes that wait for the backend fail soon."""
    interrupt: Callable[[], None] | None = getattr(writer, "interrupt", None)
    if interrupt is not None:
        interrupt()


def _abort(writer: Unfinished) -> None:
    try:
        writer.abort()
    except Exception:
        # The first error is on its way to the caller and must not be masked.
        LOG.exception("Cannot remove what a failed upload left in the backend")


class _SizedSource:
    """The blocks of a source that must deliver exactly `expected` bytes (0 for any number)."""

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
        self.block_size = block_size_at(0)  # of the next block
        self.total = 0

    def next_block(self) -> Buffer:
        """Return the next block, empty at the end; raise Invalid if the size is wrong.

        If the size is known, the last block is returned only after checking that nothing follows.
        """
        wanted = self.block_size
        if self._expected:
            # Ask for one byte past the announced end, to notice excess data at no cost.
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
        # No block is held here, so waiting for memory cannot block other uploads.
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
        _process(block, offset, writer, digests)
        if len(block) < wanted:
            return source.total
        offset += len(block)
        share.recycle(block)
        share.give(held)
        del block
    read_already = [_Read(second, more), _Read(block, held)]
    # A variable must not keep alive a block whose memory has been given back.
    del block, second
    # Two blocks are read already, whatever the budget.
    blocks = max(2, default_budget(writer) if budget is None else budget)
    lanes = Lanes(blocks * writer.block_size, share)
    _run(lanes, source, read_already, offset, writer, digests)
    return source.total


def _has_use_for_threads(writer: ImageWriter) -> bool:
    # With all cores busy, more threads would only compete.
    return writer.concurrency > 1 or LOAD.has_spare_core()


class _Read(NamedTuple):
    """A block read from the source, and the shared memory held for it."""

    block: Buffer
    held: int


def _run(
    lanes: Lanes,
    source: _SizedSource,
    read_already: list[_Read],
    offset: int,
    writer: ImageWriter,
    digests: Digests,
) -> None:
    """Transfer the rest of an image on threads."""
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
            # A lane failed before the source did.
            raise lane_error from exc
        raise
    except BaseException:
        _interrupt(writer)
        lanes.cancel()
        raise


def _process(block: Buffer, offset: int, writer: ImageWriter, digests: Digests) -> None:
    """Hash and write a block on the caller's thread."""
    if not block:
        return
    try:
        LOAD.enter(digests)
        for consumer in digests.consumers:
            consumer.update(block)
        _write(writer, offset, block)
    finally:
        LOAD.leave(digests)


def _feed(lanes: Lanes, source: _SizedSource, read_already: list[_Read], offset: int) -> None:
    while True:
        # Reserve before reading: a block being read counts too.
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
