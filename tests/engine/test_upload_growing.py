# SPDX-License-Identifier: Apache-2.0
"""Uploads whose blocks grow, for backends that take a limited number of parts."""

from __future__ import annotations

import threading

import pytest

from glance_store.transfer.digest import Digests
from glance_store.transfer.upload import upload

from .memory import BLOCK, MemoryWriter, pattern

# Sources are read in portions; these are the sizes of the blocks, each twice as large every third.
SIZES = [BLOCK * 2 ** (number // 3) for number in range(14)]
STARTS = [sum(SIZES[:number]) for number in range(14)]


class GrowingMemoryWriter(MemoryWriter):
    def block_size_at(self, offset: int) -> int:
        return SIZES[STARTS.index(offset)]


class Source:
    """Counts what it has delivered, against what the writer has worked off."""

    def __init__(self, data: bytes, writer: MemoryWriter) -> None:
        self._data = data
        self._writer = writer
        self._position = 0
        self.most_ahead = 0

    def read(self, length: int) -> bytes:
        portion = self._data[self._position : self._position + length]
        self._position += len(portion)
        done = sum(len(write.data) for write in self._writer.writes[: self._writer.completed])
        self.most_ahead = max(self.most_ahead, self._position - done)
        return portion


@pytest.mark.parametrize("known", [True, False], ids=["known", "unknown"])
@pytest.mark.parametrize("size", [0, 1, BLOCK, BLOCK + 1, STARTS[7], STARTS[7] + 5, STARTS[11]])
def test_blocks_begin_and_end_where_the_writer_says(size: int, known: bool) -> None:
    writer = GrowingMemoryWriter(concurrency=3)
    data = pattern(size)

    result = upload([data], writer, Digests("sha256"), size if known else 0)

    assert result.size == size
    written = sorted(writer.writes, key=lambda write: write.offset)
    assert b"".join(write.data for write in written) == data
    assert [write.offset for write in written] == [start for start in STARTS if start < size]
    assert all(len(each.data) == SIZES[index] for index, each in enumerate(written[:-1]))


def test_memory_stays_that_of_the_first_block_size() -> None:
    """Large blocks wait until small ones are worked off; one that exceeds all passes alone."""
    writer = GrowingMemoryWriter(concurrency=2)
    source = Source(pattern(STARTS[12]), writer)

    upload(source, writer, Digests("sha256"), budget=4)

    # The budget, or the largest block when that is more; and the first two, read before the lanes.
    assert source.most_ahead <= max(4 * BLOCK, SIZES[-1]) + 2 * BLOCK
    assert writer.commits == [STARTS[12]]


def test_a_failing_write_ends_the_wait_for_room() -> None:
    begun = threading.Event()

    def fail_late(number: int) -> None:
        if number == 5:
            begun.set()
            raise OSError("the backend is gone")

    writer = GrowingMemoryWriter(concurrency=2, on_write=fail_late)
    with pytest.raises(OSError, match="the backend is gone"):
        upload(Source(pattern(STARTS[12]), writer), writer, Digests("sha256"), budget=4)
    assert begun.is_set()
    assert writer.aborts == 1
