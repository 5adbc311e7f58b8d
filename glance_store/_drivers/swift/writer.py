# SPDX-License-Identifier: Apache-2.0
"""Images on their way into Swift as segments, which a manifest makes one."""

from __future__ import annotations

import contextlib
import threading
from typing import Any

from glance_store._drivers.swift.body import HashedBody
from glance_store._drivers.swift.manifest import Manifest
from glance_store._drivers.swift.objects import ObjectWriter
from glance_store._drivers.swift.segments import Buffered, InOrder, InTurn, Streamed, send_segment
from glance_store._drivers.swift.sizes import Plan
from glance_store._drivers.swift.upload import Upload

# An upload that holds its segments has at least so many of them in memory.
LEAST_HELD = 3


class _Segments(Upload):
    """What the writers of segments share."""

    def __init__(self, *shared: Any) -> None:
        super().__init__(*shared)
        self.manifest = Manifest(self.name)

    def segments(self) -> list[str]:
        """Return the names of all segments that may be there."""
        return self.manifest.attempted

    def _commit(self, size: int) -> None:
        if not size:
            # Without a segment: an object without a byte.
            ObjectWriter(self.name, self.uri, False, self._ensure_container, size=0).commit(0)
            return
        self.in_container(lambda: self.manifest.publish(size))
        self.close()


class SegmentedWriter(_Segments):
    """An image in segments, each held in memory, several of them on their way at once.

    Swift answers when a segment is on its disks. Meanwhile the next one is on its way. Segments
    that have grown too large to be held follow one after the other, while their data comes in.

    :param plan: of the segments
    :param threads: segments on their way at once; 1: each is waited for before the next one
    :param memory: bytes that the upload may hold
    """

    def __init__(self, *shared: Any, plan: Plan, threads: int, memory: int) -> None:
        super().__init__(*shared)
        self.block_size = plan.size_at(0)
        self.blocks_held = threads + 2
        self.concurrency = self.blocks_held if threads > 1 else 1
        self._sending = threading.Semaphore(threads)
        self._plan = plan
        self._largest_held = max(self.block_size, memory // LEAST_HELD)
        self._large = Streamed(self, self.manifest, plan, 0, 0)
        self._in_turn = InTurn(self._large, self._first_large)

    def _is_held(self, offset: int) -> bool:
        return self._plan.size_at(offset) <= self._largest_held

    def _first_large(self) -> int:
        offset = 0
        while self._is_held(offset):
            offset += self._plan.size_at(offset)
        return offset

    def block_size_at(self, offset: int) -> int:
        """Return the bytes of the block that begins at an offset.

        :param offset: bytes
        :returns: those of the segment if it can be held, else those of the first one
        """
        return self._plan.size_at(offset) if self._is_held(offset) else self.block_size

    def write(self, offset: int, block: memoryview) -> None:
        """Store a segment, or a part of one that cannot be held."""
        if not self._is_held(offset):
            self._in_turn.write(offset, block)
            return
        number = self._plan.number_at(offset)
        self._sending.acquire()
        with contextlib.closing(HashedBody(block, self._sending.release)) as body:
            send_segment(self, self.manifest, number, body.etag, body, len(body))

    def commit(self, size: int) -> None:
        """Write the manifest."""
        self._large.end()
        self._commit(size)

    def cancel(self) -> None:
        """Break off the segment that is under way while its data comes in."""
        self._large.cancel()


class _InOrderWriter(_Segments):
    """An image in segments of which one is on its way at a time.

    :param block_size: bytes of a block
    """

    concurrency = 1
    _in_order: InOrder

    def __init__(self, *shared: Any, block_size: int) -> None:
        super().__init__(*shared)
        self.block_size = block_size

    def write(self, offset: int, block: memoryview) -> None:
        """Add a block to the segment or the segments that it belongs to."""
        self._in_order.write(offset, block)

    def commit(self, size: int) -> None:
        """End the last segment, and write the manifest."""
        self._in_order.end()
        self._commit(size)

    def cancel(self) -> None:
        """Break off what is under way."""
        self._in_order.cancel()


class StreamedSegmentsWriter(_InOrderWriter):
    """Segments that are too large to be held, several of them.

    :param plan: of the segments
    :param size: bytes of the image, 0 when unknown
    :param largest_kept: bytes up to which one segment is held, so that it can be sent again
    """

    def __init__(
        self, *shared: Any, plan: Plan, size: int, block_size: int, largest_kept: int
    ) -> None:
        super().__init__(*shared, block_size=block_size)
        self._in_order = Streamed(self, self.manifest, plan, size, largest_kept)


class BufferedSegmentsWriter(_InOrderWriter):
    """Segments that go to a local file first, so that they can be sent again.

    :param plan: of the segments
    :param folder: where the file is made; it has no name there
    """

    def __init__(self, *shared: Any, plan: Plan, block_size: int, folder: str) -> None:
        super().__init__(*shared, block_size=block_size)
        self._in_order = Buffered(self, self.manifest, plan, folder)

    def close(self) -> None:
        """Let go of the file, too."""
        self.cancel()
        super().close()
